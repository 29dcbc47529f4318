"""Membership: adding members, one voter at a time (M1 to M6).

The complete configuration is a log entry and is in force from the moment it is in the log. Two
consecutive configurations differ by one voter at most, and none is appended before the one before
is committed (M2) and an entry of the master's own ballot is (M3): so any two majorities that could
ever decide at the same time share a member.

A new member comes in as a learner: it receives the log and counts for nothing. It is promoted when
it has caught up, judged by rounds: a round ends when the learner holds what the master had when the
round began; one that took less than E means that a promotion will not stall the cluster (M4).
"""

from __future__ import annotations

import math

from clusterconsensus.consensus.effects import Contact, MembershipDone
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.log import encode_configuration
from clusterconsensus.consensus.master import Master, Origin
from clusterconsensus.consensus.messages import Identify, Identity, MembershipReply
from clusterconsensus.consensus.quorum import majority_size
from clusterconsensus.consensus.types import (
    NOBODY,
    Incarnation,
    Member,
    Role,
    Seat,
    Standing,
    member_id_of,
)

MAX_REQUESTS = 64
"""Membership requests that wait at a master."""


class Request:
    """Somebody waits for a member to be a voter."""

    def __init__(
        self, nonce: int, origin: Origin, member: Member, now: float, seconds: float
    ) -> None:
        self.nonce = nonce
        self.origin = origin
        self.member = member
        self.began_at = now
        self.give_up_at = now + seconds
        self.identify_at = -math.inf
        self.disk_id = ""


class CatchUpRound:
    """One round of a learner's catching up (M4)."""

    def __init__(self, target_seq: int, now: float) -> None:
        self.target_seq = target_seq
        self.began_at = now


