"""What a change means for a configuration."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from clusterconsensus.consensus.changes import (
    MAX_PRIORITY,
    Adopt,
    Ask,
    Change,
    Facts,
    HandOver,
    Plan,
    Refuse,
    Settled,
    Wait,
    plan,
)
from clusterconsensus.consensus.messages import Action
from clusterconsensus.consensus.types import Configuration, Incarnation, Member, Seat, Standing
from tests.core.one import A, B, C, D, seat

LEARNER = Standing.LEARNER
THREE = Configuration((seat(A), seat(B), seat(C)), 1)
EVERYONE = (A, B, C, D)


def ask(
    action: Action,
    member_id: str,
    address: str = "",
    *,
    configuration: Configuration = THREE,
    alive: tuple[Incarnation, ...] = EVERYONE,
    disk_id: str = "",
    silent: bool = False,
    priority: int = 1,
    force: bool = False,
) -> Plan:
    """The plan of master a."""
    change = Change(action, Member(member_id, address), priority, force)
    return plan(change, Facts(A, 7, configuration, frozenset(alive), disk_id, silent))


def adopted(step: Plan) -> Configuration:
    assert isinstance(step, Adopt), step
    assert step.configuration.previous_seq == 7
    assert step.configuration.seats == tuple(
        sorted(step.configuration.seats, key=lambda held: held.incarnation)
    )
    return step.configuration


def refused(step: Plan) -> str:
    assert isinstance(step, Refuse), step
    return step.reason


def seated(configuration: Configuration, member_id: str) -> Seat:
    found = configuration.seat_of_id(member_id)
    assert found is not None
    return found


def with_learner(*, promoting: bool = False, removed: tuple[str, ...] = ()) -> Configuration:
    seats = (*THREE.seats, seat(D, LEARNER, promoting))
    return Configuration(seats, 1, None, tuple(Incarnation(name) for name in removed))


def test_a_newcomer_is_asked_who_it_is_and_comes_as_a_learner() -> None:
    assert ask(Action.ADD, "d", "d:1") == Ask()
    found = adopted(ask(Action.ADD, "d", "d:1", disk_id="1", priority=5))
    assert seated(found, "d") == Seat("d", "1", "d:1", LEARNER, True, 5)
    assert found.voters == (A, B, C)
    found = adopted(ask(Action.ADD_LEARNER, "d", "d:1", disk_id="1"))
    assert seated(found, "d") == Seat("d", "1", "d:1", LEARNER, False, 1)


def test_adding_whoever_is_there_already() -> None:
    assert ask(Action.ADD, "b", "b:1") == Settled()
    waits = with_learner(promoting=True)
    stays = with_learner()
    assert isinstance(ask(Action.ADD, "d", "d:1", configuration=waits), Wait)
    assert seated(adopted(ask(Action.ADD, "d", "d:1", configuration=stays)), "d").promoting
    assert ask(Action.ADD_LEARNER, "d", "d:1", configuration=stays) == Settled()
    step = ask(Action.ADD_LEARNER, "d", "d:1", configuration=waits)
    assert not seated(adopted(step), "d").promoting
    assert "demote" in refused(ask(Action.ADD_LEARNER, "b", "b:1"))


def test_adding_another_disk_or_address_names_what_helps() -> None:
    assert "replace it" in refused(ask(Action.ADD, "b", "b:1", disk_id="2"))
    assert "move it" in refused(ask(Action.ADD, "b", "b:2"))


@pytest.mark.parametrize("action", [Action.ADD, Action.ADD_LEARNER])
def test_who_was_removed_never_comes_back(action: Action) -> None:
    """I3."""
    gone = Configuration(THREE.seats, 1, None, (D,))
    assert "empty directory" in refused(ask(action, "d", "d:1", configuration=gone, disk_id="1"))
    fresh = ask(action, "d", "d:1", configuration=gone, disk_id="2")
    assert adopted(fresh).removed == (D,)


def test_a_member_is_removed_for_good() -> None:
    found = adopted(ask(Action.REMOVE, "b"))
    assert found.voters == (A, C)
    assert found.removed == (B,)
    assert ask(Action.REMOVE, "b", configuration=found) == Settled()
    assert "'z'" in refused(ask(Action.REMOVE, "z"))


@pytest.mark.parametrize("action", [Action.REMOVE, Action.DEMOTE])
def test_what_is_left_must_be_able_to_decide(action: Action) -> None:
    """M9."""
    assert isinstance(ask(action, "c", alive=(A, B)), Adopt)
    step = ask(action, "b", alive=(A, B))
    assert isinstance(step, Refuse)
    assert step.passing, "whoever is silent may be heard in a moment"
    assert "'b'" in step.reason
    assert "force" in step.reason
    assert isinstance(ask(action, "b", alive=(A, B), force=True), Adopt)
    learner = with_learner()
    assert isinstance(ask(action, "d", configuration=learner, alive=()), Adopt | Settled)
    alone = Configuration((seat(A),), 1)
    assert "last voter" in refused(ask(action, "a", configuration=alone, force=True))


@pytest.mark.parametrize("action", [Action.REMOVE, Action.DEMOTE])
def test_a_master_hands_over_before_it_goes(action: Action) -> None:
    """M7."""
    assert ask(action, "a") == HandOver()
    assert isinstance(ask(action, "a", alive=(A, B)), Refuse)


def test_somebody_who_may_lead_stays() -> None:
    seats = tuple(replace(held, priority=int(held.id == "b")) for held in THREE.seats)
    only_b = Configuration(seats, 1)
    for action in (Action.REMOVE, Action.DEMOTE):
        assert "nobody could lead" in refused(ask(action, "b", configuration=only_b, force=True))
    step = ask(Action.PRIORITY, "b", configuration=only_b, priority=0)
    assert "nobody could lead" in refused(step)
    assert isinstance(ask(Action.PRIORITY, "c", configuration=only_b, priority=0), Settled)


def test_a_vote_is_taken_and_given() -> None:
    found = adopted(ask(Action.DEMOTE, "b"))
    assert found.voters == (A, C)
    assert seated(found, "b") == seat(B, LEARNER)
    assert ask(Action.DEMOTE, "b", configuration=found) == Settled()
    found = adopted(ask(Action.PROMOTE, "b", configuration=found))
    assert seated(found, "b").promoting
    assert isinstance(ask(Action.PROMOTE, "b", configuration=found), Wait)
    assert not seated(adopted(ask(Action.DEMOTE, "b", configuration=found)), "b").promoting
    assert ask(Action.PROMOTE, "b") == Settled()
    for action in (Action.PROMOTE, Action.DEMOTE):
        assert "'z'" in refused(ask(action, "z"))


def test_another_disk_takes_the_place_of_the_old_one_in_one_step() -> None:
    """M2: one vote goes, and none comes before it has caught up."""
    assert ask(Action.REPLACE, "c", "c:2") == Ask()
    alive = (A, B)
    before = Configuration(tuple(replace(held, priority=3) for held in THREE.seats), 1)
    step = ask(Action.REPLACE, "c", "c:2", configuration=before, alive=alive, disk_id="2")
    found = adopted(step)
    assert found.voters == (A, B)
    assert found.removed == (C,)
    assert seated(found, "c") == Seat("c", "2", "c:2", LEARNER, True, 3)
    again = ask(Action.REPLACE, "c", "c:2", configuration=found, alive=alive, disk_id="2")
    assert isinstance(again, Wait)
    back = found.with_seat(replace(seated(found, "c"), standing=Standing.VOTER, promoting=False), 8)
    assert ask(Action.REPLACE, "c", "c:2", configuration=back, disk_id="2") == Settled()
    step = ask(Action.REPLACE, "c", "c:2", configuration=back, alive=alive, disk_id="1")
    assert "empty directory" in refused(step)


def test_a_learner_is_replaced_by_a_learner() -> None:
    step = ask(Action.REPLACE, "d", "d:1", configuration=with_learner(), alive=(), disk_id="2")
    found = adopted(step)
    assert seated(found, "d") == Seat("d", "2", "d:1", LEARNER, False)
    assert ask(Action.REPLACE, "d", "d:1", configuration=found, disk_id="2") == Settled()


def test_a_living_member_is_not_replaced_but_by_force() -> None:
    step = ask(Action.REPLACE, "c", "c:1", disk_id="2")
    assert isinstance(step, Refuse)
    assert step.passing
    assert "alive" in step.reason
    assert adopted(ask(Action.REPLACE, "c", "c:1", disk_id="2", force=True)).voters == (A, B)
    assert ask(Action.REPLACE, "a", "a:2", disk_id="2", force=True) == HandOver()
    assert "'z'" in refused(ask(Action.REPLACE, "z", "z:1"))


def test_an_address_changes_without_the_vote() -> None:
    """I5."""
    assert ask(Action.MOVE, "b", "b:1") == Settled()
    assert ask(Action.MOVE, "b", "b:2") == Ask()
    for known in (
        ask(Action.MOVE, "b", "b:2", disk_id="1"),
        ask(Action.MOVE, "b", "b:2", silent=True),
    ):
        assert seated(adopted(known), "b") == replace(seat(B), address="b:2")
        assert adopted(known).voters == THREE.voters
    assert "another disk" in refused(ask(Action.MOVE, "b", "b:2", disk_id="2"))
    assert "'c'" in refused(ask(Action.MOVE, "b", "c:1"))
    assert isinstance(ask(Action.MOVE, "a", "a:2"), Adopt), "the master does not ask itself"
    assert "'z'" in refused(ask(Action.MOVE, "z", "z:1"))


def test_priorities() -> None:
    found = adopted(ask(Action.PRIORITY, "b", priority=9))
    assert seated(found, "b") == replace(seat(B), priority=9)
    assert ask(Action.PRIORITY, "b", configuration=found, priority=9) == Settled()
    for wrong in (-1, MAX_PRIORITY + 1):
        assert str(wrong) in refused(ask(Action.PRIORITY, "b", priority=wrong))
        assert str(wrong) in refused(ask(Action.ADD, "d", "d:1", disk_id="1", priority=wrong))
    assert "'z'" in refused(ask(Action.PRIORITY, "z"))


@pytest.mark.parametrize("action", [held for held in Action if held is not Action.TRANSFER])
def test_at_most_one_vote_changes(action: Action) -> None:
    """M2."""
    for member_id in "bd":
        for promoting in (False, True):
            step = ask(
                action,
                member_id,
                "x:1" if action in (Action.MOVE, Action.REPLACE) else f"{member_id}:1",
                configuration=with_learner(promoting=promoting),
                alive=(A, B, C),
                disk_id="2" if action is Action.REPLACE else "1",
                priority=4,
                force=True,
            )
            if isinstance(step, Adopt):
                before, after = THREE.voters, step.configuration.voters
                assert len({*before} ^ {*after}) <= 1


def test_a_change_says_what_it_is() -> None:
    member = Member("d", "d:1")
    said = {action: str(Change(action, member, 3)) for action in Action}
    assert said[Action.ADD] == "add member d (d:1)"
    assert said[Action.PRIORITY] == "give member 'd' the priority 3"
    assert str(Change(Action.TRANSFER, Member("", ""))) == "hand over to another voter"
    assert len(set(said.values())) == len(Action)
    assert all("'d'" in text or "d (d:1)" in text for text in said.values())
