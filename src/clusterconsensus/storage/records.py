"""The bytes of the journal: segments, records, batches, and what each checksum is there to catch.

The journal is a sequence of *segment* files. A segment begins with a header page that names the
disk it belongs to and its own number; behind it stand records without gaps, and behind these
zeros, which were written when the file was made, so that a later write changes no metadata.

A *record* (W1) is ::

    magic  u32     where to look for records behind a damaged one
    crc    u32     of the disk's id, the segment's number, the record's offset, and all below
    kind   u8      START, PROMISE, TRUNCATE, ENTRY or TRAILER
    detail u8      ENTRY: the entry's kind; TRAILER: 1 if the journal was closed in good order
    owner  u16     length of the ballot owner's name
    length u32     length of the payload
    seq, instance  u64 each
    time   f64
    check  u32     ENTRY: the entry's own checksum, made by the master that created it
    group  u64     the offset at which the write that brought this record began
    owner's name, payload

The checksum includes where the record belongs, so a good record in the wrong place, misdirected or
left over, does not pass for one.

A *batch* is one atomic unit: records closed by a TRAILER, which holds the batch's number, the
number of its records and a checksum chained over the checksums of all records of all batches so
far. Without its trailer a batch does not exist; without its predecessors it does not fit.

A *group* is what one write and one sync brought: one batch or many. Every byte before a group's
start was synced before the group was written. Therefore a valid record proves that everything
before its ``group`` offset, and every earlier segment, had been durable, whatever it looks like
now. This is what tells damage from a torn write (W3), also for batches that hold no entries. The
trailer's ``synced_seq`` says the same in sequences, for people and for checking.

START opens each segment and restates what the segments before it amounted to.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TypeAlias
from zlib import crc32

import msgspec

from clusterconsensus.consensus.types import Ballot, Entry, Incarnation

FORMAT_VERSION = 1
HEADER_BYTES = 4096
"""The header's page, which is written once and never again."""
RECORD_BYTES = 52
"""A record without its owner's name and payload."""
CLOSED = 1
"""``detail`` of a trailer written by an orderly close."""

MAGIC = b"\xc5\xccr\xd7"
_SEGMENT_MAGIC = b"CCJRNL\r\n"

_RECORD = struct.Struct("<4sIBBHIQQdIQ")
_BODY = struct.Struct("<BBHIQQdIQ")
_OFFSET = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_TRAILER = struct.Struct("<QIIQQ")
_START = struct.Struct("<QI")
_HEADER = struct.Struct("<8sIQQH")
TRAILER_BYTES = RECORD_BYTES + _TRAILER.size

assert _RECORD.size == RECORD_BYTES
assert _BODY.size == RECORD_BYTES - 8

Data: TypeAlias = bytes | memoryview


class Kind(IntEnum):
    """What a record is."""

    START = 1
    """Opens a segment: ``seq`` and ballot are the last sequence and the promise before it."""
    PROMISE = 2
    TRUNCATE = 3
    """The log is cut off from ``seq`` on."""
    ENTRY = 4
    TRAILER = 5
    """Closes a batch; ``seq`` is the last sequence behind it."""


_KINDS = frozenset(int(kind) for kind in Kind)


class Trailer(msgspec.Struct, frozen=True, gc=False):
    """What closes a batch."""

    number: int
    chain: int
    records: int
    synced_seq: int
    commit: int


class Record(msgspec.Struct, frozen=True, gc=False):
    """A record that was read and whose checksum fits."""

    kind: int
    detail: int
    seq: int
    instance: int
    owner: bytes
    time: float
    check: int
    group: int
    payload: Data
    crc: int
    end: int
    """The offset behind it."""

    def ballot(self, like: Ballot) -> Ballot:
        """The record's ballot; ``like`` itself when it is equal, so that runs share one object."""
        owner = self.owner.decode()
        if self.instance == like.instance and owner == like.owner:
            return like
        return Ballot(self.instance, Incarnation(owner))

    def entry(self, like: Ballot) -> Entry:
        """The log entry in an ENTRY record."""
        return Entry(
            self.seq, self.ballot(like), self.detail, self.time, bytes(self.payload), self.check
        )

    def trailer(self) -> Trailer:
        """The content of a TRAILER record."""
        return Trailer(*_TRAILER.unpack(self.payload))

    def start(self) -> tuple[int, int]:
        """The number of the last batch and the chain before a START record."""
        number, chain = _START.unpack(self.payload)
        return number, chain


def file_seed(disk_id: str, number: int) -> int:
    """Where the checksums of a segment begin."""
    return crc32(number.to_bytes(8, "little"), crc32(disk_id.encode()))


