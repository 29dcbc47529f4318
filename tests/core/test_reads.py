"""Linearizable reads: never before the first own entry, never without a later round, or a lease."""

from __future__ import annotations

import pytest

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.local import Limits
from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Action,
    Prepare,
    Probe,
    ProbeReply,
    Promise,
    ReadAsk,
    ReadTell,
    Refusal,
    Reject,
)
from clusterconsensus.consensus.types import Ballot, Incarnation, Member, Position, Role
from tests.core.one import FIRST, A, B, C, D, One, configuration_entry, of_kind, sent

START = Position(FIRST, 1)


def led() -> One:
    one = One()
    one.lead()
    return one


def rounds(found: list[effects.Effect]) -> int:
    return max(accept.round for accept in sent(found, Accept))


def test_a_read_begins_a_round_and_waits_for_a_majority_of_it() -> None:
    one = led()
    found = one.turn(events.ReadLocal(7), events.Received(C, ReadAsk(3)))
    number = rounds(found)
    assert not of_kind(found, effects.ReadReady)
    assert not of_kind(one.receive(B, Accepted(one.ballot, 2, number - 1, 0, 0)), effects.ReadReady)
    answered = one.receive(B, Accepted(one.ballot, 2, number, 0, 0))
    assert of_kind(answered, effects.ReadReady) == [effects.ReadReady(7, 2)]
    assert sent(answered, ReadTell) == [ReadTell(3, True, 2)]


def test_a_read_that_comes_later_needs_a_later_round() -> None:
    one = led()
    first = rounds(one.turn(events.ReadLocal(1)))
    second = rounds(one.turn(events.ReadLocal(2)))
    assert second > first
    answered = one.receive(B, Accepted(one.ballot, 2, first, 0, 0))
    assert [ready.nonce for ready in of_kind(answered, effects.ReadReady)] == [1]


def test_members_without_a_vote_confirm_nothing() -> None:
    one = led()
    number = rounds(one.turn(events.ReadLocal(1)))
    other = B.replace("b", "z")
    found = one.receive(type(B)(other), Accepted(one.ballot, 2, number, 0, 0))
    assert not of_kind(found, effects.ReadReady)


def test_no_read_before_the_first_own_entry_is_chosen() -> None:
    one = One()
    one.now = one.replica.election.deadline
    one.tick()
    candidacy = one.replica.election.candidacy
    assert candidacy is not None
    ballot = candidacy.ballot
    one.receive(B, ProbeReply(ballot, Refusal.NONE, FIRST, START))
    one.receive(B, Promise(ballot, Refusal.NONE, ballot, START))
    assert one.local.leads
    found = one.turn(events.ReadLocal(1))
    found += one.tick(0.1)
    found += one.receive(B, Accepted(ballot, 1, 1, 0, 0))
    found += one.receive(B, Accepted(ballot, 1, 2, 0, 0))
    assert not of_kind(found, effects.ReadReady)
    later = one.receive(B, Accepted(ballot, 2, 2, 0, 0))
    number = rounds(later)
    answered = one.receive(B, Accepted(ballot, 2, number, 0, 0))
    assert of_kind(answered, effects.ReadReady) == [effects.ReadReady(1, 2)]


def test_whoever_does_not_lead_refuses() -> None:
    one = One()
    assert of_kind(one.turn(events.ReadLocal(4)), effects.ReadRefused) == [effects.ReadRefused(4)]
    assert sent(one.receive(B, ReadAsk(5)), ReadTell) == [ReadTell(5, False, 0)]


def test_stepping_down_refuses_whatever_waits() -> None:
    one = led()
    one.turn(events.ReadLocal(1), events.Received(C, ReadAsk(2)))
    one.replica.step(events.ReadLocal(3), one.now, 0.5)
    one.now += 1.5
    found = one.tick()
    assert sorted(e.nonce for e in of_kind(found, effects.ReadRefused)) == [1, 3]
    assert sent(found, ReadTell) == [ReadTell(2, False, 0)]


def test_a_lone_voter_reads_at_once() -> None:
    one = One(voters=(type(B)("a@1"),))
    one.tick()
    assert one.local.role.value == "master"
    assert of_kind(one.turn(events.ReadLocal(1)), effects.ReadReady)


def test_questions_beyond_the_limit_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clusterconsensus.consensus.reads.MAX_WAITING_READS", 2)
    one = led()
    number = rounds(one.turn(*(events.ReadLocal(nonce) for nonce in (1, 2, 3))))
    found = one.receive(B, Accepted(one.ballot, 2, number, 0, 0))
    assert [ready.nonce for ready in of_kind(found, effects.ReadReady)] == [1, 2]
    # The limit is on what waits for a round: there is room again.
    number = rounds(one.turn(events.ReadLocal(4)))
    found = one.receive(B, Accepted(one.ballot, 2, number, 0, 0))
    assert [ready.nonce for ready in of_kind(found, effects.ReadReady)] == [4]


