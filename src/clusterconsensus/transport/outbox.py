"""What waits to be sent to one peer: a bounded queue of whole messages.

A full queue drops its *oldest* messages: in this protocol the newest say most (a later ballot, a
later commit sequence), a gap is noticed and filled by the receiver's answer (R3), and what is old
would be refused anyway. What waited long for a peer that still cannot be dialed is dropped for the
same reason. Messages are dropped whole, never cut.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container

from clusterconsensus.transport.common import Counters

MESSAGE_BYTES = 128
"""What a waiting message costs beside its content, so that many small ones count too."""
WRITE_BYTES = 256 * 1024
"""What waits is joined into writes of about this size."""


class _Waiting:
    """A message, or the closing of a channel, on its way."""

    __slots__ = ("channel", "cost", "is_message", "parts", "since")

    def __init__(
        self, channel: int, cost: int, parts: tuple[bytes, ...], since: float, is_message: bool
    ) -> None:
        self.channel = channel
        self.cost = cost
        self.parts = parts
        self.since = since
        self.is_message = is_message


class Outbox:
    """A queue of frames for one peer, at most ``limit`` bytes (or one message, if that is more).

    Arguments:
        limit: content and ``MESSAGE_BYTES`` of each message are counted against it.
        counters: where drops and what is taken are counted.
    """

    __slots__ = ("_counters", "_limit", "_waiting", "size")

    def __init__(self, limit: int, counters: Counters) -> None:
        self.size = 0
        self._limit = limit
        self._counters = counters
        self._waiting: deque[_Waiting] = deque()

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, channel: int, size: int, parts: tuple[bytes, ...], now: float) -> int:
        """Append a message's frame; returns how many old messages had to go for it."""
        cost = size + MESSAGE_BYTES
        self._waiting.append(_Waiting(channel, cost, parts, now, True))
        self.size += cost
        dropped = 0
        closings: list[_Waiting] = []
        while self.size > self._limit and len(self._waiting) > 1:
            oldest = self._waiting.popleft()
            if oldest.is_message:
                self.size -= oldest.cost
                dropped += 1
            else:
                closings.append(oldest)
        self._waiting.extendleft(reversed(closings))
        self._counters.dropped_queue_full += dropped
        return dropped

    def add_control(self, channel: int, frame: bytes) -> None:
        """Append a control message's frame, to leave after what waits already."""
        self._waiting.append(_Waiting(channel, 0, (frame,), 0.0, False))

    def take(self) -> bytes:
        """Remove frames from the front, joined for one write; empty when nothing waits."""
        pieces: list[bytes] = []
        gathered = messages = 0
        waiting = self._waiting
        while waiting and gathered < WRITE_BYTES:
            item = waiting.popleft()
            pieces.extend(item.parts)
            gathered += item.cost
            messages += item.is_message
        self.size -= gathered
        self._counters.messages_sent += messages
        self._counters.bytes_sent += gathered - messages * MESSAGE_BYTES
        return b"".join(pieces)

    def keep(self, channels: Container[int]) -> None:
        """Drop what waits on any other channel: a new connection will not know it."""
        kept = deque(item for item in self._waiting if item.channel in channels)
        gone = sum(item.is_message for item in self._waiting if item.channel not in channels)
        self._counters.dropped_not_attached += gone
        self._waiting = kept
        self.size = sum(item.cost for item in kept)

    def drop_before(self, time: float) -> None:
        """Drop the messages that were added before this time; only when none is a closing."""
        while self._waiting and self._waiting[0].since < time:
            self.size -= self._waiting.popleft().cost
            self._counters.dropped_stale += 1

    def clear(self) -> None:
        """Drop everything."""
        self._waiting.clear()
        self.size = 0
