"""The questions that this member's application waits for: reads and membership changes.

A *question* goes to whoever leads and may be asked again without harm. Reads that come in one turn
share one question (L1, L3); each membership request is one of its own.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable

from clusterconsensus.consensus.changes import Change
from clusterconsensus.consensus.messages import Action
from clusterconsensus.consensus.types import Incarnation
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

    __slots__ = ("asked_at", "began_at", "deadline", "futures", "lease")

    def __init__(
        self, futures: list[asyncio.Future[None]], began_at: float, deadline: float, lease: bool
    ) -> None:
        self.futures = futures
        self.began_at = began_at
        self.deadline = deadline
        self.lease = lease
        self.asked_at = -math.inf


class ReadQuestions:
    """Linearizable reads of one running participant.

    Arguments:
        settings: Limits and times.
        clock: Seconds, as the event loop counts them.
        ask: Sends a question to a member under a number; the last argument tells whether the
            master's lease is proof enough (L2).
        wake: Asks for a turn.
        first_number: Where the numbers of questions begin; another one in each run of a member, so
            that a late answer to an earlier run fits no question of this one (C-25).
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float],
        ask: Callable[[Incarnation, int, bool], None],
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
        self._new_lease = False
        self._new_at = -math.inf
        self.proven_at = -math.inf
        """Everything that was acknowledged before this instant is applied here."""
        self._asked: dict[int, Reading] = {}
        self._ready: deque[tuple[int, Reading]] = deque()
        self._next_nonce = first_number
        self._leader: Incarnation | None = None
        self._count = 0
        """Reads that wait, those that were cancelled among them until room is needed."""

    def read(self, timeout: float | None, *, lease: bool = False) -> asyncio.Future[None]:
        """A future that is done when this member's state holds all that was acknowledged before
        this call.

        Arguments:
            timeout: In seconds; ``read_timeout_seconds`` by default.
            lease: Whether the master's lease is proof enough (L2).

        Raises:
            OverloadedError: too many reads wait already.
        """
        if self._count >= self._settings.max_pending_reads:
            self._forget_cancelled()
        if self._count >= self._settings.max_pending_reads:
            raise OverloadedError(f"{self._count} reads wait already (max_pending_reads)")
        future: asyncio.Future[None] = self._loop.create_future()
        self._count += 1
        seconds = self._settings.read_timeout_seconds if timeout is None else timeout
        if self._new and (seconds != self._new_seconds or lease is not self._new_lease):
            # One question has one deadline; calls of one turn seldom differ in it.
            self._gather()
        if not self._new:
            self._new_seconds, self._new_lease = seconds, lease
            self._new_at = self._clock()
            self._new_deadline = self._new_at + seconds
        self._new.append(future)
        self._wake()
        return future

    def _forget_cancelled(self) -> None:
        """Make room of the reads whose callers have given up."""
        readings = [*self._asked.values(), *(reading for _, reading in self._ready)]
        self._new = [future for future in self._new if not future.done()]
        for reading in readings:
            reading.futures = [future for future in reading.futures if not future.done()]
        self._count = len(self._new) + sum(len(reading.futures) for reading in readings)

    def _gather(self) -> None:
        if self._new:
            self._asked[self._next_nonce] = Reading(
                self._new, self._new_at, self._new_deadline, self._new_lease
            )
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
                self._ask(self._leader, nonce, reading.lease)

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
            reading = self._ready.popleft()[1]
            self.proven_at = max(self.proven_at, reading.began_at)
            self._count -= len(reading.futures)
            for future in reading.futures:
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
                    self._fail(reading.futures, ReadFailedError(error))
        for nonce, reading in tuple(self._asked.items()):
            if now >= reading.deadline:
                del self._asked[nonce]
                why = "nobody leads" if self._leader is None else "the master did not confirm it"
                error = f"a read was not proven in time: {why}"
                self._fail(reading.futures, ReadFailedError(error))

    def _fail(self, futures: list[asyncio.Future[None]], error: ConsensusError) -> None:
        self._count -= len(futures)
        for future in futures:
            if not future.done():
                future.set_exception(error)

    def close(self, error: ConsensusError) -> None:
        """End everything."""
        self._gather()
        for reading in self._asked.values():
            self._fail(reading.futures, error)
        for _, reading in self._ready:
            self._fail(reading.futures, error)
        self._asked.clear()
        self._ready.clear()


