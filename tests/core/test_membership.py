"""Membership at the master: questions, one configuration at a time, and who is told."""

from __future__ import annotations

import math

import pytest

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.effects import Effect
from clusterconsensus.consensus.local import FEATURE_LEVEL, Limits
from clusterconsensus.consensus.membership import MAX_REQUESTS
from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Action,
    AddMember,
    ChangeMember,
    Identify,
    Identity,
    MembershipReply,
    ProbeReply,
    Promise,
    Refusal,
)
from clusterconsensus.consensus.types import Incarnation, Member, Position, Standing
from tests.core.one import FIRST, A, B, C, D, One, of_kind, sent

NEW = Member("d", "d:1")


def led(limits: Limits | None = None) -> One:
    one = One(limits=limits)
    one.lead()
    return one


def ask(one: One, member: Member = NEW, nonce: int = 1) -> list[Effect]:
    return one.turn(events.ChangeMemberLocal(nonce, Action.ADD, member))


def asked_nonce(found: list[Effect]) -> int:
    (contact,) = of_kind(found, effects.Contact)
    assert isinstance(contact.message, Identify)
    return contact.message.nonce


def ended(found: list[Effect]) -> effects.MembershipDone:
    (done,) = of_kind(found, effects.MembershipDone)
    return done


def catch_up(one: One, *names: Incarnation) -> list[Effect]:
    found: list[Effect] = []
    for name in names:
        match, number = one.local.log.last_seq, one.replica.master._round
        found += one.receive(name, Accepted(one.ballot, match, number, 0, 0, FEATURE_LEVEL))
    return found + one.turn()


def test_a_member_is_identified_added_and_promoted() -> None:
    one = led()
    found = ask(one)
    contact = of_kind(found, effects.Contact)[0]
    assert contact.to == NEW
    one.receive(D, Identity(asked_nonce(found), ""))
    seat = one.local.log.configuration.seat(D)
    assert seat is not None
    assert (seat.standing, seat.promoting) == (Standing.LEARNER, True)
    assert list(one.local.log.voters) == [A, B, C]
    catch_up(one, B)
    one.tick(0.1)
    catch_up(one, B, D)
    assert list(one.local.log.voters) == [A, B, C, D]
    # It counts from now on: two of four choose nothing.
    assert not of_kind(catch_up(one, B), effects.MembershipDone)
    assert ended(catch_up(one, C)) == effects.MembershipDone(1, "")


def test_another_one_at_the_address_is_refused() -> None:
    one = led()
    nonce = asked_nonce(ask(one))
    done = ended(one.receive(Incarnation("z@1"), Identity(nonce, "")))
    assert "'z'" in done.refusal
    assert one.local.log.configuration_seq == 1


def test_a_member_of_another_cluster_is_refused() -> None:
    one = led()
    nonce = asked_nonce(ask(one))
    assert "another cluster" in ended(one.receive(D, Identity(nonce, "c2"))).refusal


def test_an_answer_to_another_question_is_ignored() -> None:
    one = led()
    nonce = asked_nonce(ask(one))
    assert not of_kind(one.receive(D, Identity(nonce + 1, "")), effects.MembershipDone)
    assert one.local.log.configuration_seq == 1


def test_adding_a_voter_is_achieved_already() -> None:
    one = led()
    ask(one, Member("b", "b:1"))
    one.tick(0.1)
    assert ended(catch_up(one, B)) == effects.MembershipDone(1, "")


def test_a_voter_that_has_another_disk_now_is_not_what_was_added() -> None:
    one = led()
    nonce = asked_nonce(ask(one, Member("c", "c:1")))
    done = ended(one.receive(Incarnation("c@another"), Identity(nonce, "")))
    assert "another disk" in done.refusal


def test_a_known_member_at_another_address_is_refused() -> None:
    one = led()
    assert "b:1" in ended(ask(one, Member("b", "elsewhere:1"))).refusal


def test_the_same_question_twice_is_one_request() -> None:
    one = led()
    ask(one)
    one.receive(B, AddMember(1, "e", "e:1"))
    one.receive(B, AddMember(1, "e", "e:1"))
    assert len(one.replica.membership._requests) == 2


def test_who_does_not_lead_says_so() -> None:
    one = One()
    done = ended(ask(one))
    assert done.retryable
    assert sent(one.receive(B, AddMember(1, "e", "e:1")), MembershipReply)[0].retryable


def test_requests_are_limited() -> None:
    one = led()
    for nonce in range(MAX_REQUESTS):
        ask(one, Member(f"m{nonce}", f"m{nonce}:1"), nonce)
    assert str(MAX_REQUESTS) in ended(ask(one, NEW, 999)).refusal


