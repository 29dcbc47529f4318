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


# -- what is compacted (E2, E4, C-12)


def compacted(*, removed: bool = False) -> One:
    """Entries 5 to 8 of ballot 2 behind a base; all of it chosen up to 6."""
    one = One(*(noop(seq, SECOND) for seq in range(2, 9)), promised=SECOND)
    one.local.commit = one.local.apply_asked = one.local.applied = 6
    one.local.log.compact(4)
    if removed:
        held = one.local.log.committed_configuration(6)[1]
        one.local.log._configurations[0] = (1, held.without_seat(C, 1))
    return one


@pytest.mark.parametrize(
    ("base", "last", "refusal"),
    [
        (4, Position(SECOND, 4), Refusal.NONE),
        (3, Position(SECOND, 7), Refusal.COMPACTED),
        (3, Position(SECOND, 8), Refusal.NONE),
        (3, Position(Ballot(9, C), 4), Refusal.NONE),
        (9, Position(SECOND, 7), Refusal.NONE),
    ],
)
def test_who_would_have_to_adopt_what_is_gone_is_refused(
    base: int, last: Position, refusal: Refusal
) -> None:
    one = compacted()
    (reply,) = sent(one.receive(C, Probe(THIRD, 1, base, last)), ProbeReply)
    assert reply.refusal is refusal
    found = one.receive(C, Prepare(THIRD, base, last))
    (promise,) = sent(found, Promise)
    assert promise.refusal is refusal
    assert (one.local.promised == THIRD) is (refusal is Refusal.NONE)


def test_a_candidate_tells_what_it_has() -> None:
    """Otherwise everybody whose log is compacted refuses its probe, and nobody is ever elected."""
    one = compacted()
    one.now = one.replica.election.deadline
    (probe,) = sent(one.tick(), Probe)
    assert (probe.base, probe.last) == (6, Position(SECOND, 8))
    other = compacted()
    found = other.receive(A, probe)
    assert sent(found, ProbeReply)[0].refusal is Refusal.NONE


def test_an_accept_from_below_the_base_confirms_and_brings_what_is_new() -> None:
    """What is covered matches by definition: compacted is never read as conflicting (C-12)."""
    one = compacted()
    entries = tuple(noop(seq, SECOND) for seq in range(3, 10))
    found = one.accept(SECOND, *entries, previous=Position(SECOND, 2), commit=7)
    assert not sent(found, Reject)
    (batch,) = of_kind(found, effects.Persist)
    assert (batch.truncate_from, batch.entries) == (None, (noop(9, SECOND),))
    assert sent(found, Accepted)[-1].match == 9
    found = one.accept(SECOND, previous=Position(SECOND, 1), number=2)
    assert (one.local.commit, one.local.log.last_seq, sent(found, Reject)) == (7, 9, [])


def test_an_accept_that_contradicts_what_is_chosen_and_still_here_stops_the_member() -> None:
    one = compacted()
    found = one.accept(THIRD, noop(5, THIRD), noop(6, THIRD), previous=Position(SECOND, 4))
    assert "I-1" in of_kind(found, effects.Halt)[0].reason


def test_a_gap_behind_the_base_is_hinted_no_lower_than_the_commit() -> None:
    one = compacted()
    found = one.accept(THIRD, previous=Position(THIRD, 8))
    assert sent(found, Reject)[0].hint == 6
    found = one.accept(THIRD, previous=Position(THIRD, 12), number=2)
    assert sent(found, Reject)[0].hint == 8


@pytest.mark.parametrize("first", [1, 4])
def test_a_pull_of_what_is_compacted_is_not_answered(first: int) -> None:
    one = compacted()
    one.receive(C, Prepare(THIRD, 4, Position(SECOND, 4)))
    assert one.receive(C, PromisePull(THIRD, first)) == []
    (part,) = sent(one.receive(C, PromisePull(THIRD, 5)), PromisePart)
    assert [entry.seq for entry in part.entries] == [5, 6, 7, 8]


def test_a_promise_says_that_there_is_more_when_compaction_came_between() -> None:
    one = compacted()
    one.slow = True
    one.receive(C, Prepare(THIRD, 4, Position(SECOND, 4)))
    one.local.log.compact(6)
    (promise,) = sent(one.turn(events.Persisted(one.local.tickets[-1].number)), Promise)
    assert (promise.suffix, promise.more) == ((), True)


