"""What a log amounts to while its entries stay on the disk: where it begins and ends, and which
ballots created it.

The log holds ``base.seq + 1`` to ``last_seq``. What is at or before the base is gone: compacted, or
given up for a snapshot (S4, S6); of it only the base's own ballot is known, for the entry behind it
must fit to it. Ballots come in runs, so a log of any length is described by as many numbers as
there were masters.

``Openings`` tells where the log may be made to begin later: at the START of a segment, as long as
the entry that this START calls the last one is still a part of the log.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter

from clusterconsensus.consensus.types import NOWHERE, Ballot, Position

_first = itemgetter(0)


class Extent:
    """Where a log begins and ends, and its ballots."""

    __slots__ = ("base", "last_seq", "runs")

    def __init__(self, base: Position = NOWHERE) -> None:
        self.base = base
        self.last_seq = base.seq
        self.runs: list[tuple[int, Ballot]] = []
        """First sequence and ballot, wherever the ballot changes behind the base."""

    def copy(self) -> Extent:
        """The same, apart from this."""
        found = Extent(self.base)
        found.last_seq = self.last_seq
        found.runs = [*self.runs]
        return found

    def add(self, seq: int, ballot: Ballot) -> None:
        """The next entry."""
        self.last_seq = seq
        runs = self.runs
        if not runs or runs[-1][1] != ballot:
            runs.append((seq, ballot))

    def cut(self, seq: int) -> None:
        """Entries from ``seq`` on, which is behind the base, are cut off."""
        runs = self.runs
        while runs and runs[-1][0] >= seq:
            runs.pop()
        self.last_seq = min(self.last_seq, seq - 1)

    def give_up(self, base: Position) -> None:
        """The log is empty and begins behind another base."""
        self.base = base
        self.last_seq = base.seq
        self.runs.clear()

    def forget(self, base: Position) -> None:
        """The log begins behind ``base``, which is one of its entries."""
        place = bisect_right(self.runs, base.seq, key=_first)
        if self.last_seq > base.seq and (
            place == len(self.runs) or self.runs[place][0] > base.seq + 1
        ):
            place -= 1
            self.runs[place] = (base.seq + 1, self.runs[place][1])
        del self.runs[:place]
        self.base = base

    def ballot_at(self, seq: int) -> Ballot | None:
        """The ballot of an entry of the log, or of the base; None of any other."""
        if seq == self.base.seq:
            return self.base.ballot
        if not self.base.seq < seq <= self.last_seq:
            return None
        return self.runs[bisect_right(self.runs, seq, key=_first) - 1][1]

    @property
    def last(self) -> Position:
        """Where the log ends."""
        ballot = self.runs[-1][1] if self.runs else self.base.ballot
        return Position(ballot, self.last_seq)


class Openings:
    """The segments at which the journal may begin."""

    __slots__ = ("_given_up", "_starts")

    def __init__(self) -> None:
        self._starts: dict[int, Position] = {}
        self._given_up = 0

    def add(self, number: int, last: Position) -> None:
        """A segment begins, behind the entry ``last``, whose ballot its START tells."""
        self._starts[number] = last

    def cut(self, seq: int) -> None:
        """The log is cut off from ``seq`` on: no START may restate what is cut off."""
        for number in [n for n, last in self._starts.items() if last.seq >= seq]:
            del self._starts[number]

    def give_up(self, number: int) -> None:
        """The log is given up in a segment: nothing in earlier ones is a part of it any more."""
        self._starts.clear()
        self._given_up = number

    def find(self, seq: int) -> tuple[int, Position | None]:
        """The last segment at which a journal may begin that must hold everything above ``seq``,
        and the entry before it; None if that is not a part of the log, which begins later. 0 if
        there is no such segment."""
        found: tuple[int, Position | None] = (self._given_up, None)
        for number, last in self._starts.items():
            if last.seq <= seq and number > found[0]:
                found = (number, last)
        return found

    def forget(self, number: int) -> None:
        """Segments before this one are gone."""
        for earlier in [n for n in self._starts if n <= number]:
            del self._starts[earlier]
        if self._given_up <= number:
            self._given_up = 0
