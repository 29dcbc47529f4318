"""What a change of the membership means for a configuration: the next one, or why not.

``plan`` is a pure function of the change and of what is known; ``membership`` acts on its answer,
asks again each turn, and so needs to remember nothing but the question. All changes are worded as
what shall be, so that asking for what is so already is achieved at once (M6).

No answer takes more than one vote away or gives more than one (M2): whoever is replaced leaves in
the same entry in which its successor comes, but as a learner.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from msgspec.structs import replace

from clusterconsensus.consensus.messages import Action
from clusterconsensus.consensus.quorum import majority_size
from clusterconsensus.consensus.types import (
    Configuration,
    Incarnation,
    Member,
    Seat,
    Standing,
    incarnation,
    member_id_of,
)

MAX_PRIORITY = 1_000_000


class Change(msgspec.Struct, frozen=True, gc=False):
    """What somebody wants.

    Arguments:
        action: What is to be done.
        member: With whom; the address counts where a member comes in or moves, and an empty id
            leaves to the master who leads.
        priority: Who should lead; counts for a member that comes in, and for ``PRIORITY``.
        force: Do it although too few living voters are left (M9), or although the member that is
            replaced is alive.
    """

    action: Action
    member: Member
    priority: int = 1
    force: bool = False

    def __str__(self) -> str:
        """What is to be done, as a sentence would name it: "add member c (10.0.0.3:7100)"."""
        name = f"member {self.member.id!r}"
        match self.action:
            case Action.ADD | Action.REPLACE:
                return f"{self.action.name.lower()} member {self.member}"
            case Action.ADD_LEARNER:
                return f"add learner {self.member}"
            case Action.MOVE:
                return f"move {name} to {self.member.address}"
            case Action.PRIORITY:
                return f"give {name} the priority {self.priority}"
            case Action.TRANSFER:
                return f"hand over to {name if self.member.id else 'another voter'}"
            case _:
                return f"{self.action.name.lower()} {name}"


class Facts(msgspec.Struct, frozen=True, gc=False):
    """What a plan depends on.

    Arguments:
        own: The master.
        seq: The sequence of the configuration in force.
        configuration: The configuration in force.
        alive: Who was heard within E and is connected, the master among them.
        disk_id: The disk of who answers at the member's address, empty while that is not known.
        silent: Whether it was asked for long enough, and nobody answered.
    """

    own: Incarnation
    seq: int
    configuration: Configuration
    alive: frozenset[Incarnation]
    disk_id: str = ""
    silent: bool = False


class Settled(msgspec.Struct, frozen=True):
    """It is so in the configuration in force; achieved when that is committed."""


class Refuse(msgspec.Struct, frozen=True):
    """It cannot be. ``passing``: it may be in a moment, when more was heard."""

    reason: str
    passing: bool = False


class Wait(msgspec.Struct, frozen=True):
    """It will be by itself; ``until`` says what is missing."""

    until: str


class Ask(msgspec.Struct, frozen=True):
    """Find out first who answers at the member's address (I2)."""


class Adopt(msgspec.Struct, frozen=True):
    """Append this configuration next."""

    configuration: Configuration


class HandOver(msgspec.Struct, frozen=True):
    """A master neither removes nor demotes itself: the next master does it (M7)."""


Plan = Settled | Refuse | Wait | Ask | Adopt | HandOver


def plan(change: Change, facts: Facts) -> Plan:
    """The next step towards a change (all but ``TRANSFER``)."""
    return _PLANS[change.action](change, facts, facts.configuration.seat_of_id(change.member.id))


def _unknown(change: Change) -> Refuse:
    return Refuse(f"no member {change.member.id!r} is known in this cluster")


def _add(change: Change, facts: Facts, seat: Seat | None) -> Plan:
    learner = change.action is Action.ADD_LEARNER
    if seat is None:
        return _come_in(change, facts, promoting=not learner)
    refusal = _same_disk_and_address(change, facts, seat)
    if refusal is not None:
        return refusal
    if not learner:
        return _promote(change, facts, seat)
    if seat.is_voter:
        return Refuse(f"member {seat.id!r} is a voter; to make it a learner, demote it")
    if seat.promoting:
        return Adopt(facts.configuration.with_seat(replace(seat, promoting=False), facts.seq))
    return Settled()


def _same_disk_and_address(change: Change, facts: Facts, seat: Seat) -> Refuse | None:
    if facts.disk_id and seat.disk_id != facts.disk_id:
        return Refuse(
            f"member {seat.id!r} is known with another disk: its directory is new or foreign; to "
            "have it take the place of the old one, replace it"
        )
    if seat.address != change.member.address:
        return Refuse(
            f"member {seat.id!r} is known at {seat.address}; to change its address, move it"
        )
    return None


def _was_removed(change: Change, facts: Facts) -> Refuse | None:
    if incarnation(change.member.id, facts.disk_id) not in facts.configuration.removed:
        return None
    return Refuse(
        f"member {change.member.id!r} with the disk it has was removed from this cluster, for good "
        "(I3): it needs an empty directory to come back"
    )


def _come_in(change: Change, facts: Facts, *, promoting: bool) -> Plan:
    """A member comes as a learner, whatever it shall be (M4)."""
    if not facts.disk_id:
        return Ask()
    member = change.member
    newcomer = Seat(
        member.id, facts.disk_id, member.address, Standing.LEARNER, promoting, change.priority
    )
    return (
        _bad_priority(change)
        or _was_removed(change, facts)
        or Adopt(facts.configuration.with_seat(newcomer, facts.seq))
    )


