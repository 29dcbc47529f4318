"""The port to the file system: every operation the storage layer performs goes through here.

Everything above this module (identity, journal, inspection) speaks to a ``Files`` and never to the
operating system, for one reason: the interesting properties of a store are what it does when a
write is torn, a sync fails or the disk is full, and no real disk does these on demand. Tests and
the simulator put a disk of their own under the unchanged code.

Paths are plain strings, joined with ``/``. Operations raise ``OSError`` and nothing else; what an
error means (refusal, poison, damage) is decided by the callers. There is no memory mapping
anywhere, so a full or failing disk can never be a SIGBUS.

Three levels of durability must not be confused. ``pwrite`` alone promises nothing. ``datasync``
makes written bytes and whatever is needed to read them durable. The *name* of a file, though,
belongs to its directory: a created, renamed or removed file is durable only after
``sync_directory`` (C-6).
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import Protocol

ZEROS = bytes(1024 * 1024)
"""What files are filled with ahead of use, a piece at a time."""

_READ_AT_MOST = 1024 * 1024 * 1024


class LockHeldError(Exception):
    """Somebody else holds the lock; ``holder`` is what they wrote into it: a process id, or empty
    if they have not written it yet."""

    def __init__(self, holder: str) -> None:
        super().__init__(f"held by {holder or 'another process'}")
        self.holder = holder


class WritableFile(Protocol):
    """A file opened for writing."""

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        """Write all of ``data`` at ``offset`` in bytes. Promises nothing about durability.

        Raises:
            OSError: some prefix of the data, or none, or any part of it, may have been written.
        """
        ...

    def datasync(self) -> None:
        """Make everything written so far durable, with what is needed to read it.

        Raises:
            OSError: nothing is known about any write since the last success. Calling it again
                proves nothing (W2).
        """
        ...

    def close(self) -> None:
        """Give the file back. Does not sync and does not raise."""
        ...


class FileLock(Protocol):
    """An exclusive lock that is held."""

    def release(self) -> None:
        """Give the lock back. Does not raise."""
        ...


class Files(Protocol):
    """The file operations that storage needs.

    One thread changes a directory; others may ``read`` and ask ``size`` meanwhile.
    """

    def make_directory(self, path: str) -> bool:
        """Make one directory, whose parent exists; False if it was there already."""
        ...

    def is_directory(self, path: str) -> bool:
        """Whether the path is a directory."""
        ...

    def list_directory(self, path: str) -> list[str]:
        """The names in a directory, sorted."""
        ...

    def sync_directory(self, path: str) -> None:
        """Make the names in a directory durable."""
        ...

    def size(self, path: str) -> int:
        """The size of a file in bytes."""
        ...

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        """Up to ``size`` bytes (all, without it) from ``offset``; fewer only at the file's end."""
        ...

    def create(self, path: str) -> WritableFile:
        """Create a file, or empty the one that exists, and open it for writing."""
        ...

    def open(self, path: str) -> WritableFile:
        """Open an existing file for writing; its content stays."""
        ...

    def rename(self, source: str, target: str) -> None:
        """Rename atomically, replacing ``target``."""
        ...

    def remove(self, path: str) -> None:
        """Remove a file."""
        ...

    def free_bytes(self, path: str) -> int:
        """How many bytes may still be written to the file system of a directory."""
        ...

    def lock(self, path: str) -> FileLock:
        """Take an exclusive lock without waiting and leave this process's id in the file.

        The lock dies with the process, however it ends.

        Raises:
            LockHeldError: somebody holds it.
        """
        ...

    def lock_holder(self, path: str) -> str:
        """Who seems to hold a lock, empty if nobody does. Takes nothing, changes nothing, and may
        be out of date as soon as it returns."""
        ...


def parent_of(path: str) -> str:
    """The directory a path is in."""
    return os.path.dirname(path.rstrip("/")) or ("/" if path.startswith("/") else ".")


def is_full(error: OSError) -> bool:
    """Whether an error says that there is no space: on the disk, or in this user's share of it."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


class _RealFile:
    """A file descriptor. Retries what was interrupted or short, never what failed."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        written = os.pwrite(self._descriptor, data, offset)
        if written == len(data):
            return
        rest = memoryview(data).cast("B")
        while written < len(rest):
            more = os.pwrite(self._descriptor, rest[written:], offset + written)
            if more <= 0:
                raise OSError(errno.EIO, "a write made no progress")
            written += more

    def datasync(self) -> None:
        os.fdatasync(self._descriptor)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            # What mattered was synced before; a close that fails has closed all the same.
            with contextlib.suppress(OSError):
                os.close(descriptor)


class _RealLock:
    """A ``flock`` of this process."""

    __slots__ = ("_descriptor",)

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, 0)
            with contextlib.suppress(OSError):
                os.close(descriptor)


class RealFiles:
    """The operating system's files (POSIX)."""

    def make_directory(self, path: str) -> bool:
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            return False
        return True

    def is_directory(self, path: str) -> bool:
        return os.path.isdir(path)

    def list_directory(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def sync_directory(self, path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def size(self, path: str) -> int:
        return os.stat(path).st_size

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            wanted = os.fstat(descriptor).st_size - offset if size is None else size
            data = os.pread(descriptor, max(0, min(wanted, _READ_AT_MOST)), offset)
            if len(data) == wanted or not data:
                return data
            pieces = [data]
            got = len(data)
            while got < wanted and (data := os.pread(descriptor, wanted - got, offset + got)):
                pieces.append(data)
                got += len(data)
            return b"".join(pieces)
        finally:
            os.close(descriptor)

    def create(self, path: str) -> WritableFile:
        return _RealFile(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))

    def open(self, path: str) -> WritableFile:
        return _RealFile(os.open(path, os.O_WRONLY))

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def remove(self, path: str) -> None:
        os.remove(path)

    def free_bytes(self, path: str) -> int:
        found = os.statvfs(path)
        return found.f_bavail * found.f_frsize

    def lock(self, path: str) -> FileLock:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            try:
                if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
                    raise LockHeldError(_holder(os.pread(descriptor, 64, 0))) from None
                raise
            finally:
                os.close(descriptor)
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError:
            os.close(descriptor)
            raise
        return _RealLock(descriptor)

    def lock_holder(self, path: str) -> str:
        # Trying the lock would refuse a participant that starts in this very moment.
        try:
            holder = _holder(self.read(path, 0, 64))
            if holder:
                os.kill(int(holder), 0)
        except PermissionError:
            return holder  # it lives, under another user
        except (OSError, ValueError, OverflowError):
            return ""
        return holder


def _holder(data: bytes) -> str:
    return data.decode("ascii", "replace").strip()
