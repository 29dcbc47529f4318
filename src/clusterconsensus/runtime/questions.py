"""The questions that this member's application waits for: reads and membership changes.

A *question* goes to whoever leads and may be asked again without harm. Reads that come in one turn
share one question (L1, L3); each membership request is one of its own.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from clusterconsensus.consensus.types import Incarnation, Member
from clusterconsensus.errors import (
    ConsensusError,
    MembershipError,
    MembershipPendingError,
    NoMasterError,
    OverloadedError,
    ReadFailedError,
)
from clusterconsensus.settings import Settings

ASK_AGAIN_SECONDS = 0.05
"""How long after a refusal a question is asked again."""


class Reading:
    """Reads that share one question."""

    __slots__ = ("asked_at", "deadline", "futures")

    def __init__(self, futures: list[asyncio.Future[None]], deadline: float) -> None:
        self.futures = futures
        self.deadline = deadline
        self.asked_at = -math.inf


class ReadQuestions:
    """Linearizable reads of one running participant.

    Arguments:
        settings: Limits and times.
        clock: Seconds, as the event loop counts them.
        ask: Sends a question to a member under a number.
        wake: Asks for a turn.
        first_number: Where the numbers of questions begin; another one in each run of a member, so
            that a late answer to an earlier run fits no question of this one (C-25).
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float],
        ask: Callable[[Incarnation, int], None],
        wake: Callable[[], None],
        first_number: int = 1,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._ask = ask
        self._wake = wake
        self._loop = asyncio.get_running_loop()
        self._new: list[asyncio.Future[None]] = []
        self._new_seconds = self._new_deadline = math.inf
        self._asked: dict[int, Reading] = {}
        self._ready: deque[tuple[int, Reading]] = deque()
        self._next_nonce = first_number
        self._leader: Incarnation | None = None
        self._count = 0

    def read(self, timeout: float | None) -> asyncio.Future[None]:
        """A future that is done when this member's state holds all that was acknowledged before
        this call.

        Raises:
            OverloadedError: too many reads wait already.
        """
        if self._count >= self._settings.max_pending_reads:
            raise OverloadedError(f"{self._count} reads wait already (max_pending_reads)")
        future: asyncio.Future[None] = self._loop.create_future()
        future.add_done_callback(self._forget)
        self._count += 1
        seconds = self._settings.read_timeout_seconds if timeout is None else timeout
        if self._new and seconds != self._new_seconds:
            # One question has one deadline; calls of one turn seldom differ in it.
            self._gather()
        if not self._new:
            self._new_seconds = seconds
            self._new_deadline = self._clock() + seconds
        self._new.append(future)
        self._wake()
        return future

    def _forget(self, future: asyncio.Future[None]) -> None:
        self._count -= 1

    def _gather(self) -> None:
        if self._new:
            self._asked[self._next_nonce] = Reading(self._new, self._new_deadline)
            self._next_nonce += 1
            self._new = []

    def on_leader(self, leader: Incarnation | None) -> None:
        """Another master is known (None: nobody): every question is asked anew."""
        if leader != self._leader:
            self._leader = leader
            for reading in self._asked.values():
                reading.asked_at = -math.inf

    def flush(self, applied: int) -> None:
        """Ask what was not asked yet, and release what ``applied`` satisfies."""
        if self._ready:
            self.on_applied(applied)
        self._gather()
        if self._leader is None or not self._asked:
            return
        now = self._clock()
        for nonce, reading in self._asked.items():
            if now - reading.asked_at >= self._settings.retry_seconds:
                reading.asked_at = now
                self._ask(self._leader, nonce)

    def on_ready(self, nonce: int, seq: int, applied: int) -> None:
        """The master has confirmed: whoever applied up to ``seq`` may read."""
        reading = self._asked.pop(nonce, None)
        if reading is not None:
            self._ready.append((seq, reading))
            self.on_applied(applied)

    def on_refused(self, nonce: int) -> None:
        """Whoever was asked does not lead: ask again soon."""
        reading = self._asked.get(nonce)
        if reading is not None:
            reading.asked_at = self._clock() - self._settings.retry_seconds + ASK_AGAIN_SECONDS

    def on_applied(self, applied: int) -> None:
        """Release the reads that this much satisfies. Confirmations come in order of sequence, but
        for those of a former master; these wait behind at most a little longer than they must."""
        while self._ready and self._ready[0][0] <= applied:
            for future in self._ready.popleft()[1].futures:
                if not future.done():
                    future.set_result(None)

    @property
    def deadline(self) -> float:
        """When ``on_tick`` has something to do."""
        if not (self._new or self._asked or self._ready):
            return math.inf
        soonest = self._new_deadline if self._new else math.inf
        for reading in self._asked.values():
            soonest = min(soonest, reading.deadline)
            if self._leader is not None:
                soonest = min(soonest, reading.asked_at + self._settings.retry_seconds)
        for _, reading in self._ready:
            soonest = min(soonest, reading.deadline)
        return soonest

    def on_tick(self, now: float) -> None:
        """End what has waited too long."""
        self._gather()
        if any(now >= reading.deadline for _, reading in self._ready):
            ready, self._ready = self._ready, deque()
            for seq, reading in ready:
                if now < reading.deadline:
                    self._ready.append((seq, reading))
                else:
                    error = f"a read was not served in time: sequence {seq} is not applied here yet"
                    _fail(reading.futures, ReadFailedError(error))
        for nonce, reading in tuple(self._asked.items()):
            if now >= reading.deadline:
                del self._asked[nonce]
                why = "nobody leads" if self._leader is None else "the master did not confirm it"
                _fail(reading.futures, ReadFailedError(f"a read was not proven in time: {why}"))

    def close(self, error: ConsensusError) -> None:
        """End everything."""
        self._gather()
        for reading in self._asked.values():
            _fail(reading.futures, error)
        for _, reading in self._ready:
            _fail(reading.futures, error)
        self._asked.clear()
        self._ready.clear()