def parse(data: Data, at: int, offset: int, seed: int) -> Record | int:
    """Read the record that begins at ``data[at]``, which is at ``offset`` in its file.

    Returns:
        The record; or, if more bytes are needed to tell, how many from its beginning; or 0 if
        there is no valid record.
    """
    if len(data) - at < RECORD_BYTES:
        return RECORD_BYTES
    (magic, crc, kind, detail, owner_length, length, seq, instance, time, check, group) = (
        _RECORD.unpack_from(data, at)
    )
    if magic != MAGIC or kind not in _KINDS:
        return 0
    size: int = RECORD_BYTES + owner_length + length
    if len(data) - at < size:
        return size
    view = memoryview(data)
    if crc32(view[at + 8 : at + size], crc32(_OFFSET.pack(offset), seed)) != crc:
        return 0
    split = at + RECORD_BYTES + owner_length
    owner = bytes(view[at + RECORD_BYTES : split])
    payload = view[split : at + size]
    return Record(
        kind,
        detail,
        seq,
        instance,
        owner,
        time,
        check,
        group,
        payload,
        crc,
        offset + size,
    )


def link(chain: int, crc: int) -> int:
    """Continue a chain by one record."""
    return crc32(_CRC.pack(crc), chain)


class Encoder:
    """Encodes one group. ``pieces`` joined are its bytes; payloads are not copied before that.

    Arguments:
        seed: Of the segment (``file_seed``).
        offset: Where in the segment the group begins, in bytes.
        number: Of the last batch before it.
        chain: The chain up to it.
        synced_seq: The highest sequence known to be durable.
    """

    __slots__ = (
        "_group",
        "_records",
        "_seed",
        "_synced_seq",
        "chain",
        "number",
        "offset",
        "pieces",
    )

    def __init__(self, seed: int, offset: int, number: int, chain: int, synced_seq: int) -> None:
        self._seed = seed
        self._group = offset
        self._synced_seq = synced_seq
        self._records = 0
        self.offset = offset
        self.number = number
        self.chain = chain
        self.pieces: list[bytes] = []

    def _add(
        self,
        kind: Kind,
        seq: int,
        ballot: Ballot | None = None,
        payload: bytes = b"",
        detail: int = 0,
        time: float = 0.0,
        check: int = 0,
    ) -> None:
        instance, owner = (ballot.instance, ballot.owner.encode()) if ballot else (0, b"")
        length = len(payload)
        body = _BODY.pack(kind, detail, len(owner), length, seq, instance, time, check, self._group)
        body += owner
        crc = crc32(payload, crc32(body, crc32(_OFFSET.pack(self.offset), self._seed)))
        self.pieces += (MAGIC, crc_bytes := _CRC.pack(crc), body)
        if length:
            self.pieces.append(payload)
        self.chain = crc32(crc_bytes, self.chain)
        self.offset += 8 + len(body) + length
        self._records += 1

    def start(self, promised: Ballot, last_seq: int) -> None:
        """Open a segment."""
        self._add(Kind.START, last_seq, promised, _START.pack(self.number, self.chain))

    def promise(self, ballot: Ballot) -> None:
        """Raise the promise."""
        self._add(Kind.PROMISE, 0, ballot)

    def truncate(self, seq: int) -> None:
        """Cut the log off from ``seq`` on."""
        self._add(Kind.TRUNCATE, seq)

    def entry(self, entry: Entry) -> None:
        """Append an entry."""
        self._add(
            Kind.ENTRY,
            entry.seq,
            entry.ballot,
            entry.payload,
            entry.kind,
            entry.time,
            entry.crc,
        )

    def trailer(self, last_seq: int, commit: int, detail: int = 0) -> None:
        """Close the batch."""
        self.number += 1
        payload = _TRAILER.pack(self.number, self.chain, self._records, self._synced_seq, commit)
        self._add(Kind.TRAILER, last_seq, None, payload, detail)
        self._records = 0


def start_bytes(promised: Ballot) -> int:
    """The size of a START record."""
    return RECORD_BYTES + _START.size + len(promised.owner.encode())


def ballot_bytes(ballot: Ballot) -> int:
    """The size of a PROMISE record."""
    return RECORD_BYTES + len(ballot.owner.encode())


def entry_bytes(entry: Entry) -> int:
    """The size of an ENTRY record."""
    return RECORD_BYTES + len(entry.ballot.owner.encode()) + len(entry.payload)


class Header(msgspec.Struct, frozen=True):
    """The first page of a segment."""

    version: int
    number: int
    size_bytes: int
    disk_id: str


def encode_header(number: int, size_bytes: int, disk_id: str) -> bytes:
    """The header page of a segment."""
    name = disk_id.encode()
    head = _HEADER.pack(_SEGMENT_MAGIC, FORMAT_VERSION, number, size_bytes, len(name)) + name
    page = head.ljust(HEADER_BYTES - 4, b"\0")
    return page + _CRC.pack(crc32(page))


def decode_header(page: bytes) -> Header | None:
    """Read a header page; None if it is not a whole one."""
    if len(page) != HEADER_BYTES or not page.startswith(_SEGMENT_MAGIC):
        return None
    if crc32(page[:-4]) != _CRC.unpack(page[-4:])[0]:
        return None
    _, version, number, size_bytes, length = _HEADER.unpack_from(page)
    name = page[_HEADER.size : _HEADER.size + length]
    return Header(version, number, size_bytes, name.decode("utf-8", "replace"))
