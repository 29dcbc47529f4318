"""Catching up with a snapshot: pieces and their pace, what gives way to it, what is forgotten."""

from __future__ import annotations

import math
from zlib import crc32

import pytest

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.catchup import PATIENCE, WINDOW_CHUNKS, CatchUp
from clusterconsensus.consensus.effects import Effect
from clusterconsensus.consensus.local import Limits
from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Prepare,
    ProbeReply,
    Promise,
    Refusal,
    Reject,
    SnapshotAck,
    StartParticipation,
)
from clusterconsensus.consensus.types import (
    NOBODY,
    Ballot,
    Configuration,
    Incarnation,
    Position,
    Role,
    SnapshotId,
)
from tests.core.one import FIRST, A, B, C, D, One, configuration_entry, noop, of_kind, seat, sent

SECOND = Ballot(2, B)
THIRD = Ballot(3, C)
CHUNK = 100
LIMITS = Limits(keep_log_entries=0, chunk_bytes=CHUNK, catch_up_bytes_per_second=1_000)


def piece(offset: int, size: int = CHUNK) -> bytes:
    """What stands at this place of the made-up file."""
    return bytes((offset + place) % 251 for place in range(size))


# -- the master's side


class Leader:
    """The master ``a``, whose log begins behind entry 11; ``c`` has none of it."""

    def __init__(self, size_bytes: int = 1_000, limits: Limits = LIMITS) -> None:
        self.one = one = One(*(noop(seq, FIRST) for seq in range(2, 11)), limits=limits)
        one.now = one.replica.election.deadline
        one.tick()
        self.ballot, last = Ballot(2, A), Position(FIRST, 10)
        one.receive(B, ProbeReply(self.ballot, Refusal.NONE, FIRST, last))
        one.receive(B, Promise(self.ballot, Refusal.NONE, self.ballot, last))
        self.ack_log(11)
        assert (one.local.role, one.local.commit) == (Role.MASTER, 11)
        one.apply()
        self.snapshot = SnapshotId(Position(self.ballot, 11), size_bytes, 7)
        found = one.turn(events.SnapshotTaken(self.snapshot, 11))
        assert of_kind(found, effects.Compact)
        assert one.local.log.base.seq == 11

    @property
    def catch_up(self) -> CatchUp:
        return self.one.replica.master.catch_up

    def ack_log(self, match: int) -> list[Effect]:
        """b holds everything up to ``match``, in the latest round."""
        number = self.one.replica.master._round
        return self.one.receive(B, Accepted(self.ballot, match, number, 0, 0))

    def beat(self, after: float = 0.1) -> list[Effect]:
        found = self.one.tick(after)
        return found + self.ack_log(self.one.local.log.last_seq)

    def refuse(self, hint: int = 0, name: Incarnation = C) -> list[Effect]:
        """c lacks the entry that stands before the last message."""
        progress = self.one.replica.master.progress[name]
        previous = max(progress.next, self.one.local.log.base.seq + 1) - 1
        number = self.one.replica.master._round
        reject = Reject(self.ballot, Refusal.GAP, self.ballot, previous, hint, number)
        return self.one.receive(name, reject)

    def begin(self) -> list[Effect]:
        """c turns out to need the snapshot."""
        found = self.beat() + self.refuse()
        assert C in self.catch_up.sending
        return found

    def load(self, found: list[Effect]) -> list[Effect]:
        """Give it the piece that it asked for."""
        (wanted,) = of_kind(found, effects.LoadChunk)
        assert (wanted.to, wanted.snapshot, wanted.max_bytes) == (C, self.snapshot, CHUNK)
        size = min(CHUNK, self.snapshot.size_bytes - wanted.offset)
        chunk = piece(wanted.offset, size)
        return self.one.turn(events.ChunkLoaded(C, self.snapshot, wanted.offset, chunk))

    def ack(self, wanted: int, installed: int = 0, ballot: Ballot | None = None) -> list[Effect]:
        return self.one.receive(
            C, SnapshotAck(ballot or self.ballot, self.snapshot, wanted, installed)
        )

    def drain(self, found: list[Effect]) -> list[int]:
        """Give it whatever it asks for, until it asks for no more; the offsets that it sends."""
        offsets: list[int] = []
        while of_kind(found, effects.LoadChunk):
            found = self.load(found)
            offsets += [message.offset for message in sent(found, StartParticipation)]
            if not of_kind(found, effects.LoadChunk):
                found = self.one.tick(0.001)
        return offsets