def _fail(futures: list[asyncio.Future[None]], error: ConsensusError) -> None:
    for future in futures:
        if not future.done():
            future.set_exception(error)


class Adding:
    """One membership request."""

    __slots__ = ("asked_at", "deadline", "future", "last_refusal", "member")

    def __init__(self, member: Member, future: asyncio.Future[None], deadline: float) -> None:
        self.member = member
        self.future = future
        self.deadline = deadline
        self.asked_at = -math.inf
        self.last_refusal = ""


class MembershipQuestions:
    """Membership requests of one running participant. Repeating one is harmless (M6)."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float],
        ask: Callable[[Incarnation, int, Member], None],
        wake: Callable[[], None],
        first_number: int = 1,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._ask = ask
        self._wake = wake
        self._waiting: dict[int, Adding] = {}
        self._next_nonce = first_number
        self._leader: Incarnation | None = None

    def add(self, member: Member, timeout: float | None) -> asyncio.Future[None]:
        """A future that is done when ``member`` is a voter."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        seconds = self._settings.read_timeout_seconds if timeout is None else timeout
        self._waiting[self._next_nonce] = Adding(member, future, self._clock() + seconds)
        self._next_nonce += 1
        self._wake()
        return future

    def on_leader(self, leader: Incarnation | None) -> None:
        if leader != self._leader:
            self._leader = leader
            for adding in self._waiting.values():
                adding.asked_at = -math.inf

    def flush(self) -> None:
        """Ask what was not asked yet, or not lately."""
        if self._leader is None:
            return
        now = self._clock()
        for nonce, adding in self._waiting.items():
            if now - adding.asked_at >= self._settings.retry_seconds:
                adding.asked_at = now
                self._ask(self._leader, nonce, adding.member)

    def on_reply(self, nonce: int, refusal: str, retryable: bool) -> None:
        """The master says: achieved, or refused."""
        adding = self._waiting.get(nonce)
        if adding is None:
            return
        if refusal and retryable:
            adding.last_refusal = refusal
            adding.asked_at = self._clock() - self._settings.retry_seconds + ASK_AGAIN_SECONDS
            return
        del self._waiting[nonce]
        if adding.future.done():
            return
        if refusal:
            adding.future.set_exception(MembershipError(refusal))
        else:
            adding.future.set_result(None)

    @property
    def deadline(self) -> float:
        soonest = math.inf
        for adding in self._waiting.values():
            soonest = min(soonest, adding.deadline)
            if self._leader is not None:
                soonest = min(soonest, adding.asked_at + self._settings.retry_seconds)
        return soonest

    def on_tick(self, now: float) -> None:
        for nonce, adding in tuple(self._waiting.items()):
            if now >= adding.deadline:
                del self._waiting[nonce]
                if not adding.future.done():
                    adding.future.set_exception(self._late(adding))

    def _late(self, adding: Adding) -> ConsensusError:
        if self._leader is None:
            return NoMasterError(f"no master in time to add member {adding.member}")
        why = adding.last_refusal or "the master did not answer"
        return MembershipPendingError(
            f"member {adding.member} is not a voter yet: {why}; it may still become one, and "
            "adding it again is harmless"
        )

    def close(self, error: ConsensusError) -> None:
        for adding in self._waiting.values():
            if not adding.future.done():
                adding.future.set_exception(error)
        self._waiting.clear()
