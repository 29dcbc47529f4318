"""The story of a run: found a cluster, write to it, hurt it, and find out what it is worth.

1. Members are started; the first founds the cluster, the others are added.
2. Writers start. One fault after the other strikes whoever is master. In the moment of a fault the
   supervisor hands a transfer of its own to each of the others: the first that is acknowledged ends
   the fail-over. (A writer's transfer would not do, for its answer might have been under way.)
3. Writers stop. The members are awaited to agree, their states are read; then all are killed at
   once, started from disk, awaited and read again.
4. The writers' lists are compared with all that was read.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

from clusterconsensus.cli.demo.bank import Book, transfer_of
from clusterconsensus.cli.demo.checker import Verdict, check, fates_of
from clusterconsensus.cli.demo.child import WriterOrder
from clusterconsensus.cli.demo.cluster import Cluster, ClusterMember, until
from clusterconsensus.cli.demo.plan import Fault, FaultKind, Options, plan_faults
from clusterconsensus.cli.demo.processes import Child, DemoError
from clusterconsensus.cli.demo.report import Failover
from clusterconsensus.cli.demo.scene import MemberScene, Scene, View
from clusterconsensus.cli.demo.writer import Fate, Journal, Lane, read_journal

WRITERS = 3
LANES = 8
FRAME_SECONDS = 0.25
RATE_SECONDS = 1.0

DOWN_SECONDS = 0.6
"""A killed member stays away at least this long, to be seen missing."""
DOWN_LONGEST_SECONDS = 4.0
"""And no longer, though no other may lead: it may be needed for a majority."""
STILL_SECONDS = 0.6
"""A frozen member sleeps this long after another one leads."""
STILL_LONGEST_SECONDS = 8.0
SHORT_SLEEP_SECONDS = 1.0
"""How long it sleeps where the others cannot go on without it."""
BETWEEN_FAULTS_SECONDS = 0.5
FAILOVER_TIMEOUT_SECONDS = 30.0
WRITERS_TIMEOUT_SECONDS = 20.0


class Supervisor:
    """One run.

    Arguments:
        options: What is asked for.
        seed: Decides transfers and faults.
        directory: Empty; everything goes there.
        view: Shows what happens.
    """

    def __init__(self, options: Options, seed: int, directory: Path, view: View) -> None:
        self._options = options
        self._seed = seed
        self._directory = directory
        self._view = view
        self._faults = plan_faults(options.seconds, seed)
        self._ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._cluster = Cluster(
            directory,
            options.members,
            random.Random(),  # the seed must not choose ports: two runs with one seed may meet
            options.unsafe_acknowledge_early,
            self._ended,
        )
        self._names = [member.id for member in self._cluster.members]
        self._ports = [member.port for member in self._cluster.members]
        self._writers = [self._writer(index) for index in range(WRITERS)]
        self._probe_journal = Journal(directory / "supervisor.journal")
        self._probes: set[asyncio.Task[None]] = set()
        self._journal_lengths: dict[Path, int] = {}
        self.failovers: list[Failover] = []
        self.writing_seconds = 0.0
        self.scene = Scene(
            seed=seed,
            members=[MemberScene(member.id) for member in self._cluster.members],
            faults_planned=len(self._faults),
        )

    def _writer(self, index: int) -> Child:
        name = f"w{index}"
        order = WriterOrder(
            name=name,
            lanes=LANES,
            seed=self._seed,
            ports=self._ports,
            journal=str(self._directory / f"{name}.journal"),
        )
        return Child(f"writer {name}", order, self._directory / f"{name}.log", self._ended)

    async def run(self) -> Verdict:
        """The whole story. All processes have ended when this returns or raises.

        **Cancellation** ends all processes at once.

        Raises:
            DemoError: the story could not be told to its end.
        """
        story = asyncio.create_task(self._story())
        watch = asyncio.create_task(self._show())
        self._view.start(self.scene)
        try:
            await asyncio.wait((story, watch, self._ended), return_when=asyncio.FIRST_COMPLETED)
            if not story.done():
                if watch.done():
                    watch.result()
                raise DemoError(self._ended.result())
            return story.result()
        finally:
            tasks = (story, watch, *self._probes)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end_all()
            self._view.close(self.scene)

    async def _end_all(self) -> None:
        children = [*(member.process for member in self._cluster.members), *self._writers]
        for child in children:
            child.send_signal(signal.SIGKILL)
        await asyncio.gather(*(child.wait() for child in children))
        self._probe_journal.close()

    def _tell(self, text: str) -> None:
        self.scene.events.append((self.scene.seconds, text))
        self._view.event(self.scene)

    # -- the story

    async def _story(self) -> Verdict:
        scene = self.scene
        scene.phase = "founding the cluster"
        await self._cluster.found()
        self._tell("the cluster is founded, its members are " + ", ".join(self._names))
        scene.phase = "writing"
        await asyncio.gather(*(writer.start() for writer in self._writers))
        began = time.monotonic()
        await until("no transfer was acknowledged", FAILOVER_TIMEOUT_SECONDS, self._first_write)
        self._tell(f"{WRITERS} writers move money, {LANES} transfers at a time each")
        for fault in self._faults:
            await asyncio.sleep(max(0.0, began + fault.at_seconds - time.monotonic()))
            await self._strike(fault)
            await asyncio.sleep(BETWEEN_FAULTS_SECONDS)
        await asyncio.sleep(max(0.0, began + self._options.seconds - time.monotonic()))
        scene.phase = "stopping the writers"
        await self._stop_writers()
        self.writing_seconds = time.monotonic() - began
        scene.phase = "waiting until the members agree"
        await self._cluster.until_agreed()
        books = await self._cluster.books()
        self._tell("all members agree; their states are read")
        scene.phase = "restarting all members from disk"
        await self._cluster.restart_all()
        self._tell("all members were killed at once and started from their disks")
        await self._cluster.until_agreed()
        books += await self._cluster.books()
        self._tell("they agree again; their states are read once more")
        scene.phase = "comparing with the writers' lists"
        verdict = await asyncio.to_thread(self._check, books)
        scene.phase = "done"
        return verdict

    def _check(self, books: list[Book]) -> Verdict:
        records = itertools.chain.from_iterable(read_journal(path) for path in self._journals())
        return check(fates_of(records), books, self._seed)

    def _journals(self) -> Iterator[Path]:
        return self._directory.glob("*.journal")

    async def _first_write(self) -> bool | None:
        self._count_journals()
        return self.scene.acknowledged > 0 or None

    async def _stop_writers(self) -> None:
        for writer in self._writers:
            writer.send_signal(signal.SIGTERM)
        waiting = [*(writer.wait() for writer in self._writers), *self._probes]
        try:
            async with asyncio.timeout(WRITERS_TIMEOUT_SECONDS):
                await asyncio.gather(*waiting)
        except TimeoutError as error:
            raise DemoError("the writers did not come to an end") from error

    # -- faults

    async def _strike(self, fault: Fault) -> None:
        victim = await self._cluster.master()
        process = victim.process
        kind = fault.kind
        self._tell(f"{kind} to {victim.id}, the master")
        struck = time.monotonic()
        process.send_signal(signal.SIGKILL if kind is FaultKind.KILL else signal.SIGSTOP)
        timing = asyncio.create_task(self._time_failover(victim, struck))
        try:
            if kind is FaultKind.KILL:
                await process.wait()
                await self._wait_at_most(timing, DOWN_LONGEST_SECONDS, DOWN_SECONDS)
                await process.start()
                self._tell(f"{victim.id} was started again on its directory")
            else:
                await self._wait_at_most(timing, STILL_LONGEST_SECONDS, STILL_SECONDS)
                process.send_signal(signal.SIGCONT)
                self._tell(f"{victim.id} was woken (SIGCONT)")
            seconds = await timing
        finally:
            timing.cancel()
        self.failovers.append(Failover(kind=kind, victim=victim.id, seconds=seconds))
        await self._cluster.until_back(victim)

    async def _wait_at_most(
        self, timing: asyncio.Task[float], longest: float, afterwards: float
    ) -> None:
        """Until another member leads and a little longer; not long where none can."""
        if not self._cluster.majority_survives_one:
            longest = SHORT_SLEEP_SECONDS
        await asyncio.wait((timing,), timeout=longest)
        if timing.done():
            await asyncio.sleep(afterwards)

    async def _time_failover(self, victim: ClusterMember, struck: float) -> float:
        """How long it takes until a transfer that was issued after the fault is acknowledged."""
        number = len(self.failovers) + 1
        others = [member for member in self._cluster.members if member is not victim]
        finish: asyncio.Future[tuple[float, str]] = asyncio.get_running_loop().create_future()
        for member in others or [victim]:
            probe = asyncio.create_task(self._probe(f"probe.{number}.{member.id}", member, finish))
            self._probes.add(probe)
            probe.add_done_callback(self._probes.discard)
        try:
            async with asyncio.timeout(FAILOVER_TIMEOUT_SECONDS):
                acknowledged, where = await asyncio.shield(finish)
        except TimeoutError as error:
            raise DemoError(
                f"no fail-over: {FAILOVER_TIMEOUT_SECONDS:g} s after the fault of {victim.id} "
                "no transfer was acknowledged"
            ) from error
        seconds = acknowledged - struck
        self.scene.failover_seconds.append(seconds)
        self._tell(f"{where} acknowledges a transfer again, {seconds:.3f} s after the fault")
        return seconds

    async def _probe(
        self, name: str, member: ClusterMember, finish: asyncio.Future[tuple[float, str]]
    ) -> None:
        """Hand transfers to one member until one is acknowledged, here or at another probe."""
        home = self._cluster.members.index(member)
        lane = Lane(name, self._seed, self._ports, home, self._probe_journal)
        stop = asyncio.Event()
        finish.add_done_callback(lambda _: stop.set())
        for number in itertools.count(1):
            transfer = transfer_of(f"{name}.{number}", self._seed)
            fate = await lane.settle(transfer, stop)
            acknowledged = time.monotonic()
            self._probe_journal.record(fate, transfer.id)
            if fate is Fate.ACKNOWLEDGED and not finish.done():
                finish.set_result((acknowledged, self._names[lane.at]))
            if finish.done():
                lane.hang_up()
                return

    # -- what there is to see

    async def _show(self) -> None:
        """Look at everything a few times a second."""
        looked, counted = time.monotonic(), 0
        while True:
            await asyncio.sleep(FRAME_SECONDS)
            statuses = await self._cluster.statuses()
            for seen, member, status in zip(
                self.scene.members, self._cluster.members, statuses, strict=True
            ):
                seen.process, seen.pid, seen.status = (
                    member.process.state,
                    member.process.pid,
                    status,
                )
            self._count_journals()
            now = time.monotonic()
            if not self.scene.acknowledged:
                looked = now  # the chart begins with the first write
            elif now - looked >= RATE_SECONDS:
                self.scene.rates.append((self.scene.acknowledged - counted) / (now - looked))
                looked, counted = now, self.scene.acknowledged
            self._view.refresh(self.scene)

    def _count_journals(self) -> None:
        """Read what was added to the writers' journals since the last time."""
        for path in self._journals():
            with path.open("rb") as journal:
                journal.seek(self._journal_lengths.get(path, 0))
                added = journal.read()
            whole = added[: added.rfind(b"\n") + 1]
            self._journal_lengths[path] = self._journal_lengths.get(path, 0) + len(whole)
            self.scene.acknowledged += whole.count(f"{Fate.ACKNOWLEDGED} ".encode())
            self.scene.unknown += whole.count(f"{Fate.UNKNOWN} ".encode())
