"""What the runtime tests share: states, log entries, and a bench on which ``Submits`` stands."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from clusterconsensus.codec import MsgpackCodec
from clusterconsensus.consensus.messages import Group, Refusal
from clusterconsensus.consensus.sessions import (
    CloseSessions,
    NewSession,
    Request,
    SessionOrder,
    encode_groups,
    encode_requests,
    encode_session_order,
)
from clusterconsensus.consensus.types import NOBODY, Ballot, Entry, EntryKind, Incarnation
from clusterconsensus.errors import OutcomeUnknownError
from clusterconsensus.runtime.applier import Applier
from clusterconsensus.runtime.submits import Submits
from clusterconsensus.settings import Settings
from clusterconsensus.state import Codec, Context, Readable, State

T = TypeVar("T")

BALLOT = Ballot(1, Incarnation("a@1"))
OWNER = Incarnation("o@1")
CODEC = MsgpackCodec()


def run(main: Coroutine[None, None, T]) -> T:
    """``asyncio.run`` with an end."""
    return asyncio.run(asyncio.wait_for(main, 60))


class Recorder:
    """A state that keeps every change with its context; a change says what becomes of it."""

    def __init__(self) -> None:
        self.applied: list[Any] = []
        self.contexts: list[Context] = []

    def apply(self, change: Any, context: Context) -> Any:
        self.contexts.append(context)
        self.applied.append(change)
        if change == "raise":
            raise ValueError("no")
        if change == "memory":
            raise MemoryError
        if change == "unencodable":
            return object()
        return len(self.applied)

    def snapshot(self) -> bytes:
        return CODEC.encode_change(self.applied)

    def install(self, snapshot: Readable) -> None:
        self.applied = CODEC.decode_change(snapshot.read())


class Heard:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.groups: list[tuple[int, int, int, int, list[bytes | None]]] = []
        self.sessions: list[tuple[int, str, int, int]] = []
        self.entries: list[tuple[int, list[Any], list[bytes]]] = []

    def on_group(
        self, seq: int, place: int, session: int, first: int, found: Sequence[bytes | None]
    ) -> None:
        self.groups.append((seq, place, session, first, list(found)))

    def on_session(self, seq: int, owner: str, nonce: int, session: int) -> None:
        self.sessions.append((seq, owner, nonce, session))

    def on_entry(self, seq: int, changes: list[Any], results: list[bytes]) -> None:
        self.entries.append((seq, changes, results))


class Still:
    """A clock that moves only when told to."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def request(*values: Any) -> Request:
    """One change, or with several values an atomic batch of them."""
    if len(values) == 1:
        return CODEC.encode_change(values[0])
    return [CODEC.encode_change(value) for value in values]


def group(session: int, first: int, *requests: Request, acked_below: int = 0) -> Group:
    """A group of consecutive requests."""
    return Group(session, acked_below, first, len(requests), encode_requests(requests))


def changes(seq: int, *groups: Group, time: float = 5.0) -> Entry:
    """A CHANGES entry."""
    return Entry.make(seq, BALLOT, EntryKind.CHANGES, time, encode_groups(groups))


def session(seq: int, nonce: int = 1, owner: Incarnation = OWNER, time: float = 5.0) -> Entry:
    """An entry that opens a session."""
    return order(seq, NewSession(owner, nonce), time)


def closing(seq: int, *idle: tuple[int, float], time: float = 5.0) -> Entry:
    """An entry that closes sessions."""
    return order(seq, CloseSessions(idle), time)


def order(seq: int, content: SessionOrder, time: float = 5.0) -> Entry:
    payload = encode_session_order(content)
    return Entry.make(seq, BALLOT, EntryKind.SESSION, time, payload)


def noop(seq: int, time: float = 5.0) -> Entry:
    return Entry.make(seq, BALLOT, EntryKind.NOOP, time)


