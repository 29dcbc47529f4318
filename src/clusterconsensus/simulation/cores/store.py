"""The disk of a simulated member: it forgets what was not synced. It keeps whole ``Persist``
batches in order; a crash loses the batches that no sync has covered, all of them or from some point
on. Snapshots lie beside the log: one is there as a whole or not at all.

What a start makes of all this is told by ``open``, which does what ``runtime.restoring`` does with
real files.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from zlib import crc32

import msgspec

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.types import (
    NOWHERE,
    ZERO,
    Ballot,
    Configuration,
    Entry,
    Position,
    SnapshotId,
)

KEPT_SNAPSHOTS = 2


class Head(msgspec.Struct, frozen=True, array_like=True):
    """What stands at the head of a snapshot."""

    position: Position
    configuration_seq: int
    configuration: Configuration
    time: float
    checksum: int


class Content(msgspec.Struct, frozen=True, array_like=True):
    """A snapshot: its head, and what the state machine and its sessions were."""

    head: Head
    values: dict[str, int]
    sessions: list[bytes]
    executed: list[tuple[int, int, int, str]]


_decode_content = msgspec.msgpack.Decoder(Content).decode


@dataclass(frozen=True)
class Snapshot:
    """A snapshot file."""

    id: SnapshotId
    data: bytes

    @staticmethod
    def make(content: Content) -> Snapshot:
        data = msgspec.msgpack.encode(content)
        return Snapshot(SnapshotId(content.head.position, len(data), crc32(data)), data)

    @property
    def seq(self) -> int:
        return self.id.seq

    @property
    def content(self) -> Content:
        return _decode_content(self.data)


class Store:
    """What is durable, what was written and not synced, and the snapshots."""

    def __init__(self) -> None:
        self.cluster_id = ""
        self.promised = ZERO
        self.base = NOWHERE
        """The entry that the log begins behind."""
        self.entries: list[Entry] = []
        self.commit_hint = 0
        self.recovering = False
        self.pending: deque[Persist] = deque()
        self.snapshots: list[Snapshot] = []
        """The durable ones, oldest first."""
        self.arriving: SnapshotId | None = None
        self._pieces = bytearray()

    # -- the log

    @property
    def last_seq(self) -> int:
        return self.base.seq + len(self.entries)

    @property
    def snapshot(self) -> Snapshot | None:
        """The newest one."""
        return self.snapshots[-1] if self.snapshots else None

    @property
    def snapshot_seq(self) -> int:
        return self.snapshots[-1].seq if self.snapshots else 0

    def sync(self, batches: int | None = None) -> int:
        """Make the oldest batches durable; returns the ticket of the last one, 0 for none."""
        ticket = 0
        count = len(self.pending) if batches is None else min(batches, len(self.pending))
        for _ in range(count):
            batch = self.pending.popleft()
            self._take(batch)
            ticket = batch.ticket
        return ticket

    def crash(self, kept: int) -> None:
        """Lose the unsynced batches but the first ``kept``, and an unfinished snapshot."""
        self.sync(kept)
        self.pending.clear()
        self.drop_pieces()

    def _take(self, batch: Persist) -> None:
        if batch.promised is not None:
            self.promised = batch.promised
        if batch.truncate_from is not None:
            del self.entries[batch.truncate_from - self.base.seq - 1 :]
        if batch.base is not None:
            self._begin_behind(batch.base)
        for entry in batch.entries:
            if entry.seq != self.last_seq + 1:
                raise AssertionError(f"entry {entry} written behind {self.last_seq}")
            self.entries.append(entry)
        self.commit_hint = max(self.commit_hint, batch.commit)
        if batch.recovering is not None:
            self.recovering = batch.recovering

    def _begin_behind(self, base: Position) -> None:
        self.base = base
        self.entries.clear()

    def ballot_at(self, seq: int) -> Ballot | None:
        if seq == self.base.seq:
            return self.base.ballot if seq else None
        return self.entry(seq).ballot if self.base.seq < seq <= self.last_seq else None

    def entry(self, seq: int) -> Entry:
        """An entry that is durable, above the base."""
        return self.entries[seq - self.base.seq - 1]

    def read(self, first: int, last: int, max_bytes: int) -> tuple[Entry, ...]:
        """Entries that are durable, as ``Load`` asks for them; none if the first is gone."""
        taken: list[Entry] = []
        size = 0
        if first <= self.base.seq:
            return ()
        for entry in self.entries[first - self.base.seq - 1 : max(0, last - self.base.seq)]:
            size += len(entry.payload)
            if taken and size > max_bytes:
                break
            taken.append(entry)
        return tuple(taken)

    def compact(self, seq: int, keep: Sequence[SnapshotId]) -> None:
        """Forget entries up to a sequence, and snapshots but the newest two and these (S6)."""
        if seq > self.snapshot_seq:
            raise AssertionError(
                f"{seq} is forgotten, the snapshot covers {self.snapshot_seq} (S6)"
            )
        seq = min(seq, self.last_seq)
        if seq > self.base.seq:
            base = Position(self.entry(seq).ballot, seq)
            del self.entries[: seq - self.base.seq]
            self.base = base
        newest = self.snapshots[-KEPT_SNAPSHOTS:]
        self.snapshots = [held for held in self.snapshots if held in newest or held.id in keep]

    # -- snapshots

    def keep(self, snapshot: Snapshot) -> int:
        """A snapshot is durable; returns what the newest one before it covers, 0 for none."""
        others = [held for held in self.snapshots if held.seq != snapshot.seq]
        self.snapshots = sorted([*others, snapshot], key=lambda held: held.seq)
        return max((held.seq for held in others if held.seq < snapshot.seq), default=0)

    def piece(self, snapshot: SnapshotId, offset: int, max_bytes: int) -> bytes:
        """A piece of a snapshot, nothing if it is gone."""
        for held in self.snapshots:
            if held.id == snapshot:
                return held.data[offset : offset + max_bytes]
        return b""

    def drop_pieces(self) -> None:
        self.arriving = None
        self._pieces.clear()

    def add_piece(self, snapshot: SnapshotId, offset: int, piece: bytes) -> int:
        """Keep a piece of a snapshot that comes; returns which offset is wanted next."""
        if snapshot != self.arriving:
            self.drop_pieces()
            self.arriving = snapshot
        if offset == len(self._pieces):
            self._pieces += piece
        return len(self._pieces)

    def complete(self) -> Snapshot | None:
        """If all pieces are there: the snapshot is checked, made durable and given its name."""
        arriving = self.arriving
        if arriving is None or len(self._pieces) < arriving.size_bytes:
            return None
        data = bytes(self._pieces)
        self.drop_pieces()
        if crc32(data) != arriving.crc or len(data) != arriving.size_bytes:
            return None
        snapshot = Snapshot(arriving, data)
        self.keep(snapshot)
        return snapshot

    # -- starts and damage

    def open(self) -> int:
        """What a start finds, brought into agreement; returns the commit to begin with."""
        self.pending.clear()
        self.drop_pieces()
        newest = self.snapshot
        covered = newest.seq if newest is not None else 0
        if self.base.seq > covered or self.commit_hint > max(covered, self.last_seq):
            self.salvage()
        elif newest is not None and self.ballot_at(covered) != newest.id.position.ballot:
            # The snapshot became durable and the crash came before the log gave way to it (S4).
            self._begin_behind(newest.id.position)
        self.commit_hint = max(covered, self.commit_hint)
        return self.commit_hint

    def salvage(self) -> None:
        """The log is lost: it begins anew at the newest snapshot, with the promise and without a
        vote (W4)."""
        newest = self.snapshot
        self._begin_behind(newest.id.position if newest is not None else NOWHERE)
        self.commit_hint = self.base.seq
        self.recovering = True

    def lose_tail(self, count: int) -> None:
        """The last entries are gone, and no record tells of them any more."""
        del self.entries[max(0, len(self.entries) - count) :]
