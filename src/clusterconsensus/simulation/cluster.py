"""A whole simulated cluster: machines, their network, the ghost that watches, the trace of it all.

Nothing here decides what happens: ``injector`` makes trouble, ``clients`` make work, ``seeds`` puts
the two together.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, TypeVar

from clusterconsensus.codec import MsgpackCodec
from clusterconsensus.consensus import effects, messages
from clusterconsensus.consensus.effects import Effect
from clusterconsensus.consensus.quorum import majority_size
from clusterconsensus.consensus.types import EntryKind, Incarnation, Member, Role
from clusterconsensus.participant import Participant
from clusterconsensus.settings import Settings
from clusterconsensus.simulation.judges.invariants import BrokenError, decode_configuration, rule_of
from clusterconsensus.simulation.judges.witness import ClusterGhost
from clusterconsensus.simulation.machine import DIRECTORY, Life, Machine
from clusterconsensus.simulation.telling.recording import MarkKind, Recorder, SpanKind
from clusterconsensus.simulation.telling.trace import Trace
from clusterconsensus.simulation.world.loop import World
from clusterconsensus.simulation.world.network import Network
from clusterconsensus.state import Codec, State

ResultT = TypeVar("ResultT")


class LivenessError(AssertionError):
    """What had to happen by now has not (I-22)."""

    def __init__(self, text: str, rule: str = "I-22") -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.text = text


class Cluster:
    """Machines that run participants of one cluster.

    Arguments:
        world: Whose time they live in.
        make_state: Makes the state machine of one run of one member.
        settings: Of every member.
        codec: Of every member.
        recorder: Writes everything down for people; None for speed.
        network: Shared with another cluster; by default one of its own.
    """

    def __init__(
        self,
        world: World,
        make_state: Callable[[], State],
        settings: Settings,
        codec: Codec | None = None,
        recorder: Recorder | None = None,
        network: Network | None = None,
    ) -> None:
        self.world = world
        self.make_state = make_state
        self.settings = settings
        self.codec = codec or MsgpackCodec()
        self.recorder = recorder
        self.trace = Trace(recorder, lambda: world.now)
        self.network = network or Network(world, world.chance("network"), self.trace)
        self.lives: dict[Incarnation, Life] = {}
        self.machines: dict[str, Machine] = {}
        self.ghost = ClusterGhost(self.lives, self.violated)
        self.sometimes: Counter[str] = self.ghost.sometimes
        """How often each rare path was taken; see ``sometimes``."""
        self.restart_seconds: Callable[[], float] = lambda: 0.5
        """How long a process that ended by itself stays down."""
        self.insists = 0.0
        """How likely a client that got no answer asks somebody else, too."""
        self._stranger: Cluster | None = None
        self.expected: set[str] = set()
        """Machines whose disk was damaged on purpose: they may refuse to start."""
        self.on_configuration: Callable[[Machine], None] | None = None
        """Is told when a master writes a configuration; for the fault injector."""
        self.on_accepts: Callable[[Machine], None] | None = None
        """Is told when a master has sent entries; for the fault injector."""

    # -- the course of it

    def run(self, main: Coroutine[Any, Any, ResultT], *, until: float = math.inf) -> ResultT:
        """Run a coroutine from outside of all machines until it ends, and then end everything.

        What the machines hold can be looked at afterwards; nothing runs any more.

        Arguments:
            main: What to do with the cluster.
            until: The true time in seconds at which to give up.

        Raises:
            BrokenError: an invariant does not hold.
            StalledError: nothing can happen any more, or ``until`` is reached.
            BaseException: what ``main`` raises.
        """
        try:
            return self.world.run(main, until=until)
        finally:
            self.end()
            self.world.close()

    def end(self) -> None:
        """End every process, without a word to anybody."""
        for machine in self.machines.values():
            if machine.loop is not None:
                machine.loop.kill()
        if self._stranger is not None:
            self._stranger.end()

    @property
    def has_stranger(self) -> bool:
        """Whether there is another cluster in the network."""
        return self._stranger is not None

    def stranger(self) -> Machine | None:
        """A machine of another cluster of the same name in the same network; None while it is
        being founded."""
        if self._stranger is None:
            self._stranger = Cluster(
                self.world, self.make_state, self.settings, self.codec, network=self.network
            )
            self.world.outside.create_task(self._stranger.found("x"))
            return None
        machine = self._stranger.machines["x"]
        return machine if machine.participant is not None else None

    # -- telling

    def violated(self, error: BaseException) -> None:
        """Something does not hold: the simulation ends."""
        self.world.fail(error)

    def tell(self, machine_id: str, kind: MarkKind, text: str) -> None:
        """Something worth a mark happened at a machine."""
        now = self.world.now
        self.trace.note(now, f"{machine_id} {kind} {text}")
        if self.recorder is not None:
            self.recorder.mark(now, machine_id, kind, text)
            self.recorder.say(f"{now:11.6f}  {machine_id}  {kind}: {text}")

    def did(self, text: str) -> None:
        """Something was done to the cluster from outside."""
        now = self.world.now
        self.trace.note(now, text)
        if self.recorder is not None:
            self.recorder.did(now, text)
            self.recorder.say(f"{now:11.6f}  -- {text}")

    # -- machines

    def add_machine(self, machine_id: str) -> Machine:
        """A new machine with an empty disk; not started."""
        machine = self.machines[machine_id] = Machine(self, machine_id)
        if self.recorder is not None:
            self.recorder.member(machine_id)
        return machine

    async def found(self, ids: Sequence[str]) -> None:
        """Start these machines and make them one cluster of voters."""
        for machine_id in ids:
            self.add_machine(machine_id).start()
        first = self.machines[ids[0]]
        await self.until(lambda: all(self.machines[each].participant for each in ids), 30)
        await first.ask(lambda participant: participant.init_master())
        for machine_id in ids[1:]:
            member = self.machines[machine_id].member
            await first.ask(partial(_add, member=member))

    async def until(self, holds: Callable[[], object], seconds: float) -> bool:
        """Wait until something holds, looking every 10 ms; whether it did in time."""
        ends = self.world.now + seconds
        while not holds():
            if self.world.now >= ends:
                return False
            await asyncio.sleep(0.01)
        return True

    def on_up(self, machine: Machine) -> None:
        """A process takes part now."""
        self.network.machines_off.discard(machine.id)
        if self.recorder is not None:
            self.recorder.span_ends(self.world.now, machine.id, "down")
        life = machine.life
        if life is not None and life.is_up:
            local = life.local
            self.tell(
                machine.id, "note", f"takes part: promised {local.promised}, last {local.log.last}"
            )

    def on_down(self, machine: Machine, why: str) -> None:
        """A process is gone."""
        if why != "killed":
            self.network.machines_off.add(machine.id)
        self.tell(machine.id, "crash", why)
        if self.recorder is not None:
            kinds: tuple[SpanKind, ...] = ("master", "candidate", "paused", "frozen")
            for kind in kinds:
                self.recorder.span_ends(self.world.now, machine.id, kind)
            self.recorder.span_begins(self.world.now, machine.id, "down", why)

    def on_stopped(self, machine: Machine, reason: str, lost: bool) -> None:
        """A process has ended by itself."""
        kind = reason.partition(":")[0]
        if kind in ("BrokenInvariantError", "DivergedError"):
            rule, text = rule_of(reason)
            rule = "I-13" if kind == "DivergedError" else rule
            self.violated(BrokenError(rule, f"{machine.id} stops: {text}"))
            return
        if lost or kind == "DamagedError":
            machine.is_lost = True
            self.sometimes["damage refused"] += 1
            if machine.id not in self.expected:
                self.violated(
                    BrokenError("W3", f"{machine.id} refuses a disk that nobody damaged: {reason}")
                )
            return
        self.sometimes["stopped by a failed write"] += kind == "StoragePoisonedError"
        self.world.call_at(self.world.now + self.restart_seconds(), machine.start)

    # -- what the members do

    def on_effects(self, life: Life, found: Sequence[Effect]) -> None:
        """A member's turn had these effects; they are about to be performed."""
        ghost = self.ghost
        if self.recorder is not None:
            self._mark(self.recorder, life, found)
        for effect in found:
            if isinstance(effect, effects.Send):
                ghost.on_send(life, effect.message)
                self._on_message(life, effect.message)
            elif isinstance(effect, effects.Persist):
                self._on_persist(life, effect)
                ghost.on_persist(life, effect)
            elif isinstance(effect, effects.RoleChanged):
                self._on_role(life, effect)
            elif isinstance(effect, effects.Load):
                self.sometimes["entries read back from the journal"] += 1
            elif isinstance(effect, effects.Diverged):
                ghost.fail("I-13", f"{life} was told that it has diverged")
            elif isinstance(effect, effects.Halt):
                rule, text = rule_of(effect.reason)
                ghost.fail("I-13" if effect.diverged else rule, f"{life} halts: {text}")

    def _mark(self, recorder: Recorder, life: Life, found: Sequence[Effect]) -> None:
        """Write down for people what a turn did to the log."""
        now, machine_id = self.world.now, life.machine.id
        for effect in found:
            if isinstance(effect, effects.Apply):
                recorder.mark(now, machine_id, "commit", f"{effect.seq} is known to be chosen")
            elif isinstance(effect, effects.ConfigurationChanged):
                state = "chosen" if effect.committed else "in force"
                seats = life.local.log.configuration.seats
                names = " ".join(f"{seat.id} ({seat.standing})" for seat in seats)
                recorder.mark(now, machine_id, "config", f"members {names}, {state}")
            elif isinstance(effect, effects.Persist):
                if effect.promised is not None:
                    recorder.mark(now, machine_id, "promise", str(effect.promised))
                if effect.truncate_from is not None:
                    text = f"the log is cut off from {effect.truncate_from} on"
                    recorder.mark(now, machine_id, "cut_log", text)

    def _on_message(self, life: Life, message: messages.Message) -> None:
        sometimes = self.sometimes
        if isinstance(message, messages.Accept):
            if message.entries and self.on_accepts is not None:
                self.on_accepts(life.machine)
        elif isinstance(message, messages.Accepted):
            if not life.belongs:
                self._check_identity(life)
        elif isinstance(message, messages.Reject):
            sometimes[f"accept refused: {message.refusal.name.lower()}"] += 1
        elif isinstance(message, messages.Promise):
            sometimes["promise with entries"] += bool(message.suffix)
        elif isinstance(message, messages.PromisePull):
            sometimes["promise pulled"] += 1

    def _check_identity(self, life: Life) -> None:
        """Before its first acknowledgement a member's disk says whose it is (D9)."""
        life.belongs = True
        identity = bytes(life.machine.disk.content(f"{DIRECTORY}/identity").durable)
        if life.local.cluster_id.encode() not in identity:
            self.ghost.fail("D9", f"{life} acknowledges, and its identity is not durable")

    def _on_persist(self, life: Life, batch: effects.Persist) -> None:
        if batch.truncate_from is not None:
            self.sometimes["log cut off"] += 1
        if not batch.entries:
            return
        local = life.local
        changes_members = any(entry.kind == EntryKind.CONFIG for entry in batch.entries)
        # A candidate may adopt and win in one turn; what a master appends has its own ballot.
        own = batch.entries[0].ballot == life.running.master.ballot
        if local.role is Role.CANDIDATE or (local.leads and not own):
            self.sometimes["adoption"] += 1
            self.sometimes["adoption of a configuration"] += changes_members
        elif changes_members and local.leads and self.on_configuration is not None:
            self.on_configuration(life.machine)

    def _on_role(self, life: Life, effect: effects.RoleChanged) -> None:
        self.sometimes[f"role {effect.role}"] += 1
        now = self.world.now
        self.trace.note(now, f"{life} {effect.role} {effect.ballot} {effect.reason}")
        if effect.role is Role.MASTER:
            self.sometimes["mastership"] += 1
        if effect.reason.startswith("no majority answered within"):
            self.sometimes["stepped down without a majority"] += 1
        elif effect.reason.startswith("the disk finished no sync"):
            self.sometimes["stepped down for a hung disk"] += 1
        recorder = self.recorder
        if recorder is None:
            return
        machine_id = life.machine.id
        leads = effect.role in (Role.MASTER, Role.PENDING_MASTER)
        recorder.say(
            f"{now:11.6f}  {machine_id}  {effect.role} in {effect.ballot}: {effect.reason}"
        )
        if effect.role is Role.MASTER:
            recorder.mark(now, machine_id, "master", f"{effect.ballot}: {effect.reason}")
        elif effect.role is Role.CANDIDATE:
            recorder.mark(now, machine_id, "candidate", f"{effect.ballot}: {effect.reason}")
        candidate = effect.role is Role.CANDIDATE
        spans: tuple[tuple[SpanKind, bool], ...] = (("master", leads), ("candidate", candidate))
        for kind, holds in spans:
            if holds:
                recorder.span_begins(now, machine_id, kind, str(effect.ballot))
            else:
                recorder.span_ends(now, machine_id, kind)

    # -- looking

    @property
    def up(self) -> list[Machine]:
        """Machines whose process takes part, in the order in which they were made."""
        return [machine for machine in self.machines.values() if machine.participant is not None]

    @property
    def masters(self) -> list[Machine]:
        """Machines that lead, serving or not yet."""
        return [
            machine
            for machine in self.up
            if machine.life is not None and machine.life.is_up and machine.life.local.leads
        ]

    def voters(self) -> list[Incarnation]:
        """The voters of the latest chosen configuration."""
        for seq in range(len(self.ghost.chosen), 0, -1):
            entry = self.ghost.chosen[seq]
            if entry.kind == EntryKind.CONFIG:
                return list(decode_configuration(entry.payload).voters)
        return []

    def _is_sound(self, name: Incarnation) -> bool:
        life = self.lives.get(name)
        return life is not None and life.machine.life is life and not life.machine.is_lost

    def sound_voters(self) -> list[Machine]:
        """Machines that take part, and have a vote in the latest chosen configuration."""
        return [
            self.lives[name].machine
            for name in self.voters()
            if self._is_sound(name) and self.lives[name].machine.participant is not None
        ]

    def may_lose_another(self) -> bool:
        """Whether a majority of voters stays sound if one more disk is lost for good, whichever
        configuration comes into force: those that are only in somebody's log count too."""
        configurations = [self.voters()]
        configurations += [
            list(life.local.log.voters) for life in self.lives.values() if life.is_up
        ]
        return all(
            sum(map(self._is_sound, voters)) - 1 >= majority_size(len(voters))
            for voters in configurations
            if voters
        )

    def has_majority(self) -> bool:
        """Whether a majority of the chosen configuration's disks is sound."""
        voters = self.voters()
        return sum(map(self._is_sound, voters)) >= majority_size(len(voters))


async def _add(participant: Participant[Any], member: Member) -> None:
    await participant.add_participant(member, timeout=60)