def test_who_lacks_what_is_compacted_is_sent_the_snapshot() -> None:
    leader = Leader()
    found = leader.load(leader.begin())
    (message,) = sent(found, StartParticipation)
    assert message == StartParticipation(
        leader.ballot, leader.snapshot, 0, piece(0), crc32(piece(0))
    )


def test_a_member_that_was_away_while_the_log_was_compacted_is_served_when_it_comes_back() -> None:
    """What was sent to it first was lost, and is no longer in the log when it answers at last."""
    leader = Leader()
    found: list[Effect] = []
    for _ in range(3):
        found += leader.beat()
    messages = [
        effect.message
        for effect in found
        if isinstance(effect, effects.Send)
        and C in effect.to
        and isinstance(effect.message, Accept)
    ]
    reject = Reject(leader.ballot, Refusal.GAP, leader.ballot, messages[-1].previous.seq, 0, 1)
    found = leader.one.receive(C, reject)
    assert C in leader.catch_up.sending
    assert of_kind(found, effects.LoadChunk)


def test_a_member_that_was_away_and_lacks_nothing_goes_on_with_the_log() -> None:
    leader = Leader()
    leader.beat()
    number = leader.one.replica.master._round
    leader.one.receive(C, Accepted(leader.ballot, 11, number, 0, 0))
    assert not leader.catch_up.sending
    assert leader.one.replica.master.progress[C].next == 12


def test_the_pace_is_kept() -> None:
    """1000 bytes each second, in pieces of 100 bytes."""
    leader = Leader()
    found = leader.load(leader.begin())
    assert not of_kind(found, effects.LoadChunk)
    began = leader.one.now
    assert leader.one.replica.master.deadline == pytest.approx(began + 0.1)
    assert not of_kind(leader.one.tick(0.05), effects.LoadChunk)
    assert of_kind(leader.one.tick(0.06), effects.LoadChunk)


def test_what_was_not_sent_in_time_is_not_made_up_for_at_once() -> None:
    leader = Leader()
    found = leader.load(leader.begin())
    leader.ack(100)
    found = leader.beat(0.5)
    found = leader.load(found)
    # One piece late is made up for; the three others that could have been sent are not.
    found = leader.load(found) if of_kind(found, effects.LoadChunk) else found
    assert not of_kind(found, effects.LoadChunk)


def test_no_more_than_the_window_is_on_its_way() -> None:
    leader = Leader(limits=Limits(keep_log_entries=0, chunk_bytes=CHUNK))
    offsets = leader.drain(leader.begin())
    assert offsets == [CHUNK * number for number in range(WINDOW_CHUNKS)]
    found = leader.ack(CHUNK)
    assert of_kind(found, effects.LoadChunk)[0].offset == CHUNK * WINDOW_CHUNKS


def full_window() -> Leader:
    leader = Leader(limits=Limits(keep_log_entries=0, chunk_bytes=CHUNK))
    leader.drain(leader.begin())
    return leader


def test_a_lost_piece_is_sent_again_once() -> None:
    leader = full_window()
    assert leader.drain(leader.ack(CHUNK)) == [WINDOW_CHUNKS * CHUNK]
    # The second piece was lost: each that follows it is answered with what is wanted.
    assert leader.drain(leader.ack(CHUNK)) == [CHUNK, 2 * CHUNK, 3 * CHUNK, 4 * CHUNK]
    assert leader.drain(leader.ack(CHUNK)) == [], "it does not go back for each of them"
    # When it wants more, another loss is another matter.
    leader.ack(3 * CHUNK)
    assert not leader.catch_up.sending[C].went_back


