"""What a cluster has done, as far as one directory or one backup tells: a snapshot, or none, and
the entries behind it.

A directory's snapshot and its journal overlap. The snapshot is right where they differ: it holds
what is chosen, and a log that ends before it, or that has another entry at its position, belongs to
a member that had just received it (S4). Then the history ends with the snapshot.

Off line nothing can be asked. So a history also says what of it is known to be chosen, and, where
damage ends it, what was found there. Nothing is written, and no lock is taken.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import msgspec

from clusterconsensus.consensus.types import (
    NOWHERE,
    ZERO,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    SnapshotId,
)
from clusterconsensus.errors import DamagedError, SnapshotError, StorageError
from clusterconsensus.storage.files import Files
from clusterconsensus.storage.identity import Identity, read_identity
from clusterconsensus.storage.index import Reader
from clusterconsensus.storage.recovery import Scan
from clusterconsensus.storage.segments import segment_numbers
from clusterconsensus.storage.snapshot_files import examine, load_file, snapshot_names
from clusterconsensus.storage.snapshot_format import (
    READ_BYTES,
    Kind,
    SnapshotFile,
    SnapshotHead,
    Totals,
)

decode_configuration = msgspec.msgpack.Decoder(Configuration).decode

ReadEntries = Callable[[], Iterator[Entry]]


class History:
    """A snapshot, or none, and the entries behind it, which are read anew whenever they are asked
    for.

    Arguments:
        source: The directory or file, for people.
        head: Of the snapshot; at ``NOWHERE`` without one.
        snapshot_path: Its file, empty without one.
        read: Gives the entries behind ``head.position``, and perhaps more than belong to it.

    Attributes:
        last: The last entry.
        time: The replicated time there.
        configuration_seq, configuration: The newest configuration.
        highest_instance: Of all ballots that were seen.
        entry_count, payload_bytes: Of the entries behind the snapshot.
        known_seq: Everything up to here is known to be chosen.
        missing_seq: Everything up to here is known to be chosen, but not all of it is here; else 0.
        damage: What is damaged of the journal, with file and offset; empty if nothing is.
        damaged_snapshots: The same of snapshots.
        damaged_identity: The same of the identity.
        recovering: The member had lost something before, and had not got it back yet (W4).
        identity: Whose directory it is; None for a file, and where that cannot be read.
    """

    def __init__(
        self, files: Files, source: str, head: SnapshotHead, snapshot_path: str, read: ReadEntries
    ) -> None:
        self._files = files
        self._read = read
        self.source = source
        self.head = head
        self.snapshot_path = snapshot_path
        self.last = head.position
        self.time = head.time
        self.configuration_seq = head.configuration_seq
        self.configuration = head.configuration
        self.highest_instance = head.position.ballot.instance
        self.entry_count = 0
        self.payload_bytes = 0
        self.known_seq = head.position.seq
        self.missing_seq = 0
        self.damage = ""
        self.damaged_snapshots: list[str] = []
        self.damaged_identity = ""
        self.recovering = False
        self.identity: Identity | None = None

    def walk(self, last_seq: int | None = None) -> str:
        """Read and check the entries, up to a sequence or all of them, and find out where they
        end; what is wrong with the next one, empty if nothing is."""
        try:
            for entry in self._read():
                if last_seq is not None and entry.seq > last_seq:
                    break
                if problem := self._take(entry):
                    return f"{self.source}: the entry of sequence {entry.seq} {problem}"
        except DamagedError as error:
            return str(error)
        return ""

    def _take(self, entry: Entry) -> str:
        if entry.seq != self.last.seq + 1:
            return f"follows sequence {self.last.seq}"
        if entry.ballot < self.last.ballot:
            return f"has ballot {entry.ballot}, below {self.last.ballot} before it"
        if not entry.intact():
            return "was damaged before it was written (its own checksum does not fit)"
        if entry.kind == EntryKind.CONFIG:
            try:
                self.configuration = decode_configuration(entry.payload)
            except (msgspec.MsgspecError, RecursionError) as error:
                return f"holds no configuration: {error}"
            self.configuration_seq = entry.seq
        self.last = msgspec.structs.replace(self.last, ballot=entry.ballot, seq=entry.seq)
        self.time = max(self.time, entry.time)
        self.highest_instance = max(self.highest_instance, entry.ballot.instance)
        self.entry_count += 1
        self.payload_bytes += len(entry.payload)
        return ""

    def entries(self) -> Iterator[Entry]:
        """The entries behind the snapshot, up to ``last``.

        Raises:
            DamagedError: they are not what they were when they were checked.
        """
        if not self.entry_count:
            return
        seq = self.head.position.seq
        for entry in self._read():
            seq = entry.seq
            yield entry
            if seq == self.last.seq:
                return
        raise DamagedError(f"{self.source}: ends with sequence {seq}, not with {self.last.seq}")

    def content(self) -> tuple[list[bytes], Iterator[bytes]]:
        """The sessions and the state of the snapshot.

        Raises:
            DamagedError: from both, and while the state is read.
            SnapshotError: the file is gone.
        """
        if not self.snapshot_path:
            return [], iter(())
        try:
            _, sessions, reader = load_file(self._files, self.snapshot_path)
        except OSError as error:
            raise SnapshotError(f"{self.snapshot_path}: is gone: {error}") from error
        return sessions, iter(lambda: reader.read(READ_BYTES), b"")


# -- of a file


def of_file(files: Files, path: str) -> tuple[History, SnapshotId, Totals]:
    """Read and check a backup, or a snapshot file.

    Returns:
        The history, and of the file its size and checksum, and how much of each kind it holds.

    Raises:
        SnapshotError: there is no such file, or it may not be read.
        DamagedError: it is damaged, or no snapshot; names the offset.
        WrongDirectoryError: it has a format version of the future.
    """
    try:
        found, head, totals = examine(files, path)

        def read() -> Iterator[Entry]:
            file = SnapshotFile(files, path)
            for kind, content in file.items():
                if kind == Kind.ENTRY:
                    yield file.entry(content)

        history = History(files, path, head, path if head.position.seq else "", read)
        if damage := history.walk():
            raise DamagedError(damage)
    except OSError as error:
        raise SnapshotError(f"{path}: cannot be read: {error}") from error
    history.known_seq = history.last.seq
    return history, found, totals


# -- of a directory


def of_directory(files: Files, directory: str, *, known_only: bool = False) -> History:
    """Read and check what a directory holds, up to the first damage.

    Arguments:
        known_only: Leave out the entries of which it is not known whether they were chosen.

    Raises:
        StorageError: it is no member's directory, or cannot be read.
        DamagedError: nothing of it can be used.
        WrongDirectoryError: it has a format version of the future.
    """
    directory = directory.rstrip("/") or "/"
    try:
        names = files.list_directory(directory)
    except OSError as error:
        raise StorageError(f"directory {directory} cannot be read: {error}") from error
    snapshots = snapshot_names(names)
    identity: Identity | None = None
    damage = damaged_identity = ""
    try:
        identity = read_identity(files, directory)
    except DamagedError as error:
        damaged_identity = str(error)
    if identity is None and not snapshots and not segment_numbers(names):
        raise StorageError(
            damaged_identity or f"{directory} holds neither an identity nor a journal"
        )
    head, path, damaged_snapshots = _newest(files, directory, snapshots)
    scan = Scan(files, directory, identity.disk_id if identity is not None else None)
    try:
        scan.run()
    except DamagedError as error:
        damage = str(error)
    if not path and scan.base.seq:
        found = "; ".join(damaged_snapshots) or "there is none at all"
        raise DamagedError(
            f"{directory}: the log begins behind sequence {scan.base.seq}, and there is no whole "
            f"snapshot of what was before: {found}"
        )
    if head is None:
        head = _empty_head(identity)
    history = History(files, directory, head, path, _reading(files, directory, scan, head))
    known_seq = max(head.position.seq, scan.commit_hint)
    problem = history.walk(known_seq if known_only else None)
    history.damage = damage or problem
    history.damaged_snapshots = damaged_snapshots
    history.damaged_identity = damaged_identity
    history.recovering = scan.recovering
    history.identity = identity
    history.known_seq = min(known_seq, history.last.seq)
    history.missing_seq = known_seq if known_seq > history.last.seq else 0
    history.highest_instance = max(history.highest_instance, scan.promised.instance)
    return history


def _newest(
    files: Files, directory: str, names: list[str]
) -> tuple[SnapshotHead | None, str, list[str]]:
    """The newest whole snapshot, its path, and the damage of newer ones."""
    damage: list[str] = []
    for name in names:
        path = f"{directory}/{name}"
        try:
            _, head, _ = examine(files, path)
        except DamagedError as error:
            damage.append(str(error))
        except FileNotFoundError:
            continue  # a running member has removed it
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error}") from error
        else:
            return head, path, damage
    return None, "", damage


def _empty_head(identity: Identity | None) -> SnapshotHead:
    return SnapshotHead(
        cluster=identity.cluster if identity is not None else "",
        cluster_id=identity.cluster_id if identity is not None else "",
        member_id=identity.member_id if identity is not None else "",
        position=NOWHERE,
        configuration_seq=0,
        configuration=Configuration(),
        time=0.0,
        checksum=0,
    )


def _reading(files: Files, directory: str, scan: Scan, head: SnapshotHead) -> ReadEntries:
    """How to read the log behind the snapshot; none where it does not continue from it."""
    seq = head.position.seq
    reader = Reader(files, directory, scan.disk_id or "", scan.index, threading.Lock())

    def read() -> Iterator[Entry]:
        if _ballot_at(scan, seq) != head.position.ballot:
            return
        first = seq + 1
        while found := reader.read(first, scan.last_seq, READ_BYTES):
            yield from found
            first = found[-1].seq + 1

    return read


def _ballot_at(scan: Scan, seq: int) -> Ballot | None:
    if seq == scan.base.seq:
        return scan.base.ballot
    found: Ballot | None = None
    if scan.base.seq < seq <= scan.last_seq:
        for first, ballot in scan.runs:
            if first <= seq:
                found = ballot
    return found if seq else ZERO
