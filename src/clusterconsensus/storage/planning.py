"""From ``Persist`` units to bytes: what goes into which segment, and whether it may be written.

Everything here is computed before anything is written, so that a unit which does not continue the
log, or a disk without space, is a refusal that leaves no trace. The end of the log is a ``Tip``;
encoding turns one tip and some units into the bytes of each write and the tip behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from clusterconsensus.consensus.types import Ballot, Position
from clusterconsensus.errors import BrokenInvariantError
from clusterconsensus.storage.extent import Extent
from clusterconsensus.storage.records import (
    ANCHOR,
    CLOSED,
    FORMAT_VERSION,
    HEADER_BYTES,
    MOST_OWNER_BYTES,
    RECORD_BYTES,
    RECOVERING,
    Encoder,
    ballot_bytes,
    entry_bytes,
    file_seed,
    start_bytes,
    trailer_bytes,
)

if TYPE_CHECKING:
    from clusterconsensus.consensus.effects import Persist

CLOSING_BYTES = 1024
"""Kept free at the end of each segment, so that closing in good order never needs a new one."""


CUT = 0
GIVEN_UP = -1
"""In place of an entry's offset."""


class Tip(msgspec.Struct, frozen=True):
    """Where the journal ends: the segment, its format version and the offset behind the last batch,
    that batch's number and chain, and what all batches amount to. ``log`` is shared: to change it,
    copy it."""

    segment: int
    version: int
    used_bytes: int
    batch: int
    chain: int
    promised: Ballot
    log: Extent
    commit: int
    recovering: bool

    @property
    def last_seq(self) -> int:
        return self.log.last_seq

    @property
    def is_blank(self) -> bool:
        """Whether the segment holds no batch yet."""
        return self.used_bytes == HEADER_BYTES


class Group:
    """The units of one write and their segment; ``size_bytes`` is 0 for the current one, else how
    large the fresh one must be."""

    __slots__ = ("batches", "segment", "size_bytes")

    def __init__(self, segment: int, size_bytes: int) -> None:
        self.segment = segment
        self.size_bytes = size_bytes
        self.batches: list[Persist] = []


class Write(msgspec.Struct):
    """One write, and what is true once it is durable.

    ``before`` is where the log ended if the write opens its segment. ``changes`` holds, for each
    entry, its sequence and its record's offset; with CUT the log is cut off from the sequence on,
    with GIVEN_UP it is empty and begins behind the sequence.
    """

    segment: int
    offset: int
    data: bytes
    after: Tip
    before: Position | None
    changes: list[tuple[int, int]]


def plan(
    tip: Tip,
    batches: Sequence[Persist],
    room_bytes: int,
    segment_bytes: int,
    ready: Mapping[int, int],
) -> list[Group]:
    """Check that the units continue the log, and share them out among segments.

    Arguments:
        room_bytes: What is left in the current segment.
        segment_bytes: The usual size of a segment; one for a larger unit is larger.
        ready: The sizes of segments that are already made.

    Raises:
        BrokenInvariantError: naming the rule (I-5, I-7, I-9).
    """
    promised, log, commit = tip.promised, tip.log.copy(), tip.commit
    group = Group(tip.segment, 0)
    groups = [group]
    # A segment has one format from its beginning to its end.
    room = room_bytes - CLOSING_BYTES if tip.version == FORMAT_VERSION else 0
    if tip.is_blank:
        room -= start_bytes(promised, log.last.ballot)
    for batch in batches:
        start = start_bytes(promised, log.last.ballot)
        size = 0
        if batch.promised is not None:
            _check_promise(batch.promised, promised)
            promised = batch.promised
            size += ballot_bytes(promised)
        size += _check_beginning(batch, log, commit)
        for entry in batch.entries:
            if entry.seq != log.last_seq + 1:
                raise BrokenInvariantError(f"entry {entry.seq} after {log.last_seq} (I-9)")
            log.add(entry.seq, entry.ballot)
            size += entry_bytes(entry)
        commit = max(commit, log.base.seq, min(batch.commit, log.last_seq))
        size += RECORD_BYTES * (batch.recovering is not None) + trailer_bytes(promised)
        if size > room:
            fixed = HEADER_BYTES + start + CLOSING_BYTES
            # A segment without a single write is not left behind but made anew, larger.
            unused = group is groups[0] and tip.is_blank and not group.batches
            number = group.segment if unused else group.segment + 1
            # One that was made earlier for a larger unit stays as large as it is.
            size_bytes = max(segment_bytes, fixed + size, ready.get(number, 0))
            group = Group(number, size_bytes)
            groups.append(group)
            room = size_bytes - fixed
        group.batches.append(batch)
        room -= size
    return groups if groups[0].batches else groups[1:]


def _check_promise(promise: Ballot, before: Ballot) -> None:
    if promise < before:
        raise BrokenInvariantError(f"promise {promise} after {before} (I-5)")
    length = len(promise.owner.encode())
    if length > MOST_OWNER_BYTES:
        raise BrokenInvariantError(
            f"a promise cannot be written: its owner's name has {length} bytes; at most "
            f"{MOST_OWNER_BYTES} are possible"
        )


