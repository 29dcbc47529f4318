"""Departures: removed members that are still told of it (M8).

Who is removed counts for nothing from that moment on, and yet should hear that it was: so the
master keeps sending to it until it holds the entry and has been told in a later round that the
entry is committed, or until a while has passed. Best effort: who never hears it so learns it from
those it asks for a vote.
"""

from __future__ import annotations

import math

from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.master import Master
from clusterconsensus.consensus.types import Incarnation

KEEP_TELLING_SECONDS = 10.0
"""How long a removed member is still told of it."""


class Departure:
    """One removed member: the sequence of the entry that removes it, and since when it is known
    here that this is committed."""

    def __init__(self, seq: int) -> None:
        self.seq = seq
        self.committed_at = math.inf


class Departures:
    """The removed members that this master still sends to."""

    def __init__(self, local: Local, master: Master) -> None:
        self._local = local
        self._master = master
        self._leaving: dict[Incarnation, Departure] = {}

    def add(self, name: Incarnation, seq: int) -> None:
        """A member is about to be removed by the entry at ``seq``."""
        self._leaving[name] = Departure(seq)
        self._master.keep_sending[name] = self._local.now + KEEP_TELLING_SECONDS

    def step_down(self) -> None:
        """This member leads no more."""
        self._leaving.clear()

    def end_of_turn(self) -> None:
        """Leave alone who knows it, and who was told for long enough."""
        if not self._leaving:
            return
        local, master = self._local, self._master
        done: list[Incarnation] = []
        for name, departure in self._leaving.items():
            if departure.committed_at == math.inf and departure.seq <= local.commit:
                departure.committed_at = local.now
            if local.now >= master.keep_sending[name] or self._knows(name, departure):
                done.append(name)
        for name in done:
            del self._leaving[name], master.keep_sending[name]
        if done:
            master.know_everyone()

    def _knows(self, name: Incarnation, departure: Departure) -> bool:
        progress = self._master.progress[name]
        return progress.match >= departure.seq and progress.contact_at > departure.committed_at
