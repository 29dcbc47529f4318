"""The master: batches, pipelines, commit, stepping down; and what it knows of each follower."""

from __future__ import annotations

import math

import pytest

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.local import Limits
from clusterconsensus.consensus.master import GROUP_OVERHEAD_BYTES
from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Group,
    OpenSession,
    Prepare,
    ProbeReply,
    Promise,
    Refusal,
    Reject,
    Submit,
    SubmitReply,
)
from clusterconsensus.consensus.progress import Progress
from clusterconsensus.consensus.sessions import (
    CloseSessions,
    decode_groups,
    decode_session_order,
    encode_requests,
)
from clusterconsensus.consensus.types import NOBODY, Ballot, EntryKind, Position, Role
from tests.core.one import FIRST, A, B, C, D, One, configuration_entry, noop, of_kind, sent


def group(number: int = 1, size: int = 10) -> Group:
    return Group(1, 1, number, 1, encode_requests([b"x" * size]))


def led(limits: Limits | None = None) -> One:
    one = One(limits=limits)
    one.lead()
    return one


def ack(one: One, match: int, number: int = 1) -> list[effects.Effect]:
    return one.receive(B, Accepted(one.ballot, match, number, 0, 0))


def test_the_first_own_entry_is_a_noop() -> None:
    one = led()
    entry = one.local.log.entry(2)
    assert (entry.kind, entry.ballot) == (EntryKind.NOOP, one.ballot)


def test_one_turn_is_one_batch() -> None:
    one = led()
    found = one.turn(
        events.SubmitLocal(1, group(1)),
        events.Received(B, Submit(1, group(2))),
        events.Received(C, Submit(1, group(3))),
    )
    (batch,) = of_kind(found, effects.Persist)
    (entry,) = batch.entries
    assert [held.first for held in decode_groups(entry.payload)] == [1, 2, 3]
    origins = one.replica.master.origins[entry.seq]
    assert [origin.source for origin in origins] == [NOBODY, B, C]


def test_what_comes_while_the_disk_works_gathers() -> None:
    one = led()
    one.slow = True
    one.turn(events.SubmitLocal(1, group(1)))
    assert not of_kind(one.turn(events.SubmitLocal(2, group(2))), effects.Persist)
    assert not of_kind(one.turn(events.SubmitLocal(3, group(3))), effects.Persist)
    found = one.turn(events.Persisted(one.local.tickets[-1].number))
    (batch,) = of_kind(found, effects.Persist)
    assert len(decode_groups(batch.entries[0].payload)) == 2


def test_a_batch_is_cut_into_entries_by_size() -> None:
    one = led(Limits(max_batch_bytes=400))
    one.turn(*(events.SubmitLocal(number, group(number, 100)) for number in range(1, 5)))
    assert one.local.log.last_seq == 4
    assert one.local.log.entry(3).time >= one.local.log.entry(2).time


def test_a_full_master_refuses() -> None:
    one = led(Limits(max_staged_bytes=400))
    one.turn(events.SubmitLocal(1, group(1, 200)))
    refused = one.turn(events.SubmitLocal(2, group(2, 200)))
    assert of_kind(refused, effects.SubmitRefused) == [effects.SubmitRefused(2, True)]
    remote = one.receive(B, Submit(1, group(3, 200)))
    assert sent(remote, SubmitReply)[0].refusal is Refusal.OVERLOADED
    ack(one, 3)
    assert not of_kind(one.turn(events.SubmitLocal(3, group(4, 200))), effects.SubmitRefused)


def test_an_attempt_is_taken_or_refused_once() -> None:
    one = led(Limits(max_staged_bytes=400))
    one.turn(events.SubmitLocal(1, group(1, 200)))
    one.receive(B, Submit(7, group(3, 200)))
    ack(one, 3)
    before = one.local.log.last_seq
    assert not sent(one.receive(B, Submit(7, group(3, 200))), SubmitReply)
    assert one.local.log.last_seq == before
    one.receive(B, Submit(8, group(3, 200)))
    assert one.local.log.last_seq == before + 1
    one.receive(B, Submit(8, group(3, 200)))
    assert one.local.log.last_seq == before + 1


def test_who_does_not_lead_refuses() -> None:
    one = One()
    local = one.turn(events.SubmitLocal(1, group()))
    assert of_kind(local, effects.SubmitRefused) == [effects.SubmitRefused(1, False)]
    assert sent(one.receive(B, Submit(1, group())), SubmitReply)[0].refusal is Refusal.NOT_APPENDED
    assert one.receive(B, OpenSession(1)) == []
    assert one.turn(events.CloseSessionsLocal(CloseSessions(((1, 1.0),)))) == []


