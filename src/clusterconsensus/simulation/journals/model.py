"""What a journal must hold after a sequence of units, computed in the plainest way.

The checks of the journal (``journals``) compare with this. The entries are made up: each has a
payload of its own size, filled with a byte that tells its sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.log import encode_configuration
from clusterconsensus.consensus.types import (
    ZERO,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
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


class Expected:
    """A log and a promise.

    Arguments:
        units: What has been appended since the journal was made.
    """

    def __init__(self, units: Sequence[Persist] = ()) -> None:
        self.promised = ZERO
        self.entries: list[Entry] = []
        self.commit = 0
        for unit in units:
            self.take(unit)

    def take(self, unit: Persist) -> None:
        """Append one more unit."""
        if unit.promised is not None:
            self.promised = unit.promised
        if unit.truncate_from is not None:
            del self.entries[unit.truncate_from - 1 :]
        self.entries += unit.entries
        self.commit = max(self.commit, min(unit.commit, len(self.entries)))

    def copy(self) -> Expected:
        """The same, apart from this."""
        found = Expected()
        found.promised, found.entries, found.commit = self.promised, [*self.entries], self.commit
        return found

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
            and recovered.last_seq == len(self.entries)
            and recovered.runs == self.runs
            and [kept.seq for kept in recovered.configurations]
            == [kept.seq for kept in self.entries if kept.kind == EntryKind.CONFIG]
            and read_all(journal) == self.entries
        )


def read_all(journal: Journal, max_bytes: int = 4000) -> list[Entry]:
    """All entries of a journal, read in pieces of about ``max_bytes``."""
    found: list[Entry] = []
    while more := journal.read(len(found) + 1, 1 << 60, max_bytes):
        found += more
    return found