# -- leases (L2)

LEASES = Limits(lease_reads=True)  # E is 1 s, the drift 10 %
LEASE_SECONDS = 0.9


def held(name: Incarnation = B, *, leases: bool = True) -> One:
    """A master whose latest round was sent now and is acknowledged by one other member."""
    one = One(limits=LEASES)
    one.lead()
    renew(one, name, leases=leases)
    return one


def renew(one: One, name: Incarnation = B, *, leases: bool = True) -> None:
    """The next round, and an answer to it."""
    one.tick(0.1)
    number = one.replica.master._round
    one.receive(name, Accepted(one.ballot, 2, number, 0, 0, 2, leases))


def has_lease(one: One) -> bool:
    return one.replica.master.reads.has_lease(one.now)


def reads_at_once(one: One) -> bool:
    """Whether a read that is content with the lease is answered without a round."""
    return bool(
        of_kind(one.replica.step(events.ReadLocal(9, True), one.now, 0.5), effects.ReadReady)
    )


def test_a_lease_answers_at_once() -> None:
    one = held()
    before = one.replica.master._round
    found = one.turn(events.ReadLocal(1, True), events.Received(C, ReadAsk(2, True)))
    assert of_kind(found, effects.ReadReady) == [effects.ReadReady(1, 2)]
    assert sent(found, ReadTell) == [ReadTell(2, True, 2)]
    assert one.replica.master._round == before
    # Whoever does not want to rely on clocks is answered after a round all the same.
    found = one.turn(events.ReadLocal(3))
    assert not of_kind(found, effects.ReadReady)
    assert one.replica.master._round == before + 1


def test_a_lease_ends_e_less_the_drift_after_the_round_was_sent() -> None:
    one = One(limits=LEASES)
    one.lead()
    one.tick(0.1)
    sent_at, number = one.now, one.replica.master._round
    one.now += 0.3  # the answer takes its time
    one.receive(B, Accepted(one.ballot, 2, number, 0, 0, 2, True))
    assert one.replica.master.reads.lease_ends == pytest.approx(sent_at + LEASE_SECONDS)
    one.now = sent_at + LEASE_SECONDS - 0.001
    assert has_lease(one)
    assert reads_at_once(one)
    one.now = sent_at + LEASE_SECONDS + 0.001
    assert not has_lease(one)
    assert not reads_at_once(one)


def test_an_older_round_does_not_prolong_a_lease() -> None:
    one = held()
    ends = one.replica.master.reads.lease_ends
    number = one.replica.master._round
    one.now += 0.5
    one.receive(B, Accepted(one.ballot, 2, number - 1, 0, 0, 2, True))
    one.receive(B, Accepted(one.ballot, 2, number, 0, 0, 2, True))
    assert one.replica.master.reads.lease_ends == ends


def test_only_members_that_keep_the_rules_count() -> None:
    assert has_lease(held())
    assert not has_lease(held(leases=False))
    one = held(leases=False)
    renew(one, C)
    assert has_lease(one)
    renew(one, C, leases=False)  # it was restarted without them
    assert not has_lease(one)


def test_who_has_no_vote_gives_no_lease() -> None:
    assert not has_lease(held(D))


def test_without_the_setting_there_is_no_lease() -> None:
    one = One()
    one.lead()
    renew(one)
    assert not has_lease(one)
    assert not reads_at_once(one)


def test_no_lease_before_the_first_own_entry_is_chosen() -> None:
    one = held()
    one.local.role = Role.PENDING_MASTER
    assert not has_lease(one)
    assert not reads_at_once(one)


def test_a_clock_that_goes_back_ends_the_lease_for_the_ballot() -> None:
    one = held()
    before = one.now
    one.replica.step(events.Tick(), one.now - 0.01, 0.5)
    assert one.local.now == before, "time stands still until the clock has caught up"
    assert not has_lease(one)
    renew(one)
    assert not has_lease(one)


def test_a_round_that_was_sent_while_the_time_stood_still_proves_nothing() -> None:
    """A mastership that begins before the clock has caught up does not know when it sent what."""
    one = One(limits=LEASES)
    one.tick(6.0)
    ahead = one.local.now
    one.now -= 5.0
    candidacy = one.replica.election.candidacy
    assert candidacy is not None
    ballot = candidacy.ballot
    one.receive(B, ProbeReply(ballot, Refusal.NONE, FIRST, START))
    one.receive(B, Promise(ballot, Refusal.NONE, ballot, START))
    assert (one.local.leads, one.local.now) == (True, ahead)
    one.now = ahead + 0.05  # the answer was five seconds on its way, and b is long free again
    one.receive(B, Accepted(ballot, 2, 1, 0, 0, 2, True))
    assert one.local.role is Role.MASTER
    assert not has_lease(one)
    renew(one)
    assert not has_lease(one), "whatever was sent in such a time, the ballot has no lease"


