"""A member's snapshot files: written, received, checked, read, and kept or removed.

``snapshot-<sequence>.snap`` is whole, always: it is made under another name, synced, read back and
checked, renamed, and its directory synced (D7, C-6). What a crash leaves behind under another name
is removed by the next opening. A file that is damaged later is never believed: it is renamed
``damaged-<sequence>.snap``, and the one before it serves, with the log behind it.

Nothing here poisons anything. A snapshot that cannot be written is a snapshot that does not exist;
the log still has everything, so the error says why and the files are as before.

Threads: one thread may write a snapshot while another one receives one; any may read meanwhile.
Everything blocks, so it belongs on worker threads.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Collection, Iterable, Iterator

from clusterconsensus.consensus.types import SnapshotId
from clusterconsensus.errors import (
    DamagedError,
    DiskFullError,
    SnapshotError,
    StorageError,
    WrongDirectoryError,
)
from clusterconsensus.storage.files import Files, is_full
from clusterconsensus.storage.snapshot_files import (
    SYNC_BYTES,
    Incoming,
    Pacer,
    StateReader,
    checked,
    damaged_path,
    examine,
    given,
    is_set_aside,
    is_unfinished,
    load_file,
    same,
    snapshot_names,
    snapshot_path,
)
from clusterconsensus.storage.snapshot_format import (
    READ_BYTES,
    Data,
    SnapshotFile,
    SnapshotHead,
    encode,
)

logger = logging.getLogger("clusterconsensus.storage")

MAX_SNAPSHOT_BYTES = 1 << 40


class SnapshotStore:
    """The snapshots of one directory.

    Arguments:
        files: The file system.
        directory: The member's own, which the caller holds.
        max_snapshot_bytes: A snapshot that a master sends may be this large.
    """

    def __init__(
        self, files: Files, directory: str, *, max_snapshot_bytes: int = MAX_SNAPSHOT_BYTES
    ) -> None:
        self._files = files
        self._directory = directory
        self._max_snapshot_bytes = max_snapshot_bytes
        self._lock = threading.Lock()
        self._ids: tuple[SnapshotId, ...] = ()
        self._incoming: Incoming | None = None
        self.damaged: list[str] = []
        """What ``open`` found damaged: file and offset."""

    @property
    def ids(self) -> tuple[SnapshotId, ...]:
        """The snapshots there are, all whole when they were last read; the newest first."""
        return self._ids

    def open(self) -> list[SnapshotId]:
        """Remove what a crash left, and read and check every snapshot.

        A damaged one is told in ``damaged`` and renamed.

        Returns:
            The whole ones, the newest first.

        Raises:
            WrongDirectoryError: a snapshot of a future format version.
            StorageError: the directory cannot be read or changed.
        """
        files, directory = self._files, self._directory
        found: list[SnapshotId] = []
        self.damaged = []
        try:
            names = files.list_directory(directory)
            leftovers = [name for name in names if is_unfinished(name)]
            for name in leftovers:
                files.remove(f"{directory}/{name}")
            held = snapshot_names(names)
            for name in held:
                path = f"{directory}/{name}"
                try:
                    found.append(checked(files, path))
                except DamagedError as error:
                    logger.warning("%s; the snapshot is not used", error)
                    self.damaged.append(str(error))
                    files.rename(path, damaged_path(path))
            if held or leftovers:
                # A crash may have come between a rename and the sync of the directory.
                files.sync_directory(directory)
        except OSError as error:
            raise StorageError(f"{directory}: the snapshots cannot be opened: {error}") from error
        self._ids = tuple(found)
        return found

    # -- writing

    def write(
        self,
        head: SnapshotHead,
        sessions: Iterable[Data],
        state: Iterable[Data] | Data,
        pause: Callable[[float], None] | None = None,
    ) -> SnapshotId:
        """Write a snapshot. Returns when it is durable and was read back.

        Arguments:
            sessions: One item for each session.
            state: The state as bytes, or in pieces of any size.
            pause: Called again and again with the seconds of processor time that were used since it
                was last called, so that the caller can wait a while. What it raises ends the
                writing and is raised here.

        Raises:
            SnapshotError: it is not newer than the newest one (S5), or cannot be written, or one of
                the iterables raised. There is no new file.
            DiskFullError: no space. There is no new file.
        """
        path = snapshot_path(self._directory, head.position.seq)
        temporary = f"{path}.new"
        pacer = Pacer(pause)
        self._refuse_older(path, head.position.seq)
        parts = encode(
            head,
            given("the sessions", sessions, pacer),
            state if isinstance(state, Data) else given("the state's snapshot", state, pacer),
        )
        with self._tidying(path, temporary):
            file = self._files.create(temporary)
            try:
                size_bytes = unsynced = 0
                for part in parts:
                    file.pwrite(part, size_bytes)
                    size_bytes += len(part)
                    unsynced += len(part)
                    if unsynced >= SYNC_BYTES:
                        file.datasync()
                        unsynced = 0
                    pacer.did(len(part))
                file.datasync()
            finally:
                file.close()
            found, back, _ = examine(self._files, temporary, pacer.did)
            if back.position != head.position or found.size_bytes != size_bytes:
                raise SnapshotError(f"{temporary}: reads back other than it was written")
            self._publish(found, temporary, path)
        return found

    def _refuse_older(self, path: str, seq: int) -> None:
        if self._ids and seq <= self._ids[0].seq:
            raise SnapshotError(
                f"{path}: is not written, because there is one up to {self._ids[0].seq} (S5)"
            )

    def _publish(self, found: SnapshotId, temporary: str, path: str) -> None:
        """Give a file that is durable its name, durably (D7)."""
        with self._lock:
            self._refuse_older(path, found.seq)
            self._files.rename(temporary, path)
            try:
                self._files.sync_directory(self._directory)
            except OSError:
                # Whether it is there after a crash is not known. It would do no harm.
                with contextlib.suppress(OSError):
                    self._files.remove(path)
                raise
            self._ids = (found, *self._ids)

    @contextlib.contextmanager
    def _tidying(self, path: str, temporary: str) -> Iterator[None]:
        """Whatever goes wrong within leaves no file and tells what it was."""
        try:
            yield
        except Exception as error:
            with contextlib.suppress(OSError):
                self._files.remove(temporary)
            if isinstance(error, OSError):
                text = f"{path}: the snapshot cannot be written: {error}"
                raise (DiskFullError if is_full(error) else SnapshotError)(text) from error
            if isinstance(error, DamagedError | WrongDirectoryError):
                raise SnapshotError(f"the snapshot is of no use: {error}") from error
            raise

    # -- receiving

    def receive(self, snapshot: SnapshotId, offset: int, chunk: bytes) -> int:
        """Keep a piece of a snapshot that a master sends.

        A piece of another snapshot drops what came before; a piece that is not the next one changes
        nothing.

        Returns:
            The offset, in bytes, of the piece that is wanted next; the size if none is.

        Raises:
            SnapshotError: it is larger than ``max_snapshot_bytes`` or than it says, or cannot be
                written. What was received is dropped.
            DiskFullError: no space. What was received is dropped.
        """
        if snapshot in self._ids:
            return snapshot.size_bytes
        incoming = self._incoming
        path = snapshot_path(self._directory, snapshot.seq)
        if incoming is None or incoming.snapshot != snapshot:
            self.drop_received()
            incoming = self._begin(snapshot, path)
        if offset != incoming.size_bytes or not chunk:
            return incoming.size_bytes
        with self._receiving(path, incoming):
            if offset + len(chunk) > snapshot.size_bytes:
                raise SnapshotError(
                    f"{path}: has {snapshot.size_bytes} bytes by its name, but a piece up to "
                    f"{offset + len(chunk)} was sent"
                )
            incoming.append(chunk)
        return incoming.size_bytes

    def _begin(self, snapshot: SnapshotId, path: str) -> Incoming:
        if snapshot.size_bytes > self._max_snapshot_bytes:
            raise SnapshotError(
                f"{path}: {snapshot.size_bytes} bytes are not received: at most "
                f"{self._max_snapshot_bytes} are"
            )
        temporary = f"{path.removesuffix('.snap')}.received.new"
        with self._tidying(path, temporary):
            free = self._files.free_bytes(self._directory)
            if free < snapshot.size_bytes:
                raise DiskFullError(
                    f"{path}: {snapshot.size_bytes} bytes cannot be received: {free} are free"
                )
            self._incoming = Incoming(snapshot, temporary, self._files.create(temporary))
        return self._incoming

    @contextlib.contextmanager
    def _receiving(self, path: str, incoming: Incoming) -> Iterator[None]:
        with self._tidying(path, incoming.temporary):
            try:
                yield
            except Exception:
                self._incoming = None
                incoming.file.close()
                raise

    def finish(self, snapshot: SnapshotId) -> SnapshotHead:
        """All pieces are there: check the file, make it durable and give it its name (D7).

        Finishing once more what is finished changes nothing.

        Raises:
            SnapshotError: it is not what was promised, or not newer than the newest one, or pieces
                are missing, or it cannot be written. What was received is dropped, so that the
                transfer begins anew.
            DiskFullError: no space. What was received is dropped.
        """
        if snapshot in self._ids:
            return self.head(snapshot)
        path = snapshot_path(self._directory, snapshot.seq)
        incoming = self._incoming
        if incoming is None or incoming.snapshot != snapshot:
            raise SnapshotError(f"{path}: nothing was received of it")
        with self._receiving(path, incoming):
            if incoming.size_bytes != snapshot.size_bytes:
                raise SnapshotError(
                    f"{path}: {incoming.size_bytes} of {snapshot.size_bytes} bytes were received"
                )
            incoming.file.datasync()
            found, head, totals = examine(self._files, incoming.temporary)
            if found != snapshot or totals.entries:
                raise SnapshotError(f"{path}: what was received is not {snapshot} but {found}")
            self._publish(found, incoming.temporary, path)
        self._incoming = None
        incoming.file.close()
        return head

    def drop_received(self) -> None:
        """Give up what was received and is not finished, if there is anything."""
        incoming, self._incoming = self._incoming, None
        if incoming is not None:
            incoming.file.close()
            with contextlib.suppress(OSError):
                self._files.remove(incoming.temporary)

    # -- reading

    def head(self, snapshot: SnapshotId) -> SnapshotHead:
        """The head of a snapshot.

        Raises:
            DamagedError: it is damaged; names file and offset.
            SnapshotError: there is no such snapshot, or no longer.
        """
        with self._there(snapshot) as path:
            return SnapshotFile(self._files, path).head

    def read_chunk(self, snapshot: SnapshotId, offset: int, max_bytes: int) -> bytes:
        """A piece of a file, for another member; ``b""`` at its end, or if it is gone or the disk
        does not give it back."""
        if snapshot not in self._ids or offset < 0:
            return b""
        path = snapshot_path(self._directory, snapshot.seq)
        try:
            return self._files.read(path, offset, max_bytes)
        except OSError as error:
            if not isinstance(error, FileNotFoundError):
                logger.warning("%s: cannot be read at offset %d: %s", path, offset, error)
            return b""

    def load(self, snapshot: SnapshotId) -> tuple[SnapshotHead, list[bytes], StateReader]:
        """Check a whole snapshot, and read its head and its sessions.

        Returns:
            Head, sessions, and the state, which is read, and checked once more, only as it is asked
            for.

        Raises:
            DamagedError: it is damaged; names file and offset.
            SnapshotError: there is no such snapshot, or no longer.
        """
        with self._there(snapshot) as path:
            found, _, _ = examine(self._files, path)
            same(path, found, snapshot)
            return load_file(self._files, path)

    def verify(self, snapshot: SnapshotId, max_bytes: int) -> Iterator[int]:
        """Read and check a whole snapshot, yielding the number of bytes after each slice of about
        ``max_bytes``. Ends early if the file is removed meanwhile.

        Raises:
            DamagedError: it is damaged; names file and offset.
            StorageError: it may not be read.
        """
        path = snapshot_path(self._directory, snapshot.seq)
        done = 0
        try:
            file = SnapshotFile(self._files, path, min(max_bytes, READ_BYTES))
            for size in file.check():
                done += size
                if done >= max_bytes:
                    yield done
                    done = 0
        except FileNotFoundError:
            return
        except OSError as error:
            raise StorageError(f"{path}: cannot be read: {error}") from error
        if done:
            yield done
        same(path, SnapshotId(file.head.position, file.size_bytes, file.crc), snapshot)

    @contextlib.contextmanager
    def _there(self, snapshot: SnapshotId) -> Iterator[str]:
        path = snapshot_path(self._directory, snapshot.seq)
        try:
            if snapshot not in self._ids:
                raise SnapshotError(f"{path}: there is no snapshot {snapshot}")
            yield path
        except OSError as error:
            raise SnapshotError(f"{path}: the snapshot is gone: {error}") from error

    # -- removing

    def keep(self, snapshots: Collection[SnapshotId]) -> None:
        """Remove all others, the oldest first, and those that were set aside as damaged.

        Raises:
            SnapshotError: one cannot be removed; it is not used any more all the same.
        """
        directory = self._directory
        with self._lock:
            gone = [held for held in self._ids if held not in snapshots]
            self._ids = tuple(held for held in self._ids if held in snapshots)
            try:
                paths = [snapshot_path(directory, held.seq) for held in reversed(gone)]
                names = self._files.list_directory(directory)
                paths += [f"{directory}/{name}" for name in names if is_set_aside(name)]
                for path in paths:
                    self._files.remove(path)
                if paths:
                    self._files.sync_directory(directory)
            except OSError as error:
                raise SnapshotError(
                    f"{directory}: an old snapshot cannot be removed: {error}"
                ) from error

    def set_aside(self, snapshot: SnapshotId) -> None:
        """A snapshot is damaged: rename it, so that it is never believed again.

        Raises:
            SnapshotError: it cannot be renamed; it is not used any more all the same.
        """
        path = snapshot_path(self._directory, snapshot.seq)
        with self._lock:
            if snapshot not in self._ids:
                return
            self._ids = tuple(held for held in self._ids if held != snapshot)
            try:
                self._files.rename(path, damaged_path(path))
                self._files.sync_directory(self._directory)
            except OSError as error:
                raise SnapshotError(f"{path}: cannot be set aside: {error}") from error

    def close(self) -> None:
        """Let go of what was received and is not finished."""
        self.drop_received()
