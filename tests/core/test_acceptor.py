"""Promise and accept: what is said, and what is on the disk when it is said."""

from __future__ import annotations

import pytest

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.local import Limits
from clusterconsensus.consensus.log import Log
from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Prepare,
    Probe,
    ProbeReply,
    Promise,
    PromisePart,
    PromisePull,
    Refusal,
    Reject,
)
from clusterconsensus.consensus.types import Ballot, Entry, EntryKind, Position
from tests.core.one import FIRST, A, B, C, D, One, configuration_entry, noop, of_kind, sent

SECOND = Ballot(2, B)
THIRD = Ballot(3, C)
START = Position(FIRST, 1)


def test_a_probe_is_granted_and_changes_nothing() -> None:
    one = One()
    before = one.replica.election.deadline
    found = one.receive(B, Probe(SECOND, 1))
    assert sent(found, ProbeReply) == [ProbeReply(SECOND, Refusal.NONE, FIRST, START)]
    assert one.replica.election.deadline == before
    assert one.local.promised == FIRST
    assert not of_kind(found, effects.Persist)


def test_a_probe_is_refused_while_another_master_is_heard() -> None:
    one = One()
    one.accept(SECOND)
    assert sent(one.receive(C, Probe(THIRD, 1)), ProbeReply)[0].refusal is Refusal.STICKY
    # ... but not to the master itself (C-31), nor when it was heard too long ago.
    own = sent(one.receive(B, Probe(Ballot(4, B), 1)), ProbeReply)[0]
    assert own.refusal is Refusal.NONE
    one.now += 1.0
    assert sent(one.receive(C, Probe(THIRD, 1)), ProbeReply)[0].refusal is Refusal.NONE


def test_a_probe_of_an_old_ballot_learns_the_promise() -> None:
    one = One(promised=THIRD)
    reply = sent(one.receive(B, Probe(SECOND, 1)), ProbeReply)[0]
    assert (reply.refusal, reply.promised) == (Refusal.LOWER, THIRD)


def test_who_is_in_no_newer_committed_configuration_is_refused() -> None:
    one = One()
    assert sent(one.receive(D, Probe(Ballot(5, D), 0)), ProbeReply)[0].refusal is Refusal.NOT_MEMBER
    assert sent(one.receive(D, Probe(Ballot(5, D), 1)), ProbeReply)[0].refusal is Refusal.NONE


def test_a_promise_waits_for_the_disk() -> None:
    one = One()
    one.slow = True
    found = one.receive(B, Prepare(SECOND, 1, START))
    assert of_kind(found, effects.Persist)[0].promised == SECOND
    assert not sent(found, Promise)
    # A repetition meanwhile is answered once.
    assert not sent(one.receive(B, Prepare(SECOND, 1, START)), Promise)
    promises = sent(one.turn(events.Persisted(1)), Promise)
    assert promises == [Promise(SECOND, Refusal.NONE, SECOND, START)]


def test_a_repeated_prepare_is_answered_again() -> None:
    one = One()
    one.receive(B, Prepare(SECOND, 1, START))
    again = sent(one.receive(B, Prepare(SECOND, 1, START)), Promise)
    assert [promise.refusal for promise in again] == [Refusal.NONE]


def test_a_lower_prepare_is_refused_and_the_promise_kept() -> None:
    one = One()
    one.receive(C, Prepare(THIRD, 1, START))
    found = one.receive(B, Prepare(SECOND, 1, START))
    assert sent(found, Promise) == [Promise(SECOND, Refusal.LOWER, THIRD, START)]
    assert one.local.promised == THIRD


def test_a_ballot_is_promised_to_its_owner_only() -> None:
    one = One()
    assert one.receive(C, Prepare(SECOND, 1, START)) == []
    assert one.accept(SECOND) != []
    assert one.receive(C, Accept(SECOND, START, (), 0, 1)) == []


