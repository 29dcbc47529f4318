"""Standing for election: timers, probes, prepares, adoption."""

from __future__ import annotations

import math

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.election import IMMEDIATE_PROBES, MAX_BACK_OFF
from clusterconsensus.consensus.local import Limits
from clusterconsensus.consensus.log import encode_configuration
from clusterconsensus.consensus.messages import (
    Accept,
    Prepare,
    Probe,
    ProbeReply,
    Promise,
    PromisePart,
    PromisePull,
    Refusal,
)
from clusterconsensus.consensus.types import (
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Position,
    Role,
)
from tests.core.one import (
    FIRST,
    A,
    B,
    C,
    D,
    One,
    configuration_entry,
    noop,
    of_kind,
    seat,
    sent,
)

OWN = Ballot(2, A)
START = Position(FIRST, 1)


def stand(one: One) -> Ballot:
    """Let the timer run out; returns the ballot that is asked about."""
    one.now = max(one.now, one.replica.election.deadline)
    (probe,) = sent(one.tick(), Probe)
    return probe.ballot


def grant(one: One, ballot: Ballot) -> list[effects.Effect]:
    return one.receive(B, ProbeReply(ballot, Refusal.NONE, FIRST, START))


def test_the_timer_is_between_one_and_two_timeouts() -> None:
    for chance in (0.0, 0.5, 0.99):
        one = One()
        one.chance = chance
        one.accept(Ballot(2, B))
        assert 1.0 <= one.replica.election.deadline - one.now < 2.0


def test_nothing_durable_happens_before_a_majority_grants() -> None:
    one = One()
    assert stand(one) == OWN
    assert one.local.role is Role.CANDIDATE
    assert one.local.promised == FIRST


def test_a_granted_probe_leads_to_a_durable_promise_and_then_to_prepares() -> None:
    one = One()
    one.slow = True
    found = grant(one, stand(one))
    assert of_kind(found, effects.Persist)[0].promised == OWN
    assert not sent(found, Prepare)
    assert sent(one.turn(events.Persisted(1)), Prepare) == [Prepare(OWN, 1, START)]


def test_answers_for_another_ballot_are_not_counted() -> None:
    one = One()
    stand(one)
    one.receive(B, ProbeReply(Ballot(9, A), Refusal.NONE, FIRST, START))
    one.receive(B, Promise(OWN, Refusal.NONE, OWN, START))
    assert one.local.role is Role.CANDIDATE
    assert one.local.promised == FIRST
    grant(one, OWN)
    one.receive(B, Promise(Ballot(9, A), Refusal.NONE, Ballot(9, A), START))
    assert not one.local.leads


def test_refusals_are_no_promises() -> None:
    one = One()
    grant(one, stand(one))
    for refusal in (Refusal.STICKY, Refusal.LOWER, Refusal.NOT_MEMBER):
        one.receive(B, Promise(OWN, refusal, OWN, START))
        one.receive(C, Promise(OWN, refusal, FIRST, START))
    assert not one.local.leads


def test_only_voters_count() -> None:
    one = One()
    grant(one, stand(one))
    one.receive(D, Promise(OWN, Refusal.NONE, OWN, START))
    assert not one.local.leads
    one.receive(C, Promise(OWN, Refusal.NONE, OWN, START))
    assert one.local.leads


def test_a_refused_probe_learns_which_instance_can_win() -> None:
    one = One()
    stand(one)
    reply = ProbeReply(OWN, Refusal.LOWER, Ballot(7, C), START)
    (probe, *_) = sent(one.receive(B, reply), Probe)
    assert probe.ballot == Ballot(8, A)


def test_one_attempt_starts_over_only_so_often() -> None:
    one = One()
    ballot = stand(one)
    for number in range(IMMEDIATE_PROBES + 1):
        higher = Ballot(ballot.instance + 1, C)
        probes = sent(one.receive(B, ProbeReply(ballot, Refusal.LOWER, higher, START)), Probe)
        if number < IMMEDIATE_PROBES:
            ballot = probes[0].ballot
    assert probes == []