class Member:
    """An applier with everything around it, fed with entries 1, 2, 3 …"""

    def __init__(
        self,
        state: State | None = None,
        *,
        codec: Codec = CODEC,
        clock: Still | None = None,
        slice_seconds: float = 1.0,
    ) -> None:
        self.recorder = Recorder()
        self.heard = Heard()
        self.clock = clock or Still()
        self.applier = Applier(
            self.recorder if state is None else state,
            codec,
            self.heard,
            self.clock,
            slice_seconds,
        )
        self.log: dict[int, Entry] = {}

    def feed(self, *entries: Entry) -> int:
        """Apply entries to the end; returns in how many slices."""
        self.log.update({entry.seq: entry for entry in entries})
        slices = 1
        while not self.applier.run(self.log.__getitem__, max(self.log, default=0)):
            slices += 1
        return slices

    @property
    def outcomes(self) -> list[list[bytes | None]]:
        """The outcomes of all groups so far."""
        return [found for *_, found in self.heard.groups]


class Bench:
    """``Submits`` with a master that the test plays. Made in a running loop."""

    def __init__(self, **settings: Any) -> None:
        self.settings = Settings(**settings).validate()
        self.clock = Still()
        self.sent: list[tuple[Incarnation, int, Group]] = []
        self.asked: list[tuple[Incarnation, int]] = []
        self.wakes = 0
        self.submits = Submits(
            self.settings,
            self.clock,
            lambda to, attempt, group: self.sent.append((to, attempt, group)),
            lambda to, nonce: self.asked.append((to, nonce)),
            self._woken,
            1,
        )

    def _woken(self) -> None:
        self.wakes += 1

    def lead(self, leader: Incarnation | None = NOBODY) -> None:
        """Let a master be known."""
        self.submits.on_leader(leader)

    def serve(self, leader: Incarnation | None = NOBODY, session: int = 7) -> Bench:
        """Let a master be known, and give it a session."""
        self.lead(leader)
        self.submits.on_session(self.submits.nonce, session)
        return self

    def submit(self, data: bytes = b"x", timeout: float | None = None) -> asyncio.Future[bytes]:
        return self.submits.submit(data, len(data), timeout)

    def flush(self) -> list[Group]:
        """End a turn; what left in it."""
        before = len(self.sent)
        self.submits.flush()
        return [group for _, _, group in self.sent[before:]]

    def groups(self) -> list[tuple[int, int]]:
        """``(first, count)`` of everything sent so far."""
        return [(group.first, group.count) for _, _, group in self.sent]

    def later(self, seconds: float) -> list[Group]:
        """Let time pass, with all the ticks that are asked for meanwhile; what left in it."""
        before = len(self.sent)
        end = self.clock.now + seconds
        while (deadline := self.submits.deadline) <= end:
            self.clock.now = max(self.clock.now + 0.001, deadline)
            self.submits.on_tick(self.clock.now)
            self.submits.flush()
        self.clock.now = max(end, self.clock.now)
        self.submits.flush()
        return [group for _, _, group in self.sent[before:]]

    def refuse(self, refusal: Refusal = Refusal.NOT_APPENDED) -> None:
        """Refuse what was sent last."""
        self.submits.on_reply(self.sent[-1][1], refusal)


def failure(future: asyncio.Future[Any]) -> BaseException | None:
    """The error of a future that is done."""
    assert future.done(), "nothing is known yet"
    return future.exception()


NEVER = math.inf


def unknown(bench: Bench, count: int = 1) -> list[int]:
    """Let some requests end with an unknown outcome; returns their numbers."""
    futures = [bench.submit(timeout=0.5) for _ in range(count)]
    bench.flush()
    bench.later(0.6)
    numbers = []
    for future in futures:
        error = failure(future)
        assert isinstance(error, OutcomeUnknownError)
        assert error.request is not None
        numbers.append(error.request)
    bench.submits.on_tick(bench.clock.now)
    return numbers


async def quiet(*futures: asyncio.Future[bytes]) -> None:
    """Look at every error, so that none is complained about."""
    await asyncio.gather(*futures, return_exceptions=True)
