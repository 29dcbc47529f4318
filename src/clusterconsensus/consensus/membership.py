"""Membership: questions to the master, answered one configuration at a time (M1 to M9).

The complete configuration is a log entry and is in force from the moment it is in the log. Two
consecutive configurations differ by one voter at most, and none is appended before the one before
is committed (M2) and an entry of the master's own ballot is (M3): so any two majorities that could
ever decide at the same time share a member.

A question waits here until what it asks for is committed, is refused, or has taken too long; what
the next step towards it is, ``changes`` tells anew in each turn. A new member comes in as a learner
and gets its vote when it has caught up (``promotion``). A master neither removes nor demotes
itself: it hands over first (``handover``), and whoever asked asks the next one.
"""

from __future__ import annotations

import math

from msgspec.structs import replace

from clusterconsensus.consensus.changes import (
    Adopt,
    Ask,
    Change,
    Facts,
    HandOver,
    Refuse,
    Settled,
    Wait,
    plan,
)
from clusterconsensus.consensus.departures import Departures
from clusterconsensus.consensus.effects import Contact, MembershipDone
from clusterconsensus.consensus.handover import Handover
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.log import encode_configuration
from clusterconsensus.consensus.master import Master, Origin
from clusterconsensus.consensus.messages import Action, Identify, Identity, MembershipReply
from clusterconsensus.consensus.promotion import CatchUpRound, Promotion
from clusterconsensus.consensus.types import (
    NOBODY,
    Configuration,
    Incarnation,
    Role,
    Seat,
    Standing,
    member_id_of,
)

__all__ = ["MAX_REQUESTS", "CatchUpRound", "Change", "Membership", "Request"]

MAX_REQUESTS = 64
"""Membership requests that wait at a master."""

LEVEL_NEEDED = 2
"""The feature level that every change but ``ADD`` needs at every member."""

STANDINGS = frozenset(
    {
        Action.ADD,
        Action.ADD_LEARNER,
        Action.REMOVE,
        Action.REPLACE,
        Action.PROMOTE,
        Action.DEMOTE,
    }
)
"""Actions that contradict each other: for one member the second waits until the first has ended."""


class Request:
    """Somebody waits for a change."""

    def __init__(
        self, nonce: int, origin: Origin, change: Change, now: float, seconds: float
    ) -> None:
        self.nonce = nonce
        self.origin = origin
        self.change = change
        self.began_at = now
        self.give_up_at = now + seconds
        self.asked_at = -math.inf
        self.identify_at = math.inf
        self.disk_id = ""
        """The disk of who answers at the member's address, once that is known."""
        self.waits_for = "nothing was decided yet"
        self.handing_over = False
        """Whether the mastership is being handed over for it."""