def test_what_is_not_acknowledged_for_long_is_sent_again() -> None:
    leader = full_window()
    sending = leader.catch_up.sending[C]
    assert sending.next == WINDOW_CHUNKS * CHUNK
    limit = LIMITS.election_timeout_seconds
    found: list[Effect] = []
    began = leader.one.now
    while not of_kind(found, effects.LoadChunk):
        found = leader.beat()
        assert leader.one.now < began + 2 * limit
    assert of_kind(found, effects.LoadChunk)[0].offset == 0
    assert leader.one.now >= began + 0.9 * limit


def test_when_its_time_has_come_it_acts() -> None:
    """Otherwise the deadline stays in the past, and there are ticks without end."""
    leader = full_window()
    sending = leader.catch_up.sending[C]
    times = [511 + number / 97 for number in range(97)]
    assert any((began + 1.0) - began < 1.0 for began in times), "the sum of two floats is rounded"
    for began in times:
        sending.progress_at, sending.next, sending.loading = began, 400, False
        leader.one.local.now = leader.catch_up.deadline
        leader.catch_up.end_of_turn()
        assert sending.loading


def test_a_receiver_that_restarted_is_sent_the_file_from_its_beginning() -> None:
    leader = full_window()
    leader.ack(2 * CHUNK)
    sending = leader.catch_up.sending[C]
    sending.loading = False
    found = leader.ack(0)
    assert (sending.acked, of_kind(found, effects.LoadChunk)[0].offset) == (0, 0)


def test_a_broken_connection_takes_what_was_on_its_way() -> None:
    leader = full_window()
    leader.drain(leader.ack(CHUNK))
    found = leader.one.turn(events.Disconnected(C))
    assert leader.drain(found)[0] == CHUNK
    leader.one.turn(events.Disconnected(B))  # who is sent none


def test_a_piece_that_was_read_for_what_is_no_longer_wanted_is_not_sent() -> None:
    leader = Leader()
    found = leader.begin()
    (wanted,) = of_kind(found, effects.LoadChunk)
    leader.catch_up.sending[C].next = 300
    again = leader.one.turn(events.ChunkLoaded(C, leader.snapshot, wanted.offset, piece(0)))
    assert not sent(again, StartParticipation)
    assert of_kind(again, effects.LoadChunk)[0].offset == 300
    other = SnapshotId(leader.snapshot.position, 5, 5)
    for event in (
        events.ChunkLoaded(C, other, 300, piece(300)),
        events.ChunkLoaded(B, leader.snapshot, 300, piece(300)),
    ):
        assert not sent(leader.one.turn(event), StartParticipation)


def test_a_file_that_is_gone_is_replaced_by_what_there_is_now() -> None:
    leader = Leader()
    leader.begin()
    newer = SnapshotId(Position(leader.ballot, 11), 50, 9)
    leader.one.turn(events.SnapshotTaken(newer, 11))
    found = leader.one.turn(events.ChunkLoaded(C, leader.snapshot, 0, b""))
    (wanted,) = of_kind(found, effects.LoadChunk)
    assert (wanted.snapshot, wanted.offset) == (newer, 0)
    # That one too: there is none now, and the next that is taken serves.
    found = leader.one.turn(events.ChunkLoaded(C, newer, 0, b""))
    assert not of_kind(found, effects.LoadChunk)
    assert (leader.one.local.snapshot, leader.catch_up.sending) == (None, {})
    found = leader.one.turn(events.SnapshotTaken(leader.snapshot, 11))
    assert of_kind(found, effects.LoadChunk)


def test_who_has_installed_it_goes_on_with_the_log() -> None:
    leader = full_window()
    found = leader.ack(1_000, installed=11)
    assert not leader.catch_up.sending
    progress = leader.one.replica.master.progress[C]
    assert (progress.next, progress.probing) == (12, True)
    assert not of_kind(found, effects.LoadChunk)
    assert leader.ack(1_000, installed=11) == [], "once more says nothing new"


def test_who_acknowledges_the_log_needs_no_snapshot() -> None:
    leader = full_window()
    number = leader.one.replica.master._round
    leader.one.receive(C, Accepted(leader.ballot, 11, number, 0, 0))
    assert not leader.catch_up.sending


