"""One seed: a cluster is founded, gets into trouble, is healed, and everything is checked.

In order: the machines start and become a cluster; clients work while the plan's actions strike; all
is healed; within five election timeouts a change must be applied, and soon afterwards all members
must have the same state and nobody may wait any more (I-22). What clients were told is then held
against the log and against the sequential specification (I-16), and every copy of the state against
the others.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import time
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

from clusterconsensus.consensus.types import Role
from clusterconsensus.errors import ConsensusError
from clusterconsensus.simulation.clients import Clients, Habits
from clusterconsensus.simulation.cluster import Cluster, LivenessError
from clusterconsensus.simulation.judges.history import Operation
from clusterconsensus.simulation.judges.invariants import BrokenError
from clusterconsensus.simulation.machine import GoneError, Machine
from clusterconsensus.simulation.running.verdicts import Verdicts
from clusterconsensus.simulation.telling.recording import Recorder, Recording
from clusterconsensus.simulation.trouble.injector import Injector
from clusterconsensus.simulation.trouble.plan import Plan
from clusterconsensus.simulation.workloads import Workload, built_in
from clusterconsensus.simulation.world.loop import StalledError, World

HEALED_WITHIN_TIMEOUTS = 5
"""How many election timeouts after healing a change must be applied at the latest."""

REST_SECONDS = 30.0
"""How long after that the members may take to become equal."""

Kind = Literal["safety", "liveness", "crash"]


class Violation(msgspec.Struct, frozen=True):
    """What a seed found. ``kind`` tells a wrong answer from no answer and from a defect of the
    program (or of the simulator) that shows as an exception."""

    kind: Kind
    rule: str
    text: str
    at: float

    def __str__(self) -> str:
        return f"{self.rule} ({self.kind}) at {self.at:.6f} s: {self.text}"


class Result(msgspec.Struct, kw_only=True):
    """What one seed did.

    ``trace`` is the hash of everything that happened; ``events`` how many callbacks ran;
    ``real_seconds`` how long that took; ``healed_seconds`` after how long a change was applied
    again, in virtual seconds, and ``ballots`` how many ballots were led in meanwhile, both None
    where nothing had to.
    """

    seed: int
    trace: str
    events: int
    real_seconds: float
    virtual_seconds: float
    faults: tuple[str, ...]
    actions: int
    members: int
    workload: str
    operations: int
    violation: Violation | None
    sometimes: dict[str, int]
    healed_seconds: float | None
    ballots: int | None
    recording: Recording | None = None


def run(
    plan: Plan,
    *,
    workload: Workload | None = None,
    recorder: Recorder | None = None,
) -> Result:
    """Run a plan from beginning to end.

    Arguments:
        plan: From ``plan.draw``.
        workload: What clients do; by default the one that the plan names.
        recorder: Writes everything down for people. It does not change what happens.

    Returns:
        What it did, and the first thing that was wrong.
    """
    work = workload or built_in(plan.workload)
    world = World(plan.seed)
    cluster = Cluster(world, work.make_state, plan.settings, work.codec, recorder)
    trial = Trial(world, cluster, plan, work)
    violation: Violation | None = None
    began = time.perf_counter()
    with _quiet(recorder), _no_collector():
        try:
            cluster.run(trial.main(), until=plan.seconds + 600.0)
        except BrokenError as error:
            violation = Violation("safety", error.rule, error.text, world.now)
        except LivenessError as error:
            violation = Violation("liveness", error.rule, error.text, world.now)
        except StalledError as error:
            violation = Violation("liveness", "I-22", str(error), world.now)
        except Exception as error:
            violation = Violation("crash", type(error).__name__, _told(error), world.now)
    seconds = time.perf_counter() - began
    if recorder is not None and violation is not None:
        recorder.violated(violation.at, violation.rule, violation.kind, violation.text)
    return Result(
        seed=plan.seed,
        trace=cluster.trace.digest,
        events=world.events,
        real_seconds=seconds,
        virtual_seconds=world.now,
        faults=plan.faults,
        actions=len(plan.actions),
        members=plan.members,
        workload=work.name,
        operations=len(trial.clients.history.operations),
        violation=violation,
        sometimes=dict(sorted(cluster.sometimes.items())),
        healed_seconds=trial.healed_seconds,
        ballots=trial.ballots,
        recording=None if recorder is None else recorder.recording(),
    )


def _told(error: BaseException) -> str:
    place = ""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is not None:
        code = frame.tb_frame.f_code
        place = f" ({code.co_filename.rpartition('clusterconsensus/')[2]}:{frame.tb_lineno})"
    return f"{type(error).__name__}: {error}{place}"


class Trial:
    """The course of one run."""

    def __init__(self, world: World, cluster: Cluster, plan: Plan, workload: Workload) -> None:
        self.world = world
        self.cluster = cluster
        self.plan = plan
        self.workload = workload
        self.injector = Injector(cluster, plan)
        habits = Habits(
            pause_seconds=plan.pause_seconds,
            patience_seconds=plan.patience_seconds,
            burst=plan.burst,
        )
        self.clients = Clients(cluster, workload, habits, world.chance("clients"))
        self.clients.clocks_stand = "freeze" in plan.faults
        self.healed_seconds: float | None = None
        self.ballots: int | None = None

    async def main(self) -> None:
        cluster, plan = self.cluster, self.plan
        await cluster.found("abcdefghi"[: plan.members])
        for machine_id in "abcdefghi"[plan.members : plan.machines]:
            cluster.add_machine(machine_id).start()
        self.clients.start(plan.clients)
        cluster.did("trouble begins")
        self.injector.start()
        await asyncio.sleep(plan.seconds)
        self.injector.heal()
        if cluster.has_majority():
            await self._comes_back()
        await self._ends()
        Verdicts(cluster, self.clients).check()

    async def _comes_back(self) -> None:
        """A change is applied soon (I-22)."""
        cluster, world = self.cluster, self.world
        timeout = self.plan.settings.election_timeout_seconds
        healed_at = world.now
        masters = len(cluster.ghost.masters)
        ends = healed_at + HEALED_WITHIN_TIMEOUTS * timeout
        chance = world.chance("last call")
        while True:
            machines = cluster.sound_voters()
            if machines:
                machine = machines[chance.randrange(len(machines))]
                operation = await self._last_call(machine, ends - world.now, chance)
                if operation.outcome == "ok" and await self._reads(machine):
                    break
            if world.now >= ends:
                raise LivenessError(
                    f"no change is applied and read within {HEALED_WITHIN_TIMEOUTS} election "
                    f"timeouts ({ends - healed_at:g} s) after healing: {self._why()}"
                )
            await asyncio.sleep(0.01)
        self.healed_seconds = world.now - healed_at
        self.ballots = len(cluster.ghost.masters) - masters

    async def _last_call(self, machine: Machine, seconds: float, chance: Any) -> Operation:
        clients, workload = self.clients, self.workload
        for _ in range(100):
            call = workload.next(chance)
            if not workload.is_read(call):
                break
        operation = clients.begin("last", machine, call)
        patience = max(0.05, min(seconds, self.plan.settings.election_timeout_seconds))
        answer = machine.ask(clients.submit(operation, machine, patience, False))
        await clients.settle(operation, answer)
        return operation

    async def _reads(self, machine: Machine) -> bool:
        """Whether a linearizable read at this member succeeds."""
        seconds = self.plan.settings.election_timeout_seconds
        try:
            await machine.ask(
                lambda participant: participant.read(lambda state: None, timeout=seconds)
            )
        except (GoneError, ConsensusError):
            return False
        return True

    def _why(self) -> str:
        """What each member is doing."""
        parts = []
        for machine in self.cluster.machines.values():
            life = machine.life
            if machine.participant is None or life is None or not life.is_up:
                parts.append(f"{machine} is down {machine.reason}".rstrip())
            else:
                local = life.local
                parts.append(
                    f"{machine} is {local.role} of {local.master_ballot}, promised "
                    f"{local.promised}, last {local.log.last}, commit {local.commit}"
                )
        return "; ".join(parts)

    async def _ends(self) -> None:
        """Every client gets its answer; every member gets everything."""
        cluster = self.cluster
        self.clients.stop()
        await self.clients.ended()
        if not cluster.has_majority():
            cluster.sometimes["majority lost"] += 1
            return
        if not await cluster.until(lambda: not self._unrest(), REST_SECONDS):
            raise LivenessError(
                f"the members are not equal {REST_SECONDS:g} s after healing: {self._unrest()}"
            )

    def _unrest(self) -> str:
        """What keeps the cluster from being at rest; empty when nothing does."""
        cluster = self.cluster
        masters = [
            machine
            for machine in cluster.masters
            if machine.participant is not None and machine.participant.is_master
        ]
        if len(masters) != 1 or masters[0].life is None:
            return f"masters are {[machine.id for machine in masters]}"
        master = masters[0].life.local
        for seat in master.log.configuration.seats:
            life = cluster.lives.get(seat.incarnation)
            if life is None or life.machine.is_lost or life.machine.life is not life:
                continue
            if not life.is_up:
                return f"{life} is down: {life.machine.reason}"
            local = life.local
            if local.applied != master.log.last_seq or local.checksum != master.checksum:
                return f"{life} has applied {local.applied} of {master.log.last_seq}"
            participant = life.machine.participant
            if participant is not None and participant.status().pending_changes:
                return f"{life} still waits for {participant.status().pending_changes} changes"
            if local.recovering:
                return f"{life} has no vote yet"
            if seat.promoting:
                return f"{life} is no voter yet"
        return self._unaware()

    def _unaware(self) -> str:
        """Who was removed and does not know it, though it could have asked (M8)."""
        cluster = self.cluster
        for name in cluster.ghost.removed:
            life = cluster.lives.get(name)
            if life is None or life.machine.life is not life or not life.is_up:
                continue
            # Who never stands for election asks nobody: it learns it only while it is still told.
            seat = life.local.log.configuration.seat(name)
            stands = seat is not None and seat.is_voter and seat.priority > 0
            if stands and not life.local.recovering and life.local.role is not Role.REMOVED:
                return f"{life} was removed and does not know it"
        return ""


class _Capture(logging.Handler):
    def __init__(self, recorder: Recorder) -> None:
        super().__init__(logging.INFO)
        self._recorder = recorder

    def emit(self, record: logging.LogRecord) -> None:
        self._recorder.say(f"{'':13}{record.levelname.lower()}: {record.getMessage()}")


@contextlib.contextmanager
def _quiet(recorder: Recorder | None) -> Iterator[None]:
    """Keep the members' log out of the program's; into the recording, if there is one."""
    logger = logging.getLogger("clusterconsensus")
    level, propagate = logger.level, logger.propagate
    handler = None if recorder is None else _Capture(recorder)
    logger.propagate = False
    if handler is None:
        logger.setLevel(logging.CRITICAL + 1)
    else:
        logger.setLevel(logging.INFO)
        logger.addHandler(handler)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.propagate = propagate
        if handler is not None:
            logger.removeHandler(handler)


@contextlib.contextmanager
def _no_collector() -> Iterator[None]:
    """One run makes little garbage in circles and many small objects: the cyclic collector would
    look at them again and again. It runs once, afterwards."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
