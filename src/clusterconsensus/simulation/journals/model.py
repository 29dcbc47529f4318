"""What a journal must hold after a sequence of units, computed in the plainest way.

The checks of the journal (``journals``) compare with this. The entries are made up: each has a
payload of its own size, filled with a byte that tells its sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.log import encode_configuration
from clusterconsensus.consensus.types import (
    NOWHERE,
    ZERO,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Position,
    Seat,
    Standing,
    incarnation,
)
from clusterconsensus.storage.journal import Journal

DISK_ID = "0123456789abcdef0123456789abcdef"
DIRECTORY = "/var/member"
SEGMENT_BYTES = 8192
"""Small, so that a few entries need several segments."""


def ballot(instance: int, member_id: str = "a") -> Ballot:
    """A ballot of a member whose disk is ``DISK_ID``."""
    return Ballot(instance, incarnation(member_id, DISK_ID))


def entry(
    seq: int, instance: int = 1, payload: bytes = b"", kind: EntryKind = EntryKind.CHANGES
) -> Entry:
    """An entry as the master of a ballot would make it."""
    return Entry.make(seq, ballot(instance), kind, 1000.0 + seq, payload)


def entries(first: int, count: int, instance: int = 1, size_bytes: int = 10) -> tuple[Entry, ...]:
    """Entries from the sequence ``first`` on, of equal size."""
    return tuple(
        entry(seq, instance, bytes([seq % 251 + 1]) * size_bytes)
        for seq in range(first, first + count)
    )


def configuration(seq: int, instance: int = 1) -> Entry:
    """An entry with a configuration of one member."""
    seat = Seat("a", DISK_ID, "127.0.0.1:1", Standing.VOTER)
    return entry(
        seq, instance, encode_configuration(Configuration((seat,), seq - 1)), EntryKind.CONFIG
    )


class Forgotten(msgspec.Struct, frozen=True):
    """The log was compacted: it begins behind ``base``."""

    base: Position


class Salvaged(msgspec.Struct, frozen=True):
    """The journal was damaged and began anew: the log begins behind ``base``, and is empty."""

    base: Position


Deed = Persist | Forgotten | Salvaged
"""What may happen to a journal."""


class Expected:
    """A log and a promise.

    Arguments:
        deeds: What has been appended since the journal was made, and done to it.
    """

    def __init__(self, deeds: Sequence[Deed] = ()) -> None:
        self.promised = ZERO
        self.base = NOWHERE
        self.entries: list[Entry] = []
        self.commit = 0
        self.recovering = False
        for deed in deeds:
            self.take(deed)

    @property
    def last_seq(self) -> int:
        """The last sequence of the log."""
        return self.base.seq + len(self.entries)

    def take(self, deed: Deed) -> None:
        """One thing more has happened."""
        if isinstance(deed, Forgotten):
            del self.entries[: deed.base.seq - self.base.seq]
            self.base = deed.base
            self.commit = max(self.commit, self.base.seq)
            return
        if isinstance(deed, Salvaged):
            self.base, self.entries, self.recovering = deed.base, [], True
            self.commit = deed.base.seq
            return
        if deed.promised is not None:
            self.promised = deed.promised
        if deed.truncate_from is not None:
            del self.entries[deed.truncate_from - 1 - self.base.seq :]
        if deed.base is not None:
            self.base, self.entries = deed.base, []
        self.entries += deed.entries
        if deed.recovering is not None:
            self.recovering = deed.recovering
        self.commit = max(self.commit, self.base.seq, min(deed.commit, self.last_seq))

    def copy(self) -> Expected:
        """The same, apart from this."""
        found = Expected()
        found.promised, found.entries, found.commit = self.promised, [*self.entries], self.commit
        found.base, found.recovering = self.base, self.recovering
        return found

    def compacted(self, seq: int) -> list[Forgotten]:
        """What compaction up to ``seq`` may leave, if it goes on and on: each place to begin."""
        return [
            Forgotten(Position(held.ballot, held.seq)) for held in self.entries if held.seq <= seq
        ]

    @property
    def runs(self) -> list[tuple[int, Ballot]]:
        """Where the ballot changes along the log: first sequence and ballot."""
        found: list[tuple[int, Ballot]] = []
        for held in self.entries:
            if not found or found[-1][1] != held.ballot:
                found.append((held.seq, held.ballot))
        return found

    def matches(self, journal: Journal) -> bool:
        """Whether a freshly opened journal holds exactly this."""
        recovered = journal.recovered
        return (
            recovered.promised == self.promised
            and recovered.base == journal.base == self.base
            and recovered.recovering == self.recovering
            and recovered.last_seq == self.last_seq
            and recovered.runs == self.runs
            and [kept.seq for kept in recovered.configurations]
            == [kept.seq for kept in self.entries if kept.kind == EntryKind.CONFIG]
            and read_all(journal) == self.entries
        )


def read_all(journal: Journal, max_bytes: int = 4000) -> list[Entry]:
    """All entries of a journal, read in pieces of about ``max_bytes``."""
    found: list[Entry] = []
    first = journal.base.seq + 1
    while more := journal.read(first, 1 << 60, max_bytes):
        found += more
        first = more[-1].seq + 1
    return found
