"""One simulated machine: a disk, a clock, and the process on it that runs the unchanged
participant.

The machine outlives its processes. A process can be killed (what it had written but not synced
stays in the page cache), or go down with the power (then the disk decides what is left of that);
be paused or frozen; and be started again. A machine that refuses to start, because what it promised
cannot be read off its damaged disk, stays down and says so.

Damage that is done to a disk is kept in mind until it is repaired: by a snapshot that makes the
damaged file needless, or by a start that finds it and gets from the others what was lost (W4).
Until then the machine is *in doubt*: it may lose its vote at any moment, and whoever makes trouble
has to see to it that a majority is not in doubt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.types import (
    Member,
    Role,
)
from clusterconsensus.errors import ConsensusError, DamagedError, StorageError, WrongDirectoryError
from clusterconsensus.participant import Participant
from clusterconsensus.runtime.environment import Environment
from clusterconsensus.simulation.judges.snapshots import SnapshotsOnDisk
from clusterconsensus.simulation.judges.witness import Listener, Witness
from clusterconsensus.simulation.lives import DIRECTORY, Damage, Life
from clusterconsensus.simulation.world.clock import BootClock
from clusterconsensus.simulation.world.disk import Disk, PowerFailure
from clusterconsensus.simulation.world.loop import SimulatedLoop
from clusterconsensus.simulation.world.network import SimulatedTransport
from clusterconsensus.simulation.world.worker import SimulatedWorker

if TYPE_CHECKING:
    from clusterconsensus.simulation.cluster import Cluster

AnswerT = TypeVar("AnswerT")

WALL_START = 1_700_000_000.0
"""The wall clock at the beginning of every simulation."""


class GoneError(Exception):
    """The process that was asked has died, or there is none.

    ``asked`` tells whether there was one: then what became of the call is unknown.
    """

    def __init__(self, text: str, *, asked: bool) -> None:
        super().__init__(text)
        self.asked = asked


class Machine:
    """A machine and its process.

    Arguments:
        cluster: What it is part of.
        machine_id: The member's id, and its address.
    """

    def __init__(self, cluster: Cluster, machine_id: str) -> None:
        self.cluster = cluster
        self.id = machine_id
        self.member = Member(machine_id, machine_id)
        self.disk = Disk()
        self.disk_chance = cluster.world.chance(f"disk {machine_id}")
        self.snapshots = SnapshotsOnDisk(self.disk, DIRECTORY)
        # Where leases are relied on it is one that counts the time since the boot (L2).
        self.clock = BootClock(cluster.world, counts_sleep=cluster.settings.lease_reads)
        self.life: Life | None = None
        self.participant: Participant[Any] | None = None
        """While the process runs and takes part."""
        self.witness: Witness | None = None
        self.listener = Listener(cluster.ghost, machine_id)
        """The event handler of the process that runs, or ran last."""
        self.loop: SimulatedLoop | None = None
        self.starts = 0
        self.is_lost = False
        """Whether its disk is of no use any more: it takes part again only with an empty one."""
        self.damage: Damage | None = None
        """What was done to files on its disk and may not be repaired yet; see ``in_doubt``."""
        self.was_damaged = False
        """Whether anything was done to its disk and not repaired since: then it may start without
        a vote (W4)."""
        self.is_paranoid = False
        """Whether it takes a damaged last write for damage (W3)."""
        self.reason = ""
        """Why it is down, where it went down by itself."""
        self.wall_skew = 0.0
        self.disk_seconds = 0.0002
        """How long a blocking call takes at least; a few times that now and then."""
        self.snapshot_seconds = 0.0
        """How much longer writing a snapshot takes."""
        self.disk_hangs = False
        self.apply_seconds = 0.0
        """How long each ``apply`` keeps the machine busy; see ``work_slowly``."""
        self._transport: SimulatedTransport | None = None
        self._workers: list[SimulatedWorker] = []
        self._waiting: dict[asyncio.Future[Any], None] = {}
        self._last_master = False

    def __str__(self) -> str:
        return self.id

    # -- the process

    @property
    def runs(self) -> bool:
        """Whether there is a process, taking part yet or not."""
        return self.loop is not None

    def start(self) -> None:
        """Start the process. It takes a while until it takes part."""
        if self.runs:
            return
        cluster = self.cluster
        self.starts += 1
        self.reason = ""
        loop = self.loop = cluster.world.make_loop(self.id)
        self.clock.attach(loop)
        self._transport = cluster.network.transport(loop, self.id)
        self._workers = []
        chance = cluster.world.chance(f"{self.id} {self.starts}")
        environment = Environment(
            files=self.disk,
            make_worker=lambda name: self._make_worker(loop, name),
            clock=self.clock.time,
            wall_seconds=lambda: WALL_START + self.wall_skew + cluster.world.now,
            chance=chance,
            watch=self._watch,
            pause=lambda seconds: None,  # the simulated worker's calls take no time of anybody's
        )
        state, codec = cluster.make_state(), cluster.codec
        witness = Witness(cluster.ghost, self.id, state, codec, loop.spend)
        witness.apply_seconds = self.apply_seconds
        self.witness = witness
        self.listener = Listener(cluster.ghost, self.id)
        participant: Participant[Any] = Participant(
            cluster="simulated",
            member=self.member,
            state=witness,
            directory=DIRECTORY,
            transport=self._transport,
            settings=msgspec.structs.replace(cluster.settings, paranoid=self.is_paranoid),
            codec=witness,
            event_handler=self.listener,
            environment=environment,
        )
        cluster.tell(self.id, "start", f"process {self.starts}")
        loop.create_task(self._live(participant))

    async def _live(self, participant: Participant[Any]) -> None:
        try:
            await participant.start()
        except StorageError as error:
            # A full disk and a failed write pass; what a start cannot repair does not.
            lost = isinstance(error, DamagedError | WrongDirectoryError)
            self._stopped(f"{type(error).__name__}: {error}", lost=lost)
            return
        except ConsensusError as error:
            self._stopped(f"{type(error).__name__}: {error}", lost=False)
            return
        self.participant = participant
        self.cluster.on_up(self)
        try:
            await participant.wait_closed()
        except ConsensusError as error:
            self._stopped(f"{type(error).__name__}: {error}", lost=False)

    def _stopped(self, reason: str, *, lost: bool) -> None:
        """The process has ended by itself, in trouble."""
        self.reason = reason
        self.cluster.world.call_at(self.cluster.world.now, self._bury, reason, lost)

    def _bury(self, reason: str, lost: bool) -> None:
        if self.runs:
            self.cluster.tell(self.id, "halt", reason)
            self.kill()
            self.reason = reason
            self.cluster.on_stopped(self, reason, lost)

    def _make_worker(self, loop: SimulatedLoop, name: str) -> SimulatedWorker:
        take = self._take_seconds
        if "snapshot" in name:
            take = self._take_snapshot_seconds
        worker = SimulatedWorker(loop, take, self._power_fails)
        self._workers.append(worker)
        return worker

    def _take_snapshot_seconds(self) -> float:
        return self._take_seconds() + self.snapshot_seconds * (0.5 + self.disk_chance.random())

    def _take_seconds(self) -> float:
        if self.disk_hangs:
            return float("inf")
        draw = self.disk_chance.random()
        tail = 1.0 if draw < 0.95 else 5.0 if draw < 0.995 else 50.0
        return self.disk_seconds * (0.5 + draw) * tail

    def _power_fails(self) -> None:
        """The disk was told to lose power at an operation, and has come to it."""
        self.cluster.sometimes["power failure in the middle of an operation"] += 1
        self.crash()

    # -- its clock

    def judge_lease(self) -> None:
        """Tell the ghost what this member believes of its lease now (I-18)."""
        life, now = self.life, self.cluster.world.now
        if life is not None and life.is_up:
            reads = life.running.master.reads
            left = (reads.lease_ends - self.clock.time()) / self.clock.rate
            until = now + left if life.local.role is Role.MASTER else now
            self.cluster.ghost.on_lease(life, now, until)

    def set_clock(self, *, rate: float | None = None, jump: float = 0.0) -> None:
        """Let this machine's clock run at another speed from now on (1.0 is right), or jump."""
        if rate is not None:
            self.clock.set_rate(rate)
        self.clock.jump(jump)
        if self.cluster.settings.lease_reads:
            self.judge_lease()

    # -- its disk

    def note_damage(self, path: str) -> None:
        """A file on its disk was damaged just now."""
        if self.damage is None:
            self.damage = Damage(self.starts)
        self.damage.starts = self.starts
        self.damage.paths[path] = None
        self.was_damaged = (
            True  # and a damaged snapshot counts as durable until a start has read it
        )

    @property
    def in_doubt(self) -> bool:
        """Whether something that it once acknowledged may be readable no more."""
        life = self.life
        if life is not None and life.is_up and life.local.recovering:
            return True
        damage = self.damage
        if damage is None:
            return False
        if self.participant is None or life is None or not life.is_up:
            return True
        # A start reads everything: it has found the damage, or that it did not matter.
        gone = not any(path in self.disk.names for path in damage.paths)
        if gone or self.starts > damage.starts:
            self.damage = None
            # A paranoid start takes what a crash tears for damage: only after real damage, here.
            self.was_damaged = self.is_paranoid = False
            return False
        return True

    # -- being watched

    def _watch(self, replica: Replica) -> None:
        cluster = self.cluster
        name = replica.local.name
        life = cluster.lives.get(name)
        if life is None:
            life = cluster.lives[name] = Life(self, name)
        self.life = life
        life.replica = replica
        self.snapshots.forget()
        ghost = cluster.ghost
        ghost.on_start(life)
        life.platter.read(self.disk)
        self.disk.on_durable = life.platter.on_durable
        if replica.local.commit:
            ghost.on_applied(life, replica.local.commit, replica.local.checksum)
        gathered: list[effects.Effect] = []
        inner = replica.step
        on_turn, on_effects = ghost.on_turn, cluster.watch.on_effects
        leases = cluster.settings.lease_reads

        def step(event: events.Event, now: float, chance: float) -> list[effects.Effect]:
            found = inner(event, now, chance)
            if found:
                gathered.extend(found)
            if isinstance(event, events.EndOfTurn):
                on_turn(life, gathered)
                if gathered:
                    on_effects(life, gathered)
                    gathered.clear()
                if leases:
                    self.judge_lease()
            elif isinstance(event, events.Applied):
                ghost.on_applied(life, event.seq, event.checksum)
            elif isinstance(event, events.SnapshotTaken | events.SnapshotStored):
                cluster.watch.on_snapshot(life, event)
            return found

        replica.step = step  # type: ignore[method-assign]  # the participant's calls come by here

    # -- calls from outside

    def ask(
        self, call: Callable[[Participant[Any]], Awaitable[AnswerT]]
    ) -> asyncio.Future[AnswerT]:
        """Have the process call its participant.

        Arguments:
            call: Gets the participant; what it returns is awaited in the machine's loop.

        Returns:
            A future of the outside, with what came of it. It ends with ``GoneError`` if there is
            no process, or if it dies first.
        """
        outside = self.cluster.world.outside
        future: asyncio.Future[AnswerT] = outside.create_future()
        participant, loop = self.participant, self.loop
        if participant is None or loop is None:
            future.set_exception(GoneError(f"{self.id} is down", asked=False))
            return future
        self._waiting[future] = None

        def end(result: Any, error: Exception | None) -> None:
            if self._waiting.pop(future, 0) is None and not future.done():
                if error is not None:
                    future.set_exception(error)
                else:
                    future.set_result(result)

        async def run() -> None:
            try:
                result = await call(participant)
            except Exception as error:
                outside.call_soon(end, None, error)
            else:
                outside.call_soon(end, result, None)

        loop.create_task(run())
        return future

    # -- faults

    def close(self) -> None:
        """Stop the process in good order (``aclose``); it ends when that is done."""
        participant, loop = self.participant, self.loop
        if participant is None or loop is None:
            return
        self.participant = None

        async def stop() -> None:
            await participant.aclose()
            world = self.cluster.world
            world.call_at(world.now, end)

        def end() -> None:
            if self.loop is loop:
                self.kill()
                self.cluster.on_stopped(self, "closed", False)

        loop.create_task(stop())

    def kill(self) -> None:
        """``kill -9``: the process is gone, the page cache is not."""
        self._end(power=False)

    def crash(self) -> None:
        """The power fails: what was not synced is kept, lost or torn as the disk likes."""
        self._end(power=True)

    def _end(self, *, power: bool) -> None:
        loop, transport = self.loop, self._transport
        if loop is None or transport is None:
            return
        cluster = self.cluster
        disk, chance = self.disk, self.disk_chance
        left = chance.choice((0, 0, 1, 1, 2, 3, 5))

        def dies(operation: str, path: str) -> None:
            nonlocal left
            left -= 1
            if left < 0:
                raise PowerFailure

        loop.kill()
        if not disk.dead:
            disk.before = dies
            for worker in self._workers:
                worker.break_off()
            disk.kill()
        cluster.network.hang_up(transport, told=not power)
        if self.life is not None:
            self.life.replica = None
        self.loop = self._transport = self.participant = self.witness = None
        self.clock.attach(None)
        if power:
            disk.after_power_failure(chance)
        else:
            disk.after_process_crash()
        waiting, self._waiting = self._waiting, {}
        for future in waiting:
            if not future.done():
                future.set_exception(GoneError(f"{self.id} went down", asked=True))
        cluster.on_down(self, "the power fails" if power else "killed")

    def lose_power_at(self, operations: int, where: str = "") -> None:
        """Let the power fail in the middle of the disk's next operations on files in whose path
        stands ``where``."""
        left = operations

        def before(operation: str, path: str) -> None:
            nonlocal left
            left -= where in path
            if left <= 0:
                self.disk.before = None
                raise PowerFailure

        self.disk.before = before

    def work_slowly(self, seconds: float) -> None:
        """Let each ``apply`` of this machine take so long from now on."""
        self.apply_seconds = seconds
        if self.witness is not None:
            self.witness.apply_seconds = seconds

    def unhang(self) -> None:
        """The disk works again."""
        self.disk_hangs = False
        for worker in self._workers:
            worker.go_on()

    def hurry(self) -> None:
        """The disk works as it should, also with what it has begun."""
        self.disk_seconds = 0.0002
        self.snapshot_seconds = 0.0
        for worker in self._workers:
            worker.hurry()

    def wipe(self) -> None:
        """Somebody replaces the disk by an empty one; the process must be down."""
        self.disk.wipe()
        self.life = self.damage = None
        self.is_lost = self.is_paranoid = self.was_damaged = False
        self.snapshots.forget()