def test_nothing_is_appended_before_an_own_entry_is_chosen() -> None:
    one = One()
    one.now = one.replica.election.deadline
    one.tick()
    candidacy = one.replica.election.candidacy
    assert candidacy is not None
    ballot = candidacy.ballot
    one.receive(B, ProbeReply(ballot, Refusal.NONE, FIRST, Position(FIRST, 1)))
    one.receive(B, Promise(ballot, Refusal.NONE, ballot, Position(FIRST, 1)))
    one.receive(D, Identity(asked_nonce(ask(one)), ""))
    assert one.local.log.configuration_seq == 1
    one.receive(B, Accepted(ballot, 2, 1, 0, 0))
    one.turn()
    assert one.local.log.configuration_seq == 3


def test_one_configuration_at_a_time() -> None:
    one = led()
    one.receive(D, Identity(asked_nonce(ask(one)), ""))
    other = Incarnation("e@1")
    one.receive(other, Identity(asked_nonce(ask(one, Member("e", "e:1"), 2)), ""))
    assert one.local.log.configuration.seat(other) is None
    catch_up(one, B)
    assert one.local.log.configuration.seat(other) is not None


def test_a_learner_that_is_slow_or_silent_is_not_promoted() -> None:
    one = led()
    one.receive(D, Identity(asked_nonce(ask(one)), ""))
    catch_up(one, B)
    for _ in range(15):
        one.tick(0.1)
        catch_up(one, B, C)
    assert list(one.local.log.voters) == [A, B, C]
    match, number = one.local.log.last_seq, one.replica.master._round
    one.receive(D, Accepted(one.ballot, match, number, 0, 0))  # a round longer than E
    assert list(one.local.log.voters) == [A, B, C]
    one.tick(0.1)
    catch_up(one, B, C, D)
    assert list(one.local.log.voters) == [A, B, C, D]


def test_no_vote_for_a_newcomer_while_too_few_are_alive() -> None:
    one = led()
    one.receive(D, Identity(asked_nonce(ask(one)), ""))
    catch_up(one, B)
    one.now += 1.0
    one.tick()
    number = one.replica.master._round
    one.receive(D, Accepted(one.ballot, 3, number, 0, 0))
    # Only a and d were heard lately: two of the four that would be needed.
    assert list(one.local.log.voters) == [A, B, C]


@pytest.mark.parametrize("known", [False, True])
def test_deadlines_are_never_left_in_the_past(known: bool) -> None:
    one = led(Limits(request_timeout_seconds=2.0))
    found = ask(one)
    if known:
        one.receive(D, Identity(asked_nonce(found), ""))
    for _ in range(40):
        assert one.replica.deadline > one.now - 1e-9
        one.tick(max(0.0, one.replica.deadline - one.now))
        catch_up(one, B, C)
    assert one.replica.membership.deadline == math.inf


def test_a_request_is_answered_in_time() -> None:
    one = led(Limits(request_timeout_seconds=2.0))
    ask(one)
    found: list[Effect] = []
    for _ in range(30):
        found += one.tick(0.1)
        found += catch_up(one, B)
    done = ended(found)
    assert done.retryable
    assert "did not answer" in done.refusal


def test_the_next_master_is_to_be_asked() -> None:
    one = led()
    ask(one)
    one.receive(B, AddMember(4, "e", "e:1"))
    found = one.tick(1.5)
    assert ended(found).retryable
    assert sent(found, MembershipReply)[0].retryable


def test_who_was_quick_once_and_has_fallen_behind_is_not_promoted() -> None:
    """M4: the latest round counts, also while the configuration before is not chosen yet."""
    one = led()
    one.receive(D, Identity(asked_nonce(ask(one)), ""))
    behind = one.local.log.last_seq - 1  # B and C lack the learner's configuration
    catch_up(one, D)
    catch_up(one, D)
    assert one.replica.membership.promotion._ready == {D}

    def hear(name: Incarnation, match: int) -> None:
        number = one.replica.master._round
        one.receive(name, Accepted(one.ballot, match, number, 0, 0))

    stuck = one.local.log.last_seq
    one.turn(events.OpenSessionLocal(1))  # an entry that D does not get
    one.turn()
    for _ in range(30):
        one.tick(0.1)
        for name, match in ((B, behind), (C, behind), (D, stuck)):
            hear(name, match)
    assert one.local.leads
    assert one.local.log.last_seq > stuck
    catch_up(one, B)
    assert one.local.log.configuration_seq <= one.local.commit
    assert list(one.local.log.voters) == [A, B, C]
    catch_up(one, D)  # the long round ends
    catch_up(one, D)  # a quick one
    assert list(one.local.log.voters) == [A, B, C, D]