@pytest.mark.parametrize("wanted", [-1, 1_001])
def test_what_no_receiver_wants_is_ignored(wanted: int) -> None:
    leader = full_window()
    before = vars(leader.catch_up.sending[C]).copy()
    leader.ack(wanted)
    leader.ack(CHUNK, ballot=FIRST)
    leader.one.receive(D, SnapshotAck(leader.ballot, leader.snapshot, CHUNK, 99))
    other = SnapshotId(leader.snapshot.position, 5, 5)
    leader.one.receive(C, SnapshotAck(leader.ballot, other, 5, 0))
    assert vars(leader.catch_up.sending[C]) == before


def test_an_acknowledgement_beyond_the_log_is_ignored() -> None:
    """What a peer says never stops this member."""
    leader = full_window()
    found = leader.ack(1_000, installed=10**9)
    found += leader.beat()
    assert not of_kind(found, effects.Halt)
    assert leader.one.local.leads
    assert C in leader.catch_up.sending


def test_a_refusal_counts_as_following_while_a_snapshot_is_on_its_way() -> None:
    """b is gone: c alone, which lacks entries, makes the majority that keeps the master (E9)."""
    leader = Leader()
    leader.begin()
    limit = LIMITS.election_timeout_seconds
    began = leader.one.now
    while leader.one.now < began + 3 * limit:
        leader.one.tick(0.1)
        leader.refuse()
        assert leader.one.local.role is Role.MASTER
    # What wants nothing more for very long may never be given it.
    while leader.one.local.leads:
        assert leader.one.now < began + (PATIENCE + 2) * limit
        leader.one.tick(0.1)
        if leader.one.local.leads:
            leader.refuse()
    assert leader.one.now >= began + PATIENCE * limit


def test_a_refusal_without_a_snapshot_on_its_way_keeps_nobody_leading() -> None:
    leader = Leader()
    leader.one.local.snapshot = None
    began = leader.one.now
    while leader.one.local.leads:
        leader.one.tick(0.1)
        if leader.one.local.leads:
            leader.refuse()
        assert leader.one.now < began + 2
    assert C not in leader.catch_up.sending


def test_who_leads_no_more_sends_no_more() -> None:
    leader = full_window()
    leader.one.receive(C, Reject(leader.ballot, Refusal.LOWER, Ballot(9, C), 11, 0, 1))
    assert not leader.one.local.leads
    assert not leader.catch_up.sending
    assert leader.one.turn(events.ChunkLoaded(C, leader.snapshot, 0, piece(0))) == []
    assert leader.ack(CHUNK) == []
    assert leader.one.replica.master.deadline == math.inf


def test_who_leaves_the_configuration_is_sent_no_more() -> None:
    leader = full_window()
    leader.one.replica.master.append_configuration(
        configuration_entry(12, leader.ballot, A, B).payload
    )
    assert not leader.catch_up.sending


# -- what is forgotten (S6)


def test_the_log_reaches_back_to_the_older_of_two_snapshots() -> None:
    one = One(*(noop(seq, FIRST) for seq in range(2, 11)), limits=Limits(keep_log_entries=2))
    one.local.commit = one.local.apply_asked = one.local.applied = 9
    newest = SnapshotId(Position(FIRST, 9), 10, 1)
    found = one.turn(events.SnapshotTaken(newest, 0))
    assert of_kind(found, effects.Compact) == [effects.Compact(0, ())]
    found = one.turn(events.SnapshotTaken(newest, 6))
    assert of_kind(found, effects.Compact) == [effects.Compact(4, ())]
    assert one.local.log.base == Position(FIRST, 4)
    one.local.log.check()
    # A snapshot that is older than the newest known changes nothing (S5).
    one.turn(events.SnapshotTaken(SnapshotId(Position(FIRST, 8), 10, 1), 7))
    assert one.local.snapshot == newest
    assert one.local.log.base.seq == 4


def test_a_damaged_log_is_forgotten_up_to_the_new_snapshot() -> None:
    one = One(*(noop(seq, FIRST) for seq in range(2, 11)), limits=Limits(keep_log_entries=5))
    one.local.commit = one.local.apply_asked = one.local.applied = 9
    newest = SnapshotId(Position(FIRST, 9), 10, 1)
    found = one.turn(events.SnapshotTaken(newest, 3, True))
    assert of_kind(found, effects.Compact) == [effects.Compact(9, ())]
    assert one.local.log.base == Position(FIRST, 9)