def test_hearing_a_master_ends_a_candidacy() -> None:
    one = One()
    stand(one)
    found = one.accept(Ballot(3, B))
    changes = of_kind(found, effects.RoleChanged)
    assert "master b" in changes[0].reason
    assert (one.local.role, one.local.master) == (Role.FOLLOWER, B)


def test_promising_another_ends_a_candidacy() -> None:
    one = One()
    grant(one, stand(one))
    one.receive(C, Prepare(Ballot(3, C), 1, START))
    assert one.local.role is Role.FOLLOWER
    one.receive(B, Promise(OWN, Refusal.NONE, OWN, START))
    assert not one.local.leads


def test_the_best_log_is_adopted_before_leading() -> None:
    one = One()
    grant(one, stand(one))
    better = Position(Ballot(1, B), 2)
    suffix = (noop(2, Ballot(1, B)),)
    found = one.receive(B, Promise(OWN, Refusal.NONE, OWN, better, suffix))
    assert one.local.leads
    assert one.local.log.ballot_at(2) == Ballot(1, B)
    assert one.local.log.last == Position(OWN, 3)
    # The accept leaves when the adopted log and the first own entry are durable (D6).
    persists = [place for place, e in enumerate(found) if isinstance(e, effects.Persist)]
    accepts = [
        place
        for place, e in enumerate(found)
        if isinstance(e, effects.Send) and isinstance(e.message, Accept)
    ]
    assert max(persists) < min(accepts)


def test_a_higher_ballot_beats_a_longer_log() -> None:
    one = One(*(noop(seq, FIRST) for seq in range(2, 6)))
    grant(one, stand(one))
    other = Ballot(1, C)
    promise = Promise(OWN, Refusal.NONE, OWN, Position(other, 2), (noop(2, other),))
    one.receive(B, promise)
    assert one.local.log.ballot_at(2) == other
    assert one.local.log.last == Position(OWN, 3)


def test_a_long_log_is_pulled_piece_by_piece() -> None:
    one = One()
    grant(one, stand(one))
    other = Ballot(1, B)
    promise = Promise(OWN, Refusal.NONE, OWN, Position(other, 3), (noop(2, other),), True)
    found = one.receive(B, promise)
    assert sent(found, PromisePull) == [PromisePull(OWN, 3)]
    assert not one.local.leads
    part = PromisePart(OWN, 3, (noop(3, other),), False)
    one.receive(C, part)
    assert not one.local.leads
    one.receive(B, part)
    assert one.local.leads


def test_what_fits_no_log_ends_the_attempt() -> None:
    one = One()
    grant(one, stand(one))
    suffix = (noop(5, Ballot(1, B)),)
    one.receive(B, Promise(OWN, Refusal.NONE, OWN, Position(Ballot(1, B), 5), suffix))
    assert not one.local.leads
    assert one.local.role is Role.FOLLOWER


def test_an_adopted_configuration_is_counted_by() -> None:
    """The adopted log makes d and e voters: two promises of five are not enough (E6)."""
    one = One()
    grant(one, stand(one))
    other = Ballot(1, B)
    entry = configuration_entry(2, other, A, B, C, D)
    found = one.receive(B, Promise(OWN, Refusal.NONE, OWN, Position(other, 2), (entry,)))
    assert not one.local.leads
    asked = [e.to for e in found if isinstance(e, effects.Send) and isinstance(e.message, Prepare)]
    assert asked == [(D,)]
    one.receive(D, Promise(OWN, Refusal.NONE, OWN, START))
    assert one.local.leads


def test_a_configuration_without_this_member_ends_the_attempt() -> None:
    one = One()
    grant(one, stand(one))
    other = Ballot(1, B)
    entry = configuration_entry(2, other, B, C)
    one.receive(B, Promise(OWN, Refusal.NONE, OWN, Position(other, 2), (entry,)))
    assert one.local.role.value == "candidate"
    one.receive(C, Promise(OWN, Refusal.NONE, OWN, START))
    assert not one.local.leads
    assert one.local.role is Role.UNJOINED
    assert one.replica.election.candidacy is None