def _check_beginning(batch: Persist, log: Extent, commit: int) -> int:
    """Let a unit cut the log off, or give it up; the bytes that this takes."""
    if batch.truncate_from is not None:
        if batch.base is not None:
            raise BrokenInvariantError(
                f"one unit cuts the log off from {batch.truncate_from} on and gives it up at "
                f"{batch.base}"
            )
        if batch.truncate_from <= commit:
            raise BrokenInvariantError(
                f"the log is cut off from {batch.truncate_from} on, though {commit} is "
                "known to be chosen (I-7)"
            )
        log.cut(batch.truncate_from)
        return RECORD_BYTES
    if batch.base is not None:
        if batch.base.seq < commit:
            raise BrokenInvariantError(
                f"the log is given up at {batch.base}, though {commit} is known to be chosen (I-7)"
            )
        log.give_up(batch.base)
        return ballot_bytes(batch.base.ballot)
    return 0


def encode(tip: Tip, groups: Sequence[Group], disk_id: str) -> list[Write]:
    """The bytes of each group."""
    writes: list[Write] = []
    for group in groups:
        if group.size_bytes:
            tip = msgspec.structs.replace(
                tip, segment=group.segment, version=FORMAT_VERSION, used_bytes=HEADER_BYTES
            )
        write = _encode(tip, group.batches, disk_id)
        writes.append(write)
        tip = write.after
    return writes


def _encode(tip: Tip, batches: Sequence[Persist], disk_id: str) -> Write:
    promised, log, commit, recovering = tip.promised, tip.log.copy(), tip.commit, tip.recovering
    encoder = _encoder(tip, disk_id)
    changes: list[tuple[int, int]] = []
    for batch in batches:
        if batch.promised is not None and batch.promised != promised:
            promised = batch.promised
            encoder.promise(promised)
        if batch.truncate_from is not None and batch.truncate_from <= log.last_seq:
            log.cut(batch.truncate_from)
            changes.append((batch.truncate_from, CUT))
            encoder.truncate(batch.truncate_from)
        if batch.base is not None:
            log.give_up(batch.base)
            changes.append((batch.base.seq, GIVEN_UP))
            encoder.base(batch.base)
        for entry in batch.entries:
            changes.append((entry.seq, encoder.offset))
            log.add(entry.seq, entry.ballot)
            encoder.entry(entry)
        if batch.recovering is not None and batch.recovering != recovering:
            recovering = batch.recovering
            encoder.recovery(recovering)
        last_seq = log.last_seq
        # What a base covers is chosen.
        commit = max(commit, log.base.seq)
        # A hint may run ahead of the log only until the missing entries come: kept within it, a
        # hint beyond the log is always a sign of damage (C-7).
        commit = max(commit, min(batch.commit, last_seq))
        encoder.trailer(last_seq, commit, promised)
    return _finish(tip, encoder, promised, log, commit, recovering, changes)


def encode_closing(tip: Tip, commit: int, disk_id: str) -> Write:
    """The bytes of the batch that notes an orderly end."""
    commit = max(tip.commit, min(commit, tip.last_seq))
    encoder = _encoder(tip, disk_id)
    encoder.trailer(tip.last_seq, commit, tip.promised, CLOSED)
    return _finish(tip, encoder, tip.promised, tip.log, commit, tip.recovering, [])


def encode_anchor(number: int, promised: Ballot, base: Position, disk_id: str) -> bytes:
    """What a segment begins with at which a journal begins anew, recovering from damage (W4)."""
    encoder = Encoder(file_seed(disk_id, number), HEADER_BYTES, 0, 0, base.seq)
    encoder.start(promised, base, ANCHOR)
    encoder.base(base)
    encoder.recovery(True)
    encoder.trailer(base.seq, base.seq, promised)
    return b"".join(encoder.pieces)


def _encoder(tip: Tip, disk_id: str) -> Encoder:
    seed = file_seed(disk_id, tip.segment)
    encoder = Encoder(seed, tip.used_bytes, tip.batch, tip.chain, tip.last_seq, tip.version)
    if tip.is_blank:
        encoder.start(tip.promised, tip.log.last, RECOVERING if tip.recovering else 0)
    return encoder


def _finish(
    tip: Tip,
    encoder: Encoder,
    promised: Ballot,
    log: Extent,
    commit: int,
    recovering: bool,
    changes: list[tuple[int, int]],
) -> Write:
    after = Tip(
        tip.segment,
        tip.version,
        encoder.offset,
        encoder.number,
        encoder.chain,
        promised,
        log,
        commit,
        recovering,
    )
    before = tip.log.last if tip.is_blank and tip.version == FORMAT_VERSION else None
    return Write(tip.segment, tip.used_bytes, b"".join(encoder.pieces), after, before, changes)
