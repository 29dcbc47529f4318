"""From a history to a new directory: the beginning of a new cluster, whose only voter owns it.

Nothing of the old cluster may ever speak to the new one, and nothing of the new one may be mistaken
for the old: it has a new cluster's id, and the member a new disk's id. Its log continues the old
one, so that sequences (fencing tokens) go on: all entries of the history, and behind them one
CONFIG entry in a ballot above every one that was seen, which gives the one vote there is to the new
member and takes the places of all others, for good (I3). That entry decides, and not what stands
in the snapshot's head: a head says what was in force at its position, and a reader who replays from
there comes to the entry by itself. What is durable at the only voter is chosen, so all of it is
marked so.

The identity is written last. A directory that holds a journal and no identity is refused by every
start (W6): a crash, whenever it comes, leaves a directory that is empty, or refused, or finished.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import msgspec

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.log import encode_configuration
from clusterconsensus.consensus.types import (
    MAX_REMOVED,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Member,
    Position,
    Seat,
    Standing,
    incarnation,
)
from clusterconsensus.errors import (
    BrokenInvariantError,
    DirectoryInUseError,
    DirectoryNotEmptyError,
    DiskFullError,
    SnapshotError,
    StorageError,
)
from clusterconsensus.settings import Settings
from clusterconsensus.storage.files import FileLock, Files, LockHeldError, is_full, parent_of
from clusterconsensus.storage.history import History, of_directory
from clusterconsensus.storage.identity import LOCK, Identity, write_identity
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.snapshots import SnapshotStore

UNIT_BYTES = 1024 * 1024
"""About how much payload one unit of the new journal holds."""
SEGMENT_BYTES = Settings().segment_bytes


class NewCluster(msgspec.Struct, frozen=True, kw_only=True):
    """Who the new directory is. The two ids must never have been used."""

    cluster: str
    cluster_id: str
    member: Member
    disk_id: str


class Rebuilt(msgspec.Struct, frozen=True, kw_only=True):
    """What was made. ``last_seq`` is the sequence of the new configuration; ``given_up`` names the
    members that have no place in it."""

    directory: str
    cluster: str
    cluster_id: str
    member: Member
    disk_id: str
    snapshot_seq: int
    last_seq: int
    given_up: list[str]


def rebuild(
    files: Files,
    history: History,
    directory: str,
    new: NewCluster,
    segment_bytes: int = SEGMENT_BYTES,
) -> Rebuilt:
    """Make a directory that continues a history. See ``backup.restore``."""
    if not history.configuration.seats:
        raise SnapshotError(f"{history.source}: holds nothing that could be restored")
    directory = directory.rstrip("/") or "/"
    lock = _take(files, directory)
    try:
        try:
            last = _build(files, history, directory, new, segment_bytes)
        except BaseException:
            _clear(files, directory)
            raise
    except OSError as error:
        raise _refusal(directory, error) from error
    finally:
        lock.release()
    return Rebuilt(
        directory=directory,
        cluster=new.cluster,
        cluster_id=new.cluster_id,
        member=new.member,
        disk_id=new.disk_id,
        snapshot_seq=history.head.position.seq,
        last_seq=last.seq,
        given_up=seats(history.configuration),
    )


def seats(configuration: Configuration) -> list[str]:
    """The members of a configuration, for people."""
    return [f"{seat.id} ({seat.address}) {seat.standing}" for seat in configuration.seats]


def _refusal(directory: str, error: OSError) -> StorageError:
    text = f"directory {directory} cannot be made: {error}"
    return DiskFullError(text) if is_full(error) else StorageError(text)


def _take(files: Files, directory: str) -> FileLock:
    """Make the directory, or take the empty one that is there, and hold it."""
    try:
        if files.make_directory(directory):
            files.sync_directory(parent_of(directory))
        if [name for name in files.list_directory(directory) if name != LOCK]:
            raise DirectoryNotEmptyError(
                f"directory {directory} is not empty: a new cluster needs a directory of its own"
            )
        return files.lock(f"{directory}/{LOCK}")
    except LockHeldError as error:
        raise DirectoryInUseError(
            f"directory {directory} is in use by process {error.holder}"
        ) from None
    except OSError as error:
        raise _refusal(directory, error) from error


def _clear(files: Files, directory: str) -> None:
    """Remove what was made, the journal last: until then every start refuses the directory."""
    with contextlib.suppress(OSError):
        names = files.list_directory(directory)
        for name in sorted(names, key=lambda name: name.startswith("journal-")):
            files.remove(f"{directory}/{name}")
        files.sync_directory(directory)


def _build(
    files: Files, history: History, directory: str, new: NewCluster, segment_bytes: int
) -> Position:
    journal = Journal.open(files, directory, disk_id=new.disk_id, segment_bytes=segment_bytes)
    position = history.head.position
    base = position if position.seq else None
    for number, entries in enumerate(_units(history.entries())):
        journal.append([Persist(number, entries=entries, commit=entries[-1].seq, base=base)])
        base = None
    last = _configuration_entry(history, new)
    journal.append([Persist(0, promised=last.ballot, entries=(last,), commit=last.seq, base=base)])
    journal.close(last.seq)
    if position.seq:
        sessions, state = history.content()
        head = msgspec.structs.replace(
            history.head,
            cluster=new.cluster,
            cluster_id=new.cluster_id,
            member_id=new.member.id,
        )
        SnapshotStore(files, directory).write(head, sessions, state)
    _check(files, directory, history, last)
    identity = Identity(
        cluster=new.cluster,
        cluster_id=new.cluster_id,
        member_id=new.member.id,
        disk_id=new.disk_id,
        founder=True,
    )
    write_identity(files, directory, identity)
    return Position(last.ballot, last.seq)


def _units(entries: Iterator[Entry]) -> Iterator[tuple[Entry, ...]]:
    """Entries in units of about ``UNIT_BYTES``."""
    unit: list[Entry] = []
    size = 0
    for entry in entries:
        unit.append(entry)
        size += len(entry.payload) + 64
        if size >= UNIT_BYTES:
            yield tuple(unit)
            unit, size = [], 0
    if unit:
        yield tuple(unit)


def _configuration_entry(history: History, new: NewCluster) -> Entry:
    """The entry that makes the new member the only one."""
    before = history.configuration
    name = incarnation(new.member.id, new.disk_id)
    seat = Seat(new.member.id, new.disk_id, new.member.address, Standing.VOTER)
    removed = (*before.removed, *before.everyone)
    if name in removed:
        raise BrokenInvariantError(f"{history.source}: {name} has been a member before (I0)")
    after = Configuration((seat,), history.configuration_seq, None, removed[-MAX_REMOVED:])
    return Entry.make(
        history.last.seq + 1,
        Ballot(history.highest_instance + 1, name),
        EntryKind.CONFIG,
        history.time,
        encode_configuration(after),
    )


def _check(files: Files, directory: str, history: History, last: Entry) -> None:
    """Read back what was made."""
    found = of_directory(files, directory)
    if (
        found.damage
        or found.damaged_snapshots
        or found.last != Position(last.ballot, last.seq)
        or found.known_seq != last.seq
        or found.head.position != history.head.position
        or found.configuration.everyone != (last.ballot.owner,)
    ):
        raise StorageError(
            f"directory {directory}: reads back other than it was written: {found.last} "
            f"{found.damage}"
        )
