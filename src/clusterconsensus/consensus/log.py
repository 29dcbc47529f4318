"""The log as the core sees it: contiguous, cut only above the commit, partly on disk.

What is always in memory is small: where each ballot's entries begin (ballots never go down along
the log, so a few numbers describe millions of entries) and the configurations. The entries
themselves are kept from the oldest that somebody here still needs; older ones are dropped when the
cache is full and read back from the journal when a follower asks for them.

Invariants (``check``): entries are contiguous; ballots never decrease; the latest configuration is
the last CONFIG entry of the log, committed or not (M1), and is never stored a second time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import msgspec

from clusterconsensus.consensus.types import (
    ZERO,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    Position,
)

ENTRY_OVERHEAD_BYTES = 400
"""What an entry costs in memory beside its payload, roughly."""

_decode_configuration = msgspec.msgpack.Decoder(Configuration).decode
encode_configuration = msgspec.msgpack.Encoder().encode


class LogError(Exception):
    """Entries that cannot be part of any correct log: a defect, here or at a peer."""


class Log:
    """The log of one member.

    Arguments:
        last_seq: The last sequence of what the journal holds, 0 for an empty log.
        runs: ``(first sequence, ballot)`` of each run of entries with one ballot, ascending.
        configurations: The CONFIG entries of the log, ascending.
        last_time: The newest replicated time in the log (R10).
    """

    def __init__(
        self,
        last_seq: int = 0,
        runs: Sequence[tuple[int, Ballot]] = (),
        configurations: Iterable[Entry] = (),
        last_time: float = 0.0,
    ) -> None:
        self.last_seq = last_seq
        self.durable_seq = last_seq
        self.last_time = last_time
        self.cached_bytes = 0
        self._first_cached = last_seq + 1
        self._entries: dict[int, Entry] = {}
        self._run_starts = [first for first, _ in runs]
        self._run_ballots = [ballot for _, ballot in runs]
        self._configurations: list[tuple[int, Configuration]] = [(0, Configuration())]
        for entry in configurations:
            self._configurations.append((entry.seq, _decode_configuration(entry.payload)))
        self._configuration_changed()

    # -- reading

    @property
    def last(self) -> Position:
        return Position(self._run_ballots[-1] if self._run_ballots else ZERO, self.last_seq)

    @property
    def first_cached(self) -> int:
        """The oldest sequence still in memory; ``last_seq + 1`` if none is."""
        return self._first_cached

    def ballot_at(self, seq: int) -> Ballot | None:
        """The ballot of the entry at ``seq``; ``ZERO`` at 0; None where there is no entry."""
        if seq == 0:
            return ZERO
        if not 0 < seq <= self.last_seq:
            return None
        return self._run_ballots[bisect_right(self._run_starts, seq) - 1]

    def position(self, seq: int) -> Position:
        """The position of an entry that exists."""
        ballot = self.ballot_at(seq)
        if ballot is None:
            raise LogError(f"no entry {seq} in a log that ends at {self.last_seq}")
        return Position(ballot, seq)

    def run_start(self, seq: int) -> int:
        """The first sequence of the run of equal ballots that ``seq`` lies in."""
        return self._run_starts[bisect_right(self._run_starts, seq) - 1]

    def entry(self, seq: int) -> Entry:
        """An entry that is in memory."""
        return self._entries[seq]

    def is_cached(self, seq: int) -> bool:
        return self._first_cached <= seq <= self.last_seq

    def slice(self, first: int, max_bytes: int, max_entries: int = 1_000) -> tuple[Entry, ...]:
        """Entries from ``first`` on, about ``max_bytes`` of payload, at least one if there is one.

        ``first`` must be in memory or behind the end.
        """
        taken: list[Entry] = []
        size = 0
        for seq in range(first, min(self.last_seq, first + max_entries - 1) + 1):
            entry = self._entries[seq]
            size += len(entry.payload) + 64
            if taken and size > max_bytes:
                break
            taken.append(entry)
        return tuple(taken)

    # -- configurations

    def configurations(self) -> Iterable[Configuration]:
        """Every configuration in the log, oldest first."""
        return (configuration for _, configuration in self._configurations)

    def committed_configuration(self, commit: int) -> tuple[int, Configuration]:
        """The newest configuration at or below ``commit``, with its sequence."""
        for seq, configuration in reversed(self._configurations):
            if seq <= commit:
                return seq, configuration
        raise LogError("the empty configuration at 0 is always committed")

    def _configuration_changed(self) -> None:
        self.configuration_seq, self.configuration = self._configurations[-1]
        self.voters: tuple[Incarnation, ...] = self.configuration.voters
        self.promoting = any(seat.promoting for seat in self.configuration.seats)

    # -- writing

    def append(self, entry: Entry) -> None:
        """Add the next entry.

        Raises:
            LogError: it is not the next, or its ballot is below the last one's.
        """
        if entry.seq != self.last_seq + 1:
            raise LogError(f"entry {entry.seq} cannot follow {self.last_seq} (I-9)")
        if not self._run_ballots or entry.ballot != self._run_ballots[-1]:
            if self._run_ballots and entry.ballot < self._run_ballots[-1]:
                raise LogError(f"ballot {entry.ballot} cannot follow {self._run_ballots[-1]} (I-9)")
            self._run_starts.append(entry.seq)
            self._run_ballots.append(entry.ballot)
        if entry.kind == EntryKind.CONFIG:
            self._configurations.append((entry.seq, _decode_configuration(entry.payload)))
            self._configuration_changed()
        self._entries[entry.seq] = entry
        self.cached_bytes += len(entry.payload) + ENTRY_OVERHEAD_BYTES
        self.last_seq = entry.seq
        self.last_time = max(self.last_time, entry.time)

    def truncate(self, first: int) -> None:
        """Cut off the entry at ``first`` and everything behind it."""
        for seq in range(max(first, self._first_cached), self.last_seq + 1):
            self._forget(seq)
        self.last_seq = first - 1
        self.durable_seq = min(self.durable_seq, self.last_seq)
        self._first_cached = min(self._first_cached, first)
        while self._run_starts and self._run_starts[-1] >= first:
            self._run_starts.pop()
            self._run_ballots.pop()
        if self._configurations[-1][0] >= first:
            while self._configurations[-1][0] >= first:
                self._configurations.pop()
            self._configuration_changed()

    def merge(self, entries: Sequence[Entry], commit: int) -> tuple[int | None, tuple[Entry, ...]]:
        """Take over entries of a better or verified log (R1d, R1f).

        What is here already stays; at the first difference the rest of the own log goes. It is
        never cut merely because the entries end earlier (C-11).

        Returns:
            Where the log was cut off, or None; and the entries that were appended.

        Raises:
            LogError: a committed entry would be replaced (I-7).
        """
        cut: int | None = None
        for index, entry in enumerate(entries):
            if entry.seq <= self.last_seq:
                if self.ballot_at(entry.seq) == entry.ballot:
                    continue
                if entry.seq <= commit:
                    raise LogError(
                        f"committed entry {entry.seq} would be replaced by {entry} (I-7)"
                    )
                cut = entry.seq
                self.truncate(cut)
            fresh = tuple(entries[index:])
            for new in fresh:
                self.append(new)
            return cut, fresh
        return None, ()

    def evict(self, keep_above: int, max_bytes: int) -> None:
        """Drop the oldest entries from memory while they take more than ``max_bytes``, but none
        above ``keep_above``."""
        while self.cached_bytes > max_bytes and self._first_cached <= min(
            keep_above, self.last_seq
        ):
            self._forget(self._first_cached)
            self._first_cached += 1

    def _forget(self, seq: int) -> None:
        self.cached_bytes -= len(self._entries.pop(seq).payload) + ENTRY_OVERHEAD_BYTES

    def check(self) -> None:
        """Assert this class's invariants."""
        cached = range(self._first_cached, self.last_seq + 1)
        if len(self._entries) != len(cached) or any(seq not in self._entries for seq in cached):
            raise LogError(f"entries {cached} are not what the memory holds")
        if self._run_ballots != sorted(self._run_ballots):
            raise LogError("ballots decrease along the log")
        if self.durable_seq > self.last_seq:
            raise LogError(f"durable {self.durable_seq} beyond the end {self.last_seq}")


def well_formed(previous: Position, entries: Sequence[Entry], ballot: Ballot) -> bool:
    """Whether entries that came from a peer can stand behind ``previous`` in a log of ``ballot``.

    Checks what ``Log.append`` relies on, so that bytes from a peer never raise there: contiguous,
    ballots ascending and not above the sender's, checksums intact, configurations readable.
    """
    seq, below = previous.seq, previous.ballot
    for entry in entries:
        seq += 1
        if entry.seq != seq or not below <= entry.ballot <= ballot or not entry.intact():
            return False
        below = entry.ballot
        if entry.kind == EntryKind.CONFIG:
            try:
                _decode_configuration(entry.payload)
            except msgspec.MsgspecError:
                return False
    return True
