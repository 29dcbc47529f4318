"""The invariants over bare cores: those of ``invariants``, told of what their machines execute."""

from __future__ import annotations

from clusterconsensus.simulation.cores.machine import Machine
from clusterconsensus.simulation.judges.invariants import BrokenError, Ghost

__all__ = ["BrokenError", "CoreGhost"]


class CoreGhost(Ghost):
    """Checks a cluster of bare cores."""

    def on_machine(self, machine: Machine, first: int) -> None:
        """Requests from place ``first`` of the machine's record have just taken effect."""
        for executed in machine.executed[first:]:
            self.on_executed(*executed)
