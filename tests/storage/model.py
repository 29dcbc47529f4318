"""What a journal must hold after a sequence of units, computed in the plainest way."""

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
from clusterconsensus.storage.files import Files
from clusterconsensus.storage.identity import open_directory
from clusterconsensus.storage.journal import Journal

DISK = "0123456789abcdef0123456789abcdef"
PATH = "/var/member"
SMALL_BYTES = 8192


def ballot(instance: int, member: str = "a") -> Ballot:
    return Ballot(instance, incarnation(member, DISK))


def entry(
    seq: int, instance: int = 1, payload: bytes = b"", kind: EntryKind = EntryKind.CHANGES
) -> Entry:
    return Entry.make(seq, ballot(instance), kind, 1000.0 + seq, payload)


def entries(first: int, count: int, instance: int = 1, size: int = 10) -> tuple[Entry, ...]:
    return tuple(
        entry(seq, instance, bytes([seq % 251 + 1]) * size) for seq in range(first, first + count)
    )


def configuration(seq: int, instance: int = 1) -> Entry:
    seat = Seat("a", DISK, "127.0.0.1:1", Standing.VOTER)
    return entry(
        seq, instance, encode_configuration(Configuration((seat,), seq - 1)), EntryKind.CONFIG
    )


class Expected:
    """A log and a promise."""

    def __init__(self, units: Sequence[Persist] = ()) -> None:
        self.promised = ZERO
        self.entries: list[Entry] = []
        self.commit = 0
        for unit in units:
            self.take(unit)

    def take(self, unit: Persist) -> None:
        if unit.promised is not None:
            self.promised = unit.promised
        if unit.truncate_from is not None:
            del self.entries[unit.truncate_from - 1 :]
        self.entries += unit.entries
        self.commit = max(self.commit, min(unit.commit, len(self.entries)))

    @property
    def runs(self) -> list[tuple[int, Ballot]]:
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


def read_all(journal: Journal, max_bytes: int = 1000) -> list[Entry]:
    found: list[Entry] = []
    while more := journal.read(len(found) + 1, 1 << 60, max_bytes):
        found += more
    return found


def open_journal(
    files: Files, path: str = PATH, segment_bytes: int = SMALL_BYTES, paranoid: bool = False
) -> Journal:
    """A journal whose directory nobody holds: enough where one test is alone."""
    return Journal.open(files, path, disk_id=DISK, segment_bytes=segment_bytes, paranoid=paranoid)


def make_directory(files: Files, path: str = PATH) -> None:
    """A directory with an identity."""
    open_directory(files, path, "shop", "a", DISK).close()
