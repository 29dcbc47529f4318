"""Single snapshot files: their names, reading one, and what feeds the writing of one.

Whoever writes a snapshot runs code of somebody else, the state's, on a worker thread: whatever that
raises gets one name, and the pace is kept low enough for the event loop to have the interpreter.
``snapshots`` keeps the files of one directory, ``snapshot_format`` tells what is in them.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator

from clusterconsensus.consensus.types import SnapshotId
from clusterconsensus.errors import DamagedError, SnapshotError
from clusterconsensus.storage.files import Files, WritableFile
from clusterconsensus.storage.snapshot_format import Data, Kind, SnapshotFile, SnapshotHead, Totals

SYNC_BYTES = 4 * 1024 * 1024
"""So much is written before it is synced, so that the end of a large file does not flood the disk
that the journal needs."""
PACE_BYTES = 32 * 1024
"""After so much work whoever writes is asked to pause."""

_NAME = re.compile(r"snapshot-(\d{20})\.snap")
_DAMAGED = re.compile(r"damaged-\d{20}\.snap")
_TEMPORARY = re.compile(r"snapshot-\d{20}\.(?:snap|received)\.new")


def snapshot_path(directory: str, seq: int) -> str:
    """The path of the snapshot that covers everything up to a sequence."""
    return f"{directory}/snapshot-{seq:020}.snap"


def snapshot_names(names: Iterable[str]) -> list[str]:
    """Those names of a directory that are snapshots, the newest first."""
    return sorted((name for name in names if _NAME.fullmatch(name)), reverse=True)


def is_unfinished(name: str) -> bool:
    """Whether a file was going to be a snapshot when a crash came."""
    return _TEMPORARY.fullmatch(name) is not None


def is_set_aside(name: str) -> bool:
    """Whether a file was a snapshot until it was found damaged."""
    return _DAMAGED.fullmatch(name) is not None


def damaged_path(path: str) -> str:
    directory, _, name = path.rpartition("/")
    return f"{directory}/{name.replace('snapshot-', 'damaged-', 1)}"


def examine(
    files: Files, path: str, did: Callable[[int], None] | None = None
) -> tuple[SnapshotId, SnapshotHead, Totals]:
    """Read and check a whole file.

    Arguments:
        did: Is told how many bytes were read, again and again.

    Raises:
        DamagedError: naming the file and the offset.
        WrongDirectoryError: a format version of the future.
        OSError: there is no such file, or it may not be read.
    """
    file = SnapshotFile(files, path)
    for size in file.check():
        if did is not None:
            did(size)
    found = SnapshotId(file.head.position, file.size_bytes, file.crc)
    return found, file.head, file.totals


def checked(files: Files, path: str) -> SnapshotId:
    """The id of the file with this name, which is read as a whole."""
    found, _, totals = examine(files, path)
    if totals.entries or snapshot_path("", found.seq) != f"/{path.rpartition('/')[2]}":
        raise DamagedError(f"{path}: at offset 0: is another file than its name says: {found}")
    return found


def same(path: str, found: SnapshotId, expected: SnapshotId) -> None:
    """Check that a file is the one that was meant.

    Raises:
        DamagedError: it is not.
    """
    if found != expected:
        raise DamagedError(f"{path}: at offset 0: is {found} and no longer {expected}")


class StateReader:
    """A snapshot's state, read as it is asked for. Given to ``State.install``."""

    def __init__(self, path: str, first: bytes | None, items: Iterator[tuple[Kind, bytes]]) -> None:
        self._path = path
        self._waiting = memoryview(first or b"")
        self._items = items
        self._ended = first is None

    def read(self, size: int = -1, /) -> bytes:
        """See ``Readable``.

        Raises:
            DamagedError: the file is damaged; names file and offset.
            SnapshotError: the file was removed meanwhile.
        """
        parts: list[memoryview] = []
        missing = size
        while missing and not self._ended:
            if not self._waiting and not self._next():
                break
            part = self._waiting if missing < 0 else self._waiting[:missing]
            self._waiting = self._waiting[len(part) :]
            parts.append(part)
            missing -= len(part) if missing > 0 else 0
        return b"".join(parts)

    def _next(self) -> bool:
        try:
            kind, content = next(self._items, (Kind.END, b""))
        except OSError as error:
            raise SnapshotError(f"{self._path}: was removed while it was read: {error}") from error
        self._ended = kind != Kind.STATE
        self._waiting = memoryview(b"" if self._ended else content)
        return not self._ended


def load_file(files: Files, path: str) -> tuple[SnapshotHead, list[bytes], StateReader]:
    """As ``SnapshotStore.load``, from any file, which was checked before."""
    file = SnapshotFile(files, path)
    items = file.items()
    sessions: list[bytes] = []
    for kind, content in items:
        if kind != Kind.SESSION:
            first = content if kind == Kind.STATE else None
            return file.head, sessions, StateReader(path, first, items)
        sessions.append(content)
    return file.head, sessions, StateReader(path, None, items)


class Pacer:
    """Lets the caller wait after each ``PACE_BYTES`` of work."""

    def __init__(self, pause: Callable[[float], None] | None) -> None:
        self._pause = pause
        self._bytes = 0
        self._since = time.thread_time()

    def did(self, size_bytes: int) -> None:
        self._bytes += size_bytes
        if self._pause is None or self._bytes < PACE_BYTES:
            return
        self._bytes = 0
        self._pause(max(0.0, time.thread_time() - self._since))
        self._since = time.thread_time()


def given(what: str, parts: Iterable[Data], pacer: Pacer) -> Iterator[Data]:
    """What an iterable of somebody else's gives; whatever it raises has one name."""
    try:
        iterator = iter(parts)
    except Exception as error:
        raise SnapshotError(f"{what} cannot be read: {type(error).__name__}: {error}") from error
    while True:
        try:
            part = next(iterator)
        except StopIteration:
            return
        except SnapshotError:
            raise
        except Exception as error:
            raise SnapshotError(f"{what} raised {type(error).__name__}: {error}") from error
        if not isinstance(part, Data):
            raise SnapshotError(f"{what} gave a {type(part).__name__} where bytes belong")
        pacer.did(len(part))
        yield part


class Incoming:
    """A file that is being received."""

    def __init__(self, snapshot: SnapshotId, temporary: str, file: WritableFile) -> None:
        self.snapshot = snapshot
        self.temporary = temporary
        self.file = file
        self.size_bytes = 0
        self._unsynced = 0

    def append(self, chunk: bytes) -> None:
        """Write the next piece."""
        self.file.pwrite(chunk, self.size_bytes)
        self.size_bytes += len(chunk)
        self._unsynced += len(chunk)
        if self._unsynced >= SYNC_BYTES:
            self.file.datasync()
            self._unsynced = 0
