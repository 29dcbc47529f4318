"""Joining from outside: a member of no cluster asks to be added, and a member of one has it done.

Whoever wants in need only know one address. It asks there again and again; the member that answers
asks its own master, like for its own application, and hands the answer back. What counts in the end
is not that answer but what the newcomer sees itself: a committed configuration that has a seat
for it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable

from clusterconsensus.consensus.changes import Change
from clusterconsensus.consensus.messages import Action, JoinAsk, MembershipReply, Message
from clusterconsensus.consensus.types import Incarnation, Member, Seat
from clusterconsensus.errors import (
    ConsensusError,
    MembershipError,
    MembershipPendingError,
    ParticipantClosedError,
)
from clusterconsensus.settings import Settings

MAX_JOINS = 64
"""Members that one member helps to join at a time."""

ASK_AGAIN_SECONDS = 0.2
"""How long after a refusal that may pass the question is asked again."""


class Joining:
    """One call that waits."""

    __slots__ = (
        "address",
        "asked_at",
        "confirmed",
        "deadline",
        "future",
        "last_refusal",
        "learner",
        "priority",
    )

    def __init__(
        self,
        address: str,
        learner: bool,
        priority: int,
        belongs: bool,
        future: asyncio.Future[None],
        deadline: float,
    ) -> None:
        self.address = address
        self.learner = learner
        self.priority = priority
        self.future = future
        self.deadline = deadline
        self.asked_at = -math.inf
        self.confirmed = not belongs
        """Whether the seat that this member sees is in the cluster that was asked: any is, where it
        had none before."""
        self.last_refusal = "nobody of its cluster" if belongs else "nobody"
        self.last_refusal += " answered there"


class Joins:
    """What this member asks of others, to become one of them.

    Arguments:
        member: This member.
        settings: Limits and times.
        clock: Seconds, as the event loop counts them.
        contact: Sends a message to whoever answers at an address.
        wake: Asks for a turn.
        first_number: Where the numbers of questions begin.
    """

    def __init__(
        self,
        member: Member,
        settings: Settings,
        clock: Callable[[], float],
        contact: Callable[[Member, Message], None],
        wake: Callable[[], None],
        first_number: int,
    ) -> None:
        self._member = member
        self._settings = settings
        self._clock = clock
        self._contact = contact
        self._wake = wake
        self._waiting: dict[int, Joining] = {}
        self._next_nonce = first_number

    def __len__(self) -> int:
        return len(self._waiting)

    def join(
        self, address: str, learner: bool, priority: int, belongs: bool, timeout: float | None
    ) -> asyncio.Future[None]:
        """A future that is done when this member has the seat it wants; ``belongs`` tells whether
        it is a member of a cluster already."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        seconds = self._settings.read_timeout_seconds if timeout is None else timeout
        deadline = self._clock() + seconds
        joining = Joining(address, learner, priority, belongs, future, deadline)
        self._waiting[self._next_nonce] = joining
        self._next_nonce += 1
        self._wake()
        return future

    def flush(self, seat: Seat | None) -> None:
        """Ask what was not asked lately; ``seat`` is this member's committed one."""
        now = self._clock()
        for nonce, joining in tuple(self._waiting.items()):
            if joining.future.done():
                del self._waiting[nonce]
            elif joining.confirmed and seat and (seat.is_voter or joining.learner):
                self._settle(nonce, joining, None)
            elif now - joining.asked_at >= self._settings.retry_seconds:
                joining.asked_at = now
                member = self._member
                self._contact(
                    Member("", joining.address),
                    JoinAsk(nonce, member.id, member.address, joining.learner, joining.priority),
                )

    def on_reply(self, message: MembershipReply) -> bool:
        """An answer; returns False if it is to no question of these."""
        joining = self._waiting.get(message.nonce)
        if joining is None:
            return False
        if message.refusal and message.retryable:
            joining.last_refusal = message.refusal
            joining.asked_at = self._clock() - self._settings.retry_seconds + ASK_AGAIN_SECONDS
        elif message.refusal:
            self._settle(message.nonce, joining, MembershipError(message.refusal))
        else:
            joining.confirmed = True
            joining.last_refusal = "it was added, and has not heard of it yet"
        return True

    def _settle(self, nonce: int, joining: Joining, error: ConsensusError | None) -> None:
        del self._waiting[nonce]
        if joining.future.done():
            return
        if error is not None:
            joining.future.set_exception(error)
        else:
            joining.future.set_result(None)

    @property
    def deadline(self) -> float:
        """When ``on_tick`` or ``flush`` has something to do."""
        soonest = math.inf
        for joining in self._waiting.values():
            again = joining.asked_at + self._settings.retry_seconds
            soonest = min(soonest, joining.deadline, again)
        return soonest

    def on_tick(self, now: float) -> None:
        """End what has waited too long."""
        for nonce, joining in tuple(self._waiting.items()):
            if now >= joining.deadline:
                error = MembershipPendingError(
                    f"member {self._member} has not joined by way of {joining.address} in time: "
                    f"{joining.last_refusal}; it may still, and joining again is harmless"
                )
                self._settle(nonce, joining, error)

    def close(self, error: ConsensusError) -> None:
        """End everything."""
        for nonce, joining in tuple(self._waiting.items()):
            self._settle(nonce, joining, error)


class JoinDesk:
    """Has others added that ask here.

    Arguments:
        change: Asks the master, as for this member's own application.
        send: Sends a message to a member.
    """

    def __init__(
        self,
        change: Callable[[Change], asyncio.Future[None]],
        send: Callable[[Incarnation, Message], None],
    ) -> None:
        self._change = change
        self._send = send
        self._asked: dict[tuple[Incarnation, int], asyncio.Future[None]] = {}

    def on_ask(self, source: Incarnation, message: JoinAsk) -> None:
        """A member wants to join; asked again while it waits, it waits on."""
        key = (source, message.nonce)
        if key in self._asked:
            return
        if len(self._asked) >= MAX_JOINS:
            refusal = f"{MAX_JOINS} members are joining here already"
            self._send(source, MembershipReply(message.nonce, refusal, True))
            return
        action = Action.ADD_LEARNER if message.learner else Action.ADD
        member = Member(message.id, message.address)
        future = self._change(Change(action, member, message.priority))
        self._asked[key] = future
        future.add_done_callback(lambda done: self._answer(key, done))

    def _answer(self, key: tuple[Incarnation, int], done: asyncio.Future[None]) -> None:
        del self._asked[key]
        source, nonce = key
        error = done.exception()
        if error is None:
            self._send(source, MembershipReply(nonce, "", False))
        elif isinstance(error, ConsensusError) and not isinstance(error, ParticipantClosedError):
            self._send(source, MembershipReply(nonce, str(error), error.retryable))