class Membership:
    """Membership changes at the master."""

    def __init__(self, local: Local, master: Master) -> None:
        self._local = local
        self._master = master
        self.promotion = Promotion(local, master)
        self.handover = Handover(local, master)
        self._requests: list[Request] = []
        self._departures = Departures(local, master)
        self._next_nonce = 0

    # -- requests

    def on_request(self, origin: Origin, change: Change) -> None:
        """Somebody asks for a change. Asking again is harmless (M6)."""
        local = self._local
        if not local.leads:
            self._answer(origin, "this member does not lead", retryable=True)
        elif any(held.origin == origin for held in self._requests):
            return
        elif len(self._requests) >= MAX_REQUESTS:
            self._answer(origin, f"{MAX_REQUESTS} membership requests wait already", retryable=True)
        else:
            seconds = local.limits.request_timeout_seconds
            if not self._next_nonce:
                # An answer to an earlier run of this member must not fit a question of this one.
                self._next_nonce = int(local.chance * 2**32)
            self._next_nonce += 1
            request = Request(self._next_nonce, origin, change, local.now, seconds)
            self._requests.append(request)

    def on_identity(self, source: Incarnation, message: Identity) -> None:
        """The member at an address says who it is (I2)."""
        for request in self._requests:
            if request.disk_id or message.nonce != request.nonce:
                continue
            found, member = member_id_of(source), request.change.member
            if found != member.id:
                self._end(
                    request, f"the member at {member.address} is {found!r}, not {member.id!r}"
                )
            elif message.cluster_id not in ("", self._local.cluster_id):
                self._end(
                    request,
                    f"member {member} belongs to another cluster ({message.cluster_id})",
                )
            else:
                request.disk_id = source.partition("@")[2]
            return

    def step_down(self) -> None:
        """This member leads no more; whoever waits asks the next master."""
        for request in tuple(self._requests):
            change = request.change
            if change.action is Action.TRANSFER and not change.member.id and self.handover.sent:
                self._end(request, "")  # the next master would hand over once more
            elif request.handing_over:
                self._end(request, "the master hands over first", retryable=True)
            else:
                self._end(request, "the master stepped down", retryable=True)
        self.promotion.step_down()
        self.handover.step_down()
        self._departures.step_down()

    def _end(self, request: Request, refusal: str, *, retryable: bool = False) -> None:
        self._requests.remove(request)
        self._answer(request.origin, refusal, retryable=retryable)

    def _answer(self, origin: Origin, refusal: str, *, retryable: bool = False) -> None:
        local = self._local
        if origin.source == NOBODY:
            local.effects.append(MembershipDone(origin.attempt, refusal, retryable))
        else:
            local.send(origin.source, MembershipReply(origin.attempt, refusal, retryable))

    # -- progress

    @property
    def deadline(self) -> float:
        """When something wants attention without any event."""
        soonest = self.handover.deadline
        for held in self._requests:
            soonest = min(soonest, held.give_up_at, held.identify_at)
        return soonest

    def end_of_turn(self) -> None:
        """Take the next step of every request, and promote who is ready."""
        local = self._local
        if not local.leads:
            return
        promoting = local.log.promoting
        if self._requests:
            self._advance_all()
        if promoting:
            self.promotion.measure()
            if self._may_append():
                seat = self.promotion.ready()
                if seat is not None:
                    self._promote(seat)
        self.handover.end_of_turn(idle=not (self._requests or promoting))
        self._departures.end_of_turn()

    def _advance_all(self) -> None:
        busy: dict[str, Action] = {}
        for request in tuple(self._requests):
            action, member_id = request.change.action, request.change.member.id
            if action is Action.TRANSFER:
                self._advance_transfer(request)
            elif action not in STANDINGS or busy.get(member_id, action) is action:
                self._advance(request)
            else:
                request.waits_for = f"{busy[member_id].name} of the same member has not ended"
            if action in STANDINGS and request in self._requests:
                busy.setdefault(member_id, action)
            if request in self._requests and self._local.now >= request.give_up_at:
                self._end(request, request.waits_for, retryable=True)

    def _committed(self) -> bool:
        return self._local.log.configuration_seq <= self._local.commit

    def _may_append(self) -> bool:
        """M2 and M3: the configuration before is committed, and so is an own entry. Nothing is
        appended while the mastership is handed over (E11)."""
        return self._local.role is Role.MASTER and self._committed() and not self._master.holding

    @property
    def _patience(self) -> float:
        """How long what was heard lately may be behind what is: a new master has heard nobody."""
        limits = self._local.limits
        return limits.election_timeout_seconds + 2 * limits.heartbeat_seconds

    def _is_patient(self, request: Request) -> bool:
        return self._local.now < min(request.began_at + self._patience, request.give_up_at)

    def _is_alive(self, name: Incarnation) -> bool:
        """Whether a member was heard within E, and its connection has not broken since."""
        progress = self._master.progress.get(name)
        if progress is not None and progress.probing:
            return False
        limit = self._local.limits.election_timeout_seconds
        return self._master.heard_within(name, limit)

    def _facts(self, request: Request) -> Facts:
        local = self._local
        log = local.log
        alive = frozenset(name for name in log.configuration.everyone if self._is_alive(name))
        silent = not self._is_patient(request)
        return Facts(
            local.name, log.configuration_seq, log.configuration, alive, request.disk_id, silent
        )

    def _advance(self, request: Request) -> None:
        """Take the next step of one request."""
        request.identify_at = math.inf
        old = self._too_old(request.change)
        if old:
            self._end(request, old)
            return
        step = plan(request.change, self._facts(request))
        if isinstance(step, Settled):
            self._settle(request)
        elif isinstance(step, Refuse):
            request.waits_for = step.reason
            if not (step.passing and self._is_patient(request)):
                self._end(request, step.reason)
        elif isinstance(step, Wait):
            request.waits_for = f"member {request.change.member} {step.until}"
        elif isinstance(step, Ask):
            self._identify(request)
        elif isinstance(step, Adopt):
            request.waits_for = "the configuration before is not committed yet"
            if self._may_append():
                request.waits_for = "the configuration is not committed yet"
                self._append(step.configuration)
        elif isinstance(step, HandOver):
            self._hand_over(request, NOBODY)

    def _too_old(self, change: Change) -> str:
        """Why a change waits for an upgrade, if a member does not know it; whoever was not heard
        in this mastership has no say."""
        if change.action is Action.ADD:
            return ""
        for name in self._local.log.configuration.everyone:
            progress = self._master.progress.get(name)
            if progress is not None and 0 < progress.level < LEVEL_NEEDED:
                return (
                    f"{change}: member {member_id_of(name)!r} runs an older version, with the "
                    f"feature level {progress.level}; this needs {LEVEL_NEEDED} on all members"
                )
        return ""

    def _settle(self, request: Request) -> None:
        """It is as it shall be; it stays so once it is committed (M6).

        Of a member that was added long ago it is not known yet whether it still has the disk it had
        then: one that is heard meanwhile has, another one is asked, for a while.
        """
        if not self._committed():
            return
        change = request.change
        seat = self._local.log.configuration.seat_of_id(change.member.id)
        if (
            seat is None
            or change.action not in (Action.ADD, Action.ADD_LEARNER)
            or request.disk_id
            or self._master.heard_within(seat.incarnation, self._local.now - request.began_at)
            or not self._is_patient(request)
        ):
            self._end(request, "")
        else:
            self._identify(request)

    def _identify(self, request: Request) -> None:
        """Ask who answers at the member's address, now and then."""
        local = self._local
        request.waits_for = f"member {request.change.member} did not answer"
        pause = local.limits.heartbeat_seconds
        if local.now >= request.asked_at + pause:
            request.asked_at = local.now
            local.effects.append(Contact(request.change.member, Identify(request.nonce)))
        request.identify_at = request.asked_at + pause

    def _append(self, successor: Configuration) -> None:
        """Put a configuration in force (M1). Who has no seat in it any more is still told."""
        local, master = self._local, self._master
        seq = local.log.last_seq + 1
        kept = successor.everyone
        for name in local.log.configuration.everyone:
            if name not in kept:
                self._departures.add(name, seq)
        master.append_configuration(encode_configuration(successor))

    def _promote(self, seat: Seat) -> None:
        log = self._local.log
        self.promotion.forget(seat.incarnation)
        voter = replace(seat, standing=Standing.VOTER, promoting=False)
        self._append(log.configuration.with_seat(voter, log.configuration_seq))

    # -- handing over (E11)

    def _advance_transfer(self, request: Request) -> None:
        local = self._local
        member_id = request.change.member.id
        target = NOBODY
        if member_id:
            seat = local.log.configuration.seat_of_id(member_id)
            if seat is None:
                self._end(request, f"no member {member_id!r} is known in this cluster")
                return
            target = seat.incarnation
            if target == local.name:
                request.waits_for = f"member {member_id!r} has no entry of its own committed yet"
                if local.role is Role.MASTER:
                    self._end(request, "")
                return
        old = self._too_old(request.change)
        if old:
            self._end(request, old)
        else:
            self._hand_over(request, target)

    def _hand_over(self, request: Request, target: Incarnation) -> None:
        """Hand over to a member, or to the best, because of a request. Its end is this
        mastership's, or the failure of the handover."""
        handover = self.handover
        if handover.running:
            request.waits_for = f"member {member_id_of(handover.target)!r} does not lead yet"
            return
        if request.handing_over:
            self._end(request, f"not handed over: {handover.failure}")
            return
        request.waits_for = "the membership before is not committed yet"
        if not self._may_append():
            return
        reason = ""
        if target == NOBODY:
            target = handover.best()
            if target == NOBODY:
                reason = "no other voter could take over"
        else:
            reason = handover.objection(target)
        if not reason:
            request.handing_over = True
            handover.begin(target)
            return
        request.waits_for = f"not handed over: {reason}"
        if not self._is_patient(request):
            self._end(request, request.waits_for)
