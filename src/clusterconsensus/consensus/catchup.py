"""Catching up with a snapshot: for a member that lacks entries which are no longer in the log (S1).

The master sends the newest durable snapshot *file*, never its live state, in pieces. The receiver
keeps them, says what it wants next, and when it has the whole file, checked and durable, lets its
log give way to it (S4). Three things make this safe:

* A snapshot holds only what is chosen, so installing one at or above the own commit never loses
  anything, whoever sent it and whenever it arrives; one at or below the commit is not looked at
  (S3, C-15).
* Which file a piece belongs to is told by position, size and checksum of the whole, so pieces of
  two files never mix.
* Nothing here touches a promise but as an accept would (R1a, R1b), nor ever an identity (I1).

And these make it live: the receiver's word decides where to go on, after a lost piece or a broken
connection, and with another master that has the same file; a receiver that was restarted begins
anew; there is no limit on the total time, only pieces that are
not acknowledged are sent again; and installing may take as long as it takes, since heartbeats are
answered meanwhile (C-52).
"""

from __future__ import annotations

import math
from zlib import crc32

from clusterconsensus.consensus.acceptor import Acceptor
from clusterconsensus.consensus.effects import Compact, Install, LoadChunk, StoreChunk
from clusterconsensus.consensus.events import (
    ChunkLoaded,
    ChunkStored,
    SnapshotStored,
    SnapshotTaken,
)
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.messages import SnapshotAck, StartParticipation
from clusterconsensus.consensus.types import NOBODY, ZERO, Ballot, Incarnation, SnapshotId

WINDOW_CHUNKS = 4
"""Pieces on their way to one member."""

PATIENCE = 8
"""For so many E a member that says nothing new of its snapshot counts as following all the same."""


PINNING = 60
"""For so many E a transfer that makes no progress still keeps the log behind its snapshot (S6)."""


class Sending:
    """One snapshot on its way to one member. ``acked`` is what the member wants next, ``next`` what
    is read and sent next, both in bytes from the beginning of the file."""

    def __init__(self, snapshot: SnapshotId, now: float) -> None:
        self.snapshot = snapshot
        self.acked = 0
        self.next = 0
        self.loading = False
        self.went_back = False
        self.progress_at = now
        self.acked_at = now
        """When it last wanted more than before."""
        self.send_at = now
        """Not before this, so that the pace is kept."""


class CatchUp:
    """The snapshots that a master sends, and what may be forgotten of the log.

    ``Master`` says who needs one; this keeps the pieces coming.
    """

    def __init__(self, local: Local) -> None:
        self._local = local
        self.sending: dict[Incarnation, Sending] = {}
        self._older_seq = 0

    def clear(self) -> None:
        """This member leads no more."""
        self.sending.clear()

    # -- the own snapshots (S5, S6)

    def on_taken(self, event: SnapshotTaken) -> None:
        """A snapshot of the own state is durable: the log behind the older one may go, but for a
        margin and for what a transfer still needs (S6)."""
        local = self._local
        if local.snapshot is None or event.snapshot.seq >= local.snapshot.seq:
            local.snapshot = event.snapshot
            self._older_seq = event.older_seq
        self._compact(event.snapshot.seq if event.discard else 0)

    def _compact(self, discard_seq: int) -> None:
        """Forget what nobody needs, and in any case what is damaged."""
        local = self._local
        limits, log = local.limits, local.log
        covered = min(self._older_seq, local.applied)
        seq = min(
            covered,
            max(covered - limits.keep_log_entries, log.seq_of_last(limits.keep_log_bytes)),
        )
        keep: list[SnapshotId] = []
        patience = PINNING * limits.election_timeout_seconds
        for sending in self.sending.values():
            if local.now - sending.acked_at >= patience:
                continue  # it may have died
            if log.last_seq - sending.snapshot.seq <= limits.max_kept_log_entries:
                seq = min(seq, sending.snapshot.seq)
                if sending.snapshot not in keep:
                    keep.append(sending.snapshot)
        log.compact(max(seq, min(discard_seq, local.applied)))
        local.effects.append(Compact(log.base.seq, tuple(keep)))

    # -- the master's side

    @property
    def deadline(self) -> float:
        """When something is to be sent again, or may be sent."""
        soonest = math.inf
        patience = self._local.limits.election_timeout_seconds
        for sending in self.sending.values():
            if sending.loading:
                continue
            if sending.next - sending.acked < self._window and sending.next < (
                sending.snapshot.size_bytes
            ):
                soonest = min(soonest, sending.send_at)
            soonest = min(soonest, sending.progress_at + patience)
        return soonest

    @property
    def _window(self) -> int:
        return WINDOW_CHUNKS * self._local.limits.chunk_bytes

    def need(self, name: Incarnation) -> None:
        """A member lacks what is no longer in the log."""
        snapshot = self._local.snapshot
        if name not in self.sending and snapshot is not None:
            self.sending[name] = Sending(snapshot, self._local.now)

    def need_no_more(self, name: Incarnation) -> None:
        self.sending.pop(name, None)

    def is_served(self, name: Incarnation) -> bool:
        """Whether a member lacks entries only because its snapshot is still on the way. It may
        have a large file to check, so it is given time."""
        sending = self.sending.get(name)
        patience = PATIENCE * self._local.limits.election_timeout_seconds
        return sending is not None and self._local.now - sending.acked_at < patience

    def on_disconnected(self, name: Incarnation) -> None:
        """What was on its way is lost; what the member has kept is not."""
        sending = self.sending.get(name)
        if sending is not None:
            sending.next = sending.acked

    def end_of_turn(self) -> None:
        """Read the next piece for whoever may get one."""
        local = self._local
        patience = local.limits.election_timeout_seconds
        for name, sending in self.sending.items():
            if sending.loading:
                continue
            if local.now >= sending.progress_at + patience:  # as ``deadline`` has it, to the bit
                sending.progress_at = local.now
                sending.next = sending.acked
            more = sending.next < sending.snapshot.size_bytes
            room = sending.next - sending.acked < self._window
            if more and room and local.now >= sending.send_at:
                sending.loading = True
                size = local.limits.chunk_bytes
                local.effects.append(LoadChunk(name, sending.snapshot, sending.next, size))

    def on_loaded(self, ballot: Ballot, event: ChunkLoaded) -> None:
        """A piece was read."""
        local = self._local
        sending = self.sending.get(event.to)
        if sending is None or not sending.loading or sending.snapshot != event.snapshot:
            return
        sending.loading = False
        if not event.chunk:
            # The file is gone or damaged: begin anew with what there is now, or will be soon.
            del self.sending[event.to]
            if local.snapshot == event.snapshot:
                local.snapshot = None
            return
        if event.offset != sending.next:
            return
        sending.next += len(event.chunk)
        pace = len(event.chunk) / local.limits.catch_up_bytes_per_second
        sending.send_at = max(sending.send_at, local.now - pace) + pace
        local.send(
            event.to,
            StartParticipation(
                ballot, event.snapshot, event.offset, event.chunk, crc32(event.chunk)
            ),
        )

    def on_ack(self, source: Incarnation, message: SnapshotAck) -> bool:
        """A member says what it wants next. Returns whether it needs no snapshot any more."""
        sending = self.sending.get(source)
        if sending is None:
            return False
        if message.installed >= sending.snapshot.seq:
            del self.sending[source]
            return True
        wanted = message.next_offset
        if message.snapshot != sending.snapshot or not 0 <= wanted <= sending.snapshot.size_bytes:
            return False
        if wanted > sending.acked:
            sending.progress_at = sending.acked_at = self._local.now
            sending.went_back = False
            sending.acked = wanted
            sending.next = max(sending.next, wanted)
        elif wanted < sending.acked:
            sending.acked = sending.next = wanted  # it begins again, after a restart
            sending.progress_at = self._local.now
        elif sending.next > wanted and not sending.went_back and not sending.loading:
            # The same again: the piece that it wants was lost. Once, not for each that follows it.
            sending.went_back = True
            sending.next = wanted
        return False