class Membership:
    """Membership changes at the master."""

    def __init__(self, local: Local, master: Master) -> None:
        self._local = local
        self._master = master
        self._requests: list[Request] = []
        self._next_nonce = 0
        self._rounds: dict[Incarnation, CatchUpRound] = {}
        self._ready: set[Incarnation] = set()

    # -- requests

    def on_add(self, origin: Origin, member: Member) -> None:
        """Somebody asks for a member to be added."""
        local = self._local
        if not local.leads:
            self._answer(origin, "this member does not lead", retryable=True)
        elif len(self._requests) >= MAX_REQUESTS:
            self._answer(origin, f"{MAX_REQUESTS} membership requests wait already", retryable=True)
        elif not any(held.origin == origin for held in self._requests):
            seconds = local.limits.request_timeout_seconds
            if not self._next_nonce:
                # An answer to an earlier run of this member must not fit a question of this one.
                self._next_nonce = int(local.chance * 2**32)
            self._next_nonce += 1
            request = Request(self._next_nonce, origin, member, local.now, seconds)
            self._requests.append(request)

    def on_identity(self, source: Incarnation, message: Identity) -> None:
        """The member at an address says who it is (I2)."""
        for request in self._requests:
            if request.disk_id or message.nonce != request.nonce:
                continue
            found = member_id_of(source)
            if found != request.member.id:
                self._end(
                    request,
                    f"the member at {request.member.address} is {found!r}, not "
                    f"{request.member.id!r}",
                )
            elif message.cluster_id not in ("", self._local.cluster_id):
                self._end(
                    request,
                    f"member {request.member} belongs to another cluster ({message.cluster_id})",
                )
            else:
                request.disk_id = source.partition("@")[2]
                request.identify_at = math.inf
            return

    def step_down(self) -> None:
        """This member leads no more; whoever waits asks the next master."""
        for request in tuple(self._requests):
            self._end(request, "the master stepped down", retryable=True)
        self._rounds.clear()
        self._ready.clear()

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
        """When a request wants attention without any event."""
        if not self._requests:
            return math.inf
        times = [min(held.give_up_at, held.identify_at) for held in self._requests]
        return min(times)

    def end_of_turn(self) -> None:
        """Take the next step of every request, and promote who is ready."""
        local = self._local
        if not local.leads or not (self._requests or local.log.promoting):
            return
        for request in tuple(self._requests):
            self._advance(request)
        self._measure()
        if not self._may_append():
            return
        for seat in local.log.configuration.seats:
            if seat.promoting and seat.incarnation in self._ready:
                self._promote(seat)
                return

    def _may_append(self) -> bool:
        """M2 and M3: the configuration before is committed, and so is an own entry."""
        local = self._local
        return local.role is Role.MASTER and local.log.configuration_seq <= local.commit

    def _advance(self, request: Request) -> None:
        local = self._local
        member = request.member
        seat = local.log.configuration.seat_of_id(member.id)
        if seat is not None and request.disk_id and seat.disk_id != request.disk_id:
            self._end(
                request,
                f"member {member.id!r} is known with another disk: its directory is new or foreign",
            )
        elif seat is not None and seat.address != member.address:
            self._end(request, f"member {member.id!r} is known at {seat.address}")
        elif seat is not None and seat.is_voter and local.log.configuration_seq <= local.commit:
            self._confirm(request, seat)
        elif local.now >= request.give_up_at:
            waits = "did not answer" if seat is None else "has not caught up yet"
            self._end(request, f"member {member} {waits}", retryable=True)
        elif seat is not None:
            request.identify_at = math.inf
        elif not request.disk_id:
            self._identify(request)
        elif self._may_append():
            self._append(Seat(member.id, request.disk_id, member.address, Standing.LEARNER, True))

    def _confirm(self, request: Request, seat: Seat) -> None:
        """The member is a voter, now or long ago (M6). Whether it still has the disk it had then is
        known of one that is heard meanwhile; another one is asked, for a while."""
        local = self._local
        patience = local.limits.election_timeout_seconds
        if (
            request.disk_id
            or self._master.heard_within(seat.incarnation, local.now - request.began_at)
            or local.now >= request.began_at + patience
        ):
            self._end(request, "")
        else:
            self._identify(request)

    def _identify(self, request: Request) -> None:
        """Ask who answers at the member's address, now and then."""
        local = self._local
        if local.now >= request.identify_at:
            request.identify_at = local.now + local.limits.heartbeat_seconds
            local.effects.append(Contact(request.member, Identify(request.nonce)))

    def _append(self, seat: Seat) -> None:
        log = self._local.log
        successor = log.configuration.with_seat(seat, log.configuration_seq)
        self._master.append_configuration(encode_configuration(successor))

    def _measure(self) -> None:
        """Follow the catch-up rounds of learners that are to be promoted. The latest one counts:
        who was quick once and has fallen behind since is not ready."""
        local = self._local
        limit = local.limits.election_timeout_seconds
        for seat in local.log.configuration.seats:
            name = seat.incarnation
            progress = self._master.progress.get(name)
            if not seat.promoting or progress is None:
                continue
            running = self._rounds.get(name)
            if running is None:
                self._rounds[name] = CatchUpRound(local.log.last_seq, local.now)
                continue
            quick = local.now - running.began_at < limit
            if not quick:
                self._ready.discard(name)
            if progress.match >= running.target_seq:
                if quick:
                    self._ready.add(name)
                self._rounds[name] = CatchUpRound(local.log.last_seq, local.now)

    def _promote(self, seat: Seat) -> None:
        """Give a learner its vote, if a majority of the new configuration is alive (M4)."""
        local = self._local
        voters = (*local.log.voters, seat.incarnation)
        limit = local.limits.election_timeout_seconds
        alive = sum(self._master.heard_within(name, limit) for name in voters)
        if alive >= majority_size(len(voters)) and self._master.heard_within(
            seat.incarnation, limit
        ):
            self._rounds.pop(seat.incarnation, None)
            self._ready.discard(seat.incarnation)
            self._append(Seat(seat.id, seat.disk_id, seat.address, Standing.VOTER))
