"""The bytes of a snapshot file: the same on disk, on the wire and as a backup.

A file is a head and pieces behind it, without gaps ::

    magic   8 bytes
    version u32
    length  u32     of the head
    crc     u32     of the four bytes each of version and length, and of the head
    head            MessagePack: ``SnapshotHead``

    kind    u8      SESSION, STATE, ENTRY or END; with MORE, the next piece goes on with the item
    length  u32     of the content
    crc     u32     of kind, length and content, continued from the crc of the piece before
    content

Nothing in it depends on the disk it stands on, and little on who wrote it: the state is cut into
pieces of one size, however its owner handed it out.

The crc of a piece continues that of the piece before it, beginning with the head's, so a piece that
is lost, repeated, swapped or from another file does not fit. END holds the counts and the size of
the whole file; a file that ends without it, or goes on behind it, is damaged. ``SnapshotId`` holds
one more checksum, of all bytes.

Sessions come first, then the state, then entries, which only backups have (``backup``): the log
behind the snapshot's position. Reading and writing take the memory of one piece, or of one session
or entry, however large the file is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from enum import IntEnum
from typing import TypeAlias
from zlib import crc32

import msgspec

from clusterconsensus.consensus.types import Configuration, Entry, Position
from clusterconsensus.errors import DamagedError, SnapshotError, WrongDirectoryError
from clusterconsensus.storage.files import Files

FORMAT_VERSION = 1
PIECE_BYTES = 256 * 1024
"""Content is cut into pieces of this size."""
LARGEST_PIECE_BYTES = 1024 * 1024
"""A reader refuses larger ones."""
LARGEST_HEAD_BYTES = 4 * 1024 * 1024
MAGIC = b"CCSNAP\r\n"
READ_BYTES = 1024 * 1024
"""How much is read at a time."""

MORE = 0x80
"""In the kind of a piece: the item goes on in the next piece."""

_PREAMBLE = struct.Struct("<8sIII")
_CHECKED = struct.Struct("<II")
_PIECE = struct.Struct("<BII")
_PIECE_CHECKED = struct.Struct("<BI")
_END = struct.Struct("<QQQQ")

Data: TypeAlias = bytes | bytearray | memoryview


class Kind(IntEnum):
    """What a piece holds. They stand in this order."""

    SESSION = 1
    STATE = 2
    ENTRY = 3
    END = 4


_KINDS = frozenset(int(kind) for kind in Kind)


class SnapshotHead(msgspec.Struct, frozen=True, kw_only=True):
    """What a reader must know before it reads the rest.

    Arguments:
        cluster: The name of the cluster.
        cluster_id: Its id; empty for a member that belongs to none.
        member_id: Who wrote the file.
        position: The last entry that is in the snapshot, with the ballot of that very entry.
        configuration_seq: The sequence of the newest configuration at or before it.
        configuration: That configuration, without the state that the cluster began with.
        time: The replicated time at ``position``, in seconds since the Unix epoch.
        checksum: The rolling checksum at ``position`` (R9).
        level: The cluster's feature level.
    """

    format_version: int = FORMAT_VERSION
    cluster: str
    cluster_id: str
    member_id: str
    position: Position
    configuration_seq: int
    configuration: Configuration
    time: float
    checksum: int
    level: int = 1


class Totals(msgspec.Struct):
    """How much a file holds of each kind; ``size_bytes`` is that of the file."""

    sessions: int = 0
    state_bytes: int = 0
    entries: int = 0
    size_bytes: int = 0


_encode_head = msgspec.msgpack.Encoder().encode
_decode_head = msgspec.msgpack.Decoder(SnapshotHead).decode
_encode_entry = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode


# -- writing


def encode(
    head: SnapshotHead,
    sessions: Iterable[Data],
    state: Iterable[Data] | Data,
    entries: Iterable[Entry] = (),
) -> Iterator[bytes]:
    """The bytes of a file, in parts of at most ``PIECE_BYTES`` and a little.

    Arguments:
        sessions: One item for each session; None of them is looked into.
        state: The state, as bytes or in pieces of any size.
        entries: For a backup: the log behind ``head.position``.
    """
    kept = msgspec.structs.replace(head.configuration, initial=None)
    content = _encode_head(msgspec.structs.replace(head, configuration=kept))
    if len(content) > LARGEST_HEAD_BYTES:
        raise SnapshotError(f"the head of a snapshot would have {len(content)} bytes")
    crc = crc32(content, crc32(_CHECKED.pack(FORMAT_VERSION, len(content))))
    writer = _Pieces(crc)
    totals = Totals()
    first = _PREAMBLE.pack(MAGIC, FORMAT_VERSION, len(content), crc) + content
    totals.size_bytes = len(first)
    yield first
    for part in writer.all(sessions, state, entries, totals):
        totals.size_bytes += len(part)
        yield part
    totals.size_bytes += _PIECE.size + _END.size
    yield writer.piece(Kind.END, _END.pack(*msgspec.structs.astuple(totals)))


class _Pieces:
    """Frames pieces, each checksum continuing the one before."""

    def __init__(self, crc: int) -> None:
        self._crc = crc

    def piece(self, kind: int, content: Data) -> bytes:
        head = _PIECE_CHECKED.pack(kind, len(content))
        self._crc = crc32(content, crc32(head, self._crc))
        return b"".join((_PIECE.pack(kind, len(content), self._crc), content))

    def all(
        self,
        sessions: Iterable[Data],
        state: Iterable[Data] | Data,
        entries: Iterable[Entry],
        totals: Totals,
    ) -> Iterator[bytes]:
        for session in sessions:
            totals.sessions += 1
            yield from self._item(Kind.SESSION, session)
        for content in _resized((state,) if isinstance(state, Data) else state):
            totals.state_bytes += len(content)
            yield self.piece(Kind.STATE, content)
        for entry in entries:
            totals.entries += 1
            yield from self._item(Kind.ENTRY, _encode_entry(entry))

    def _item(self, kind: Kind, item: Data) -> Iterator[bytes]:
        view = memoryview(item).cast("B")
        last = max(0, len(view) - 1) // PIECE_BYTES * PIECE_BYTES
        for start in range(0, last, PIECE_BYTES):
            yield self.piece(kind | MORE, view[start : start + PIECE_BYTES])
        yield self.piece(kind, view[last:])


def _resized(parts: Iterable[Data]) -> Iterator[Data]:
    """The same bytes in parts of ``PIECE_BYTES``, the last one smaller."""
    waiting = bytearray()
    for part in parts:
        view = memoryview(part).cast("B")
        start = 0
        if waiting:
            start = min(len(view), PIECE_BYTES - len(waiting))
            waiting += view[:start]
            if len(waiting) < PIECE_BYTES:
                continue
            yield bytes(waiting)
            waiting.clear()
        while len(view) - start >= PIECE_BYTES:
            yield view[start : start + PIECE_BYTES]
            start += PIECE_BYTES
        waiting += view[start:]
    if waiting:
        yield bytes(waiting)


# -- reading


class SnapshotFile:
    """Reads a file from its beginning to its end, once, and checks everything on the way.

    ``head`` is there at once. ``size_bytes`` and ``crc`` count what was read so far: after the last
    item they are those of the whole file.

    Arguments:
        ahead_bytes: How much to read at a time.

    Raises:
        DamagedError: naming the file and the offset; also where the disk does not give it back.
        WrongDirectoryError: a format version of the future.
        OSError: there is no such file, or it may not be read; from every step.
    """

    def __init__(self, files: Files, path: str, ahead_bytes: int = READ_BYTES) -> None:
        self._files = files
        self._path = path
        self._ahead_bytes = ahead_bytes
        self._data: bytes = b""
        self._at = 0
        self._chain = 0
        self.crc = 0
        self.size_bytes = 0
        """Also the offset of what is read next."""
        self.totals = Totals()
        self.head = self._read_head()

    def items(self) -> Iterator[tuple[Kind, bytes]]:
        """Every session and entry as a whole, and the state in pieces, in their order."""
        before = Kind.SESSION
        parts: list[bytes] = []
        while True:
            offset = self.size_bytes
            head = self._take(_PIECE.size, "ends in the middle of a piece")
            kind, length, crc = _PIECE.unpack(head)
            bare = kind & ~MORE
            if bare not in _KINDS or length > LARGEST_PIECE_BYTES:
                raise self._damaged(offset, "no piece begins")
            content = self._take(length, "ends in the middle of a piece")
            chain = crc32(content, crc32(_PIECE_CHECKED.pack(kind, length), self._chain))
            if chain != crc:
                raise self._damaged(offset, "a piece does not fit its checksum")
            self._chain = chain
            if bare < before or (parts and bare != before):
                raise self._damaged(offset, "a piece stands where it does not belong")
            before = Kind(bare)
            if kind & MORE and before in (Kind.SESSION, Kind.ENTRY):
                parts.append(content)
                continue
            if kind & MORE:
                raise self._damaged(offset, "a piece stands where it does not belong")
            if before == Kind.END:
                self._end(offset, content)
                return
            if parts:
                content = b"".join((*parts, content))
                parts.clear()
            if before == Kind.SESSION:
                self.totals.sessions += 1
            elif before == Kind.STATE:
                self.totals.state_bytes += len(content)
            else:
                self.totals.entries += 1
            yield before, content

    def check(self) -> Iterator[int]:
        """Read all the rest, giving nothing but the number of bytes after each item."""
        done = self.size_bytes
        yield done
        for _ in self.items():
            yield self.size_bytes - done
            done = self.size_bytes
        yield self.size_bytes - done

    def entry(self, content: bytes) -> Entry:
        """Decode an ENTRY item that was just read.

        Raises:
            DamagedError: it is no entry, or was damaged before the file was written.
        """
        try:
            entry = _decode_entry(content)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise self._damaged(self.size_bytes, f"no entry stands before it: {error}") from error
        if not entry.intact():
            raise self._damaged(self.size_bytes, f"entry {entry.seq} before it is damaged")
        return entry

    def _end(self, offset: int, content: bytes) -> None:
        self.totals.size_bytes = self.size_bytes
        if content != _END.pack(*msgspec.structs.astuple(self.totals)):
            raise self._damaged(offset, "the end tells of other content")
        if self._more():
            raise self._damaged(self.size_bytes, "bytes stand behind the end")

    def _read_head(self) -> SnapshotHead:
        fixed = self._take(_PREAMBLE.size, "is no snapshot: it is too short")
        magic, version, length, crc = _PREAMBLE.unpack(fixed)
        if magic != MAGIC:
            raise DamagedError(f"{self._path}: is no snapshot: it begins with other bytes")
        if length > LARGEST_HEAD_BYTES:
            raise self._damaged(0, "the head is damaged")
        content = self._take(length, "ends in the middle of its head")
        if crc32(content, crc32(_CHECKED.pack(version, length))) != crc:
            raise self._damaged(0, "the head does not fit its checksum")
        if version != FORMAT_VERSION:
            raise WrongDirectoryError(
                f"{self._path}: has format version {version}; this program reads version "
                f"{FORMAT_VERSION}"
            )
        self._chain = crc
        try:
            head = _decode_head(content)
        except (msgspec.MsgspecError, RecursionError) as error:
            raise self._damaged(0, f"the head is damaged: {error}") from error
        if head.position.seq < 0 or not 0 <= head.configuration_seq <= head.position.seq:
            raise self._damaged(0, "the head contradicts itself")
        return head

    def _take(self, count: int, problem: str) -> bytes:
        """The next bytes, counted."""
        if len(self._data) - self._at < count:
            start = self.size_bytes
            self._data = self._read(start, max(count, self._ahead_bytes))
            self._at = 0
            if len(self._data) < count:
                raise self._damaged(start + len(self._data), problem)
        found = self._data[self._at : self._at + count]
        self._at += count
        self.size_bytes += count
        self.crc = crc32(found, self.crc)
        return found

    def _more(self) -> bool:
        return self._at < len(self._data) or bool(self._read(self.size_bytes, 1))

    def _read(self, offset: int, size: int) -> bytes:
        try:
            return self._files.read(self._path, offset, size)
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except OSError as error:
            raise self._damaged(offset, f"it cannot be read: {error}") from error

    def _damaged(self, offset: int, problem: str) -> DamagedError:
        return DamagedError(f"{self._path}: at offset {offset}: {problem}")
