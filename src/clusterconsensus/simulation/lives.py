"""One life of a member, as the ghost sees it, and what was done to its disk.

A machine outlives its members: with an empty disk it becomes another one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.types import (
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    Position,
)
from clusterconsensus.simulation.judges.invariants import decode_configuration
from clusterconsensus.simulation.judges.platter import Platter

if TYPE_CHECKING:
    from clusterconsensus.simulation.machine import Machine

DIRECTORY = "/data"
"""Each member's directory on its own disk."""


class Damage:
    """What was done to files at rest, until it is repaired."""

    def __init__(self, starts: int) -> None:
        self.starts = starts
        """How often the machine had been started when it was done."""
        self.paths: dict[str, None] = {}


class Life:
    """One incarnation of a member, as the ghost sees it: its core while it runs, its disk
    always."""

    def __init__(self, machine: Machine, name: Incarnation) -> None:
        self.machine = machine
        self.name = name
        self.replica: Replica | None = None
        self.platter = Platter(DIRECTORY, name.partition("@")[2])
        self.belongs = False
        """Whether it has acknowledged anything, and so must belong to a cluster durably (D9)."""

    def __str__(self) -> str:
        return self.machine.id

    @property
    def is_up(self) -> bool:
        return self.replica is not None

    @property
    def running(self) -> Replica:
        assert self.replica is not None
        return self.replica

    @property
    def local(self) -> Local:
        return self.running.local

    @property
    def durable_promise(self) -> Ballot:
        return self.platter.promised

    @property
    def durable_base(self) -> Position:
        return self.platter.base

    @property
    def durable_last(self) -> int:
        return self.platter.last_seq

    @property
    def durable_snapshot(self) -> int:
        return self.machine.snapshots.newest() if self.machine.life is self else 0

    @property
    def recovering(self) -> bool:
        return self.platter.recovering

    def durable_ballot(self, seq: int) -> Ballot | None:
        return self.platter.ballot_at(seq)

    def durable_entry(self, seq: int) -> Entry:
        return self.platter.entry(seq)

    def configuration(self) -> Configuration:
        """The latest configuration in its log, chosen or not; an empty one where there is none."""
        if self.replica is not None:
            return self.replica.local.log.configuration
        for entry in reversed(self.platter.entries):
            if entry.kind == EntryKind.CONFIG:
                return decode_configuration(entry.payload)
        return Configuration()
