"""Who a directory is: its lock and its identity, which is written once.

A member is its id together with the id of its disk (I0). Both stand in the file ``identity``, with
the cluster it belongs to once it belongs to one. The file is small, checksummed, readable to
people, and only ever replaced as a whole: written under another name, synced, read back, renamed,
the directory synced (C-6). It is durable before the member says a word (D9).

What the journal promises holds for this identity only. So a journal without an identity is refused
(W6): whose promises these are cannot be known, and guessing could let a vote be cast twice. The
same holds the other way round: a member of a cluster whose journal is gone has forgotten its
promises, and must come back as a new one, with an empty directory and thus a new disk id.

The lock is a ``flock`` on the file ``lock``, which dies with the process however it ends. The file
stays; that it exists means nothing.
"""

from __future__ import annotations

import contextlib
from zlib import crc32

import msgspec

from clusterconsensus.errors import (
    BrokenInvariantError,
    DamagedError,
    DirectoryInUseError,
    DiskFullError,
    StorageError,
    StoragePoisonedError,
    WrongDirectoryError,
)
from clusterconsensus.storage.files import FileLock, Files, LockHeldError, is_full, parent_of
from clusterconsensus.storage.segments import segment_numbers

FORMAT_VERSION = 1
IDENTITY = "identity"
LOCK = "lock"


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a directory is.

    ``cluster_id`` is empty until the member belongs to a cluster, and never changes afterwards.
    ``founder`` tells that the cluster was founded here (I1).
    """

    format_version: int = FORMAT_VERSION
    cluster: str
    cluster_id: str = ""
    member_id: str
    disk_id: str
    founder: bool = False


class _Version(msgspec.Struct):
    format_version: int


class Directory:
    """A directory that this process holds. Made by ``open_directory``."""

    def __init__(self, files: Files, path: str, identity: Identity, lock: FileLock) -> None:
        self._files = files
        self._lock: FileLock | None = lock
        self._poison = ""
        self.path = path
        self.identity = identity

    def join(self, cluster_id: str) -> None:
        """Belong to a cluster from now on, durably. Repeating it changes nothing.

        The journal must have been opened before: a member of a cluster that has none is refused.

        Raises:
            WrongDirectoryError: it belongs to another cluster already.
            DiskFullError: nothing has changed.
            StoragePoisonedError: whether it has changed is not known.
        """
        self._become(cluster_id, self.identity.founder)

    def found(self, cluster_id: str) -> None:
        """Belong to a cluster that is founded here; otherwise as ``join``."""
        self._become(cluster_id, founder=True)

    def _become(self, cluster_id: str, founder: bool) -> None:
        if self._poison:
            raise StoragePoisonedError(self._poison)
        held = self.identity
        if not cluster_id:
            raise BrokenInvariantError(f"{self.path}: a cluster's id is never empty")
        if held.cluster_id and held.cluster_id != cluster_id:
            raise WrongDirectoryError(
                f"{self.path} belongs to cluster {held.cluster_id}, not to {cluster_id}"
            )
        if held.cluster_id:
            return
        identity = msgspec.structs.replace(held, cluster_id=cluster_id, founder=founder)
        try:
            if not segment_numbers(self._files.list_directory(self.path)):
                raise BrokenInvariantError(f"{self.path}: the journal must be made first (W6)")
            _write(self._files, self.path, identity)
        except OSError as error:
            self._poison = f"{self.path}: the identity cannot be written: {error}"
            raise StoragePoisonedError(self._poison) from error
        self.identity = identity

    def close(self) -> None:
        """Give the directory back."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None


def open_directory(
    files: Files, path: str, cluster: str, member_id: str, new_disk_id: str
) -> Directory:
    """Hold a directory, and learn or, in a new one, decide who it is.

    Arguments:
        cluster: The name of the cluster, as configured.
        member_id: The operator's name of the member.
        new_disk_id: The disk's id, if the directory is new; not used otherwise.

    Raises:
        DirectoryInUseError: another process holds it; names the directory and the process.
        WrongDirectoryError: it belongs to another member, cluster or format version.
        DamagedError: the identity is damaged or missing though there is a journal, or the journal
            of a cluster's member is missing (W6).
        DiskFullError: a new directory could not be written.
        StoragePoisonedError: a write or sync failed.
        StorageError: the path cannot be used: no permission, not a directory.
    """
    path = path.rstrip("/") or "/"
    try:
        _make_directory(files, path)
        lock = files.lock(f"{path}/{LOCK}")
    except LockHeldError as error:
        holder = f"process {error.holder}" if error.holder else "another process"
        raise DirectoryInUseError(f"directory {path} is in use by {holder}") from None
    except OSError as error:
        if is_full(error):
            raise DiskFullError(f"directory {path}: {error}") from error
        raise StorageError(f"directory {path} cannot be opened: {error}") from error
    try:
        identity = read_identity(files, path)
        if identity is None:
            if not new_disk_id:
                raise BrokenInvariantError(f"{path}: a disk's id is never empty")
            identity = Identity(cluster=cluster, member_id=member_id, disk_id=new_disk_id)
            # The directory's own name may not be durable yet.
            files.sync_directory(parent_of(path))
            _write(files, path, identity)
        else:
            # A crash may have come between the rename and the sync of the directory.
            files.sync_directory(path)
        _check(path, identity, cluster, member_id)
        return Directory(files, path, identity, lock)
    except BaseException as error:
        lock.release()
        if isinstance(error, OSError):
            raise StoragePoisonedError(
                f"directory {path}: the identity cannot be made durable: {error}"
            ) from error
        raise