def test_an_absurd_ballot_is_ignored() -> None:
    one = One()
    absurd = Ballot(2**64 - 1, B)
    assert one.receive(B, Prepare(absurd, 1, START)) == []
    assert one.accept(absurd) == []
    assert one.local.promised == FIRST


def test_a_promise_shows_what_the_candidate_lacks() -> None:
    one = One(noop(2, SECOND), noop(3, SECOND), promised=SECOND)
    (promise,) = sent(one.receive(C, Prepare(THIRD, 1, START)), Promise)
    assert [entry.seq for entry in promise.suffix] == [2, 3]
    assert not promise.more
    better = Prepare(Ballot(4, C), 1, Position(THIRD, 2))
    assert sent(one.receive(C, better), Promise)[0].suffix == ()


def test_a_long_suffix_is_pulled_as_long_as_the_promise_stands() -> None:
    one = One(noop(2, SECOND), noop(3, SECOND), promised=SECOND, limits=Limits(max_batch_bytes=1))
    (promise,) = sent(one.receive(C, Prepare(THIRD, 1, START)), Promise)
    assert promise.more
    (part,) = sent(one.receive(C, PromisePull(THIRD, 3)), PromisePart)
    assert (part.first, [entry.seq for entry in part.entries], part.more) == (3, [3], False)
    assert not sent(one.receive(B, PromisePull(THIRD, 3)), PromisePart)
    one.receive(C, Prepare(Ballot(4, C), 1, START))
    assert not sent(one.receive(C, PromisePull(THIRD, 3)), PromisePart)


def test_a_pull_loads_only_what_left_the_memory() -> None:
    one = One(noop(2, SECOND), noop(3, SECOND), promised=SECOND)
    one.local.log.evict(2, 0)
    one.receive(C, Prepare(THIRD, 0, Position(FIRST, 0)))
    (load,) = of_kind(one.receive(C, PromisePull(THIRD, 1)), effects.Load)
    assert (load.first, load.last) == (1, 2)
    loaded = (configuration_entry(1, FIRST, A, B, C), noop(2, SECOND))
    (part,) = sent(one.turn(events.Loaded(C, 1, loaded)), PromisePart)
    assert part.more


def test_accepting_is_promising() -> None:
    one = One()
    found = one.accept(SECOND, noop(2, SECOND))
    (batch,) = of_kind(found, effects.Persist)
    assert (batch.promised, batch.entries) == (SECOND, (noop(2, SECOND),))
    assert one.local.promised == SECOND
    assert sent(found, Accepted)[-1].match == 2


def test_an_acknowledgement_claims_what_the_disk_holds() -> None:
    one = One()
    one.accept(SECOND)
    one.slow = True
    one.accept(SECOND, noop(2, SECOND))
    for found in (
        one.accept(SECOND, noop(2, SECOND)),
        one.accept(SECOND, number=2),
        one.accept(SECOND, noop(2, SECOND), number=3),
    ):
        assert [message.match for message in sent(found, Accepted)] == [1]
    assert [message.match for message in sent(one.turn(events.Persisted(2)), Accepted)] == [2]


def test_a_new_round_is_answered_at_once_whatever_the_disk_does() -> None:
    one = One()
    one.accept(SECOND)
    one.slow = True
    found = one.accept(SECOND, noop(2, SECOND), number=2)
    assert [(message.match, message.round) for message in sent(found, Accepted)] == [(1, 2)]


def test_nothing_is_acknowledged_before_the_promise_is_durable() -> None:
    one = One()
    one.slow = True
    assert not sent(one.accept(SECOND), Accepted)
    assert len(sent(one.turn(events.Persisted(1)), Accepted)) == 1


def test_a_sync_of_what_was_cut_is_no_claim() -> None:
    """Written, cut and written anew: only the second sync covers it."""
    one = One()
    one.slow = True
    one.accept(SECOND, noop(2, SECOND), noop(3, SECOND))
    one.accept(THIRD, noop(2, THIRD))
    one.turn(events.Persisted(1))
    assert one.local.log.durable_seq == 1
    found = one.turn(events.Persisted(2))
    assert [message.match for message in sent(found, Accepted)] == [2]