def test_sessions_are_entries_before_the_groups_of_the_turn() -> None:
    one = led()
    one.turn(events.SubmitLocal(1, group()), events.Received(B, OpenSession(5)))
    assert one.local.log.entry(3).kind == EntryKind.SESSION
    assert one.local.log.entry(4).kind == EntryKind.CHANGES
    assert one.replica.master.origins[3][0].attempt == 5


def test_an_entry_is_chosen_by_a_majority_of_durable_copies() -> None:
    one = led()
    one.slow = True
    one.turn(events.SubmitLocal(1, group()))
    ack(one, 3)
    assert one.local.commit == 2  # b and nobody else: the own copy is not durable (D4)
    one.turn(events.Persisted(one.local.tickets[-1].number))
    assert one.local.commit == 3


def test_copies_at_members_without_a_vote_do_not_count() -> None:
    one = led()
    one.turn(events.SubmitLocal(1, group()))
    one.receive(D, Accepted(one.ballot, 3, 1, 0, 0))
    assert one.local.commit == 2


def test_entries_of_older_ballots_are_not_chosen_by_counting() -> None:
    """The log ends with an entry of ballot 1 that a majority holds; only the NOOP decides (C-2)."""
    one = One(noop(2, FIRST), noop(3, FIRST))
    one.now = one.replica.election.deadline
    one.tick()
    ballot = Ballot(2, A)
    last = Position(FIRST, 3)
    one.receive(B, ProbeReply(ballot, Refusal.NONE, FIRST, last))
    one.receive(B, Promise(ballot, Refusal.NONE, ballot, last))
    one.receive(B, Accepted(ballot, 3, 1, 0, 0))
    assert one.local.commit == 1
    one.receive(B, Accepted(ballot, 4, 1, 0, 0))
    assert one.local.commit == 4


def test_acknowledgements_of_another_ballot_or_from_the_future_are_ignored() -> None:
    one = led()
    one.turn(events.SubmitLocal(1, group()))
    one.receive(B, Accepted(Ballot(1, A), 3, 1, 0, 0))
    ack(one, 99)
    ack(one, 3, number=999)
    assert one.local.commit == 2


def test_a_master_without_a_majority_steps_down() -> None:
    one = led()
    one.turn(events.SubmitLocal(1, group()))
    one.tick(0.5)
    assert one.local.leads
    found = one.tick(0.6)
    assert one.local.role is Role.FOLLOWER
    assert of_kind(found, effects.RoleChanged)[0].master == NOBODY
    assert not sent(one.tick(0.1), Accept)


def test_what_counts_is_when_the_acknowledged_round_was_sent() -> None:
    one = led()
    one.tick(0.9)
    number = one.replica.master._round  # the round that has just been sent
    one.now += 0.9
    ack(one, 2, number)
    one.tick()
    assert one.local.leads
    one.now += 0.2
    one.tick()
    assert not one.local.leads


def test_a_master_whose_disk_hangs_steps_down() -> None:
    one = led()
    one.slow = True
    one.turn(events.SubmitLocal(1, group()))
    for _ in range(12):
        one.tick(0.1)
        ack(one, 2, one.replica.master._round)
    assert one.local.role is Role.FOLLOWER


def test_a_higher_promise_in_a_refusal_ends_the_mastership() -> None:
    one = led()
    one.receive(B, Reject(one.ballot, Refusal.LOWER, Ballot(9, C), 2, 0, 1))
    assert one.local.role is Role.FOLLOWER
    assert one.local.max_seen_instance == 9


def test_a_master_does_not_promise_while_it_leads() -> None:
    one = led()
    found = one.receive(B, Prepare(Ballot(9, B), 1, Position(FIRST, 1)))
    assert sent(found, Promise)[0].refusal is Refusal.STICKY
    assert one.local.leads


def test_what_was_queued_is_refused_when_stepping_down() -> None:
    one = led()
    one.slow = True
    one.turn(events.SubmitLocal(1, group(1)))
    one.turn(events.SubmitLocal(2, group(2)), events.Received(C, Submit(1, group(3))))
    found = one.tick(1.5)
    assert of_kind(found, effects.SubmitRefused) == [effects.SubmitRefused(2, False)]
    assert [reply.refusal for reply in sent(found, SubmitReply)] == [Refusal.NOT_APPENDED]
    assert not one.replica.master.origins


