"""The disk of one simulated machine, under the ``Files`` port.

What a program has written is in three places. Readers see the page cache. The platter holds what
survives a power failure. In between stand the writes since a file's last sync and the changes of
names since a directory's last sync: of these a power failure keeps what it likes, in any order,
and of a write any of its sectors. So each file keeps its *cached* and its *durable* bytes and the
list of unsynced writes that leads from the one to the other, and a sync costs what was written and
never what the file holds.

A process that dies loses its locks and its open files and nothing else: what it left in the page
cache is still read by the next one, and still not durable.

The disk is also where faults come from. An operation may be made to fail, a sync to forget what it
should have made durable while readers go on seeing it (C-5), the space to end, a bit to rot, a
block to be overwritten, the whole disk to be replaced by an older image, or to lie.

Everything is decided by the caller and the ``random.Random`` that it passes; one disk is used by
one thread at a time. Which disks *could* be found after a power failure is enumerated by ``power``.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

from clusterconsensus.simulation.world.content import Change, Content, Image, put, survivors
from clusterconsensus.storage.files import FileLock, LockHeldError, WritableFile, parent_of

HOLDER = "simulated"
"""Who holds a lock, as ``lock_holder`` tells."""

UNLIMITED_BYTES = 1 << 40


class PowerFailure(BaseException):
    """The process has ceased to be in the middle of an operation. Nothing may catch it but the
    simulator, so it is no ``Exception``."""


class DiskFile:
    """A file opened for writing. Dies with the process that opened it."""

    __slots__ = ("_closed", "_content", "_disk", "_path", "_process")

    def __init__(self, disk: Disk, path: str, content: Content) -> None:
        self._disk = disk
        self._path = path
        self._content = content
        self._process = disk.process
        self._closed = False

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        disk, content, written = self._disk, self._content, bytes(data)
        self._check()
        disk.begin("pwrite", self._path)
        grows = offset + len(written) - len(content.cached)
        if grows > 0 and grows > (space := disk.space_bytes()):
            written = written[: max(0, len(written) - grows + space)]
            content.writes.append((offset, written))
            put(content.cached, offset, written)
            raise OSError(errno.ENOSPC, "no space left on device", self._path)
        content.writes.append((offset, written))
        put(content.cached, offset, written)

    def datasync(self) -> None:
        disk, content = self._disk, self._content
        self._check()
        disk.begin("datasync", self._path, content)
        if disk.lie:
            return
        writes, content.writes = content.writes, []
        for offset, data in writes:
            put(content.durable, offset, data)
        if disk.on_durable is not None:
            for offset, data in writes:
                disk.on_durable(self._path, offset, data)

    def close(self) -> None:
        self._closed = True

    def _check(self) -> None:
        if self._process != self._disk.process:
            raise PowerFailure(f"{self._path}: the process that opened it is dead")
        if self._closed:
            raise OSError(errno.EBADF, "the file is closed", self._path)


class DiskLock:
    """A lock of one process. Dies with it."""

    __slots__ = ("_disk", "_path", "_process")

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._process = disk.process

    def release(self) -> None:
        if self._process == self._disk.process:
            self._disk.locks.discard(self._path)


class Disk:
    """``Files`` for one machine.

    Arguments:
        image: What stands on it; nothing without it.

    Attributes:
        before: Called with the operation's name and its path (the new one, for a rename) before
            every operation that changes or syncs something. May raise ``OSError``, and the
            operation fails, or ``PowerFailure``, and the process is dead.
        on_durable: Called with path, offset and data for each write that a sync has just made
            durable, in their order; the path is the one the file was opened by. What a power
            failure happens to keep is not told.
        dead: The process has died. Every operation raises ``PowerFailure`` until
            ``after_process_crash`` or ``after_power_failure``.
        capacity_bytes: The size of the disk. A write that does not fit is cut short (ENOSPC).
        honest: Whether ``free_bytes`` knows of ``capacity_bytes``.
        lie: Syncs succeed and do nothing. Outside of what any member can survive.
        operations: How many operations have changed or synced something, or tried to.
        process: How many processes have died here; open files and locks belong to one.
        directories, names: What readers see.
        durable_directories, durable_names: What stands on the platter.
        changes: The unsynced changes of names, in order, by directory.
        locks: The paths of the locks that are held.
    """

    def __init__(self, image: Image | None = None) -> None:
        self.before: Callable[[str, str], None] | None = None
        self.on_durable: Callable[[str, int, bytes], None] | None = None
        self.dead = False
        self.capacity_bytes = UNLIMITED_BYTES
        self.honest = True
        self.lie = False
        self.operations = 0
        self.process = 0
        self.locks: set[str] = set()
        self.directories: set[str] = set()
        self.durable_directories: set[str] = set()
        self.names: dict[str, Content] = {}
        self.durable_names: dict[str, Content] = {}
        self.changes: dict[str, list[Change]] = {}
        self._failures: dict[str, list[tuple[OSError, bool]]] = {}
        self.restore_image(image or Image())

    # -- Files

    def make_directory(self, path: str) -> bool:
        self._alive()
        if path in self.directories:
            return False
        self._directory(parent_of(path))
        self.begin("make_directory", path)
        self.directories.add(path)
        return True

    def is_directory(self, path: str) -> bool:
        self._alive()
        return path in self.directories

    def list_directory(self, path: str) -> list[str]:
        self._alive()
        self._directory(path)
        start = path.rstrip("/") + "/"
        length = len(start)
        found = [name[length:] for name in self.names if name.startswith(start)]
        found += [name[length:] for name in self.directories if name.startswith(start)]
        return sorted(name for name in found if name and "/" not in name)

    def sync_directory(self, path: str) -> None:
        self.begin("sync_directory", path)
        self._directory(path)
        if self.lie:
            return
        self.durable_directories |= {name for name in self.directories if parent_of(name) == path}
        for change in self.changes.pop(path, ()):
            change.apply(self.durable_names)

    def size(self, path: str) -> int:
        self._alive()
        return len(self.content(path).cached)

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        self._alive()
        if self._failures:
            self._fail("read", None)
        return bytes(self.content(path).cached[offset : None if size is None else offset + size])

    def create(self, path: str) -> WritableFile:
        self.begin("create", path)
        self._directory(parent_of(path))
        self._change(Change("", path, Content()))
        return DiskFile(self, path, self.names[path])

    def open(self, path: str) -> WritableFile:
        self._alive()
        return DiskFile(self, path, self.content(path))

    def rename(self, source: str, target: str) -> None:
        self.begin("rename", target)
        self._change(Change(source, target, self.content(source)))

    def remove(self, path: str) -> None:
        self.begin("remove", path)
        self.content(path)
        self._change(Change(path, "", None))

    def free_bytes(self, path: str) -> int:
        self._alive()
        return max(0, self.space_bytes()) if self.honest else UNLIMITED_BYTES

    def lock(self, path: str) -> FileLock:
        self.begin("lock", path)
        if path in self.locks:
            raise LockHeldError(HOLDER)
        if path not in self.names:
            self._directory(parent_of(path))
            self._change(Change("", path, Content()))
        self.locks.add(path)
        return DiskLock(self, path)

    def lock_holder(self, path: str) -> str:
        self._alive()
        return HOLDER if path in self.locks else ""

    # -- crashes

    def kill(self) -> None:
        """The process dies now; nobody reads or writes until the disk is given to the next one."""
        self.dead = True

    def after_process_crash(self) -> None:
        """Give the disk to a new process, on a machine that has kept running: readers still see
        everything, and nothing is more durable than before.

        Locks and open files are gone, hooks and planned failures are cleared.
        """
        self.dead = False
        self.process += 1
        self.before = self.on_durable = None
        self.locks.clear()
        self._failures.clear()

    def after_power_failure(self, chance: Random) -> None:
        """Give the disk to a new process after the machine has lost its power.

        Each unsynced change of names happens or not, each unsynced write is kept, lost or torn,
        all independently; what readers see from then on is what is durable.

        Arguments:
            chance: Decides; the same state and seed leave the same disk.
        """
        self.after_process_crash()
        for path in sorted(self.directories - self.durable_directories):
            if parent_of(path) in self.durable_directories and chance.random() < 0.5:
                self.durable_directories.add(path)
        for directory in sorted(self.changes):
            for change in self.changes[directory]:
                if chance.random() < 0.5:
                    change.apply(self.durable_names)
        self.changes = {}
        self.directories = set(self.durable_directories)
        self.durable_names = {
            path: content
            for path, content in self.durable_names.items()
            if parent_of(path) in self.directories
        }
        self.names = dict(self.durable_names)
        for path in sorted(self.names):
            content = self.names[path]
            for offset, data in content.writes:
                for start, end in survivors(offset, len(data), chance):
                    put(content.durable, offset + start, data[start:end])
            content.writes.clear()
            content.cached[:] = content.durable

    # -- faults

    def spare(self) -> None:
        """Nothing that was planned with ``fail_next`` will fail any more."""
        self._failures.clear()

    def fail_next(self, operation: str, error: OSError, drop: bool = True) -> None:
        """Let the next operation of a kind fail; called again, the one after it too.

        Arguments:
            operation: As told to ``before``, or ``read``.
            error: What it raises.
            drop: For a ``datasync``: what it should have made durable never will be, though
                readers go on seeing it. Without it, a later sync may still do it.
        """
        self._failures.setdefault(operation, []).append((error, drop))

    def flip(self, path: str, offset: int, bit: int) -> bool:
        """Let one bit rot on the platter; False if the file is not that long there."""
        content = self.content(path)
        if offset >= len(content.durable):
            return False
        content.damage(offset, bytes([content.durable[offset] ^ 1 << bit]))
        return True

    def overwrite(self, path: str, offset: int, data: bytes) -> None:
        """Put other bytes on the platter: a block that was meant for another place, or an old one.
        A file does not grow by it."""
        self.content(path).damage(offset, data)

    def snapshot_image(self) -> Image:
        """What stands on the platter now: what a power failure leaves that keeps nothing unsynced.
        Works on a dead disk too."""
        return Image(
            tuple(sorted(self.durable_directories)),
            {
                path: bytes(content.durable)
                for path, content in sorted(self.durable_names.items())
                if parent_of(path) in self.durable_directories
            },
        )

    def restore_image(self, image: Image) -> None:
        """Replace all that the disk holds. Whoever had files open writes into nothing."""
        self.directories = set(image.directories)
        self.durable_directories = set(image.directories)
        self.names = {path: Content(data) for path, data in image.files.items()}
        self.durable_names = dict(self.names)
        self.changes = {}

    def wipe(self) -> None:
        """An empty disk, as a new one."""
        self.restore_image(Image())

    # -- for whoever looks at it from outside

    def paths(self) -> list[str]:
        """The paths of all files that readers see, sorted. Works on a dead disk too."""
        return sorted(self.names)

    def content(self, path: str) -> Content:
        """A file's content, which is the disk's own and not a copy.

        Raises:
            FileNotFoundError: there is no such file.
        """
        found = self.names.get(path)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return found

    def space_bytes(self) -> int:
        """How much space there really is; negative on a disk that was made smaller."""
        return self.capacity_bytes - sum(len(content.cached) for content in self.names.values())

    # -- inside

    def begin(self, operation: str, path: str, syncs: Content | None = None) -> None:
        """What comes before each operation that changes or syncs something."""
        if self.dead:
            self._alive()
        self.operations += 1
        if self.before is not None:
            try:
                self.before(operation, path)
            except PowerFailure:
                self.dead = True
                raise
            except OSError:
                if syncs is not None:
                    syncs.writes.clear()
                raise
            if self.dead:
                self._alive()
        if self._failures:
            self._fail(operation, syncs)

    def _fail(self, operation: str, syncs: Content | None) -> None:
        planned = self._failures.get(operation)
        if planned:
            error, drop = planned.pop(0)
            if drop and syncs is not None:
                syncs.writes.clear()
            raise error

    def _alive(self) -> None:
        if self.dead:
            raise PowerFailure("the process is dead")

    def _directory(self, path: str) -> None:
        if path not in self.directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)

    def _change(self, change: Change) -> None:
        change.apply(self.names)
        self.changes.setdefault(parent_of(change.added or change.removed), []).append(change)
