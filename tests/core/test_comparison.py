"""Finding a state machine that computes something else (R9)."""

from __future__ import annotations

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.comparison import CHECKSUMS_KEPT
from clusterconsensus.consensus.effects import Effect
from clusterconsensus.consensus.messages import (
    Accepted,
    ProbeReply,
    Promise,
    Quarantine,
    Refusal,
    Reject,
)
from clusterconsensus.consensus.types import Ballot, Incarnation
from tests.core.one import FIRST, A, B, C, One, of_kind, sent


def led(voters: tuple[Incarnation, ...] = (A, B, C)) -> One:
    """A master that has applied 2, with checksum 2."""
    one = One(voters=voters)
    one.lead()
    return one


def report(one: One, source: Incarnation, checksum: int, applied: int = 2) -> list[Effect]:
    number = one.replica.master._round
    return one.receive(source, Accepted(one.ballot, 2, number, applied, checksum))


def test_equal_checksums_say_nothing() -> None:
    one = led()
    found = report(one, B, 2) + report(one, C, 2)
    assert not sent(found, Quarantine)
    assert not of_kind(found, effects.Halt)


def test_the_minority_is_told() -> None:
    one = led()
    found = report(one, B, 99) + report(one, C, 2)
    assert sent(found, Quarantine) == [Quarantine(one.ballot, 2, 2, 99)]
    told = [e.to for e in of_kind(found, effects.Send) if isinstance(e.message, Quarantine)]
    assert told == [(B,)]
    assert one.local.leads


def test_a_master_in_the_minority_stops() -> None:
    one = led()
    report(one, C, 0, applied=0)  # it is there, and will report: nothing is decided before
    assert not sent(report(one, B, 99), Quarantine)
    found = report(one, C, 99)
    assert of_kind(found, effects.Halt)[0].diverged


def test_of_two_the_master_is_believed() -> None:
    one = led((A, B))
    found = report(one, B, 99)
    assert sent(found, Quarantine)
    assert not of_kind(found, effects.Halt)


def test_only_equal_sequences_are_compared() -> None:
    one = led()
    found = report(one, B, 99, applied=1) + report(one, C, 98, applied=1)
    assert not sent(found, Quarantine)
    assert not of_kind(found, effects.Halt)


def test_what_is_kept_is_bounded() -> None:
    one = led()
    comparison = one.replica.master.comparison
    for seq in range(3, CHECKSUMS_KEPT + 100):
        comparison.on_applied(seq, seq)
    assert len(comparison._own) == len(comparison._order) == CHECKSUMS_KEPT


def test_who_is_told_serves_no_more_and_does_not_stand() -> None:
    one = One()
    ballot = Ballot(2, B)
    one.accept(ballot)
    assert one.receive(C, Quarantine(ballot, 1, 1, 2)) == []  # not its master
    assert one.receive(B, Quarantine(Ballot(1, B), 1, 1, 2)) == []  # not its ballot
    found = one.receive(B, Quarantine(ballot, 1, 1, 2))
    assert of_kind(found, effects.Diverged) == [effects.Diverged(1)]
    assert not of_kind(one.receive(B, Quarantine(ballot, 1, 1, 2)), effects.Diverged)
    one.tick(5.0)
    assert one.local.role.value == "follower"


def test_whoever_asks_an_event_for_nothing_gets_nothing() -> None:
    one = led()
    assert not sent(one.turn(events.Tick()), Quarantine)


def test_a_sequence_that_is_reported_again_is_kept_once() -> None:
    one = led()
    comparison = one.replica.master.comparison
    for _ in range(CHECKSUMS_KEPT + 1):
        one.turn(events.Applied(2, 2))
    assert list(comparison._order) == list(comparison._own) == [2]
    assert sent(report(one, B, 99) + report(one, C, 2), Quarantine)


def test_what_was_reported_to_an_ended_mastership_decides_nothing() -> None:
    one = led()
    report(one, C, 0, applied=0)  # it is there: nothing is decided before it reports
    report(one, B, 99)
    assert one.replica.master.comparison.found_differences
    one.receive(C, Reject(one.ballot, Refusal.LOWER, Ballot(9, C), 2, 0, 1))
    assert one.local.role.value == "follower"
    one.now = one.replica.election.deadline
    one.tick()
    last = one.local.log.last
    ballot = Ballot(10, A)
    one.receive(B, ProbeReply(ballot, Refusal.NONE, FIRST, last))
    found = one.receive(B, Promise(ballot, Refusal.NONE, ballot, last))
    assert one.ballot == ballot
    assert one.local.leads
    found += report(one, C, 2) + one.turn()
    assert not sent(found, Quarantine)
