"""Recovering: no vote until whole, and what counts as the answer to the question when that is."""

from __future__ import annotations

import pytest

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.effects import Effect
from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Prepare,
    Probe,
    ProbeReply,
    Promise,
    RecoverAsk,
    RecoverTell,
    Refusal,
    Reject,
)
from clusterconsensus.consensus.types import Ballot, Position, Role
from tests.core.one import FIRST, B, C, One, noop, of_kind, sent

SECOND = Ballot(2, B)
THIRD = Ballot(3, C)
START = Position(FIRST, 1)


def lost() -> One:
    """A member that lost what it acknowledged behind entry 1; it has promised ballot 2."""
    return One(promised=SECOND, recovering=True)


def nonce_of(found: list[Effect]) -> int:
    (question,) = sent(found, RecoverAsk)
    return question.nonce


def asked() -> tuple[One, int]:
    """One that has heard b and asked it."""
    one = lost()
    return one, nonce_of(one.accept(SECOND))


def test_it_asks_the_master_that_it_hears_again_and_again() -> None:
    one = lost()
    assert not sent(one.tick(0.5), RecoverAsk)
    found = one.accept(SECOND)
    (send,) = [
        e for e in found if isinstance(e, effects.Send) and isinstance(e.message, RecoverAsk)
    ]
    assert send.to == (B,)
    nonce = nonce_of(found)
    assert not sent(one.accept(SECOND, number=2), RecoverAsk), "not in every turn"
    one.now += one.local.limits.heartbeat_seconds
    assert nonce_of(one.accept(SECOND, number=3)) == nonce


def test_each_run_asks_another_question() -> None:
    nonces = set()
    for chance in (0.1, 0.2):
        one = lost()
        one.replica.start(one.now, chance)
        nonces.add(nonce_of(one.accept(SECOND)))
    assert len(nonces) == 2


def test_it_has_no_vote_and_does_not_stand() -> None:
    one = lost()
    found = one.receive(C, Probe(THIRD, 1, 9, Position(SECOND, 9)))
    assert sent(found, ProbeReply)[0].refusal is Refusal.RECOVERING
    found = one.receive(C, Prepare(THIRD, 9, Position(SECOND, 9)))
    assert sent(found, Promise)[0].refusal is Refusal.RECOVERING
    assert (one.local.promised, of_kind(found, effects.Persist)) == (SECOND, [])
    for _ in range(5):
        assert not sent(one.tick(1.0), Probe)
    (ended,) = of_kind(one.turn(events.StartElection()), effects.ElectionEnded)
    assert "W4" in ended.refusal


def test_it_accepts_and_acknowledges_what_it_holds() -> None:
    one = lost()
    found = one.accept(SECOND, noop(2, SECOND))
    (accepted,) = sent(found, Accepted)[-1:]
    assert (accepted.match, accepted.recovering) == (2, True)


def test_a_gap_says_that_something_was_lost() -> None:
    one = lost()
    (reject,) = sent(one.accept(SECOND, previous=Position(SECOND, 9)), Reject)
    assert (reject.refusal, reject.hint) == (Refusal.LOST, 1)


def test_it_has_its_vote_again_when_it_is_whole_and_the_disk_says_so() -> None:
    one, nonce = asked()
    assert not of_kind(one.receive(B, RecoverTell(SECOND, nonce, 4)), effects.Persist)
    assert one.replica.recovery.target_seq == 4
    found = one.accept(SECOND, noop(2, SECOND), noop(3, SECOND), number=2)
    assert all(batch.recovering is None for batch in of_kind(found, effects.Persist))
    one.slow = True
    one.accept(SECOND, noop(4, SECOND), previous=Position(SECOND, 3), number=3)
    assert one.local.tickets, "the entry is there, and not on the disk yet"
    ticket = one.local.tickets[-1].number
    assert one.local.log.last_seq == 4
    found = one.turn(events.Persisted(ticket))
    (batch,) = of_kind(found, effects.Persist)
    assert batch.recovering is False
    # The mark itself must be durable first: a restart would find the member recovering.
    found = one.tick(0.1)
    assert not of_kind(found, effects.Recovered)
    refused = one.receive(C, Prepare(THIRD, 1, Position(SECOND, 4)))
    assert sent(refused, Promise)[0].refusal is Refusal.RECOVERING
    found = one.turn(events.Persisted(batch.ticket))
    assert of_kind(found, effects.Recovered) == [effects.Recovered(4)]
    assert not one.local.recovering
    one.slow = False
    one.now += 1.0
    assert sent(one.receive(C, Prepare(THIRD, 1, Position(SECOND, 4))), Promise)[0].refusal is (
        Refusal.NONE
    )
    assert not sent(one.accept(Ballot(4, B)), RecoverAsk)