def test_heartbeats_carry_the_commit() -> None:
    one = led()
    beats = sent(one.tick(0.1), Accept)
    assert beats
    assert all((beat.entries, beat.commit) == ((), 2) for beat in beats)


def test_followers_that_are_equally_far_share_one_message() -> None:
    one = led()
    for name in (B, C):
        one.receive(name, Accepted(one.ballot, 2, 1, 0, 0))
    found = one.turn(events.SubmitLocal(1, group()))
    sends = [e for e in found if isinstance(e, effects.Send) and isinstance(e.message, Accept)]
    assert [send.to for send in sends] == [(B, C)]


def test_entries_that_left_the_memory_are_loaded_for_a_follower() -> None:
    one = led()
    one.local.log.evict(1, 0)
    reject = Reject(one.ballot, Refusal.GAP, one.ballot, 1, 0, 1)
    (load,) = of_kind(one.receive(C, reject), effects.Load)
    assert (load.purpose, load.first, load.last) == (C, 1, 1)
    entry = configuration_entry(1, FIRST, A, B, C)
    (accept,) = sent(one.turn(events.Loaded(C, 1, (entry,))), Accept)
    assert (accept.previous.seq, accept.entries) == (0, (entry,))


def test_replicated_time_never_goes_back() -> None:
    one = led()
    one.replica.step(events.EndOfTurn(5_000.0), one.now, 0.5)
    one.turn(events.SubmitLocal(1, group(1)))
    later = one.local.log.entry(3).time
    one.replica.step(events.SubmitLocal(2, group(2)), one.now, 0.5)
    one.replica.step(events.EndOfTurn(1.0), one.now, 0.5)
    assert one.local.log.entry(4).time >= later


LIMITS = Limits(window_messages=2, window_bytes=100)


def test_one_message_while_probing() -> None:
    progress = Progress(5, 0.0)
    assert progress.may_send(LIMITS)
    progress.on_sent(5, 10)
    assert not progress.may_send(LIMITS)
    assert progress.next == 5
    progress.on_accepted(4)
    assert progress.next == 6  # what was sent while probing is on its way, not to be sent again
    assert progress.may_send(LIMITS)


@pytest.mark.parametrize(("count", "size"), [(2, 1), (1, 100)])
def test_a_window_while_streaming(count: int, size: int) -> None:
    progress = Progress(5, 0.0)
    progress.on_accepted(4)
    for number in range(count):
        assert progress.may_send(LIMITS)
        progress.on_sent(5 + number, size)
    assert not progress.may_send(LIMITS)
    progress.on_accepted(5)
    assert progress.may_send(LIMITS)


def test_match_never_goes_back() -> None:
    progress = Progress(5, 0.0)
    progress.on_accepted(9)
    progress.on_accepted(4)
    assert (progress.match, progress.next) == (9, 10)


def test_a_gap_goes_back_to_the_hint_and_never_below_match() -> None:
    progress = Progress(20, 0.0)
    assert progress.on_gap(19, 7)
    assert (progress.next, progress.probing) == (8, True)
    assert not progress.on_gap(19, 3)  # an answer to what was sent before
    assert progress.on_gap(7, 99)
    assert progress.next == 7
    progress.on_accepted(6)
    assert not progress.on_gap(6, 0)


def test_a_disconnected_follower_is_probed_from_what_it_surely_holds() -> None:
    one = led()
    one.turn(events.SubmitLocal(1, group()))
    one.turn(events.Disconnected(B))
    progress = one.replica.master.progress[B]
    assert (progress.probing, progress.match) == (True, 2)
    assert progress.next == 3


def test_a_gap_in_what_was_never_sent_changes_nothing() -> None:
    one = led()
    one.receive(C, Accepted(one.ballot, 0, 1, 0, 0))
    progress = one.replica.master.progress[C]
    before = (progress.next, progress.probing)
    assert before == (3, False)
    found = one.receive(C, Reject(one.ballot, Refusal.GAP, one.ballot, 99, 50, 1))
    found += one.receive(C, Reject(one.ballot, Refusal.LOWER, one.ballot, 2, 0, 1))
    found += one.receive(C, Reject(FIRST, Refusal.GAP, FIRST, 2, 0, 1))
    assert (progress.next, progress.probing) == before
    assert not of_kind(found, effects.Halt)
    one.receive(C, Reject(one.ballot, Refusal.GAP, one.ballot, 2, 0, 1))
    assert (progress.next, progress.probing) == (1, True)


