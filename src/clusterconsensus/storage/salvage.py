"""Beginning a damaged journal anew: what of it must be kept, and how the new one takes its place.

The entries of a damaged log can be had again from the others. The promise cannot: a member that
forgot what it promised could vote twice. It is the highest ballot that any valid record tells, if
that is certain to be all of it: each trailer and each START restates the promise as of its place,
so damage before the *last* of them hides nothing, and damage behind it may (W6). What looks like a
torn write at the very end was never acknowledged, and is taken for one here as at every start (W3).

The new journal is one segment, with the next number, that is made under a temporary name and
appears whole: its ANCHOR makes every earlier segment meaningless in the moment in which its name
becomes durable. Until then the damaged journal is untouched.
"""

from __future__ import annotations

from clusterconsensus.consensus.types import ZERO, Ballot, Position
from clusterconsensus.errors import DamagedError, StoragePoisonedError
from clusterconsensus.storage.files import Files
from clusterconsensus.storage.planning import CLOSING_BYTES, encode_anchor
from clusterconsensus.storage.records import (
    HEADER_BYTES,
    MAGIC,
    Kind,
    Record,
    decode_header,
    file_seed,
    parse,
)
from clusterconsensus.storage.segments import (
    Making,
    segment_numbers,
    segment_path,
    set_aside_segments,
    unfinished_segments,
)

_PIECE_BYTES = 4096
_WITH_BALLOT = (Kind.START, Kind.PROMISE, Kind.ENTRY, Kind.TRAILER)


def begin_anew(
    files: Files,
    directory: str,
    disk_id: str,
    segment_bytes: int,
    base: Position,
    *,
    paranoid: bool,
) -> None:
    """Make an empty journal that replaces the damaged one. See ``Journal.salvage``."""
    try:
        names = files.list_directory(directory)
        numbers = segment_numbers(names)
        promised = _promise(files, directory, disk_id, numbers, paranoid)
        for name in unfinished_segments(names):
            files.remove(f"{directory}/{name}")
    except OSError as error:
        raise StoragePoisonedError(f"{directory}: cannot be salvaged: {error}") from error
    number = max(0, *numbers, *set_aside_segments(names)) + 1
    content = encode_anchor(number, promised, base, disk_id)
    size_bytes = max(segment_bytes, HEADER_BYTES + len(content) + CLOSING_BYTES)
    Making(files, directory, disk_id, number, size_bytes, content).advance()


def _promise(
    files: Files, directory: str, disk_id: str, numbers: list[int], paranoid: bool
) -> Ballot:
    """The highest promise that is told anywhere.

    Raises:
        DamagedError: a promise may be hidden by damage behind the last record that restates it.
    """
    promised = ZERO
    doubt = "there is no journal"
    before: _Reading | None = None
    for number in numbers:
        path = segment_path(directory, number)
        found = _Reading(path, _read(files, path), number, disk_id)
        promised = max(promised, found.promised)
        if found.is_blank:
            continue  # made ahead and not used yet
        if found.restates:
            doubt = found.doubt
        else:
            # It may have begun with a write that a crash tore; but then all before it is whole.
            if before is not None and before.number + 1 != number:
                doubt = doubt or f"{segment_path(directory, before.number + 1)} is missing"
            if before is not None and before.tail_at:
                doubt = doubt or f"{before.path} is damaged at offset {before.tail_at}"
            doubt = doubt or found.doubt
        before = found
    if paranoid and before is not None and before.tail_at:
        doubt = doubt or f"paranoid takes offset {before.tail_at} of {before.path} for damage"
    if doubt:
        raise DamagedError(
            f"{directory}: what this member promised cannot be known, so that it has to come back "
            f"as a new one: {doubt}"
        )
    return promised


def _read(files: Files, path: str) -> bytes:
    """A file's content, with other bytes where it cannot be read."""
    size = files.size(path)
    pieces: list[bytes] = []
    for offset in range(0, size, _PIECE_BYTES):
        count = min(_PIECE_BYTES, size - offset)
        try:
            piece = files.read(path, offset, count)
        except OSError:
            piece = b""
        pieces.append(piece.ljust(count, b"\xff"))
    return b"".join(pieces)


class _Reading:
    """What one segment tells of the promise, whatever of it is damaged.

    Attributes:
        is_blank: Whether it is whole, and nothing was written to it.
        promised: The highest ballot in it.
        restates: Whether any record in it restates the promise.
        doubt: Why a promise may be hidden behind the last one that does; empty if none can.
        tail_at: Where bytes begin behind the last batch that look like a torn write; 0 without.
    """

    def __init__(self, path: str, data: bytes, number: int, disk_id: str) -> None:
        self.path = path
        self.number = number
        self.promised = ZERO
        self.restates = False
        self.doubt = ""
        self.tail_at = 0
        self._data = data
        self._seed = file_seed(disk_id, number)
        header = decode_header(data[:HEADER_BYTES])
        used = len(data.rstrip(b"\0"))
        self.is_blank = header is not None and used <= HEADER_BYTES
        self._batch_end = HEADER_BYTES
        self._has_gap = False  # something behind the last batch is not a record
        self._witness_at = 0  # a record behind the last batch, of a write that came later
        if not self.is_blank:
            self._walk(header.version if header is not None else 1)
        if self._witness_at:
            self._doubt(self._batch_end)
        if used > self._batch_end:
            self.tail_at = self._batch_end
        if header is None and not self.restates:
            self._doubt(0)
        elif header is not None and len(data) < header.size_bytes:
            self._doubt(len(data))

    def _doubt(self, offset: int) -> None:
        self.doubt = self.doubt or f"{self.path} is damaged at offset {offset}"

    def _walk(self, version: int) -> None:
        data, at = self._data, HEADER_BYTES
        while True:
            record = parse(data, at, at, self._seed)
            if isinstance(record, Record):
                self._take(record, at, version)
                at = record.end
                continue
            self._has_gap = True
            at = data.find(MAGIC, at + 1)
            if at < 0:
                return

    def _take(self, record: Record, at: int, version: int) -> None:
        if record.kind in _WITH_BALLOT:
            self.promised = max(self.promised, record.ballot(self.promised))
        if record.group > self._batch_end:
            self._witness_at = at
        if record.kind == Kind.START or (
            # A damaged header hides the version; but the first one's trailers have no ballot.
            record.kind == Kind.TRAILER and (version > 1 or record.instance)
        ):
            self.restates = True
            self.doubt = ""
        elif record.kind == Kind.TRAILER and self._has_gap:
            self._doubt(self._batch_end)
        if record.kind == Kind.TRAILER:
            self._batch_end = record.end
            self._has_gap = False
            self._witness_at = 0
