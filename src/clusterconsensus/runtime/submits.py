"""The changes that this member's application waits for (X1 to X5).

Each waits in ``_pending`` under its request number. At the end of a turn everything that is not on
its way becomes one group and leaves for whoever leads. Nothing is made per change but the entry in
that table and the future that the caller awaits.

A group that was sent and not answered is sent again, under the same numbers: after a while, when
another master appears, or when the old one refused it. Because the numbers stay, it is applied once
however often it arrives. When the caller's time is up, the error says what is known: *not applied*
if every sending was refused, *unknown* otherwise.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence

from clusterconsensus.consensus.messages import Group, Refusal
from clusterconsensus.consensus.sessions import Request, encode_requests
from clusterconsensus.consensus.types import Incarnation
from clusterconsensus.errors import (
    ConsensusError,
    NoMasterError,
    NotAppliedError,
    OutcomeUnknownError,
    OverloadedError,
    SessionExpiredError,
)
from clusterconsensus.settings import Settings

MAX_UNKNOWN = 1_024
"""Requests of unknown outcome that can still be asked for by ``retry``."""

MAX_REQUESTS_PER_GROUP = 4_096

REFUSED_PAUSE_SECONDS = 0.02
"""How long a refused group waits before it is sent again."""


class Pending:
    """One request that waits for its outcome."""

    __slots__ = ("deadline", "future", "request", "size")

    def __init__(
        self, request: Request, size: int, future: asyncio.Future[bytes], deadline: float
    ) -> None:
        self.request = request
        self.size = size
        self.future = future
        self.deadline = deadline


class Attempt:
    """One sending of one group."""

    __slots__ = ("first", "last", "sent_at", "to")

    def __init__(self, first: int, last: int, sent_at: float, to: Incarnation) -> None:
        self.first = first
        self.last = last
        self.sent_at = sent_at
        self.to = to


class Submits:
    """Requests, their sending and their outcomes, for one running participant.

    Arguments:
        settings: Limits and times.
        clock: Seconds, as the event loop counts them.
        send: Sends a group to a member (NOBODY: this one) under an attempt number.
        open_session: Asks a member for a session with a nonce.
        wake: Asks for a turn.
        nonce: Grows from one start of this member to the next.
        first_attempt: Where the numbers of attempts begin; another one in each run of a member, so
            that a late reply to an earlier run fits no attempt of this one (X4).
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float],
        send: Callable[[Incarnation, int, Group], None],
        open_session: Callable[[Incarnation, int], None],
        wake: Callable[[], None],
        nonce: int,
        first_attempt: int = 1,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._send = send
        self._open_session = open_session
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._pending: dict[int, Pending] = {}
        self._pending_bytes = 0
        self._unknown: dict[int, Request] = {}
        self._asked_again: set[int] = set()
        self._queue: list[int] = []
        self._attempts: dict[int, Attempt] = {}
        self._attempt_of: dict[int, int] = {}
        self._next_number = 1
        self._lowest = 1
        """Nothing below this number waits; looked up only when it matters."""
        self._next_attempt = first_attempt
        self._next_deadline = math.inf
        self._resend_at = math.inf
        self._leader: Incarnation | None = None
        self._last_refusal = Refusal.NOT_APPENDED
        self.session = 0
        self.nonce = nonce
        self._nonce_step = 1
        self._session_asked_at = -math.inf
        self._session_used_at = -math.inf

    def __len__(self) -> int:
        return len(self._pending)

    # -- the application's side

    def submit(self, request: Request, size: int, timeout: float | None) -> asyncio.Future[bytes]:
        """Take a request and return the future of its outcome.

        Raises:
            OverloadedError: too much waits already.
        """
        settings = self._settings
        if len(self._pending) >= settings.max_pending_changes:
            raise OverloadedError(
                f"{len(self._pending)} changes wait already (max_pending_changes)"
            )
        if self._pending_bytes + size > settings.max_pending_bytes:
            raise OverloadedError(
                f"{self._pending_bytes} bytes of changes wait already, {size} more exceed "
                f"max_pending_bytes ({settings.max_pending_bytes})"
            )
        number = self._next_number
        if number - self._lowest > 2 * settings.max_pending_changes:
            self._make_room(number)
        self._next_number = number + 1
        return self._wait_for(number, request, size, timeout)

    def _make_room(self, number: int) -> None:
        """One old request may hold back the acknowledgement of all later ones: forget it if nobody
        waits for it, or take no more."""
        limit = 2 * self._settings.max_pending_changes
        self._lowest = self._acked_below()
        if number - self._lowest <= limit:
            return
        if not self._unknown:
            raise OverloadedError(
                f"a change waits since {number - self._lowest} requests (max_pending_changes)"
            )
        del self._unknown[min(self._unknown)]

    def retry(self, number: int, timeout: float | None) -> asyncio.Future[bytes]:
        """Ask again for a request whose outcome was unknown.

        Raises:
            SessionExpiredError: it can no longer be asked for.
        """
        request = self._unknown.pop(number, None)
        if request is None:
            raise SessionExpiredError(
                f"request {number} is not among those of unknown outcome: its session has "
                f"expired, or more than {MAX_UNKNOWN} became unknown after it"
            )
        self._asked_again.add(number)
        size = len(request) if isinstance(request, bytes) else sum(map(len, request))
        return self._wait_for(number, request, size, timeout)

    def _wait_for(
        self, number: int, request: Request, size: int, timeout: float | None
    ) -> asyncio.Future[bytes]:
        future: asyncio.Future[bytes] = self._loop.create_future()
        if timeout is None:
            timeout = self._settings.submit_timeout_seconds
        deadline = self._clock() + timeout
        self._pending[number] = Pending(request, size, future, deadline)
        self._pending_bytes += size
        if deadline < self._next_deadline:
            self._next_deadline = deadline
            self._wake()
        elif not self._queue:
            self._wake()  # otherwise whoever came first in this turn has asked for the next one
        self._queue.append(number)
        return future

    def _acked_below(self) -> int:
        lowest = self._next_number
        if self._pending:
            lowest = min(lowest, next(iter(self._pending)))
        if self._unknown:
            lowest = min(lowest, min(self._unknown))  # they end in any order
        if self._asked_again:
            lowest = min(lowest, min(self._asked_again))
        return lowest

    # -- sending

    def on_leader(self, leader: Incarnation | None) -> None:
        """Another master is known (NOBODY: this member; None: nobody)."""
        if leader == self._leader:
            return
        self._leader = leader
        self._session_asked_at = -math.inf
        self._resend_at = math.inf
        if leader is not None:
            self._queue = list(self._pending)  # whatever is under way may be lost with the old one

    def flush(self) -> None:
        """Send everything that waits to be sent, if somebody leads."""
        if not self._queue or self._leader is None:
            return
        now = self._clock()
        if now < self._resend_at < math.inf:
            return
        self._resend_at = math.inf
        if not self._have_session(now):
            return
        self._session_used_at = now
        queue, self._queue = self._queue, []
        acked_below = self._acked_below()
        limit = self._settings.max_batch_bytes
        requests: list[Request] = []
        first = size = 0
        pending = self._pending
        for number in queue:
            waiting = pending.get(number)
            if waiting is None:
                continue
            if requests and (
                number != first + len(requests)
                or size + waiting.size > limit
                or len(requests) >= MAX_REQUESTS_PER_GROUP
            ):
                self._send_group(now, acked_below, first, requests)
                requests, size = [], 0
            if not requests:
                first = number
            requests.append(waiting.request)
            size += waiting.size
        if requests:
            self._send_group(now, acked_below, first, requests)

    def _send_group(
        self, now: float, acked_below: int, first: int, requests: list[Request]
    ) -> None:
        leader = self._leader
        if leader is None:
            return
        body = encode_requests(requests)
        group = Group(self.session, acked_below, first, len(requests), body)
        attempt = self._next_attempt
        self._next_attempt += 1
        self._attempts[attempt] = Attempt(first, first + len(requests) - 1, now, leader)
        self._attempt_of[first] = attempt
        self._send(leader, attempt, group)

    def _have_session(self, now: float) -> bool:
        """Whether there is a session; asks for one otherwise (X1)."""
        expiry = self._settings.session_expiry_seconds
        idle = now - self._session_used_at
        needed = self._attempts or self._unknown or self._asked_again
        if self.session and idle > expiry / 2 and not needed:
            self.forget_session()  # it may have expired; nothing depends on it
        if self.session:
            return True
        if (
            self._leader is not None
            and now - self._session_asked_at >= self._settings.retry_seconds
        ):
            self._session_asked_at = now
            self._open_session(self._leader, self.nonce)
        return False

    def forget_session(self) -> None:
        """Begin a new session with the next request."""
        self.session = 0
        self.nonce += 1
        self._session_asked_at = -math.inf

    def on_session(self, nonce: int, session: int) -> None:
        """A session was opened for this member, or refused (0)."""
        if nonce != self.nonce or self.session:
            return
        if session:
            self.session = session
            self._session_used_at = self._clock()
        else:
            # A later start of this member seems to have had a session: its clock went back.
            self.nonce += self._nonce_step
            self._nonce_step *= 2
            self._session_asked_at = -math.inf
        self._wake()

    # -- outcomes

    def on_outcomes(self, first: int, outcomes: Sequence[bytes | None]) -> None:
        """Outcomes of consecutive requests of this session have arrived, for the first time or
        again."""
        attempt = self._attempt_of.get(first, 0)
        sent = self._attempts.get(attempt)
        if sent is not None and sent.last < first + len(outcomes):
            del self._attempts[attempt], self._attempt_of[first]
        if self._asked_again:
            self._asked_again.difference_update(range(first, first + len(outcomes)))
        pending = self._pending
        number = first
        for outcome in outcomes:
            waiting = pending.pop(number, None)
            if waiting is not None:
                self._pending_bytes -= waiting.size
                future = waiting.future
                if not future.done():
                    if outcome is None:
                        future.set_exception(_expired(number))
                    else:
                        future.set_result(outcome)
            number += 1
        if outcomes and outcomes[0] is None:
            self._expire()

    def on_reply(
        self,
        attempt: int,
        refusal: Refusal,
        outcomes: Sequence[bytes | None] = (),
        offset: int = 0,
    ) -> None:
        """The master has answered an attempt, or a part of it from request ``offset`` on."""
        sent = self._attempts.get(attempt)
        if sent is None:
            return
        if refusal is Refusal.NONE:
            if 0 <= offset <= sent.last - sent.first + 1 - len(outcomes):
                self.on_outcomes(sent.first + offset, outcomes)
            return
        del self._attempts[attempt]  # nothing of it was appended
        if self._attempt_of.get(sent.first) == attempt:
            del self._attempt_of[sent.first]
        self._last_refusal = refusal
        self._queue.extend(
            number for number in range(sent.first, sent.last + 1) if number in self._pending
        )
        self._resend_at = self._clock() + REFUSED_PAUSE_SECONDS

    def _expire(self) -> None:
        """The session is gone: whatever was sent in it has an unknown outcome (X2)."""
        for attempt in tuple(self._attempts.values()):
            for number in range(attempt.first, attempt.last + 1):
                self._settle(number, _expired(number))
        for number in tuple(self._asked_again):
            self._settle(number, _expired(number))  # it was sent once; never in another session
        self._attempts.clear()
        self._attempt_of.clear()
        self._unknown.clear()
        self._asked_again.clear()
        self.forget_session()
        if self._pending:
            self._queue = list(self._pending)
            self._wake()

    def _settle(self, number: int, error: ConsensusError) -> None:
        waiting = self._pending.pop(number, None)
        self._asked_again.discard(number)
        if waiting is not None:
            self._pending_bytes -= waiting.size
            if not waiting.future.done():
                waiting.future.set_exception(error)

    # -- time

    @property
    def deadline(self) -> float:
        """When ``on_tick`` has something to do."""
        if not self._pending:
            return math.inf
        soonest = min(self._next_deadline, self._resend_at)
        if self._attempts:
            oldest = next(iter(self._attempts.values()))
            soonest = min(soonest, oldest.sent_at + self._settings.retry_seconds)
        if not self.session and self._leader is not None:
            soonest = min(soonest, self._session_asked_at + self._settings.retry_seconds)
        return soonest

    def on_tick(self, now: float) -> None:
        """Send again what was not answered; end what has waited too long."""
        self._forget_attempts()
        retry = self._settings.retry_seconds
        overdue = False
        for attempt in self._attempts.values():
            if now - attempt.sent_at >= retry:
                attempt.sent_at = now
                overdue = True
        if overdue or not (self._attempts or self._queue):
            self._queue = list(self._pending)
        if now >= self._next_deadline:
            self._end_overdue(now)

    def _forget_attempts(self) -> None:
        """Drop attempts of which nothing waits any more."""
        pending = self._pending
        for number, attempt in tuple(self._attempts.items()):
            if not any(request in pending for request in range(attempt.first, attempt.last + 1)):
                del self._attempts[number]
                if self._attempt_of.get(attempt.first) == number:
                    del self._attempt_of[attempt.first]

    def _end_overdue(self, now: float) -> None:
        self._next_deadline = math.inf
        for number, waiting in tuple(self._pending.items()):
            if waiting.deadline > now:
                self._next_deadline = min(self._next_deadline, waiting.deadline)
                continue
            self._end(number, waiting)

    def _end(self, number: int, waiting: Pending) -> None:
        again = number in self._asked_again  # an earlier sending may have come through
        if again or any(sent.first <= number <= sent.last for sent in self._attempts.values()):
            if again or not waiting.future.done():  # nobody can ask for what was cancelled
                self._unknown[number] = waiting.request
            if len(self._unknown) > MAX_UNKNOWN:
                del self._unknown[next(iter(self._unknown))]
            self._settle(
                number,
                OutcomeUnknownError(
                    f"no outcome of request {number} in time; it may have been applied, or may yet "
                    "be",
                    number,
                ),
            )
        elif self._leader is None:
            self._settle(number, NoMasterError(f"no master in time for request {number}"))
        elif self._last_refusal is Refusal.OVERLOADED:
            self._settle(
                number,
                OverloadedError(
                    f"the master refused request {number}: max_staged_bytes is reached"
                ),
            )
        else:
            self._settle(number, NoMasterError(f"no master took request {number} in time"))

    def close(self, error: NotAppliedError, reason: str) -> None:
        """End everything: what never left was not applied, the rest is unknown."""
        sent = {
            number
            for attempt in self._attempts.values()
            for number in range(attempt.first, attempt.last + 1)
        }
        for number in tuple(self._pending):
            if number in sent or number in self._asked_again:
                self._settle(number, OutcomeUnknownError(f"request {number}: {reason}"))
            else:
                self._settle(number, error)
        self._queue.clear()
        self._attempts.clear()


def _expired(number: int) -> SessionExpiredError:
    return SessionExpiredError(f"the session of request {number} has expired", number)
