"""From ``Persist`` units to bytes: what goes into which segment, and whether it may be written.

Everything here is computed before anything is written, so that a unit which does not continue the
log, or a disk without space, is a refusal that leaves no trace. The end of the log is a ``Tip``;
encoding turns one tip and some units into the bytes of each write and the tip behind it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from clusterconsensus.consensus.types import Ballot
from clusterconsensus.errors import BrokenInvariantError
from clusterconsensus.storage.records import (
    CLOSED,
    HEADER_BYTES,
    RECORD_BYTES,
    TRAILER_BYTES,
    Encoder,
    ballot_bytes,
    entry_bytes,
    file_seed,
    start_bytes,
)

if TYPE_CHECKING:
    from clusterconsensus.consensus.effects import Persist

CLOSING_BYTES = 1024
"""Kept free at the end of each segment, so that closing in good order never needs a new one."""


class Tip(msgspec.Struct, frozen=True):
    """Where the journal ends: the segment and the offset behind the last batch, that batch's
    number and chain, and what all batches amount to."""

    segment: int
    used_bytes: int
    batch: int
    chain: int
    promised: Ballot
    last_seq: int
    commit: int


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

    ``changes`` holds, for each entry, its sequence and its record's offset; with offset 0 it says
    that the log is cut off from the sequence on.
    """

    segment: int
    offset: int
    data: bytes
    after: Tip
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
    promised, last_seq, commit = tip.promised, tip.last_seq, tip.commit
    group = Group(tip.segment, 0)
    groups = [group]
    room = room_bytes - CLOSING_BYTES
    if tip.used_bytes == HEADER_BYTES:
        room -= start_bytes(promised)
    for batch in batches:
        before = promised
        size = TRAILER_BYTES
        if batch.promised is not None:
            if batch.promised < promised:
                raise BrokenInvariantError(f"promise {batch.promised} after {promised} (I-5)")
            promised = batch.promised
            size += ballot_bytes(promised)
        if batch.truncate_from is not None:
            if batch.truncate_from <= commit:
                raise BrokenInvariantError(
                    f"the log is cut off from {batch.truncate_from} on, though {commit} is "
                    "known to be chosen (I-7)"
                )
            last_seq = min(last_seq, batch.truncate_from - 1)
            size += RECORD_BYTES
        for entry in batch.entries:
            if entry.seq != last_seq + 1:
                raise BrokenInvariantError(f"entry {entry.seq} after {last_seq} (I-9)")
            last_seq = entry.seq
            size += entry_bytes(entry)
        commit = max(commit, min(batch.commit, last_seq))
        if size > room:
            fixed = HEADER_BYTES + start_bytes(before) + CLOSING_BYTES
            # A segment without a single write is not left behind but made anew, larger.
            unused = group is groups[0] and tip.used_bytes == HEADER_BYTES and not group.batches
            number = group.segment if unused else group.segment + 1
            # One that was made earlier for a larger unit stays as large as it is.
            size_bytes = max(segment_bytes, fixed + size, ready.get(number, 0))
            group = Group(number, size_bytes)
            groups.append(group)
            room = size_bytes - fixed
        group.batches.append(batch)
        room -= size
    return groups if groups[0].batches else groups[1:]


def encode(tip: Tip, groups: Sequence[Group], disk_id: str) -> list[Write]:
    """The bytes of each group."""
    writes: list[Write] = []
    for group in groups:
        if group.size_bytes:
            tip = msgspec.structs.replace(tip, segment=group.segment, used_bytes=HEADER_BYTES)
        write = _encode(tip, group.batches, disk_id)
        writes.append(write)
        tip = write.after
    return writes


def _encode(tip: Tip, batches: Sequence[Persist], disk_id: str) -> Write:
    promised, last_seq, commit = tip.promised, tip.last_seq, tip.commit
    encoder = _encoder(tip, disk_id)
    changes: list[tuple[int, int]] = []
    for batch in batches:
        if batch.promised is not None and batch.promised != promised:
            promised = batch.promised
            encoder.promise(promised)
        if batch.truncate_from is not None and batch.truncate_from <= last_seq:
            last_seq = batch.truncate_from - 1
            changes.append((batch.truncate_from, 0))
            encoder.truncate(batch.truncate_from)
        for entry in batch.entries:
            changes.append((entry.seq, encoder.offset))
            encoder.entry(entry)
        if batch.entries:
            last_seq = batch.entries[-1].seq
        # A hint may run ahead of the log only until the missing entries come: kept within it, a
        # hint beyond the log is always a sign of damage (C-7).
        commit = max(commit, min(batch.commit, last_seq))
        encoder.trailer(last_seq, commit)
    return _finish(tip, encoder, promised, last_seq, commit, changes)


def encode_closing(tip: Tip, commit: int, disk_id: str) -> Write:
    """The bytes of the batch that notes an orderly end."""
    commit = max(tip.commit, min(commit, tip.last_seq))
    encoder = _encoder(tip, disk_id)
    encoder.trailer(tip.last_seq, commit, CLOSED)
    return _finish(tip, encoder, tip.promised, tip.last_seq, commit, [])


def _encoder(tip: Tip, disk_id: str) -> Encoder:
    seed = file_seed(disk_id, tip.segment)
    encoder = Encoder(seed, tip.used_bytes, tip.batch, tip.chain, tip.last_seq)
    if tip.used_bytes == HEADER_BYTES:
        encoder.start(tip.promised, tip.last_seq)
    return encoder


def _finish(
    tip: Tip,
    encoder: Encoder,
    promised: Ballot,
    last_seq: int,
    commit: int,
    changes: list[tuple[int, int]],
) -> Write:
    after = Tip(
        tip.segment,
        encoder.offset,
        encoder.number,
        encoder.chain,
        promised,
        last_seq,
        commit,
    )
    return Write(tip.segment, tip.used_bytes, b"".join(encoder.pieces), after, changes)