def test_back_off_is_bounded() -> None:
    one = One()
    one.chance = 0.99
    for _ in range(6):
        ballot = stand(one)
        one.receive(B, ProbeReply(ballot, Refusal.NONE, FIRST, START))
        one.receive(B, Promise(ballot, Refusal.LOWER, Ballot(ballot.instance + 1, C), START))
        assert one.local.role is Role.FOLLOWER
        wait = one.replica.election.deadline - one.now
        assert wait < 2.0 * MAX_BACK_OFF
    assert wait >= 2.0


def test_a_candidacy_without_progress_ends() -> None:
    one = One()
    grant(one, stand(one))
    one.tick(2.1)
    assert one.local.role is Role.FOLLOWER


def test_a_lone_voter_does_not_wait() -> None:
    one = One(voters=(A,))
    assert one.replica.election.deadline <= one.now
    one.tick()
    assert one.local.role is Role.MASTER


def test_who_is_no_voter_does_not_stand() -> None:
    one = One(name=D)
    for _ in range(5):
        assert not sent(one.tick(3.0), Probe)
    asked = one.turn(events.StartElection())
    assert of_kind(asked, effects.ElectionEnded)[0].refusal


def test_a_broken_connection_to_the_master_makes_it_stand_soon() -> None:
    one = One()
    one.accept(Ballot(2, B))
    one.turn(events.Disconnected(C))
    assert one.replica.election.deadline - one.now >= 1.0
    one.turn(events.Disconnected(B))
    assert one.replica.election.deadline - one.now <= Limits().reconnect_delay_seconds
    assert not one.local.hears_master()


def test_an_asked_for_election_ends_when_it_is_won() -> None:
    one = One()
    one.turn(events.StartElection())
    grant(one, OWN)
    found = one.receive(B, Promise(OWN, Refusal.NONE, OWN, START))
    assert of_kind(found, effects.ElectionEnded) == [effects.ElectionEnded("")]
    again = one.turn(events.StartElection())
    assert of_kind(again, effects.ElectionEnded) == [effects.ElectionEnded("")]
    assert one.replica.election.deadline == math.inf


def test_an_asked_for_election_ends_when_a_majority_refuses() -> None:
    one = One()
    one.turn(events.StartElection())
    one.receive(B, ProbeReply(OWN, Refusal.STICKY, FIRST, START))
    found = one.receive(C, ProbeReply(OWN, Refusal.STICKY, FIRST, START))
    assert "b: STICKY, c: STICKY" in of_kind(found, effects.ElectionEnded)[0].refusal


def test_an_asked_for_election_ends_without_answers() -> None:
    one = One()
    one.turn(events.StartElection())
    found = one.tick(2.1)
    assert of_kind(found, effects.ElectionEnded)[0].refusal


def test_a_candidacy_goes_on_as_long_as_it_gets_further() -> None:
    one = One()
    grant(one, stand(one))
    election, other = one.replica.election, Ballot(1, B)
    first = Promise(OWN, Refusal.NONE, OWN, Position(other, 9), (noop(2, other),), True)
    one.receive(B, first)
    one.now += 0.9
    one.receive(B, PromisePart(OWN, 3, (noop(3, other),), True))
    moved = one.now
    one.now = election.deadline
    assert one.now < moved + 1.0
    one.tick()
    assert one.local.role.value == "candidate"
    assert election.deadline == moved + 1.0
    one.now = election.deadline
    one.tick()
    assert one.local.role is Role.FOLLOWER


def test_whoever_has_its_own_removal_in_the_log_and_hears_nobody_asks() -> None:
    """M8: it may be committed without this member knowing, and nobody left who would tell."""
    seats = tuple(sorted([seat(B), seat(C)]))
    payload = encode_configuration(Configuration(seats, 1, None, (A,)))
    one = One(Entry.make(2, FIRST, EntryKind.CONFIG, 1.0, payload))
    assert not one.local.removed
    one.now = one.replica.election.deadline
    found = one.tick()
    (probe,) = sent(found, Probe)
    assert not sent(one.tick(), Probe)  # not again at once
    one.receive(B, ProbeReply(probe.ballot, Refusal.REMOVED, FIRST, START))
    assert one.local.told_removed
    assert one.local.passive_role() is Role.REMOVED
    one.now = one.replica.election.deadline
    assert not sent(one.tick(), Probe)