def test_what_a_transfer_needs_is_kept_up_to_a_limit() -> None:
    limits = Limits(keep_log_entries=0, max_kept_log_entries=3, chunk_bytes=CHUNK)
    leader = Leader(limits=limits)
    leader.begin()
    one = leader.one

    def grow(last_seq: int) -> None:
        while one.local.log.last_seq < last_seq:
            one.turn(events.OpenSessionLocal(one.local.log.last_seq))
            leader.ack_log(one.local.log.last_seq)
        one.apply()

    grow(13)
    newer = SnapshotId(Position(leader.ballot, 13), 10, 1)
    found = one.turn(events.SnapshotTaken(newer, 13))
    assert of_kind(found, effects.Compact) == [effects.Compact(11, (leader.snapshot,))]
    grow(15)
    newest = SnapshotId(Position(leader.ballot, 15), 10, 2)
    found = one.turn(events.SnapshotTaken(newest, 15))
    assert of_kind(found, effects.Compact) == [effects.Compact(15, ())]


# -- the receiver's side

SNAPSHOT = SnapshotId(Position(SECOND, 20), 250, 77)
HEAD = Configuration(tuple(sorted(seat(name) for name in (A, B, C, D))), 1)


def whole(snapshot: SnapshotId = SNAPSHOT) -> events.SnapshotStored:
    return events.SnapshotStored(snapshot, 15, HEAD, 42.0)


def give(one: One, offset: int = 0, snapshot: SnapshotId = SNAPSHOT) -> list[Effect]:
    chunk = piece(offset)
    message = StartParticipation(SECOND, snapshot, offset, chunk, crc32(chunk))
    return one.receive(B, message)


def test_a_piece_is_kept_and_answered_when_it_is() -> None:
    one = One()
    found = give(one)
    assert of_kind(found, effects.StoreChunk) == [effects.StoreChunk(SNAPSHOT, 0, piece(0))]
    assert not sent(found, SnapshotAck)
    assert of_kind(found, effects.Persist)[0].promised == SECOND
    assert (one.local.promised, one.local.master, one.local.heard_at) == (SECOND, B, one.now)
    found = one.turn(events.ChunkStored(SNAPSHOT, 100))
    assert sent(found, SnapshotAck) == [SnapshotAck(SECOND, SNAPSHOT, 100, 1)]
    assert one.replica.receiver.received_bytes == 100
    # An answer of the disk that concerns another file is none.
    other = SnapshotId(Position(SECOND, 19), 250, 77)
    assert one.turn(events.ChunkStored(other, 200)) == []


def test_a_garbled_piece_is_dropped() -> None:
    one = One()
    found = one.receive(B, StartParticipation(SECOND, SNAPSHOT, 0, piece(0), crc32(b"")))
    assert not of_kind(found, effects.StoreChunk)


def test_a_piece_is_judged_like_an_accept() -> None:
    one = One(promised=THIRD)
    found = give(one)
    (reject,) = sent(found, Reject)
    assert (reject.refusal, reject.promised) == (Refusal.LOWER, THIRD)
    assert not of_kind(found, effects.StoreChunk)
    chunk = piece(0)
    stranger = StartParticipation(THIRD, SNAPSHOT, 0, chunk, crc32(chunk))
    assert one.receive(B, stranger) == [], "only its owner speaks in a ballot"
    absurd = Ballot(2**64 - 1, B)
    assert one.receive(B, StartParticipation(absurd, SNAPSHOT, 0, chunk, crc32(chunk))) == []


def test_a_snapshot_from_the_future_is_ignored() -> None:
    """A master has nothing of a ballot above its own; the log must not end above the promise."""
    one = One()
    future = SnapshotId(Position(THIRD, 20), 250, 77)
    found = give(one, snapshot=future)
    assert not of_kind(found, effects.StoreChunk)
    assert not of_kind(found, effects.Halt)