def test_lower_accepts_are_refused() -> None:
    one = One(promised=THIRD)
    (reject,) = sent(one.accept(SECOND, noop(2, SECOND)), Reject)
    assert (reject.refusal, reject.promised) == (Refusal.LOWER, THIRD)
    assert one.local.log.last_seq == 1


def test_a_gap_is_not_followed_by_an_acknowledgement() -> None:
    one = One()
    found = one.accept(SECOND, noop(9, SECOND), previous=Position(SECOND, 8))
    (reject,) = sent(found, Reject)
    assert (reject.refusal, reject.hint) == (Refusal.GAP, 1)
    assert one.local.promised_durable == SECOND
    assert not sent(found, Accepted)


def test_a_conflict_is_hinted_by_its_run() -> None:
    one = One(*(noop(seq, SECOND) for seq in range(2, 6)), promised=SECOND)
    (reject,) = sent(one.accept(THIRD, previous=Position(THIRD, 4)), Reject)
    assert reject.hint == 1


def test_commit_is_bounded_by_what_was_verified() -> None:
    one = One(noop(2, SECOND), promised=SECOND)
    one.accept(THIRD, previous=START, commit=2)
    assert one.local.commit == 1
    one.accept(THIRD, noop(2, THIRD), previous=START, commit=9)
    assert one.local.commit == 2


def test_what_is_committed_is_never_replaced() -> None:
    one = One()
    one.accept(SECOND, noop(2, SECOND), commit=2)
    found = one.accept(THIRD, noop(2, THIRD))
    assert of_kind(found, effects.Halt)
    assert one.turn(events.Tick()) == []


def test_accepts_from_below_the_commit_only_confirm() -> None:
    one = One()
    entries = tuple(noop(seq, SECOND) for seq in range(2, 6))
    one.accept(SECOND, *entries, commit=5)
    found = one.accept(SECOND, entries[0], commit=2)
    assert not of_kind(found, effects.Persist)
    assert one.local.commit == 5
    assert one.local.log.last_seq == 5


@pytest.mark.parametrize(
    "message",
    [
        Accept(SECOND, Position(FIRST, -1), (), 0, 1),
        Accept(SECOND, START, (), -1, 1),
        Accept(SECOND, START, (noop(3, SECOND),), 0, 1),
        Accept(SECOND, START, (noop(2, THIRD),), 0, 1),
        Accept(SECOND, START, (Entry.make(2, SECOND, EntryKind.CONFIG, 1.0, b"x"),), 0, 1),
    ],
)
def test_what_no_master_sends_is_dropped(message: Accept) -> None:
    one = One()
    assert one.receive(B, message) == []
    assert one.local.log.last_seq == 1


def test_a_log_that_was_read_from_disk_accepts_like_any_other() -> None:
    one = One(noop(2, SECOND), promised=SECOND)
    one.local.log = Log(2, [(1, FIRST), (2, SECOND)], [configuration_entry(1, FIRST, A, B, C)], 1.0)
    found = one.accept(SECOND, noop(3, SECOND), previous=Position(SECOND, 2))
    assert sent(found, Accepted)[-1].match == 3


@pytest.mark.parametrize("first", [-1, 0, 4])
@pytest.mark.parametrize("cached", [True, False])
def test_a_pull_of_what_no_log_holds_is_ignored(first: int, cached: bool) -> None:
    one = One(noop(2, SECOND), noop(3, SECOND), promised=SECOND)
    if not cached:
        one.local.log.evict(3, 0)
    one.receive(C, Prepare(THIRD, 0, Position(FIRST, 0)))
    assert one.receive(C, PromisePull(THIRD, first)) == []
    assert one.receive(C, PromisePull(THIRD, 3)) != []