def test_questions_differ_and_those_of_another_run_do_too() -> None:
    asked = []
    for chance in (0.25, 0.5):
        one = led()
        one.chance = chance
        asked.append(asked_nonce(ask(one, NEW, 1)))
        asked.append(asked_nonce(ask(one, Member("e", "e:1"), 2)))
    assert len(set(asked)) == 4


# -- other changes


def change(
    one: One, action: Action, member_id: str, nonce: int = 1, *, force: bool = False
) -> list[Effect]:
    member = Member(member_id, "")
    return one.turn(events.ChangeMemberLocal(nonce, action, member, 1, force))


def accepts_to(found: list[Effect], name: Incarnation) -> list[Accept]:
    return [
        effect.message
        for effect in found
        if isinstance(effect, effects.Send)
        and name in effect.to
        and isinstance(effect.message, Accept)
    ]


def heard(limits: Limits | None = None) -> One:
    """A master whose followers hold everything."""
    one = led(limits)
    one.tick(0.1)
    catch_up(one, B, C)
    return one


def test_a_member_is_removed_when_the_others_have_decided_so() -> None:
    one = heard()
    assert not of_kind(change(one, Action.REMOVE, "c"), effects.MembershipDone)
    assert list(one.local.log.voters) == [A, B], "in force at once (M1)"
    assert one.local.log.configuration.removed == (C,)
    assert not of_kind(catch_up(one, C), effects.MembershipDone), "it counts no more (M5)"
    assert ended(catch_up(one, B)) == effects.MembershipDone(1, "")
    assert ended(change(one, Action.REMOVE, "c", 2)) == effects.MembershipDone(2, "")
    seq = one.local.log.configuration_seq
    one.receive(C, Identity(asked_nonce(ask(one, Member("c", "c:1"), 3)), "c1"))
    assert one.local.log.configuration_seq == seq
    one.receive(Incarnation("c@2"), Identity(asked_nonce(ask(one, Member("c", "c:1"), 4)), ""))
    assert one.local.log.configuration.seat(Incarnation("c@2")) is not None


def test_a_removed_member_is_told_until_it_knows() -> None:
    """M8."""
    one = heard()
    change(one, Action.REMOVE, "c")
    seq = one.local.log.configuration_seq
    catch_up(one, C)  # it holds the entry, and cannot know what the others do
    assert C in one.replica.master.keep_sending
    catch_up(one, B)
    catch_up(one, C)  # of a round that began before
    assert C in one.replica.master.keep_sending
    told = accepts_to(one.tick(0.1), C)
    assert max(accept.commit for accept in told) >= seq
    assert C in one.replica.master.progress
    catch_up(one, C)
    assert one.replica.master.keep_sending == {}
    assert C not in one.replica.master.progress
    assert not accepts_to(one.tick(0.1), C)


def test_a_removed_member_that_is_not_heard_is_left_alone_after_a_while() -> None:
    one = heard()
    one.receive(B, ChangeMember(1, Action.REMOVE, "c"))
    for _ in range(98):
        one.tick(0.1)
        catch_up(one, B)
    assert accepts_to(one.tick(0.1), C)
    for _ in range(3):
        one.tick(0.1)
        catch_up(one, B)
    assert not accepts_to(one.tick(0.1), C)
    assert one.replica.master.keep_sending == {}


def test_too_few_living_voters_are_waited_for_and_then_refused() -> None:
    """M9."""
    one = heard()
    one.now += 1.0
    one.tick()
    catch_up(one, B)
    found = change(one, Action.REMOVE, "b")
    assert not of_kind(found, effects.MembershipDone), "c may be heard in a moment"
    for _ in range(13):
        found += one.tick(0.1)
        found += catch_up(one, B)
    done = ended(found)
    assert not done.retryable
    assert "force" in done.refusal
    assert one.local.log.configuration_seq == 1
    change(one, Action.REMOVE, "b", 2, force=True)
    assert list(one.local.log.voters) == [A, C]


def test_whose_connection_broke_does_not_count_as_living() -> None:
    """Else the next configuration could wait for a process that has just died."""
    one = heard()
    one.turn(events.Disconnected(C))
    found = change(one, Action.REMOVE, "b")
    assert one.local.log.configuration_seq == 1
    assert not of_kind(found, effects.MembershipDone)
    catch_up(one, C)
    assert list(one.local.log.voters) == [A, C]


def test_who_is_heard_in_time_counts_as_living() -> None:
    one = led()
    one.tick(0.1)
    catch_up(one, B)
    change(one, Action.REMOVE, "b")
    assert list(one.local.log.voters) == [A, B, C]
    catch_up(one, C)
    assert list(one.local.log.voters) == [A, C]