def _bad_priority(change: Change) -> Refuse | None:
    if 0 <= change.priority <= MAX_PRIORITY:
        return None
    return Refuse(
        f"priority {change.priority} of member {change.member.id!r} is not between 0 and "
        f"{MAX_PRIORITY}"
    )


def _promote(change: Change, facts: Facts, seat: Seat | None) -> Plan:
    if seat is None:
        return _unknown(change)
    if seat.is_voter:
        return Settled()
    if seat.promoting:
        return Wait("has not caught up yet")
    return Adopt(facts.configuration.with_seat(replace(seat, promoting=True), facts.seq))


def _demote(change: Change, facts: Facts, seat: Seat | None) -> Plan:
    if seat is None:
        return _unknown(change)
    if not seat.is_voter and not seat.promoting:
        return Settled()
    learner = replace(seat, standing=Standing.LEARNER, promoting=False)
    return _leave(change, facts, seat, facts.configuration.with_seat(learner, facts.seq))


def _remove(change: Change, facts: Facts, seat: Seat | None) -> Plan:
    if seat is None:
        removed = facts.configuration.removed
        gone = any(member_id_of(name) == change.member.id for name in removed)
        return Settled() if gone else _unknown(change)
    successor = facts.configuration.without_seat(seat.incarnation, facts.seq)
    return _leave(change, facts, seat, successor)


def _replace(change: Change, facts: Facts, seat: Seat | None) -> Plan:
    if seat is None:
        return _unknown(change)
    if not facts.disk_id:
        return Ask()
    if seat.disk_id == facts.disk_id:  # nothing to replace, any more
        refusal = _same_disk_and_address(change, facts, seat)
        if refusal is not None:
            return refusal
        return Wait("has not caught up yet") if seat.promoting else Settled()
    removed = _was_removed(change, facts)
    if removed is not None:
        return removed
    if seat.incarnation in facts.alive and not change.force:
        return Refuse(
            f"member {seat.id!r} is alive with its old disk; force replaces it all the same",
            passing=True,
        )
    newcomer = replace(
        seat,
        disk_id=facts.disk_id,
        address=change.member.address,
        standing=Standing.LEARNER,
        promoting=seat.is_voter or seat.promoting,
    )
    without = facts.configuration.without_seat(seat.incarnation, facts.seq)
    return _leave(change, facts, seat, without.with_seat(newcomer, facts.seq))


def _leave(change: Change, facts: Facts, seat: Seat, successor: Configuration) -> Plan:
    """A seat, or its vote, goes: is what is left able to live?"""
    if seat.is_voter:
        refusal = _cannot_live(successor, seat, facts, force=change.force)
        if refusal is not None:
            return refusal
    if seat.incarnation == facts.own:
        return HandOver()
    return Adopt(successor)


def _cannot_live(
    successor: Configuration, leaving: Seat, facts: Facts, *, force: bool
) -> Refuse | None:
    voters = successor.voters
    if not voters:
        return Refuse(f"member {leaving.id!r} is the last voter")
    if nobody_to_lead(successor):
        return Refuse(
            f"without member {leaving.id!r} no voter has a priority above 0: nobody could lead"
        )
    living = sum(name in facts.alive for name in voters)
    if living < majority_size(len(voters)) and not force:
        return Refuse(
            f"without member {leaving.id!r} only {living} of {len(voters)} voters would be alive, "
            f"and it takes {majority_size(len(voters))} to decide anything (M9); force does it all "
            "the same",
            passing=True,
        )
    return None


def nobody_to_lead(configuration: Configuration) -> bool:
    """Whether no voter ever stands for election."""
    return not any(seat.is_voter and seat.priority > 0 for seat in configuration.seats)


def _move(change: Change, facts: Facts, seat: Seat | None) -> Plan:
    if seat is None:
        return _unknown(change)
    address = change.member.address
    if seat.address == address:
        return Settled()
    for other in facts.configuration.seats:
        if other.address == address:
            return Refuse(f"{address} is the address of member {other.id!r}")
    if facts.disk_id and facts.disk_id != seat.disk_id:
        return Refuse(f"member {seat.id!r} has another disk at {address}: it is another member")
    if not facts.disk_id and not facts.silent and seat.incarnation != facts.own:
        return Ask()  # a member may move before it is there, but not to where somebody else is
    moved = replace(seat, address=address)
    return Adopt(facts.configuration.with_seat(moved, facts.seq))


def _prefer(change: Change, facts: Facts, seat: Seat | None) -> Plan:
    if seat is None:
        return _unknown(change)
    refusal = _bad_priority(change)
    if refusal is not None:
        return refusal
    if seat.priority == change.priority:
        return Settled()
    successor = facts.configuration.with_seat(replace(seat, priority=change.priority), facts.seq)
    if seat.is_voter and nobody_to_lead(successor):
        return Refuse(
            f"member {seat.id!r} is the last voter with a priority above 0: nobody could lead"
        )
    return Adopt(successor)


_PLANS: dict[Action, Callable[[Change, Facts, Seat | None], Plan]] = {
    Action.ADD: _add,
    Action.ADD_LEARNER: _add,
    Action.REMOVE: _remove,
    Action.REPLACE: _replace,
    Action.MOVE: _move,
    Action.PROMOTE: _promote,
    Action.DEMOTE: _demote,
    Action.PRIORITY: _prefer,
}