class Receiver:
    """The snapshot that this member is given."""

    def __init__(self, local: Local, acceptor: Acceptor) -> None:
        self._local = local
        self._acceptor = acceptor
        self._source: Incarnation = NOBODY
        self._ballot = ZERO
        self.snapshot: SnapshotId | None = None
        """What is being received."""
        self.received_bytes = 0

    def on_piece(self, source: Incarnation, message: StartParticipation) -> None:
        """A piece has come from the master that is followed (S2); the caller has applied R1a and
        R1b to it."""
        local = self._local
        self._source, self._ballot = source, message.ballot
        if message.snapshot.seq <= local.commit:
            self._acknowledge(message.snapshot, 0)  # not needed (S3)
        elif crc32(message.chunk) == message.crc:
            if message.snapshot != self.snapshot:
                self.snapshot = message.snapshot
                self.received_bytes = 0
            local.effects.append(StoreChunk(message.snapshot, message.offset, message.chunk))

    def on_stored(self, event: ChunkStored) -> None:
        """A piece was kept, or another one is wanted."""
        if event.snapshot == self.snapshot:
            self.received_bytes = event.next_offset
            self._acknowledge(event.snapshot, event.next_offset)

    def on_whole(self, event: SnapshotStored) -> None:
        """The whole snapshot is durable here: the log gives way to it (S3, S4)."""
        local = self._local
        log = local.log
        snapshot = event.snapshot
        self.snapshot = None
        self.received_bytes = 0
        if local.snapshot is None or snapshot.seq > local.snapshot.seq:
            local.snapshot = snapshot
        if snapshot.seq > local.commit:
            if log.ballot_at(snapshot.seq) == snapshot.position.ballot:
                # The own log holds the very entry, and so everything before it (I-3).
                local.advance_commit(snapshot.seq)
            else:
                log.reset(
                    snapshot.position, event.configuration_seq, event.configuration, event.time
                )
                local.commit = local.apply_asked = snapshot.seq
                local.persist(base=snapshot.position)
                local.effects.append(Install(snapshot))
            self._acceptor.on_installed(snapshot.seq)
        self._acknowledge(snapshot, snapshot.size_bytes)

    def _acknowledge(self, snapshot: SnapshotId, next_offset: int) -> None:
        local = self._local
        if self._ballot == local.promised and not local.leads:
            local.send(
                self._source,
                SnapshotAck(self._ballot, snapshot, next_offset, local.commit),
            )