def test_a_handover_ends_the_lease_for_the_ballot() -> None:
    one = held()
    member = Member("b", "b:1")
    one.turn(events.ChangeMemberLocal(1, Action.TRANSFER, member))
    assert not has_lease(one)
    for _ in range(15):  # nothing comes of it, and the master goes on
        renew(one)
    assert one.local.leads
    assert not one.replica.master.holding
    assert not has_lease(one)
    assert not reads_at_once(one)


def test_the_next_mastership_may_have_a_lease_again() -> None:
    one = held()
    one.replica.master.reads.lease_off()
    one.receive(C, Reject(one.ballot, Refusal.LOWER, Ballot(9, C), 2, 0, 1))
    assert not one.local.leads
    one.now = one.replica.election.deadline
    one.tick()
    ballot, last = Ballot(10, A), one.local.log.last
    one.receive(B, ProbeReply(ballot, Refusal.NONE, FIRST, last))
    one.receive(B, Promise(ballot, Refusal.NONE, ballot, last))
    assert not has_lease(one)
    one.receive(B, Accepted(ballot, 3, 1, 0, 0, 2, True))
    assert one.local.role is Role.MASTER
    assert has_lease(one)


def test_another_configuration_needs_another_majority() -> None:
    """M5: two of four are no majority, though they were two of three."""
    one = held()
    assert has_lease(one)
    payload = configuration_entry(3, one.ballot, A, B, C, D).payload
    one.replica.master.append_configuration(payload)
    assert not has_lease(one)
    renew(one, C)
    assert has_lease(one)
    # And whoever has left gives none.
    payload = configuration_entry(4, one.ballot, A, D).payload
    one.replica.master.append_configuration(payload)
    assert not has_lease(one)


def test_stepping_down_ends_the_lease() -> None:
    one = held()
    one.receive(C, Reject(one.ballot, Refusal.LOWER, Ballot(9, C), 2, 0, 1))
    assert not has_lease(one)
    assert one.replica.master.reads.lease_ends < 0


def test_a_restarted_member_counts_as_having_heard_a_master() -> None:
    """What it acknowledged before may be somebody's lease."""
    one = One(limits=LEASES)
    ballot = Ballot(2, B)
    found = one.receive(B, Probe(ballot, 1, 1, START))
    assert sent(found, ProbeReply)[0].refusal is Refusal.STICKY
    found = one.receive(B, Prepare(ballot, 1, START))
    assert sent(found, Promise)[0].refusal is Refusal.STICKY
    assert one.local.promised == FIRST
    assert one.replica.election.deadline >= one.now + LEASES.election_timeout_seconds
    one.now += LEASES.election_timeout_seconds
    found = one.receive(B, Prepare(ballot, 1, START))
    assert sent(found, Promise)[0].refusal is Refusal.NONE
    # A lone voter has nobody to protect, and without leases there is nothing to protect.
    alone = One(limits=LEASES, voters=(A,))
    assert not alone.local.hears_master()
    assert not One().local.hears_master()


def test_nobody_asks_for_an_election_while_a_lease_may_run() -> None:
    one = One(limits=LEASES)
    one.accept(Ballot(2, B))
    found = one.turn(events.StartElection())
    (ended,) = of_kind(found, effects.ElectionEnded)
    assert "lease" in ended.refusal
    assert one.replica.election.candidacy is None
    one.now += 1.0
    found = one.turn(events.StartElection())
    assert not of_kind(found, effects.ElectionEnded)
    assert one.local.role is Role.CANDIDATE
    without = One()
    without.accept(Ballot(2, B))
    without.turn(events.StartElection())
    assert without.local.role is Role.CANDIDATE


def test_a_broken_connection_does_not_end_a_lease() -> None:
    """E13 would: whoever stands at once has a vote that may still be part of it."""
    for limits, waits in ((LEASES, True), (Limits(), False)):
        one = One(limits=limits)
        one.accept(Ballot(2, B))
        before = one.replica.election.deadline
        one.turn(events.Disconnected(B))
        assert one.local.hears_master() is waits
        assert (one.replica.election.deadline == before) is waits


def test_a_refusal_of_who_keeps_the_rules_prolongs_nothing_that_it_did_not_promise() -> None:
    """A member that lacks entries and is sent none is no part of a lease."""
    one = held()
    ends = one.replica.master.reads.lease_ends
    one.tick(0.1)
    number = one.replica.master._round
    one.receive(B, Reject(one.ballot, Refusal.GAP, one.ballot, 2, 1, number))
    assert one.replica.master.reads.lease_ends == ends