def test_a_piece_ends_a_mastership_of_a_lower_ballot() -> None:
    one = One()
    one.lead()
    ballot = Ballot(9, C)
    chunk = piece(0)
    snapshot = SnapshotId(Position(ballot, 20), 250, 77)
    one.receive(C, StartParticipation(ballot, snapshot, 0, chunk, crc32(chunk)))
    assert (one.local.role, one.local.master, one.local.promised) == (Role.FOLLOWER, C, ballot)


def test_what_is_committed_already_needs_no_snapshot() -> None:
    one = One(*(noop(seq, SECOND) for seq in range(2, 22)), promised=SECOND)
    one.accept(SECOND, previous=Position(SECOND, 21), commit=21)
    found = give(one)
    assert not of_kind(found, effects.StoreChunk)
    assert sent(found, SnapshotAck) == [SnapshotAck(SECOND, SNAPSHOT, 0, 21)]


def test_the_log_gives_way_to_the_snapshot() -> None:
    one = One(*(noop(seq, FIRST) for seq in range(2, 31)))
    give(one)
    found = one.turn(whole())
    (batch,) = of_kind(found, effects.Persist)
    assert (batch.base, batch.entries, batch.commit) == (SNAPSHOT.position, (), 20)
    assert of_kind(found, effects.Install) == [effects.Install(SNAPSHOT)]
    assert not of_kind(found, effects.Apply)
    assert sent(found, SnapshotAck) == [SnapshotAck(SECOND, SNAPSHOT, 250, 20)]
    assert sent(found, Accepted)[-1].match == 20
    local, log = one.local, one.local.log
    assert (log.base, log.last, log.durable_seq) == (SNAPSHOT.position, SNAPSHOT.position, 20)
    assert (local.commit, local.apply_asked, local.applied) == (20, 20, 1)
    assert (log.configuration_seq, log.configuration, log.last_time) == (15, HEAD, 42.0)
    assert of_kind(found, effects.ConfigurationChanged) == [effects.ConfigurationChanged(15, True)]
    assert (local.snapshot, one.replica.receiver.snapshot) == (SNAPSHOT, None)
    log.check()
    one.apply()
    found = one.accept(SECOND, noop(21, SECOND), previous=SNAPSHOT.position, commit=21)
    assert sent(found, Accepted)[-1].match == 21
    assert [apply.seq for apply in of_kind(found, effects.Apply)] == [21]


def test_the_promise_is_kept_when_the_log_gives_way() -> None:
    """S4: the log may go, what was promised may not."""
    one = One()
    give(one)
    one.receive(C, Prepare(Ballot(7, C), 1, Position(FIRST, 1)))
    one.now += 1.0
    one.receive(C, Prepare(Ballot(8, C), 1, Position(FIRST, 1)))
    found = one.turn(whole())
    assert one.local.promised == Ballot(8, C)
    assert not sent(found, SnapshotAck), "who sent it leads no more"
    assert not sent(found, Accepted)


def test_a_log_that_holds_the_entry_is_kept() -> None:
    one = One(*(noop(seq, SECOND) for seq in range(2, 31)), promised=SECOND)
    give(one)
    found = one.turn(whole())
    assert not of_kind(found, effects.Persist)
    assert not of_kind(found, effects.Install)
    assert (one.local.log.base.seq, one.local.log.last_seq, one.local.commit) == (0, 30, 20)
    assert of_kind(found, effects.Apply) == [effects.Apply(20)]
    assert sent(found, Accepted)[-1].match == 20


def test_a_snapshot_that_comes_too_late_changes_nothing() -> None:
    one = One()
    give(one)
    entries = tuple(noop(seq, SECOND) for seq in range(2, 26))
    one.accept(SECOND, *entries, commit=25)
    found = one.turn(whole())
    assert not of_kind(found, effects.Install)
    assert (one.local.commit, one.local.log.base.seq) == (25, 0)
    assert sent(found, SnapshotAck) == [SnapshotAck(SECOND, SNAPSHOT, 250, 25)]