def test_only_a_master_closes_sessions() -> None:
    order = CloseSessions(((1, 1.0),))
    one = led()
    one.turn(events.CloseSessionsLocal(order))
    entry = one.local.log.entry(3)
    assert (entry.kind, decode_session_order(entry.payload)) == (EntryKind.SESSION, order)
    assert 3 not in one.replica.master.origins, "nobody waits for it"
    # One that has committed nothing of its own does not know what is idle.
    one.local.role = Role.PENDING_MASTER
    one.turn(events.CloseSessionsLocal(order))
    assert one.local.log.last_seq == 3


def test_session_entries_that_wait_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clusterconsensus.consensus.master.MAX_SESSION_ORDERS", 2)
    one = led()
    order = events.CloseSessionsLocal(CloseSessions(((1, 1.0),)))
    asks = [events.OpenSessionLocal(nonce) for nonce in (1, 2, 3)]
    one.turn(*asks, order)
    assert one.local.log.last_seq == 4
    one.turn(order, order, order, asks[2])
    assert one.local.log.last_seq == 6
    one.turn(asks[2])
    assert one.local.log.last_seq == 7


def test_what_waits_for_the_disk_counts_as_staged() -> None:
    one = led(Limits(max_staged_bytes=400))
    found = one.turn(*(events.SubmitLocal(number, group(number, 200)) for number in (1, 2)))
    assert of_kind(found, effects.SubmitRefused) == [effects.SubmitRefused(2, True)]


def test_a_mastership_begins_with_nothing_staged() -> None:
    size = len(group(1, 200).body) + GROUP_OVERHEAD_BYTES
    one = led(Limits(max_staged_bytes=size))
    one.slow = True
    one.turn(events.SubmitLocal(1, group(1, 200)))
    one.receive(C, Reject(one.ballot, Refusal.LOWER, Ballot(9, C), 2, 0, 1))
    assert not one.local.leads
    one.slow = False
    one.turn(events.Persisted(one.local.tickets[-1].number))
    one.now = one.replica.election.deadline
    one.tick()
    ballot, last = Ballot(10, A), one.local.log.last
    one.receive(B, ProbeReply(ballot, Refusal.NONE, FIRST, last))
    one.receive(B, Promise(ballot, Refusal.NONE, ballot, last))
    ack(one, last.seq + 1)
    assert (one.local.role, one.local.commit) == (Role.MASTER, last.seq + 1)
    # There is room for exactly one.
    assert not of_kind(one.turn(events.SubmitLocal(2, group(2, 200))), effects.SubmitRefused)
    assert of_kind(one.turn(events.SubmitLocal(3, group(3, 200))), effects.SubmitRefused)


def test_who_does_not_lead_has_no_heartbeats_to_send() -> None:
    one = One(voters=(A,))
    one.slow = True
    for _ in range(3):
        one.tick(0.1)
        assert not one.local.leads
        assert one.replica.master.deadline == math.inf


# -- what is known of each member


def test_a_follower_that_lost_what_it_held_is_probed_from_what_it_still_holds() -> None:
    progress = Progress(20, 0.0)
    progress.on_accepted(19)
    progress.on_sent(21, 10)
    progress.on_lost(7)
    assert (progress.match, progress.next, progress.probing) == (0, 8, True)
    assert progress.may_send(LIMITS)
    progress.on_sent(9, 10)
    assert progress.awaited
    assert not progress.may_send(LIMITS)
    progress.on_accepted(9)
    assert (progress.match, progress.next, progress.awaited) == (9, 10, False)


def test_the_feature_level_is_what_everybody_knows() -> None:
    one = led()
    master = one.replica.master
    assert master.feature_level == 1, "c was not heard, and b did not say"
    one.receive(B, Accepted(one.ballot, 2, 1, 0, 0, 2))
    assert master.feature_level == 1
    one.receive(C, Accepted(one.ballot, 2, 1, 0, 0, 9))
    assert master.feature_level == 2, "no more than this member knows itself"
    assert {beat.level for beat in sent(one.tick(0.1), Accept)} == {2}
    one.receive(C, Accepted(one.ballot, 2, 1, 0, 0))
    assert master.feature_level == 1, "c was replaced by an older program"
    one.receive(C, Accepted(one.ballot, 2, 1, 0, 0, 2))
    one.replica.master.append_configuration(configuration_entry(3, one.ballot, A, B, C, D).payload)
    assert master.feature_level == 1, "d was not heard yet"
    # Who is no member any more has no say.
    one.receive(D, Accepted(one.ballot, 3, 1, 0, 0, 1))
    master.keep_sending[D] = math.inf
    one.replica.master.append_configuration(configuration_entry(4, one.ballot, A, B, C).payload)
    assert D in master.progress
    assert master.feature_level == 2


