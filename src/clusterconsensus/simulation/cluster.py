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
from clusterconsensus.consensus.quorum import majority_size
from clusterconsensus.consensus.types import (
    Configuration,
    Incarnation,
    Member,
)
from clusterconsensus.participant import Participant
from clusterconsensus.settings import Settings
from clusterconsensus.simulation.judges.invariants import BrokenError, rule_of
from clusterconsensus.simulation.judges.witness import ClusterGhost, Replay
from clusterconsensus.simulation.lives import Life
from clusterconsensus.simulation.machine import Machine
from clusterconsensus.simulation.telling.recording import MarkKind, Recorder, SpanKind
from clusterconsensus.simulation.telling.trace import Trace
from clusterconsensus.simulation.watching import Watch
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
        self.ghost.replay = Replay(make_state, self.codec)
        self.sometimes: Counter[str] = self.ghost.sometimes
        """How often each rare path was taken; see ``sometimes``."""
        self.restart_seconds: Callable[[], float] = lambda: 0.5
        """How long a process that ended by itself stays down."""
        self.insists = 0.0
        """How likely a client that got no answer asks somebody else, too."""
        self._stranger: Cluster | None = None
        self.leaving: dict[Incarnation, None] = {}
        """Who may lose its vote at any moment, because somebody has asked for that."""
        self.on_configuration: Callable[[Machine], None] | None = None
        """Is told when a master writes a configuration; for the fault injector."""
        self.on_accepts: Callable[[Machine], None] | None = None
        """Is told when a master has sent entries; for the fault injector."""
        self.on_install: Callable[[Machine], None] | None = None
        """Is told when a member is about to install a snapshot; for the fault injector."""
        self.watch = Watch(self)

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
            if machine.in_doubt and local.recovering:
                self.sometimes["started without a vote"] += 1
                self.tell(machine.id, "note", "has lost something, and has no vote")
                if not machine.was_damaged:
                    text = f"{machine.id} has no vote on a disk that nobody damaged"
                    self.violated(BrokenError("W3", text))

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
            if not machine.was_damaged:
                self.violated(
                    BrokenError("W3", f"{machine.id} refuses a disk that nobody damaged: {reason}")
                )
            if lost:
                machine.is_lost = True
                self.sometimes["damage refused"] += 1
                return
            self.sometimes["stopped by damage"] += 1
        self.sometimes["stopped by a failed write"] += kind == "StoragePoisonedError"
        self.world.call_at(self.world.now + self.restart_seconds(), machine.start)

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
        return list(self.ghost.configuration.voters)

    def has_led(self, machine_id: str, since: float) -> bool:
        """Whether a machine led at some time since then."""
        if any(machine.id == machine_id for machine in self.masters):
            return True
        return any(at >= since and each == machine_id for at, each in self.watch.masterships)

    def is_sound(self, name: Incarnation) -> bool:
        """Whether a member's disk has everything that it ever acknowledged, as far as is known."""
        life = self.lives.get(name)
        if life is None or life.machine.life is not life:
            return False
        return not life.machine.is_lost and not life.machine.in_doubt

    def sound_voters(self) -> list[Machine]:
        """Machines that take part, and have a vote in the latest chosen configuration."""
        return [
            self.lives[name].machine
            for name in self.voters()
            if self.is_sound(name) and self.lives[name].machine.participant is not None
        ]

    def _configurations(self) -> list[Configuration]:
        """The chosen configuration, and every later one that is in somebody's log only: it may come
        into force yet."""
        found = [self.ghost.configuration]
        for life in self.lives.values():
            if life.machine.life is life:
                found.append(life.configuration())
        return [configuration for configuration in found if configuration.seats]

    def may_lose_another(self) -> bool:
        """Whether a majority of voters stays sound if one more disk is lost for good, whichever
        configuration comes into force."""
        return all(self._holds(each, lost=1) for each in self._configurations())

    def may_leave(self, name: Incarnation) -> bool:
        """Whether a majority of voters stays sound if a member loses its vote."""
        return all(self._holds(each, gone=name) for each in self._configurations())

    def has_majority(self) -> bool:
        """Whether a majority of the disks is sound, whichever configuration comes into force."""
        return all(self._holds(each, leaving=False) for each in self._configurations())

    def _holds(
        self,
        configuration: Configuration,
        *,
        lost: int = 0,
        gone: Incarnation | None = None,
        leaving: bool = True,
    ) -> bool:
        """Whether a majority is sound and one of it may lead, after so many further losses, without
        one member, and without any of those that may be leaving."""
        sound = {seat.incarnation: seat for seat in configuration.seats if seat.is_voter}
        unsound = [name for name in sound if not self.is_sound(name)]
        for name in unsound:
            del sound[name]
        for leaver in (*self.leaving, gone) if leaving else (gone,):
            if leaver is not None:
                sound.pop(leaver, None)
        leaders = sum(seat.priority > 0 for seat in sound.values())
        majority = majority_size(len(sound) + len(unsound))
        return len(sound) - lost >= majority and leaders - lost >= 1


async def _add(participant: Participant[Any], member: Member) -> None:
    await participant.add_participant(member, timeout=60)
