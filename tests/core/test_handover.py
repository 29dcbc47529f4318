"""Handing the mastership over (E11), and being handed it."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.effects import Effect
from clusterconsensus.consensus.handover import CALM_TIMEOUTS, ENOUGH_SYNCS, LEVEL_ENTRIES
from clusterconsensus.consensus.local import FEATURE_LEVEL, Limits
from clusterconsensus.consensus.log import encode_configuration
from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Action,
    ChangeMember,
    Group,
    MembershipReply,
    Prepare,
    Promise,
    Refusal,
    Submit,
    SubmitReply,
    TransferMaster,
)
from clusterconsensus.consensus.types import (
    ZERO,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    Member,
    Position,
    Role,
    Standing,
)
from tests.core.one import FIRST, A, B, C, One, noop, of_kind, seat, sent
from tests.runtime.helpers import group, request


def with_priorities(*priorities: int, learner: Incarnation | None = None, seq: int = 2) -> Entry:
    seats = [
        replace(seat(name), priority=priority)
        for name, priority in zip((A, B, C), priorities, strict=True)
    ]
    if learner is not None:
        seats.append(seat(learner, Standing.LEARNER))
    payload = encode_configuration(Configuration(tuple(seats), 1))
    return Entry.make(seq, FIRST, EntryKind.CONFIG, 1.0, payload)


class Led(One):
    """A master that is followed by b and c."""

    def __init__(self, *entries: Entry, limits: Limits | None = None) -> None:
        super().__init__(*entries, limits=limits)
        self.local.commit = self.local.apply_asked = self.local.applied = self.local.log.last_seq
        self.lead()
        self.tick(0.1)
        self.hear(B, C)

    def hear(
        self, *names: Incarnation, match: int | None = None, recovering: bool = False
    ) -> list[Effect]:
        """They acknowledge the latest round, and everything unless ``match`` says less."""
        found: list[Effect] = []
        for name in names:
            held = self.local.log.last_seq if match is None else match
            number = self.replica.master._round
            level = FEATURE_LEVEL
            found += self.receive(
                name, Accepted(self.ballot, held, number, 0, 0, level, False, recovering)
            )
        return found + self.turn()

    def ask(self, to: str = "", nonce: int = 1) -> list[Effect]:
        return self.turn(events.ChangeMemberLocal(nonce, Action.TRANSFER, Member(to, "")))

    def live(self, seconds: float, *names: Incarnation) -> list[Effect]:
        found: list[Effect] = []
        for _ in range(round(seconds * 10)):
            found += self.tick(0.1)
            found += self.hear(*names)
        return found


def targets(found: list[Effect]) -> list[Incarnation]:
    """Who was asked to take over."""
    return [
        effect.to[0]
        for effect in found
        if isinstance(effect, effects.Send) and isinstance(effect.message, TransferMaster)
    ]


def done(found: list[Effect]) -> list[effects.MembershipDone]:
    return of_kind(found, effects.MembershipDone)


def submit(one: One, attempt: int) -> list[Effect]:
    return one.turn(events.SubmitLocal(attempt, Group(1, 0, attempt, 1, b"x")))


def test_a_level_target_is_asked_at_once() -> None:
    one = Led()
    found = one.ask("b")
    assert targets(found) == [B]
    (message,) = sent(found, TransferMaster)
    assert message == TransferMaster(one.ballot, one.local.log.last_seq)
    assert one.replica.master.holding


def test_there_is_no_lease_any_more_once_another_may_have_been_asked() -> None:
    """C-22: not even after the handover came to nothing."""
    one = One(limits=Limits(lease_reads=True))
    one.lead()

    def hear() -> None:
        match, number = one.local.log.last_seq, one.replica.master._round
        for name in (B, C):
            one.receive(name, Accepted(one.ballot, match, number, 0, 0, FEATURE_LEVEL, True))

    one.tick(0.1)
    hear()
    reads = one.replica.master.reads
    assert reads.has_lease(one.now)
    assert targets(one.turn(events.ChangeMemberLocal(1, Action.TRANSFER, Member("b", "")))) == [B]
    assert not reads.has_lease(one.now)
    for _ in range(15):
        one.tick(0.1)
        hear()
    assert not one.replica.master.holding
    assert not reads.has_lease(one.now)


def test_what_comes_meanwhile_waits_and_is_not_refused() -> None:
    one = Led()
    one.ask("b")
    last = one.local.log.last_seq
    found = submit(one, 1)
    assert one.local.log.last_seq == last
    assert not of_kind(found, effects.SubmitRefused)
    found = one.receive(B, Prepare(Ballot(9, B), 1, one.local.log.last, one.ballot))
    assert of_kind(found, effects.SubmitRefused) == [effects.SubmitRefused(1, False)]
    assert sent(found, Promise)[0].refusal is Refusal.NONE
    (ended,) = done(found)
    assert ended.retryable, "the next master confirms it"


def test_nothing_is_asked_before_the_target_holds_everything() -> None:
    one = Led()
    submit(one, 1)
    last = one.local.log.last_seq
    assert targets(one.ask("b")) == []
    assert targets(one.hear(C)) == []
    submit(one, 2)
    assert one.local.log.last_seq == last, "held"
    assert targets(one.hear(B)) == [B]


def test_a_target_that_does_not_answer_is_asked_again_and_given_up() -> None:
    one = Led()
    one.ask("b")
    submit(one, 1)
    last = one.local.log.last_seq
    found = one.live(0.9, B, C)
    assert len(targets(found)) >= 5
    assert not done(found)
    found = one.live(0.2, B, C)
    (ended,) = done(found)
    assert not ended.retryable
    assert "did not take over" in ended.refusal
    assert not one.replica.master.holding
    assert one.local.log.last_seq == last + 1, "what was held goes on"
    assert one.local.role is Role.MASTER


def test_a_target_whose_connection_breaks_is_given_up_at_once() -> None:
    one = Led()
    one.ask("b")
    submit(one, 1)
    found = one.turn(events.Disconnected(B))
    assert "not connected" in done(found)[0].refusal
    assert not one.replica.master.holding
    found = one.ask("b", 2)
    assert targets(found) == []
    assert targets(one.hear(B)) == [B]


def test_a_target_that_does_not_catch_up_is_given_up() -> None:
    one = Led()
    submit(one, 1)
    one.ask("b")
    behind = one.local.log.last_seq - 1
    found: list[Effect] = []
    for _ in range(12):
        found += one.tick(0.1)
        found += one.hear(B, match=behind)
        found += one.hear(C)
    assert targets(found) == []
    assert "did not catch up" in done(found)[0].refusal


def test_only_who_could_lead_is_asked() -> None:
    one = Led(with_priorities(1, 0, 1, learner=Incarnation("d@1")))
    assert "'z'" in done(one.ask("z", 1))[0].refusal
    found = one.ask("d", 2) + one.ask("b", 3)
    assert not targets(found)
    found += one.live(1.3, B, C)
    refusals = {ended.nonce: ended.refusal for ended in done(found)}
    assert "not a voter" in refusals[2]
    assert "priority 0" in refusals[3]
    assert targets(one.ask("", 4)) == [C]


def test_who_is_silent_or_recovering_is_not_asked() -> None:
    one = Led()
    one.live(1.1, B)
    found = one.ask("c")
    assert targets(found) == []
    assert "not heard" in done(one.live(1.3, B))[0].refusal
    found = []
    for _ in range(3):
        one.tick(0.1)
        one.hear(B, recovering=True)
    found = one.ask("b", 2)
    for _ in range(13):
        found += one.tick(0.1)
        found += one.hear(B, recovering=True)
    assert "not whole" in done(found)[0].refusal
    assert targets(found) == []


def test_the_best_is_the_preferred_one_then_who_holds_most() -> None:
    one = Led(with_priorities(2, 1, 2))
    assert targets(one.ask()) == [C]
    one = Led()
    submit(one, 1)
    one.hear(C)
    one.hear(B, match=one.local.log.last_seq - 1)
    assert targets(one.ask()) == [C]


def test_nobody_is_held_up_for_one_that_is_far_behind() -> None:
    one = Led()
    match = one.local.log.last_seq
    for attempt in range(LEVEL_ENTRIES + 2):
        submit(one, attempt + 1)
    one.hear(C)
    one.hear(B, match=match)
    found = one.ask("b")
    assert not one.replica.master.holding
    for _ in range(13):
        found += one.tick(0.1)
        found += one.hear(B, match=match)
        found += one.hear(C)
    assert "lacks" in done(found)[0].refusal


def test_the_target_answers_that_it_is_achieved() -> None:
    one = Led()
    assert done(one.ask("a")) == [effects.MembershipDone(1, "")]
    (reply,) = sent(one.receive(C, ChangeMember(5, Action.TRANSFER, "a")), MembershipReply)
    assert reply == MembershipReply(5, "", False)


def test_whoever_wanted_anybody_else_has_it_when_somebody_takes_over() -> None:
    one = Led()
    (target,) = targets(one.ask())
    found = one.receive(target, Prepare(Ballot(9, target), 1, one.local.log.last, one.ballot))
    assert done(found) == [effects.MembershipDone(1, "")]


@pytest.mark.parametrize("action", [Action.REMOVE, Action.DEMOTE])
def test_a_master_that_shall_go_hands_over_first(action: Action) -> None:
    """M7: and the next one is to be asked."""
    one = Led()
    found = one.turn(events.ChangeMemberLocal(1, action, Member("a", "")))
    (target,) = targets(found)
    assert one.local.log.configuration_seq == 1
    found = one.receive(target, Prepare(Ballot(9, target), 1, one.local.log.last, one.ballot))
    (ended,) = done(found)
    assert ended.retryable
    assert "hands over" in ended.refusal


def test_no_configuration_is_appended_meanwhile() -> None:
    one = Led()
    one.ask("b")
    one.turn(events.ChangeMemberLocal(2, Action.REMOVE, Member("c", "")))
    assert one.local.log.configuration_seq == 1
    one.live(1.2, B, C)
    assert one.local.log.voters == (A, B), "it came to nothing, and the rest goes on"


# -- unasked


def calm(one: Led) -> list[Effect]:
    return one.live(CALM_TIMEOUTS * one.local.limits.election_timeout_seconds + 0.2, B, C)


def test_a_preferred_voter_that_is_level_is_handed_the_mastership() -> None:
    one = Led(with_priorities(1, 2, 3))
    found = one.live(9.0, B, C)
    assert targets(found) == [], "not in the beginning of a mastership"
    found = one.live(1.5, B, C)
    assert set(targets(found)) == {C}
    found = one.live(5.0, B, C)
    assert not one.replica.master.holding, "it came to nothing"
    assert len(set(targets(found))) <= 1
    assert targets(one.live(3.0, B, C)) == [], "not again at once"
    assert targets(one.live(4.0, B, C))


def test_a_preferred_voter_must_have_been_level_for_a_while() -> None:
    one = Led(with_priorities(1, 1, 2))
    found = one.live(CALM_TIMEOUTS + 0.2, B)
    assert targets(found) == []
    found = one.live(1.5, B, C)
    assert targets(found) == []
    assert targets(one.live(1.0, B, C)) != []


def test_among_equals_nothing_is_handed_over() -> None:
    one = Led()
    assert targets(calm(one) + one.live(5.0, B, C)) == []


def slow_syncs(one: Led, seconds: float, *ahead: Incarnation) -> list[Effect]:
    """Entries whose syncs take long here; ``ahead`` have them sooner."""
    found: list[Effect] = []
    for attempt in range(ENOUGH_SYNCS + 2):
        one.slow = True
        found += submit(one, attempt + 1)
        one.now += seconds
        behind = [name for name in (B, C) if name not in ahead]
        found += one.hear(*ahead) + one.hear(*behind, match=one.local.log.durable_seq)
        one.slow = False
        found += one.turn(events.Persisted(1_000_000))
        found += one.live(0.1, B, C)
        if one.replica.master.holding:
            break
    return found


def test_a_slow_disk_hands_over_to_a_quicker_one() -> None:
    one = Led()
    calm(one)
    assert set(targets(slow_syncs(one, 0.5, C))) == {C}


@pytest.mark.parametrize("seconds", [0.01, 0.5])
def test_a_quick_disk_or_one_among_slow_ones_does_not(seconds: float) -> None:
    one = Led()
    calm(one)
    ahead = (C,) if seconds < 0.1 else ()
    assert targets(slow_syncs(one, seconds, *ahead)) == []


# -- at the target


def follower(*entries: Entry) -> One:
    """Member a, which follows b."""
    one = One(*entries)
    ballot = Ballot(2, B)
    one.accept(ballot, noop(one.local.log.last_seq + 1, ballot), previous=one.local.log.last)
    assert one.local.master == B
    return one


def test_the_target_prepares_at_once_and_says_by_whose_leave() -> None:
    one = follower()
    found = one.receive(B, TransferMaster(Ballot(2, B), one.local.log.last_seq))
    (prepare,) = sent(found, Prepare)
    assert prepare.transfer_from == Ballot(2, B)
    assert prepare.ballot == Ballot(3, A)
    assert one.local.promised_durable == prepare.ballot
    one.receive(C, Promise(prepare.ballot, Refusal.NONE, prepare.ballot, one.local.log.last))
    assert one.local.role is Role.PENDING_MASTER


def test_only_the_master_that_is_heard_hands_over() -> None:
    one = follower()
    last = one.local.log.last_seq
    for source, message in (
        (C, TransferMaster(Ballot(2, B), last)),
        (B, TransferMaster(Ballot(1, B), last)),
        (B, TransferMaster(Ballot(2, B), last + 1)),
    ):
        assert not sent(one.receive(source, message), Prepare)
    one.now += 1.0
    assert not sent(one.receive(B, TransferMaster(Ballot(2, B), last)), Prepare)
    assert one.local.promised == Ballot(2, B)


@pytest.mark.parametrize("why", ["recovering", "quarantined", "removed", "priority", "learner"])
def test_who_may_not_stand_does_not(why: str) -> None:
    entry = {
        "priority": with_priorities(0, 1, 1),
        "learner": Entry.make(
            2,
            FIRST,
            EntryKind.CONFIG,
            1.0,
            encode_configuration(Configuration((seat(A, Standing.LEARNER), seat(B)), 1)),
        ),
    }.get(why, noop(2, FIRST))
    one = follower(entry)
    one.local.recovering = why == "recovering"
    one.local.quarantined = why == "quarantined"
    one.local.told_removed = why == "removed"
    message = TransferMaster(Ballot(2, B), one.local.log.last_seq)
    assert not sent(one.receive(B, message), Prepare)
    assert one.local.promised == Ballot(2, B)
    for _ in range(5):
        one.tick(2.0)
        assert one.local.role is not Role.CANDIDATE
    if why != "quarantined":
        (ended,) = of_kind(one.turn(events.StartElection()), effects.ElectionEnded)
        assert ended.refusal.startswith("this member")


def test_whoever_follows_that_master_promises_although_it_is_heard() -> None:
    one = follower()
    ballot = Ballot(5, C)
    last = one.local.log.last
    for leave, refusal in ((ZERO, Refusal.STICKY), (Ballot(1, B), Refusal.STICKY)):
        found = one.receive(C, Prepare(ballot, 1, last, leave))
        assert sent(found, Promise)[0].refusal is refusal
    found = one.receive(C, Prepare(ballot, 1, last, Ballot(2, B)))
    assert sent(found, Promise)[0].refusal is Refusal.NONE


def test_submits_of_others_are_held_too() -> None:
    one = Led()
    one.ask("b")
    found = one.receive(C, Submit(1, group(1, 1, request("x"))))
    assert not sent(found, SubmitReply)
    assert not [accept for accept in sent(found, Accept) if accept.entries]
    found = one.receive(B, Prepare(Ballot(9, B), 1, one.local.log.last, one.ballot))
    assert sent(found, SubmitReply)[0].refusal is Refusal.NOT_APPENDED
    assert Position(FIRST, 1) < one.local.log.last