def test_what_contradicts_another_request_waits_for_its_end() -> None:
    one = heard()
    change(one, Action.DEMOTE, "c", 1)
    change(one, Action.PROMOTE, "c", 2)
    assert list(one.local.log.voters) == [A, B]
    done = of_kind(catch_up(one, B), effects.MembershipDone)
    assert done == [effects.MembershipDone(1, "")]
    seat = one.local.log.configuration.seat(C)
    assert seat is not None
    assert seat.promoting
    for _ in range(4):
        one.tick(0.1)
        done += of_kind(catch_up(one, B, C), effects.MembershipDone)
    assert done == [effects.MembershipDone(1, ""), effects.MembershipDone(2, "")]
    assert list(one.local.log.voters) == [A, B, C]


def test_a_request_that_takes_long_is_not_undone_meanwhile() -> None:
    one = heard()
    change(one, Action.DEMOTE, "c", 1)
    catch_up(one, B)
    change(one, Action.PROMOTE, "c", 2)
    seq = one.local.log.configuration_seq
    catch_up(one, B)
    change(one, Action.DEMOTE, "c", 3)
    for _ in range(3):
        one.tick(0.1)
        catch_up(one, B)
    assert one.local.log.configuration_seq == seq, "c has not caught up, and is still wanted to"
    found: list[Effect] = []
    for _ in range(6):
        one.tick(0.1)
        found += catch_up(one, B, C)
    assert of_kind(found, effects.MembershipDone) == [
        effects.MembershipDone(2, ""),
        effects.MembershipDone(3, ""),
    ]
    assert list(one.local.log.voters) == [A, B]


def test_an_older_member_holds_up_what_it_does_not_know() -> None:
    one = heard()
    number = one.replica.master._round
    one.receive(C, Accepted(one.ballot, one.local.log.last_seq, number, 0, 0, 1))
    for number, action in enumerate(Action):
        if action is not Action.ADD:
            done = ended(change(one, action, "b", number))
            assert "'c'" in done.refusal
            assert "feature level 1" in done.refusal
    assert of_kind(ask(one), effects.Contact)


def test_a_recovering_learner_gets_no_vote() -> None:
    one = heard()
    one.receive(D, Identity(asked_nonce(ask(one)), ""))
    catch_up(one, B, C)

    def hear(recovering: bool) -> None:
        match, number = one.local.log.last_seq, one.replica.master._round
        level = FEATURE_LEVEL
        one.receive(D, Accepted(one.ballot, match, number, 0, 0, level, False, recovering))

    for _ in range(3):
        one.tick(0.1)
        catch_up(one, B)
        hear(True)
    assert list(one.local.log.voters) == [A, B, C]
    hear(False)
    assert list(one.local.log.voters) == [A, B, C, D]


def test_an_address_is_moved_when_the_member_answers_or_nobody_does() -> None:
    one = heard()
    moved = Member("c", "elsewhere:1")
    found = one.turn(events.ChangeMemberLocal(1, Action.MOVE, moved))
    assert of_kind(found, effects.Contact)[0].to == moved
    one.receive(C, Identity(asked_nonce(found), "c1"))
    seat = one.local.log.configuration.seat(C)
    assert seat is not None
    assert seat.address == "elsewhere:1"
    assert ended(catch_up(one, B)).refusal == ""
    back = Member("c", "c:1")
    found = one.turn(events.ChangeMemberLocal(2, Action.MOVE, back))
    for _ in range(13):
        found += one.tick(0.1)
        found += catch_up(one, B, C)
    assert ended(found).refusal == ""
    assert all(effect.to == back for effect in of_kind(found, effects.Contact))


def test_a_member_is_replaced_once_the_old_disk_is_silent() -> None:
    one = heard()
    again = Incarnation("c@2")
    found = one.turn(events.ChangeMemberLocal(1, Action.REPLACE, Member("c", "c:1")))
    one.receive(again, Identity(asked_nonce(found), ""))
    assert one.local.log.configuration_seq == 1
    for _ in range(11):
        one.tick(0.1)
        catch_up(one, B)
    assert list(one.local.log.voters) == [A, B]
    assert one.local.log.configuration.removed == (C,)
    found = catch_up(one, B)
    for _ in range(4):
        one.tick(0.1)
        found += catch_up(one, B, again)
    assert ended(found) == effects.MembershipDone(1, "")
    assert list(one.local.log.voters) == [A, B, again]


def test_a_living_member_is_not_replaced() -> None:
    one = heard()
    found = one.turn(events.ChangeMemberLocal(1, Action.REPLACE, Member("c", "c:1")))
    one.receive(Incarnation("c@2"), Identity(asked_nonce(found), ""))
    found = []
    for _ in range(13):
        found += one.tick(0.1)
        found += catch_up(one, B, C)
    assert "alive" in ended(found).refusal
    assert one.local.log.configuration_seq == 1
