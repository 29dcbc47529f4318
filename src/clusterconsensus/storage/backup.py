"""Backups, and what an operator does with them: all off line, from files.

A backup is one file: a snapshot and, behind it, the log up to what the member knew to be chosen
(``snapshot_format``). It is taken from the directory of a member that runs or does not run, without
its lock and without writing there. It holds state and log and no promise, so it can never become
the old member again: ``restore`` begins a new cluster with it (``rebuilding``).

``recover`` does the same with what is left of a directory after a majority is gone for good (M9). A
single member cannot tell what the others had acknowledged, so this may lose changes that clients
were told were done, and may keep some that were never chosen. ``survey`` says first what is known.
"""

from __future__ import annotations

import contextlib

import msgspec

from clusterconsensus.consensus.types import Member
from clusterconsensus.errors import (
    DamagedError,
    DirectoryInUseError,
    DiskFullError,
    SnapshotError,
    StorageError,
)
from clusterconsensus.storage.files import Files, is_full, parent_of
from clusterconsensus.storage.history import History, of_directory, of_file
from clusterconsensus.storage.identity import LOCK
from clusterconsensus.storage.rebuilding import (
    SEGMENT_BYTES,
    NewCluster,
    Rebuilt,
    rebuild,
    seats,
)
from clusterconsensus.storage.snapshot_files import SYNC_BYTES
from clusterconsensus.storage.snapshot_format import encode

LIVE_ATTEMPTS = 5
"""A reading beside a running member may meet a write or a removal; then it is repeated."""


class BackupReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup or a snapshot file holds. ``snapshot_seq`` is 0 without a snapshot;
    ``first_seq`` and ``last_seq`` are those of the entries behind it, ``last_seq`` that of the
    snapshot if there are none. ``time`` is the replicated time at ``last_seq``, in seconds since
    the Unix epoch."""

    file: str
    size_bytes: int
    crc: int
    format_version: int
    cluster: str
    cluster_id: str
    member_id: str
    level: int
    snapshot_seq: int
    snapshot_instance: int
    snapshot_owner: str
    sessions: int
    state_bytes: int
    entries: int
    entry_bytes: int
    first_seq: int
    last_seq: int
    time: float
    configuration_seq: int
    members: list[str]


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """What can be recovered from a directory, and what cannot.

    Arguments:
        last_seq: What is recovered ends here.
        known_seq: Everything up to here is known to have been chosen.
        unknown: How many entries behind ``known_seq`` may have been chosen or not. They are kept.
        missing_seq: Everything up to here was chosen, but what is behind ``last_seq`` is lost; 0
            if nothing is known to be lost.
        damage: What is damaged, with file and offset.
        recovering: The member had lost something before and had not got it back: what the others
            acknowledged since may be missing anywhere behind its snapshot.
        time: The replicated time at ``last_seq``, in seconds since the Unix epoch. Changes that
            were made later are lost.
        given_up: The members of the old cluster. None of them may ever be started again.
    """

    directory: str
    cluster: str
    cluster_id: str
    member_id: str
    disk_id: str
    snapshot_seq: int
    last_seq: int
    last_instance: int
    last_owner: str
    known_seq: int
    unknown: int
    missing_seq: int
    damage: list[str]
    recovering: bool
    time: float
    configuration_seq: int
    given_up: list[str]


# -- making and looking at backups


def save(files: Files, directory: str, target: str) -> BackupReport:
    """Write a backup of a directory, whose member may run.

    **Consistency:** it holds everything that the member knew to be chosen at its last write. A
    running member notes what is chosen with its next write, and where there is none within a second
    or two by itself; so the very latest changes may be missing. A follower hears of them a
    heartbeat later than the master. Stopping in good order leaves none out.

    Arguments:
        target: The file to write; there must be none.

    Returns:
        What was written, read back from the file.

    Raises:
        SnapshotError: there is something at ``target``, or it cannot be written, or there is
            nothing to save.
        DiskFullError: no space for it. There is no file.
        DamagedError: the directory is damaged; ``recover`` takes what is left.
        StorageError: it is not a directory of ours, or cannot be read.
    """
    _refuse_existing(files, target)
    live = bool(files.lock_holder(f"{directory.rstrip('/')}/{LOCK}"))
    attempts = LIVE_ATTEMPTS if live else 1
    for attempt in range(attempts):
        try:
            return _save(files, directory, target)
        except (SnapshotError, StorageError) as error:
            if isinstance(error, DiskFullError) or attempt == attempts - 1:
                raise
    raise AssertionError("the last attempt returns or raises")


def _refuse_existing(files: Files, target: str) -> None:
    try:
        if not files.is_directory(target):
            files.size(target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SnapshotError(f"{target}: cannot be written: {error}") from error
    raise SnapshotError(f"{target}: exists already and is not overwritten")


def _save(files: Files, directory: str, target: str) -> BackupReport:
    history = of_directory(files, directory, known_only=True)
    if history.damage or history.damaged_identity:
        raise DamagedError(history.damage or history.damaged_identity)
    if history.missing_seq:
        raise DamagedError(
            f"{directory}: sequences up to {history.missing_seq} are known to be chosen, but only "
            f"those up to {history.last.seq} are there"
        )
    if not history.last.seq:
        raise SnapshotError(f"{directory}: holds nothing yet that could be saved")
    temporary = f"{target}.new"
    try:
        _write(files, history, temporary)
        report = inspect_backup(files, temporary)
        if report.last_seq != history.last.seq:
            raise SnapshotError(f"{temporary}: reads back other than it was written")
        files.rename(temporary, target)
        files.sync_directory(parent_of(target))
    except BaseException as error:
        with contextlib.suppress(OSError):
            files.remove(temporary)
        if isinstance(error, OSError):
            text = f"{target}: the backup cannot be written: {error}"
            raise (DiskFullError if is_full(error) else SnapshotError)(text) from error
        raise
    return msgspec.structs.replace(report, file=target)


def _write(files: Files, history: History, path: str) -> None:
    sessions, state = history.content()
    file = files.create(path)
    try:
        offset = unsynced = 0
        for part in encode(history.head, sessions, state, history.entries()):
            file.pwrite(part, offset)
            offset += len(part)
            unsynced += len(part)
            if unsynced >= SYNC_BYTES:
                file.datasync()
                unsynced = 0
        file.datasync()
    finally:
        file.close()


def inspect_backup(files: Files, path: str) -> BackupReport:
    """Read and check a whole backup or snapshot file.

    Raises:
        SnapshotError: there is no such file, or it may not be read.
        DamagedError: it is damaged, or no snapshot; names the offset.
        WrongDirectoryError: it has a format version of the future.
    """
    history, found, totals = of_file(files, path)
    head = history.head
    return BackupReport(
        file=path,
        size_bytes=found.size_bytes,
        crc=found.crc,
        format_version=head.format_version,
        cluster=head.cluster,
        cluster_id=head.cluster_id,
        member_id=head.member_id,
        level=head.level,
        snapshot_seq=head.position.seq,
        snapshot_instance=head.position.ballot.instance,
        snapshot_owner=head.position.ballot.owner,
        sessions=totals.sessions,
        state_bytes=totals.state_bytes,
        entries=history.entry_count,
        entry_bytes=history.payload_bytes,
        first_seq=head.position.seq + 1 if history.entry_count else 0,
        last_seq=history.last.seq,
        time=history.time,
        configuration_seq=history.configuration_seq,
        members=seats(history.configuration),
    )


# -- beginning a new cluster


def restore(
    files: Files,
    source: str,
    directory: str,
    *,
    cluster: str,
    member: Member,
    cluster_id: str,
    disk_id: str,
    segment_bytes: int = SEGMENT_BYTES,
) -> Rebuilt:
    """Make the directory of a new cluster from a backup. Its only voter is ``member``; others are
    added once it runs.

    A crash or an error leaves no directory with which a member would start.

    Arguments:
        source: The backup, or a snapshot file.
        directory: Empty, or not there; its parent is.
        cluster: The new cluster's name; may be the old one.
        cluster_id: A fresh id.
        disk_id: A fresh id.
        segment_bytes: The size of the journal's segments.

    Raises:
        DirectoryNotEmptyError: something is in the directory.
        DirectoryInUseError: another process holds it.
        SnapshotError: the backup cannot be read, or holds no cluster.
        DamagedError: the backup is damaged; names the offset.
        DiskFullError: no space. What was made is removed.
        StorageError: the directory cannot be made. What was made is removed.
    """
    history, _, _ = of_file(files, source)
    new = NewCluster(cluster=cluster, cluster_id=cluster_id, member=member, disk_id=disk_id)
    return rebuild(files, history, directory, new, segment_bytes)


def survey(files: Files, directory: str) -> Survey:
    """What ``recover`` could get from a directory. Changes nothing.

    Raises:
        DirectoryInUseError: a process holds the directory: its member lives.
        DamagedError: nothing can be recovered from it.
        StorageError: it is not a directory of ours, or cannot be read.
    """
    history = _remains(files, directory)
    identity = history.identity
    last = history.last
    damage = [history.damaged_identity, history.damage, *history.damaged_snapshots]
    return Survey(
        directory=history.source,
        cluster=history.head.cluster,
        cluster_id=history.head.cluster_id,
        member_id=identity.member_id if identity is not None else history.head.member_id,
        disk_id=identity.disk_id if identity is not None else "",
        snapshot_seq=history.head.position.seq,
        last_seq=last.seq,
        last_instance=last.ballot.instance,
        last_owner=last.ballot.owner,
        known_seq=history.known_seq,
        unknown=last.seq - history.known_seq,
        missing_seq=history.missing_seq,
        damage=[found for found in damage if found],
        recovering=history.recovering,
        time=history.time,
        configuration_seq=history.configuration_seq,
        given_up=seats(history.configuration),
    )


def _remains(files: Files, directory: str) -> History:
    directory = directory.rstrip("/") or "/"
    holder = files.lock_holder(f"{directory}/{LOCK}")
    if holder:
        raise DirectoryInUseError(
            f"directory {directory} is in use by process {holder}: its member lives"
        )
    history = of_directory(files, directory)
    if not history.configuration.seats:
        problem = history.damage or "it has never belonged to a cluster"
        raise DamagedError(f"{directory}: nothing can be recovered: {problem}")
    return history


def recover(
    files: Files,
    source: str,
    directory: str,
    *,
    cluster: str,
    member: Member,
    cluster_id: str,
    disk_id: str,
    segment_bytes: int = SEGMENT_BYTES,
) -> Rebuilt:
    """Make the directory of a new cluster from what is left of an old one, when the majority of its
    members is gone for good (M9). Otherwise as ``restore``.

    Everything that is whole before the first damage is kept, also entries of which it is not known
    whether they were chosen; see ``survey``. The source is not changed.

    Arguments:
        source: The directory of a member that does not run; it may be damaged.

    Raises:
        as ``restore`` and ``survey``.
    """
    history = _remains(files, source)
    new = NewCluster(cluster=cluster, cluster_id=cluster_id, member=member, disk_id=disk_id)
    return rebuild(files, history, directory, new, segment_bytes)


__all__ = (
    "BackupReport",
    "Rebuilt",
    "Survey",
    "inspect_backup",
    "recover",
    "restore",
    "save",
    "survey",
)