def test_a_pull_whose_entries_went_meanwhile_is_not_answered() -> None:
    one = compacted()
    one.local.log.evict(6, 0)
    one.receive(C, Prepare(THIRD, 4, Position(SECOND, 4)))
    assert of_kind(one.receive(C, PromisePull(THIRD, 5)), effects.Load)
    assert one.turn(events.Loaded(C, 5, ())) == []


# -- who is answered otherwise (M8, W4, E11)


def test_who_was_removed_is_told() -> None:
    one = compacted(removed=True)
    one.accept(SECOND)
    (reply,) = sent(one.receive(C, Probe(THIRD, 0, 9, Position(SECOND, 9))), ProbeReply)
    assert reply.refusal is Refusal.REMOVED, "whether or not a master is heard"


def test_who_is_told_that_it_was_removed_stands_no_more() -> None:
    one = One()
    one.now = one.replica.election.deadline
    (probe,) = sent(one.tick(), Probe)[:1]
    found = one.receive(B, ProbeReply(probe.ballot, Refusal.REMOVED, FIRST, START))
    assert (one.local.role.value, one.replica.election.candidacy) == ("removed", None)
    assert [changed.role.value for changed in of_kind(found, effects.RoleChanged)][-1] == "removed"
    for _ in range(5):
        assert not sent(one.tick(1.0), Probe)
    (ended,) = of_kind(one.turn(events.StartElection()), effects.ElectionEnded)
    assert "M8" in ended.refusal
    assert one.local.passive_role().value == "removed"
    # A master knows better than an old answer.
    leader = One()
    leader.lead()
    leader.receive(C, ProbeReply(leader.ballot, Refusal.REMOVED, FIRST, START))
    assert leader.local.leads


def test_a_master_that_hands_over_does_not_protect_itself() -> None:
    """E11: only whom it asked, and only for the very ballot that is followed."""
    one = One()
    one.accept(SECOND)
    for wrong in (Ballot(0, C), FIRST, THIRD):
        found = one.receive(C, Prepare(THIRD, 1, START, wrong))
        assert sent(found, Promise)[0].refusal is Refusal.STICKY
    assert one.local.promised == SECOND
    found = one.receive(C, Prepare(THIRD, 1, START, SECOND))
    assert sent(found, Promise)[0].refusal is Refusal.NONE
    assert one.local.promised == THIRD
    # The master itself gives way too, and stops leading.
    leader = One()
    leader.lead()
    later = Ballot(9, C)
    found = leader.receive(C, Prepare(later, 2, Position(leader.ballot, 2), leader.ballot))
    assert sent(found, Promise)[0].refusal is Refusal.NONE
    assert not leader.local.leads


def test_who_has_heard_no_master_yet_is_asked_by_none() -> None:
    """The ballot of nobody is no master's: it excuses nothing."""
    one = One(limits=Limits(lease_reads=True))
    found = one.receive(C, Prepare(THIRD, 1, START))
    assert sent(found, Promise)[0].refusal is Refusal.STICKY


# -- the acknowledgement


def test_an_acknowledgement_tells_what_the_member_knows_and_keeps() -> None:
    one = One(limits=Limits(lease_reads=True))
    (accepted,) = sent(one.accept(SECOND), Accepted)
    assert (accepted.level, accepted.leases, accepted.recovering) == (2, True, False)
    assert one.local.cluster_level == 1
    one.receive(B, Accept(SECOND, START, (), 0, 2, 7))
    assert one.local.cluster_level == 7
    (accepted,) = sent(One().accept(SECOND), Accepted)
    assert not accepted.leases


def test_what_was_verified_counts_for_its_ballot_alone() -> None:
    one = One()
    one.accept(SECOND, noop(2, SECOND))
    acceptor = one.replica.acceptor
    assert (acceptor.verified(SECOND), acceptor.verified(THIRD)) == (2, 0)
    found = one.accept(THIRD)
    assert (acceptor.verified(SECOND), acceptor.verified(THIRD)) == (0, 1)
    assert sent(found, Accepted)[-1].match == 1