class Changing:
    """One membership request."""

    __slots__ = ("asked_at", "asked_of", "change", "deadline", "future", "last_refusal")

    def __init__(self, change: Change, future: asyncio.Future[None], deadline: float) -> None:
        self.change = change
        self.future = future
        self.deadline = deadline
        self.asked_at = -math.inf
        self.asked_of: Incarnation | None = None
        """Who led when it was first asked."""
        self.last_refusal = ""

    @property
    def is_for_anybody(self) -> bool:
        """Whether it asks for another master, whoever that is."""
        return self.change.action is Action.TRANSFER and not self.change.member.id


class MembershipQuestions:
    """Membership requests of one running participant. Repeating one is harmless (M6).

    Arguments:
        settings: Limits and times.
        clock: Seconds, as the event loop counts them.
        ask: Sends a request to a member under a number.
        wake: Asks for a turn.
        first_number: Where the numbers begin; another one in each run of a member.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float],
        ask: Callable[[Incarnation, int, Change], None],
        wake: Callable[[], None],
        first_number: int = 1,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._ask = ask
        self._wake = wake
        self._waiting: dict[int, Changing] = {}
        self._next_nonce = first_number
        self._leader: Incarnation | None = None

    def change(self, change: Change, timeout: float | None) -> asyncio.Future[None]:
        """A future that is done when a change is achieved."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        seconds = self._settings.read_timeout_seconds if timeout is None else timeout
        self._waiting[self._next_nonce] = Changing(change, future, self._clock() + seconds)
        self._next_nonce += 1
        self._wake()
        return future

    def on_leader(self, leader: Incarnation | None) -> None:
        """Another master is known (None: nobody): every request is asked anew, but for those that
        wanted just that."""
        if leader == self._leader:
            return
        self._leader = leader
        for nonce, changing in tuple(self._waiting.items()):
            changing.asked_at = -math.inf
            asked_of = changing.asked_of
            if changing.is_for_anybody and asked_of is not None and leader not in (None, asked_of):
                self._settle(nonce, changing, None)

    def flush(self) -> None:
        """Ask what was not asked yet, or not lately."""
        if self._leader is None:
            return
        now = self._clock()
        for nonce, changing in tuple(self._waiting.items()):
            if changing.future.done():  # nobody waits any more
                del self._waiting[nonce]
            elif now - changing.asked_at >= self._settings.retry_seconds:
                changing.asked_at = now
                if changing.asked_of is None:
                    changing.asked_of = self._leader
                self._ask(self._leader, nonce, changing.change)

    def on_reply(self, nonce: int, refusal: str, retryable: bool) -> None:
        """The master says: achieved, or refused."""
        changing = self._waiting.get(nonce)
        if changing is None:
            return
        if refusal and retryable:
            changing.last_refusal = refusal
            changing.asked_at = self._clock() - self._settings.retry_seconds + ASK_AGAIN_SECONDS
            return
        self._settle(nonce, changing, MembershipError(refusal) if refusal else None)

    def _settle(self, nonce: int, changing: Changing, error: ConsensusError | None) -> None:
        del self._waiting[nonce]
        if changing.future.done():
            return
        if error is not None:
            changing.future.set_exception(error)
        else:
            changing.future.set_result(None)

    @property
    def deadline(self) -> float:
        """When ``on_tick`` or ``flush`` has something to do."""
        soonest = math.inf
        for changing in self._waiting.values():
            soonest = min(soonest, changing.deadline)
            if self._leader is not None:
                soonest = min(soonest, changing.asked_at + self._settings.retry_seconds)
        return soonest

    def on_tick(self, now: float) -> None:
        """End what has waited too long."""
        for nonce, changing in tuple(self._waiting.items()):
            if now >= changing.deadline:
                self._settle(nonce, changing, self._late(changing))

    def _late(self, changing: Changing) -> ConsensusError:
        if self._leader is None and changing.asked_of is None:
            return NoMasterError(f"no master in time to {changing.change}")
        nobody = "nobody leads" if self._leader is None else "the master did not answer"
        why = changing.last_refusal or nobody
        return MembershipPendingError(
            f"not in time: {changing.change}: {why}; it may still come about, and asking again is "
            "harmless"
        )

    def on_removed(self, member_id: str, error: ConsensusError) -> None:
        """This member was removed: whoever wanted that has it, and nothing else can be asked."""
        for nonce, changing in tuple(self._waiting.items()):
            change = changing.change
            wanted = change.action is Action.REMOVE and change.member.id == member_id
            self._settle(nonce, changing, None if wanted else error)

    def close(self, error: ConsensusError) -> None:
        """End everything."""
        for nonce, changing in tuple(self._waiting.items()):
            self._settle(nonce, changing, error)