def test_a_lone_member_knows_what_it_knows() -> None:
    one = One(voters=(A,))
    one.tick()
    assert (one.local.role, one.replica.master.feature_level) == (Role.MASTER, 2)


def test_nothing_is_refused_and_nothing_appended_while_the_mastership_is_handed_over() -> None:
    one = led()
    one.replica.master.holding = True
    found = one.turn(
        events.SubmitLocal(1, group(1)), events.Received(B, OpenSession(5)), events.Tick()
    )
    assert not of_kind(found, effects.SubmitRefused)
    assert one.local.log.last_seq == 2
    one.replica.master.holding = False
    one.turn()
    assert one.local.log.last_seq == 4
    # The limit holds all the same.
    small = led(Limits(max_staged_bytes=400))
    small.replica.master.holding = True
    small.turn(events.SubmitLocal(1, group(1, 200)))
    refused = small.turn(events.SubmitLocal(2, group(2, 200)))
    assert of_kind(refused, effects.SubmitRefused) == [effects.SubmitRefused(2, True)]


def test_who_was_removed_is_still_told_and_counts_for_nothing() -> None:
    one = led()
    master = one.replica.master
    master.keep_sending[C] = math.inf
    master.append_configuration(configuration_entry(3, one.ballot, A, B).payload)
    ack(one, 2)
    assert list(master.progress) == [B, C]
    found = one.tick(0.1)
    assert C in {to for send in of_kind(found, effects.Send) for to in send.to}
    one.receive(C, Accepted(one.ballot, 3, master._round, 0, 0))
    assert one.local.commit == 2, "a and c are no majority of a and b"
    ack(one, 3, master._round)
    assert one.local.commit == 3
    one.now += 0.5
    one.tick()
    for _ in range(8):
        one.tick(0.1)
        one.receive(C, Accepted(one.ballot, 3, master._round, 0, 0))
    assert not one.local.leads, "nor does c keep it leading"
    assert master.keep_sending == {}


def test_who_is_told_no_more_is_forgotten() -> None:
    one = led()
    master = one.replica.master
    master.keep_sending[C] = math.inf
    master.append_configuration(configuration_entry(3, one.ballot, A, B).payload)
    del master.keep_sending[C]
    master.know_everyone()
    assert list(master.progress) == [B]


def test_heard_lately_means_that_an_answered_round_was_sent_lately() -> None:
    one = led()
    master = one.replica.master
    assert master.heard_within(A, 0.0)
    assert not master.heard_within(C, 100.0), "not in this mastership"
    one.tick(0.2)
    number, sent_at = master._round, one.now
    one.now += 0.5
    one.receive(C, Accepted(one.ballot, 2, number, 0, 0))
    assert master.progress[C].contact_at == sent_at
    assert master.heard_within(C, 0.51)
    assert not master.heard_within(C, 0.5)
    assert not master.heard_within(D, 100.0)


def test_a_master_sends_nothing_that_it_has_compacted() -> None:
    one = led()
    one.local.commit = one.local.apply_asked = one.local.applied = 2
    one.local.log.compact(2)
    found = one.turn(events.Disconnected(B), events.Tick())
    found += one.tick(0.1)
    assert {accept.previous.seq for accept in sent(found, Accept)} == {2}
    assert not of_kind(found, effects.Load)
    # There is no snapshot to give to c, which lacks everything: it is asked again and again.
    reject = Reject(one.ballot, Refusal.GAP, one.ballot, 2, 0, one.replica.master._round)
    found = one.receive(C, reject)
    assert not of_kind(found, effects.LoadChunk)
    assert not of_kind(found, effects.Halt)
    assert sent(one.tick(0.1), Accept)


def test_what_was_loaded_and_compacted_meanwhile_is_not_sent() -> None:
    one = led()
    one.local.log.evict(1, 0)
    reject = Reject(one.ballot, Refusal.GAP, one.ballot, 1, 0, 1)
    assert of_kind(one.receive(C, reject), effects.Load)
    one.local.log.compact(1)
    found = one.turn(events.Loaded(C, 1, (configuration_entry(1, FIRST, A, B, C),)))
    assert not sent(found, Accept)
    assert not of_kind(found, effects.Halt)
