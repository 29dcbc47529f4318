"""Linearizable reads: never before the first own entry, never without a later round."""

from __future__ import annotations

import pytest

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    ProbeReply,
    Promise,
    ReadAsk,
    ReadTell,
    Refusal,
)
from clusterconsensus.consensus.types import Position
from tests.core.one import FIRST, B, C, One, of_kind, sent

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
