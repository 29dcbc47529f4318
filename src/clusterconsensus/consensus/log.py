"""The log as the core sees it: contiguous behind a base, cut only above the commit, partly on disk.

It begins behind a *base*: what stood up to there is chosen, is in a durable snapshot, and is no
longer here. The base moves when the log is compacted, and when the log as a whole gives way to a
snapshot.

What is always in memory is small: where each ballot's entries begin (ballots never go down along
the log, so a few numbers describe millions of entries) and the configurations. The entries
themselves are kept from the oldest that somebody here still needs; older ones are dropped when the
cache is full and read back from the journal when a follower asks for them.

Invariants (``check``): entries are contiguous from ``base.seq + 1`` on; ballots never decrease; the
latest configuration is the last CONFIG entry of the log, committed or not (M1), and is never stored
a second time.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence

import msgspec

from clusterconsensus.consensus.types import (
    NOWHERE,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    Position,
)

ENTRY_OVERHEAD_BYTES = 400
"""What an entry costs in memory beside its payload, roughly."""

RECORD_OVERHEAD_BYTES = 128
"""What an entry costs on the disk beside its payload, roughly."""

MARK_BYTES = 1024 * 1024
"""How far apart the places are at which the size of the log is noted."""

decode_configuration = msgspec.msgpack.Decoder(Configuration).decode
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
        base: The entry that the first one of the log follows.
        configuration: The newest configuration of a snapshot, with its sequence. CONFIG entries at
            or below it say nothing more.
    """

    def __init__(
        self,
        last_seq: int = 0,
        runs: Sequence[tuple[int, Ballot]] = (),
        configurations: Iterable[Entry] = (),
        last_time: float = 0.0,
        base: Position = NOWHERE,
        configuration: tuple[int, Configuration] = (0, Configuration()),
    ) -> None:
        self.base = base
        self.last_seq = last_seq
        self.durable_seq = last_seq
        self.last_time = last_time
        self.cached_bytes = 0
        self._appended_bytes = 0
        self._marks: deque[tuple[int, int]] = deque()
        """Sequences, and how much had been appended up to there since the start."""
        self._first_cached = last_seq + 1
        self._entries: dict[int, Entry] = {}
        self._run_starts = [first for first, _ in runs]
        self._run_ballots = [ballot for _, ballot in runs]
        self._configurations: list[tuple[int, Configuration]] = [configuration]
        for entry in configurations:
            if entry.seq > configuration[0]:
                self._configurations.append((entry.seq, decode_configuration(entry.payload)))
        self._configuration_changed()

    # -- reading

    @property
    def last(self) -> Position:
        return Position(self._run_ballots[-1], self.last_seq) if self._run_ballots else self.base

    @property
    def first_cached(self) -> int:
        """The oldest sequence still in memory; ``last_seq + 1`` if none is."""
        return self._first_cached

    def ballot_at(self, seq: int) -> Ballot | None:
        """The ballot of the entry at ``seq``; that of the base at the base (``ZERO`` at 0); None
        where there is no entry, not here yet or not here any more."""
        if seq == self.base.seq:
            return self.base.ballot
        if not self.base.seq < seq <= self.last_seq:
            return None
        return self._run_ballots[bisect_right(self._run_starts, seq) - 1]

    def position(self, seq: int) -> Position:
        """The position of an entry that exists."""
        ballot = self.ballot_at(seq)
        if ballot is None:
            raise LogError(f"no entry {seq} in a log from {self.base.seq + 1} to {self.last_seq}")
        return Position(ballot, seq)

    def run_start(self, seq: int) -> int:
        """The first sequence of the run of equal ballots that ``seq``, behind the base, lies in."""
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
        raise LogError("the first configuration known is always committed")

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
            if entry.ballot < (below := self.last.ballot):
                raise LogError(f"ballot {entry.ballot} cannot follow {below} (I-9)")
            self._run_starts.append(entry.seq)
            self._run_ballots.append(entry.ballot)
        if entry.kind == EntryKind.CONFIG:
            self._configurations.append((entry.seq, decode_configuration(entry.payload)))
            self._configuration_changed()
        self._entries[entry.seq] = entry
        self.cached_bytes += len(entry.payload) + ENTRY_OVERHEAD_BYTES
        self._appended_bytes += len(entry.payload) + RECORD_OVERHEAD_BYTES
        if self._appended_bytes - (self._marks[-1][1] if self._marks else 0) >= MARK_BYTES:
            self._marks.append((entry.seq, self._appended_bytes))
        self.last_seq = entry.seq
        self.last_time = max(self.last_time, entry.time)

    def truncate(self, first: int) -> None:
        """Cut off the entry at ``first`` and everything behind it."""
        if first <= self.base.seq:
            raise LogError(f"the log cannot be cut at {first}, before its base {self.base} (I-7)")
        for seq in range(max(first, self._first_cached), self.last_seq + 1):
            size = len(self._entries[seq].payload)
            self._appended_bytes -= size + RECORD_OVERHEAD_BYTES
            self._forget(seq)
        while self._marks and self._marks[-1][0] >= first:
            self._marks.pop()
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
            if entry.seq <= self.base.seq:
                continue  # chosen, and in a snapshot: it matches by definition (C-12)
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

    def compact(self, seq: int) -> None:
        """Forget the entries up to ``seq``, which is chosen, applied and in a durable snapshot: the
        log begins behind it now (S6)."""
        if seq <= self.base.seq:
            return
        if seq > self.durable_seq:
            raise LogError(f"the log cannot begin at {seq}, durable is {self.durable_seq} (S6)")
        base = self.position(seq)
        for old in range(self._first_cached, seq + 1):
            self._forget(old)
        self._first_cached = max(self._first_cached, seq + 1)
        first_kept = bisect_right(self._run_starts, seq + 1) - 1
        if seq == self.last_seq:
            first_kept = len(self._run_starts)
        del self._run_starts[:first_kept], self._run_ballots[:first_kept]
        if self._run_starts:
            self._run_starts[0] = max(self._run_starts[0], seq + 1)
        while len(self._configurations) > 1 and self._configurations[1][0] <= seq:
            del self._configurations[0]
        while self._marks and self._marks[0][0] <= seq:
            self._marks.popleft()
        self.base = base

    def seq_of_last(self, size_bytes: int) -> int:
        """Behind which sequence the log holds about so many bytes; 0 where it is not known to hold
        more."""
        for seq, appended in self._marks:
            if self._appended_bytes - appended <= size_bytes:
                return seq if (seq, appended) != self._marks[0] else 0
        return self.last_seq if self._marks else 0

    def reset(
        self, base: Position, configuration_seq: int, configuration: Configuration, time: float
    ) -> None:
        """Give up the whole log: it begins anew behind a snapshot that is durable here (S4)."""
        for seq in range(self._first_cached, self.last_seq + 1):
            self._forget(seq)
        self.base = base
        self.last_seq = self.durable_seq = base.seq
        self.last_time = time
        self._first_cached = base.seq + 1
        self._run_starts.clear()
        self._run_ballots.clear()
        self._marks.clear()
        self._configurations = [(configuration_seq, configuration)]
        self._configuration_changed()

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
        if self._first_cached <= self.base.seq or self.last_seq < self.base.seq:
            raise LogError(f"the log from {cached} does not follow its base {self.base}")
        if self._run_starts and self._run_starts[0] != self.base.seq + 1:
            raise LogError(f"ballots are known from {self._run_starts[0]}, base {self.base}")
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
                decode_configuration(entry.payload)
            except msgspec.MsgspecError:
                return False
    return True
