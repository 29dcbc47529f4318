"""The façade: dispatch, founding a cluster, halting, applying."""

from __future__ import annotations

import pytest

from clusterconsensus.consensus import effects, events, messages
from clusterconsensus.consensus.events import Event
from clusterconsensus.consensus.local import Limits, Local
from clusterconsensus.consensus.log import Log
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.sessions import encode_requests
from clusterconsensus.consensus.types import Ballot, Position, Role
from tests.core.one import FIRST, A, B, C, D, One, configuration_entry, noop, of_kind


def test_every_event_has_a_handler() -> None:
    replica = One().replica
    assert set(Event.__args__) == set(replica._events)


def test_a_message_for_another_layer_is_ignored() -> None:
    one = One()
    assert one.receive(B, messages.SessionOpened(1, 2)) == []


def test_founding_a_cluster() -> None:
    replica = Replica(Local(A, Limits(), Log()))
    assert replica.local.role.value == "unjoined"
    replica.start(0.0, 0.5)
    found = replica.step(events.Bootstrap(5.0, "a:1", b"state"), 0.0, 0.5)
    found += replica.step(events.EndOfTurn(5.0), 0.0, 0.5)
    (batch,) = of_kind(found, effects.Persist)
    assert (batch.promised, len(batch.entries)) == (FIRST, 1)
    assert replica.local.log.configuration.initial == b"state"
    assert replica.local.role is Role.FOLLOWER
    replica.step(events.Persisted(batch.ticket), 0.0, 0.5)
    replica.step(events.EndOfTurn(5.0), 0.0, 0.5)
    assert replica.deadline <= 0.0
    again = replica.step(events.Bootstrap(5.0, "a:1", None), 0.0, 0.5)
    assert of_kind(again, effects.Halt)


def test_founding_leads_to_mastership_in_one_go() -> None:
    replica = Replica(Local(A, Limits(), Log()))
    found = replica.step(events.Bootstrap(5.0, "a:1", None), 0.0, 0.5)
    for _ in range(6):
        found += replica.step(events.Tick(), 0.0, 0.5)
        found += replica.step(events.EndOfTurn(5.0), 0.0, 0.5)
        ticket = max((e.ticket for e in of_kind(found, effects.Persist)), default=0)
        found += replica.step(events.Persisted(ticket), 0.0, 0.5)
        found += replica.step(events.EndOfTurn(5.0), 0.0, 0.5)
    assert replica.local.role is Role.MASTER
    assert replica.local.commit == 2
    assert of_kind(found, effects.Apply)[-1].seq == 2


def test_applying_is_asked_once_and_reported_in_order() -> None:
    one = One()
    second = Ballot(2, B)
    found = one.accept(second, noop(2, second), noop(3, second), commit=2)
    assert [apply.seq for apply in of_kind(found, effects.Apply)] == [2]
    found = one.accept(second, previous=Position(second, 3), commit=3, number=2)
    assert [apply.seq for apply in of_kind(found, effects.Apply)] == [3]
    one.turn(events.Applied(2, 22))
    assert (one.local.applied, one.local.checksum) == (2, 22)
    one.turn(events.Applied(3, 33))
    assert one.local.applied == 3


def test_nothing_is_applied_before_it_is_durable() -> None:
    one = One()
    one.slow = True
    second = Ballot(2, B)
    assert not of_kind(one.accept(second, noop(2, second), commit=2), effects.Apply)
    assert one.local.commit == 2
    assert [e.seq for e in of_kind(one.turn(events.Persisted(1)), effects.Apply)] == [2]


@pytest.mark.parametrize("seq", [0, 9])
def test_applying_what_was_not_asked_for_halts(seq: int) -> None:
    one = One()
    found = one.turn(events.Applied(seq, 0))
    assert "I-6" in of_kind(found, effects.Halt)[0].reason
    assert one.tick(10.0) == []


def test_a_persist_carries_the_commit_as_a_hint() -> None:
    one = One()
    second = Ballot(2, B)
    one.accept(second, noop(2, second), commit=2)
    found = one.accept(second, noop(3, second), previous=Position(second, 2), commit=3)
    assert of_kind(found, effects.Persist)[0].commit == 2


def test_configurations_are_announced_when_in_force_and_when_chosen() -> None:
    one = One()
    second = Ballot(2, B)
    entry = configuration_entry(2, second, A, B, C, D)
    found = one.accept(second, entry)
    assert of_kind(found, effects.ConfigurationChanged) == [effects.ConfigurationChanged(2, False)]
    found = one.accept(second, previous=Position(second, 2), commit=2, number=2)
    assert of_kind(found, effects.ConfigurationChanged) == [effects.ConfigurationChanged(2, True)]


def test_the_cache_is_bounded() -> None:
    one = One(limits=Limits(log_cache_bytes=2_000))
    second = Ballot(2, B)
    previous = Position(FIRST, 1)
    for seq in range(2, 30):
        one.accept(second, noop(seq, second), previous=previous, commit=seq, number=seq)
        one.apply()
        previous = Position(second, seq)
    assert one.local.log.cached_bytes <= 2_000 + 1_000
    assert one.local.log.ballot_at(5) == second
    one.local.log.check()


def test_events_give_the_same_effects_each_time() -> None:
    def play() -> list[effects.Effect]:
        one = One()
        found = one.lead()
        found += one.turn(events.ReadLocal(1))
        found += one.tick(0.1)
        return found + one.tick(2.0)

    assert play() == play()


def test_a_group_that_says_what_it_is_not_is_dropped() -> None:
    """It would stop every member once it is chosen."""
    one = One()
    one.lead()
    before = one.local.log.last_seq
    body = encode_requests([b"x"])
    for group in (messages.Group(1, 1, 1, 2, body), messages.Group(1, 1, 1, 1, b"\xc1")):
        one.receive(B, messages.Submit(1, group))
    assert one.local.log.last_seq == before


@pytest.mark.parametrize("damage", ["applied", "durable", "promised", "ballot"])
def test_a_broken_invariant_halts(damage: str) -> None:
    one = One()
    one.lead()
    if damage == "applied":
        one.local.applied = 99
    elif damage == "durable":
        one.local.log.durable_seq = 0
    elif damage == "promised":
        one.local.promised = FIRST
    else:
        one.replica.master.ballot = FIRST
    assert of_kind(one.turn(), effects.Halt)
    assert one.tick(1.0) == []


def test_the_attempts_that_are_remembered_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clusterconsensus.consensus.replica.MAX_SESSIONS_SEEN", 2)
    one = One()
    one.lead()
    body = encode_requests([b"x"])

    def submit(session: int, attempt: int) -> bool:
        """Whether the attempt is taken."""
        before = one.local.log.last_seq
        one.receive(B, messages.Submit(attempt, messages.Group(session, 1, 1, 1, body)))
        return one.local.log.last_seq > before

    assert [submit(1, 1), submit(2, 1), submit(1, 2), submit(3, 1)] == [True] * 4
    assert not submit(1, 2), "the session that was used lately is remembered"
    assert not submit(3, 1)
    assert submit(2, 1), "the one that was longest idle is not"