def test_a_snapshot_from_before_the_base_does_not_bring_the_log_back() -> None:
    """C-15: what is compacted cannot be compared any more, and need not be."""
    one = One()
    give(one)
    entries = tuple(noop(seq, SECOND) for seq in range(2, 26))
    one.accept(SECOND, *entries, commit=25)
    one.apply()
    one.local.log.compact(24)
    found = one.turn(whole())
    assert not of_kind(found, effects.Install)
    assert not of_kind(found, effects.Persist)
    assert (one.local.commit, one.local.log.base.seq, one.local.log.last_seq) == (25, 24, 25)


def test_an_older_snapshot_does_not_replace_a_newer_one() -> None:
    one = One()
    newer = SnapshotId(Position(SECOND, 30), 9, 9)
    one.local.snapshot = newer
    give(one)
    one.turn(whole())
    assert one.local.snapshot == newer


def test_a_master_looks_at_no_snapshot() -> None:
    one = One()
    one.lead()
    before = one.local.log.last
    assert not of_kind(one.turn(whole()), effects.Install)
    assert (one.local.log.last, one.local.leads) == (before, True)


def test_syncs_of_the_old_log_make_nothing_of_the_new_one_durable() -> None:
    one = One()
    one.accept(SECOND)
    one.slow = True
    one.accept(SECOND, *(noop(seq, SECOND) for seq in range(2, 41)))
    old = one.local.tickets[-1].number
    give(one, snapshot=(other := SnapshotId(Position(SECOND, 60), 250, 77)))
    one.turn(whole(other))
    base = one.local.tickets[-1].number
    # Behind the base something new is on its way, whose sequences the old log never had.
    one.accept(SECOND, noop(61, SECOND), previous=other.position)
    assert one.local.log.durable_seq == 60
    one.turn(events.Persisted(old))
    assert one.local.log.durable_seq == 60
    one.turn(events.Persisted(base))
    assert one.local.log.durable_seq == 60
    found = one.turn(events.Persisted(one.local.tickets[-1].number))
    assert one.local.log.durable_seq == 61
    assert sent(found, Accepted)[-1].match == 61


def test_syncs_of_a_longer_old_log_make_nothing_of_the_new_one_durable() -> None:
    """The old log was longer than the snapshot, and of another history."""
    one = One()
    one.accept(SECOND)
    one.slow = True
    one.accept(SECOND, *(noop(seq, SECOND) for seq in range(2, 41)))
    old = one.local.tickets[-1].number
    snapshot = SnapshotId(Position(THIRD, 20), 250, 77)
    chunk = piece(0)
    one.receive(C, StartParticipation(THIRD, snapshot, 0, chunk, crc32(chunk)))
    one.turn(whole(snapshot))
    one.accept(
        THIRD, *(noop(seq, THIRD) for seq in range(21, 31)), previous=snapshot.position, commit=30
    )
    one.turn(events.Persisted(old))
    assert one.local.log.durable_seq == 20
    assert not of_kind(one.tick(), effects.Apply)


def test_a_candidate_whose_log_gives_way_does_not_mix_two_logs() -> None:
    """The promises were given for the log as it was: this attempt comes to nothing, safely."""
    one = One()
    give(one)
    one.now = one.replica.election.deadline
    one.tick()
    candidacy = one.replica.election.candidacy
    assert candidacy is not None
    ballot = candidacy.ballot
    one.receive(C, ProbeReply(ballot, Refusal.NONE, FIRST, Position(FIRST, 1)))
    one.turn(whole())
    suffix = tuple(noop(seq, SECOND) for seq in range(2, 31))
    found = one.receive(
        C, Promise(ballot, Refusal.NONE, ballot, Position(SECOND, 30), suffix, False)
    )
    assert not of_kind(found, effects.Halt)
    assert not one.local.leads
    assert one.local.log.last == SNAPSHOT.position
    one.local.log.check()


def test_a_learner_becomes_what_the_snapshot_says() -> None:
    one = One(name=D)
    roles = [one.local.role]
    give(one)
    one.turn(whole())
    roles.append(one.local.role)
    assert roles == [Role.UNJOINED, Role.FOLLOWER]
    assert one.local.master == B != NOBODY