def _make_directory(files: Files, path: str) -> None:
    missing = []
    while not files.is_directory(path):
        missing.append(path)
        if path == parent_of(path):
            break
        path = parent_of(path)
    for path in reversed(missing):
        files.make_directory(path)
        files.sync_directory(parent_of(path))


def _check(path: str, identity: Identity, cluster: str, member_id: str) -> None:
    if identity.cluster != cluster:
        raise WrongDirectoryError(
            f"directory {path} belongs to cluster {identity.cluster!r}; {cluster!r} was expected"
        )
    if identity.member_id != member_id:
        raise WrongDirectoryError(
            f"directory {path} belongs to member {identity.member_id!r} of cluster {cluster!r}; "
            f"{member_id!r} was expected"
        )


def read_identity(files: Files, path: str) -> Identity | None:
    """The identity of a directory, None for one that never had any.

    Raises:
        DamagedError: it is damaged, or lost, or the journal is lost (W6).
        WrongDirectoryError: it has another format version.
        StorageError: it cannot be read.
    """
    try:
        return _read(files, path)
    except OSError as error:
        raise StorageError(f"directory {path} cannot be read: {error}") from error


def _read(files: Files, path: str) -> Identity | None:
    names = files.list_directory(path)
    has_journal = bool(segment_numbers(names))
    file = f"{path}/{IDENTITY}"
    if IDENTITY not in names:
        if has_journal:
            raise DamagedError(
                f"{file} is missing though {path} holds a journal: whose promises it keeps "
                "cannot be known. Let this member come back with an empty directory, as a new one, "
                "and have it added again"
            )
        return None
    identity = _decode(file, files.read(file))
    if identity.cluster_id and not has_journal:
        raise DamagedError(
            f"{path} holds no journal though it belongs to cluster {identity.cluster!r} "
            f"({identity.cluster_id}): what this member promised is lost. Let it come back with an "
            "empty directory, as a new one, and have it added again"
        )
    return identity


def _encode(identity: Identity) -> bytes:
    line = msgspec.json.encode(identity) + b"\n"
    return line + f"{crc32(line):08x}\n".encode()


def _decode(file: str, data: bytes) -> Identity:
    line, newline, rest = data.partition(b"\n")
    if rest != f"{crc32(line + newline):08x}\n".encode():
        raise DamagedError(f"{file}: the identity is damaged (its checksum does not fit)")
    try:
        version = msgspec.json.decode(line, type=_Version).format_version
        if version != FORMAT_VERSION:
            raise WrongDirectoryError(
                f"{file} has format version {version}; this program reads version {FORMAT_VERSION}"
            )
        return msgspec.json.decode(line, type=Identity)
    except msgspec.DecodeError as error:
        raise DamagedError(f"{file}: the identity is damaged: {error}") from error


def write_identity(files: Files, path: str, identity: Identity) -> None:
    """Say for the first time who a directory is, durably. For whoever makes one as a whole, as its
    last step; a member learns its own by ``open_directory``.

    Raises:
        DiskFullError: nothing has changed.
        StoragePoisonedError: whether it has changed is not known.
    """
    try:
        _write(files, path, identity)
    except OSError as error:
        raise StoragePoisonedError(f"{path}: the identity cannot be written: {error}") from error


def _write(files: Files, path: str, identity: Identity) -> None:
    """Replace the identity, atomically and durably (D9)."""
    file, temporary = f"{path}/{IDENTITY}", f"{path}/{IDENTITY}.new"
    data = _encode(identity)
    try:
        target = files.create(temporary)
        try:
            target.pwrite(data, 0)
            target.datasync()
        finally:
            target.close()
    except OSError as error:
        if not is_full(error):
            raise
        with contextlib.suppress(OSError):
            files.remove(temporary)
        raise DiskFullError(f"{file}: cannot be written: {error}") from error
    if files.read(temporary) != data:
        raise StoragePoisonedError(f"{temporary}: reads back other than it was written")
    files.rename(temporary, file)
    files.sync_directory(path)
