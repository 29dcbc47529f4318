"""The bytes of the journal: segments, records, batches, and what each checksum is there to catch.

The journal is a sequence of *segment* files. A segment begins with a header page that names the
disk it belongs to and its own number; behind it stand records without gaps, and behind these
zeros, which were written when the file was made, so that a later write changes no metadata.

A *record* (W1) is ::

    magic  u32     where to look for records behind a damaged one
    crc    u32     of the disk's id, the segment's number, the record's offset, and all below
    kind   u8      START, PROMISE, TRUNCATE, ENTRY, TRAILER, BASE or RECOVERY
    detail u8      ENTRY: the entry's kind; TRAILER: 1 if the journal was closed in good order;
                   RECOVERY: 1 if it begins, 0 if it ends; START: ANCHOR and RECOVERING
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

START opens each segment and restates what the segments before it amounted to: the promise, the
last entry, whether the member is recovering, and where batches and their chain go on. So the
segments before any START may be removed once a snapshot covers what is in them. Each TRAILER
restates the promise, so that damage before it cannot make a member forget what it promised.

Version 1, which is read and never written, has neither: its trailers hold no promise, and its
STARTs do not tell the ballot of the last entry, so no journal can begin at one.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TypeAlias
from zlib import crc32

import msgspec

from clusterconsensus.consensus.types import ZERO, Ballot, Entry, Incarnation, Position

FORMAT_VERSION = 2
"""What new segments are written in."""
READABLE_VERSIONS = (1, 2)
HEADER_BYTES = 4096
"""The header's page, which is written once and never again."""
RECORD_BYTES = 52
"""A record without its owner's name and payload."""
CLOSED = 1
"""``detail`` of a trailer written by an orderly close."""
ANCHOR = 1
"""In ``detail`` of a START: the journal begins here, whatever stands in earlier segments."""
RECOVERING = 2
"""In ``detail`` of a START: the member was recovering."""
MOST_OWNER_BYTES = 512
"""The longest name of a ballot's owner that fits into what is kept free for closing."""

MAGIC = b"\xc5\xccr\xd7"
_SEGMENT_MAGIC = b"CCJRNL\r\n"

_RECORD = struct.Struct("<4sIBBHIQQdIQ")
_BODY = struct.Struct("<BBHIQQdIQ")
_OFFSET = struct.Struct("<Q")
_CRC = struct.Struct("<I")
_TRAILER = struct.Struct("<QIIQQ")
_START = struct.Struct("<QI")
_START_BALLOT = struct.Struct("<Q")
_HEADER = struct.Struct("<8sIQQH")

assert _RECORD.size == RECORD_BYTES
assert _BODY.size == RECORD_BYTES - 8

Data: TypeAlias = bytes | memoryview


class Kind(IntEnum):
    """What a record is."""

    START = 1
    """Opens a segment: ``seq`` and ballot are the last sequence and the promise before it; the
    payload holds the last batch's number and chain, and the ballot of the last entry."""
    PROMISE = 2
    TRUNCATE = 3
    """The log is cut off from ``seq`` on."""
    ENTRY = 4
    TRAILER = 5
    """Closes a batch; ``seq`` is the last sequence behind it, the ballot is the promise."""
    BASE = 6
    """The log is given up and begins anew behind ``seq``, whose entry had this ballot (S4)."""
    RECOVERY = 7
    """The member begins to recover from damage, or has recovered (W4)."""


_KINDS = frozenset(int(kind) for kind in Kind)


class Trailer(msgspec.Struct, frozen=True, gc=False):
    """What closes a batch."""

    number: int
    chain: int
    records: int
    synced_seq: int
    commit: int


class Start(msgspec.Struct, frozen=True, gc=False):
    """What a START record restates. ``ballot`` is that of the last entry, None in version 1."""

    number: int
    chain: int
    promised: Ballot
    last_seq: int
    ballot: Ballot | None
    anchor: bool
    recovering: bool


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

    def start(self) -> Start:
        """The content of a START record."""
        payload = bytes(self.payload)
        number, chain = _START.unpack_from(payload)
        ballot: Ballot | None = None
        if len(payload) > _START.size:
            (instance,) = _START_BALLOT.unpack_from(payload, _START.size)
            owner = payload[_START.size + _START_BALLOT.size :].decode()
            ballot = Ballot(instance, Incarnation(owner))
        return Start(
            number,
            chain,
            self.ballot(ZERO),
            self.seq,
            ballot,
            bool(self.detail & ANCHOR),
            bool(self.detail & RECOVERING),
        )


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
        version: The format of the segment.
    """

    __slots__ = (
        "_group",
        "_records",
        "_seed",
        "_synced_seq",
        "_version",
        "chain",
        "number",
        "offset",
        "pieces",
    )

    def __init__(
        self,
        seed: int,
        offset: int,
        number: int,
        chain: int,
        synced_seq: int,
        version: int = FORMAT_VERSION,
    ) -> None:
        self._seed = seed
        self._group = offset
        self._synced_seq = synced_seq
        self._version = version
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

    def start(self, promised: Ballot, last: Position, detail: int = 0) -> None:
        """Open a segment."""
        payload = _START.pack(self.number, self.chain)
        if self._version > 1:
            payload += _START_BALLOT.pack(last.ballot.instance) + last.ballot.owner.encode()
        self._add(Kind.START, last.seq, promised, payload, detail)

    def promise(self, ballot: Ballot) -> None:
        """Raise the promise."""
        self._add(Kind.PROMISE, 0, ballot)

    def truncate(self, seq: int) -> None:
        """Cut the log off from ``seq`` on."""
        self._add(Kind.TRUNCATE, seq)

    def base(self, position: Position) -> None:
        """Give the log up; it begins anew behind a position."""
        self._add(Kind.BASE, position.seq, position.ballot)

    def recovery(self, recovering: bool) -> None:
        """Note that recovering begins, or has ended."""
        self._add(Kind.RECOVERY, 0, None, b"", int(recovering))

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

    def trailer(self, last_seq: int, commit: int, promised: Ballot, detail: int = 0) -> None:
        """Close the batch."""
        self.number += 1
        payload = _TRAILER.pack(self.number, self.chain, self._records, self._synced_seq, commit)
        restated = promised if self._version > 1 else None
        self._add(Kind.TRAILER, last_seq, restated, payload, detail)
        self._records = 0


def start_bytes(promised: Ballot, last: Ballot) -> int:
    """The size of a START record."""
    names = len(promised.owner.encode()) + len(last.owner.encode())
    return RECORD_BYTES + _START.size + _START_BALLOT.size + names


def trailer_bytes(promised: Ballot) -> int:
    """The size of a TRAILER record."""
    return RECORD_BYTES + _TRAILER.size + len(promised.owner.encode())


def ballot_bytes(ballot: Ballot) -> int:
    """The size of a PROMISE or a BASE record."""
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
