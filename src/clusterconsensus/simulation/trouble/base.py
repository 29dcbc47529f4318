"""What all faults share: whom to strike, for how long, and how it ends by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from clusterconsensus.errors import ConsensusError
from clusterconsensus.simulation.cluster import Cluster
from clusterconsensus.simulation.machine import GoneError, Machine
from clusterconsensus.simulation.operators import Operators
from clusterconsensus.simulation.telling.recording import SpanKind
from clusterconsensus.simulation.trouble.plan import Plan


class Trouble:
    """Faults of one cluster.

    Arguments:
        cluster: Whose.
        plan: What is done and when.
    """

    def __init__(self, cluster: Cluster, plan: Plan) -> None:
        self.cluster = cluster
        self.plan = plan
        self.healed = False
        """Whether all trouble is over: nothing may be begun or ended any more."""
        self.operators = Operators(cluster, plan.patience_seconds * 2)
        self.spare = [f"s{number}" for number in range(1, plan.spare + 1)]
        """Machines that are not there yet."""
        self.armed: list[Callable[[Machine], None]] = []
        """What strikes whoever writes the next configuration."""
        self.armed_accepts: list[Callable[[Machine], None]] = []
        """What strikes whoever sends the next entries."""
        self.armed_installs: list[Callable[[Machine], None]] = []
        """What strikes whoever installs the next snapshot."""

    def later(self, seconds: float, what: Callable[..., object], *args: object) -> None:
        """Do something after a while, unless all is healed by then."""

        def act() -> None:
            if not self.healed:
                what(*args)

        world = self.cluster.world
        world.call_at(world.now + seconds, act)

    def any_machine(
        self, chance: Random, machines: Sequence[Machine] | None = None
    ) -> Machine | None:
        """One of these machines, by default of all; None if there is none."""
        choice = list(self.cluster.machines.values() if machines is None else machines)
        return choice[chance.randrange(len(choice))] if choice else None

    def any_running(self, chance: Random) -> Machine | None:
        """One of the machines that run."""
        return self.any_machine(chance, [m for m in self.cluster.machines.values() if m.runs])

    @property
    def wiped(self) -> bool:
        """Whether some machine got an empty disk."""
        return self.operators.wiped

    def restart_later(self, chance: Random, machine: Machine) -> None:
        """Start a machine again, soon or late."""
        seconds = chance.choice((0.0, 0.05, 0.5, 2.0, 5.0)) * (0.5 + chance.random())
        self.later(seconds, self.start_machine, machine)

    def start_machine(self, machine: Machine) -> None:
        """Start a machine, if its disk is sound."""
        if not machine.is_lost:
            machine.start()

    def cut_link(self, source: str, target: str, seconds: float) -> None:
        """Cut one direction of a link for a while."""
        cluster = self.cluster
        cluster.network.cuts.add((source, target))
        if cluster.recorder is not None:
            cluster.recorder.cut(cluster.world.now, source, target)
        self.later(seconds, self.join_link, source, target)

    def join_link(self, source: str, target: str) -> None:
        """End such a cut."""
        cluster = self.cluster
        cluster.network.cuts.discard((source, target))
        if cluster.recorder is not None:
            cluster.recorder.healed(cluster.world.now, source, target)

    def cut_off(self, machine: Machine, seconds: float, how: str = "both") -> None:
        """Cut a machine off: ``both`` ways, or so that it is only ``deaf`` or only ``mute``."""
        for other in self.cluster.machines:
            if other != machine.id:
                if how != "deaf":
                    self.cut_link(machine.id, other, seconds)
                if how != "mute":
                    self.cut_link(other, machine.id, seconds)

    def a_while(self, chance: Random) -> float:
        """From a moment to several election timeouts."""
        timeout = self.plan.settings.election_timeout_seconds
        return timeout * chance.choice((0.1, 0.5, 1.5, 3.0, 6.0)) * (0.5 + chance.random())

    def two_ids(self, chance: Random) -> tuple[str, str] | None:
        """Two different machines; None where there is one only."""
        ids = list(self.cluster.machines)
        if len(ids) < 2:
            return None
        one, other = chance.sample(ids, 2)
        return one, other

    def band(self, machine: Machine, kind: SpanKind) -> None:
        """A state of a machine begins, for the recording."""
        recorder = self.cluster.recorder
        if recorder is not None:
            recorder.span_begins(self.cluster.world.now, machine.id, kind)

    def go_on(self, machine: Machine) -> None:
        """End a pause or a freeze."""
        machine.clock.resume()
        recorder = self.cluster.recorder
        if recorder is not None:
            recorder.span_ends(self.cluster.world.now, machine.id, "paused")
            recorder.span_ends(self.cluster.world.now, machine.id, "frozen")


def ignore(future: asyncio.Future[Any]) -> None:
    """Whatever becomes of it is fine."""
    error = future.exception()
    if error is not None and not isinstance(error, ConsensusError | GoneError):
        raise error