def test_what_the_log_holds_counts_only_when_the_master_s_messages_verified_it() -> None:
    """Old entries that nobody compared may be of another history."""
    one = One(*(noop(seq, FIRST) for seq in range(2, 9)), promised=SECOND, recovering=True)
    nonce = nonce_of(one.accept(SECOND))
    found = one.receive(B, RecoverTell(SECOND, nonce, 5))
    assert one.local.log.durable_seq == 8
    assert not of_kind(found, effects.Persist)
    found = one.accept(SECOND, previous=Position(FIRST, 8), number=2)
    assert of_kind(found, effects.Recovered)


@pytest.mark.parametrize("wrong", ["nonce", "ballot", "source"])
def test_an_answer_to_anything_else_is_none(wrong: str) -> None:
    one, nonce = asked()
    source = C if wrong == "source" else B
    ballot = FIRST if wrong == "ballot" else SECOND
    tell = RecoverTell(ballot, nonce + (wrong == "nonce"), 1)
    found = one.receive(source, tell)
    assert not of_kind(found, effects.Persist)
    assert one.replica.recovery.target_seq == 0
    assert one.local.recovering


def test_another_ballot_is_asked_anew() -> None:
    """What this member acknowledged last may have been acknowledged in that one."""
    one, nonce = asked()
    one.receive(B, RecoverTell(SECOND, nonce, 2))
    one.now += one.local.limits.heartbeat_seconds
    found = one.accept(THIRD, noop(2, THIRD))
    assert one.replica.recovery.target_seq == 0
    assert one.local.recovering
    sends = [effect for effect in found if isinstance(effect, effects.Send)]
    assert [s.to for s in sends if isinstance(s.message, RecoverAsk)] == [(C,)]
    one.receive(B, RecoverTell(SECOND, nonce, 1))
    assert one.local.recovering
    assert of_kind(one.receive(C, RecoverTell(THIRD, nonce, 2)), effects.Recovered)


def test_the_mark_once_on_its_way_is_not_taken_back_by_another_ballot() -> None:
    one, nonce = asked()
    one.slow = True
    found = one.receive(B, RecoverTell(SECOND, nonce, 1))
    (batch,) = of_kind(found, effects.Persist)
    one.accept(THIRD)
    assert not of_kind(one.receive(B, RecoverTell(SECOND, nonce, 9)), effects.Persist)
    found = one.turn(events.Persisted(one.local.tickets[-1].number))
    assert batch.recovering is False
    assert of_kind(found, effects.Recovered)


def test_who_is_whole_hears_no_answer() -> None:
    one = One()
    one.accept(SECOND)
    assert one.receive(B, RecoverTell(SECOND, 0, 1)) == []
    assert one.replica.recovery.target_seq == 0


def test_only_a_master_that_serves_answers() -> None:
    one = One()
    assert not sent(one.receive(C, RecoverAsk(7)), RecoverTell), "no master"
    one.now = one.replica.election.deadline
    one.tick()
    candidacy = one.replica.election.candidacy
    assert candidacy is not None
    ballot = candidacy.ballot
    one.receive(B, ProbeReply(ballot, Refusal.NONE, FIRST, START))
    one.receive(B, Promise(ballot, Refusal.NONE, ballot, START))
    assert one.local.role is Role.PENDING_MASTER
    assert not sent(one.receive(C, RecoverAsk(7)), RecoverTell), "nothing of its own is chosen"
    one.receive(B, Accepted(ballot, 2, 1, 1, 1))
    found = one.receive(C, RecoverAsk(7))
    assert sent(found, RecoverTell) == [RecoverTell(ballot, 7, 2)]


def test_a_master_sends_again_what_a_member_has_lost() -> None:
    """It acknowledged entry 2 in this very ballot, and holds it no more (W4)."""
    one = One()
    one.lead()
    one.receive(C, Accepted(one.ballot, 2, 1, 0, 0))
    progress = one.replica.master.progress[C]
    assert (progress.match, progress.next) == (2, 3)
    gap = Reject(one.ballot, Refusal.GAP, one.ballot, 2, 1, 1)
    assert not sent(one.receive(C, gap), Accept), "an ordinary refusal of that is an old one"
    found = one.receive(C, Reject(one.ballot, Refusal.LOST, one.ballot, 2, 1, 1))
    assert (progress.match, progress.probing) == (0, True)
    assert [entry.seq for accept in sent(found, Accept) for entry in accept.entries] == [2]
    # One that cannot be: it would hold more than there is.
    one.receive(C, Accepted(one.ballot, 2, 1, 0, 0))
    one.receive(C, Reject(one.ballot, Refusal.LOST, one.ballot, 2, 9, 1))
    assert progress.match == 2
    one.receive(C, Accepted(one.ballot, 2, 1, 0, 0, 2, False, True))
    assert progress.recovering
