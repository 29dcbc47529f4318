"""Telling the application what happens: the event handler, and the readers of ``events()``."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from clusterconsensus.errors import ApplyError
from clusterconsensus.runtime import outcomes
from clusterconsensus.runtime.status import (
    BecameMaster,
    Committed,
    EventHandler,
    LostMaster,
    ParticipantEvent,
    Trouble,
)


class EventStream:
    """What happened since ``events()`` was called, in order; ends when the participant stops.

    An asynchronous iterator. A reader that falls too far behind loses the oldest events and is
    told how many. Leaving it unread costs no more than its limit; ``aclose`` ends it.
    """

    def __init__(self, limit: int, commits: bool, on_close: Callable[[EventStream], None]) -> None:
        self.commits = commits
        self._events: deque[ParticipantEvent] = deque(maxlen=limit)
        self._arrived = asyncio.Event()
        self._on_close = on_close
        self._ended = False
        self._dropped = 0

    def put(self, event: ParticipantEvent) -> None:
        """Add an event."""
        self._dropped += len(self._events) == self._events.maxlen
        self._events.append(event)
        self._arrived.set()

    def end(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._arrived.set()

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> ParticipantEvent:
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        if self._dropped:
            detail = f"{self._dropped} events were dropped: their reader was too slow (max_events)"
            self._dropped = 0
            return Trouble("events_dropped", detail)
        return self._events.popleft()

    async def aclose(self) -> None:
        """Hear no more. Safe to repeat."""
        self.end()
        self._on_close(self)


class Publisher:
    """Tells the event handler and every stream.

    Arguments:
        handler: The application's, called first come first served, in the event loop.
        decode_result: The codec's.
        max_events: How many events wait for one reader.
    """

    def __init__(
        self, handler: EventHandler, decode_result: Callable[[bytes], Any], max_events: int
    ) -> None:
        self._handler = handler
        self._decode_result = decode_result
        self._max_events = max_events
        self._streams: list[EventStream] = []
        self._handles_commits = type(handler).on_commit is not EventHandler.on_commit
        self.collect: Callable[[bool], None] = lambda wanted: None
        """Is told whether changes and results are to be collected; set by the participant."""

    @property
    def wants_commits(self) -> bool:
        """Whether anybody wants to be told of commits."""
        return self._handles_commits or any(stream.commits for stream in self._streams)

    def open(self, commits: bool) -> EventStream:
        """A new stream, which hears everything from now on."""
        stream = EventStream(self._max_events, commits, self._forget)
        self._streams.append(stream)
        self.collect(self.wants_commits)
        return stream

    def _forget(self, stream: EventStream) -> None:
        if stream in self._streams:
            self._streams.remove(stream)
            self.collect(self.wants_commits)

    def publish(self, event: ParticipantEvent) -> None:
        """Tell of one event. What the handler raises is the caller's to deal with."""
        for stream in self._streams:
            stream.put(event)
        if isinstance(event, BecameMaster):
            self._handler.on_become_master()
        elif isinstance(event, LostMaster):
            self._handler.on_lose_master()

    def publish_commit(self, sequence: int, changes: list[Any], encoded: list[bytes]) -> None:
        """Tell of the changes of one entry."""
        results: list[Any] = []
        for outcome in encoded:
            try:
                results.append(outcomes.unpack(outcome, self._decode_result))
            except ApplyError as error:
                results.append(error)
        for stream in self._streams:
            if stream.commits:
                stream.put(Committed(sequence, changes, results))
        self._handler.on_commit(sequence, changes, results)

    def end(self) -> None:
        """The participant has stopped."""
        for stream in self._streams:
            stream.end()
