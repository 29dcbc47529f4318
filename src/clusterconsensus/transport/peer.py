"""The sending side: one peer address, the connection dialed to it, and what waits for it.

A ``Peer`` is in one of four states::

    IDLE ──something to send──▶ DIALING ──connected──▶ GREETING ──Welcome──▶ READY
     ▲                            │                       │                    │
     └──── back-off, then IDLE ◀──┴───────failed──────────┴─────── lost ───────┘

Only in READY do messages leave; otherwise they wait in a bounded queue. Nothing is dialed for its
own sake: an idle peer that is gone costs nothing. After a failure the next dial waits 50 ms,
doubling to 2 s, times a random factor. A connection that lasted a second clears that, and so does
a hello from the peer itself: it is evidently alive.

**Latency.** While nothing waits, a message is written at once: one system call, no detour through
another turn of the loop. The members send each peer about one message a turn anyway.

**Limits.** Above a high-water mark of the connection's write buffer messages stay in the queue
(``outbox``), which drops its oldest when it is full. Messages that waited ``STALE_SECONDS`` for a
peer that still cannot be dialed are dropped too.

**News (E13).** Each attached cluster with a channel to the peer hears ``disconnected`` when the
connection ends by EOF or reset, when a dial is refused (so at most once per back-off attempt), and
when the peer refuses the cluster or the connection. A dial that times out, an unreachable network
or an unknown name is silence, and is not reported.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from enum import Enum, auto
from zlib import crc32

from clusterconsensus.consensus.types import Member
from clusterconsensus.transport.address import connect
from clusterconsensus.transport.common import Attachment, Environment, logger
from clusterconsensus.transport.dialed import Channel, DialedConnection
from clusterconsensus.transport.outbox import Outbox
from clusterconsensus.transport.wire import (
    HEADER,
    Accepted,
    Close,
    Control,
    Fault,
    FrameError,
    Hello,
    Refused,
    Welcome,
    encode_control,
    preamble,
)

DIAL_SECONDS = 2.0
"""A dial that has not connected after this long has failed."""
GREETING_SECONDS = 2.0
"""A peer that has not answered the hello after this long is given up."""
BACKOFF_SECONDS = 0.05
MAX_BACKOFF_SECONDS = 2.0
STABLE_SECONDS = 1.0
"""A connection that lasted this long was a success: the next dial does not wait."""
STALE_SECONDS = 5.0
"""A message that waited this long when a dial fails is dropped."""


class State(Enum):
    """Where a peer stands; see the module's docstring."""

    IDLE = auto()
    DIALING = auto()
    GREETING = auto()
    READY = auto()
    DONE = auto()


class Peer:
    """Everything that is sent to one address.

    Arguments:
        address: as members name it; ``host`` and ``port`` are its parts.
        on_done: called once, when nothing of the peer is left.
    """

    def __init__(
        self,
        environment: Environment,
        address: str,
        host: str,
        port: int,
        on_done: Callable[[Peer], None],
    ) -> None:
        self.address = address
        self.channels: dict[int, Channel] = {}
        self.done: asyncio.Future[None] = environment.loop.create_future()
        self._environment = environment
        self._loop = environment.loop
        self._counters = environment.counters
        self._host = host
        self._port = port
        self._on_done = on_done
        self._limit = environment.settings.max_message_bytes
        self._outbox = Outbox(environment.settings.peer_queue_bytes, environment.counters)
        self._state = State.IDLE
        self._direct = False
        """READY, not paused, and nothing waits."""
        self._paused = False
        self._finishing = False
        self._connection: DialedConnection | None = None
        self._task: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._failures = 0
        self._next_dial = 0.0
        self._last_dial = 0.0
        self._ready_since = 0.0
        self._last_number = 0

    @property
    def is_ready(self) -> bool:
        return self._state is State.READY

    @property
    def is_finishing(self) -> bool:
        return self._finishing

    @property
    def queue_bytes(self) -> int:
        """What waits."""
        return self._outbox.size

    @property
    def is_unused(self) -> bool:
        """Neither connected nor about to be, with nothing to send: may be forgotten."""
        return self._state is State.IDLE and not self._outbox

    # Channels

    def open_channel(self, attachment: Attachment, member: Member) -> Channel:
        """Make a channel, and announce it if the connection stands."""
        self._last_number += 1
        channel = Channel(self, self._last_number, attachment, member)
        self.channels[channel.number] = channel
        if self._state in (State.GREETING, State.READY):
            self._write(channel.announcement())
        return channel

    def close_channel(self, channel: Channel) -> None:
        """The cluster is detached. What it sent still leaves if the connection stands."""
        if len(self.channels) == 1:
            self.finish()  # the last one: the end of the connection says it all
            return
        del self.channels[channel.number]
        if self._state is State.GREETING:
            self._write(encode_control(Close(channel.number)))
        if self._state is State.READY:
            self._outbox.add_control(channel.number, encode_control(Close(channel.number)))
            self._flush()
        else:
            self._outbox.keep(self.channels)

    # Sending

    def send(self, channel: Channel, parts: Sequence[bytes]) -> None:
        """Send one message, now or when it can be; see the module's docstring."""
        size = 0
        number = crc = channel.number
        for part in parts:
            size += len(part)
            crc = crc32(part, crc)
        if size > self._limit:
            self._counters.dropped_too_large += 1
            logger.error(
                "a message of %d bytes for %s of cluster %r is above max_message_bytes (%d)",
                size,
                channel.member,
                channel.attachment.cluster,
                self._limit,
            )
            return
        if channel.refused_until and not self._asks_again(channel):
            self._counters.dropped_refused += 1
            return
        header = HEADER.pack(size, crc, number)
        connection = self._connection
        if self._direct and connection is not None:
            connection.transport.write(b"".join((header, *parts)))
            self._counters.messages_sent += 1
            self._counters.bytes_sent += size
            return
        self._enqueue(channel, size, (header, *parts))

    def _asks_again(self, channel: Channel) -> bool:
        """Whether a refused channel may be tried again; if so, announces it."""
        if self._loop.time() < channel.refused_until:
            return False
        channel.refused_until = 0.0
        if self._state in (State.GREETING, State.READY):
            self._write(channel.announcement())
        return True

    def _enqueue(self, channel: Channel, size: int, parts: tuple[bytes, ...]) -> None:
        if self._outbox.add(channel.number, size, parts, self._loop.time()):
            self._environment.complaints.warn(
                self.address,
                "queue full",
                f"more than peer_queue_bytes ({self._environment.settings.peer_queue_bytes}) wait "
                "to be sent; the oldest messages are dropped",
            )
        if self._state is State.IDLE:
            self._dial_when_due()

    def _flush(self) -> None:
        """Write what waits until the connection has enough."""
        connection, outbox = self._connection, self._outbox
        if self._state is not State.READY or connection is None:
            return
        while outbox and (not self._paused or self._finishing):
            connection.transport.write(outbox.take())
        self._direct = not (outbox or self._paused)

    def _write(self, frames: bytes) -> None:
        """Write control frames, ahead of whatever waits."""
        if self._connection is not None:
            self._connection.transport.write(frames)

    def pause_writing(self) -> None:
        self._paused = True
        self._direct = False

    def resume_writing(self) -> None:
        self._paused = False
        self._flush()

    # Dialing

    def hurry(self) -> None:
        """The peer has just greeted us, so it is alive: forget the back-off (bounded, because
        anybody can say hello in its name: not twice within the first delay)."""
        now = self._loop.time()
        self._failures = 0
        self._next_dial = min(self._next_dial, max(now, self._last_dial + BACKOFF_SECONDS))
        if self._state is State.IDLE and self._outbox:
            self._dial_when_due()

    def _dial_when_due(self) -> None:
        self._stop_timer()
        if self._loop.time() >= self._next_dial:
            self._dial()
        else:
            self._timer = self._loop.call_at(self._next_dial, self._dial)

    def _dial(self) -> None:
        self._timer = None
        self._state = State.DIALING
        self._last_dial = self._loop.time()
        self._counters.dials += 1
        self._task = self._loop.create_task(self._connect(), name=f"dial {self.address}")
        self._task.add_done_callback(self._dial_ended)

    def _dial_ended(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None
        if self._finishing:
            self._settle()

    async def _connect(self) -> None:
        try:
            async with asyncio.timeout(DIAL_SECONDS):
                sock = await connect(self._loop, self._host, self._port)
            await self._loop.create_connection(lambda: DialedConnection(self), sock=sock)
        except Exception as error:
            # A name can also fail to be encoded (UnicodeError): whatever it is, it is the dial
            # that failed, and a peer must not stay in DIALING for ever.
            reason = str(error) or type(error).__name__
            self._failed(f"cannot be dialed: {reason}", news=isinstance(error, ConnectionError))

    def greet(self, connection: DialedConnection) -> None:
        """A connection stands: say hello. Messages wait for the welcome, so that a refusal loses
        none of them; this costs one round trip per connection."""
        self._connection = connection
        self._state = State.GREETING
        self._paused = False
        self._timer = self._loop.call_later(GREETING_SECONDS, self._greeting_timeout)
        hello = encode_control(Hello(self._environment.address, self._environment.run))
        opens = [channel.announcement() for channel in self.channels.values()]
        self._write(b"".join((preamble(), hello, *opens)))

    def _greeting_timeout(self) -> None:
        self._counters.handshake_timeouts += 1
        self.break_off(f"has not answered the hello within {GREETING_SECONDS} s", news=False)

    def on_control(self, message: Control) -> None:
        """A control message came back on the dialed connection.

        Raises:
            FrameError: it is out of place.
        """
        match message:
            case Welcome() if self._state is State.GREETING:
                self._stop_timer()
                self._state = State.READY
                self._ready_since = self._loop.time()
                self._counters.connected += 1
            case Refused(channel=0, reason=reason):
                self._counters.refusals_received += 1
                self.break_off(f"refuses the connection: {reason[:200]!r}", news=True)
            case Refused(channel=number, reason=reason):
                self._counters.refusals_received += 1
                if (channel := self.channels.get(number)) is not None:
                    self._refused(channel, reason)
            case Accepted(channel=number):
                if (channel := self.channels.get(number)) is not None:
                    channel.refused_until = 0.0
                    channel.failures = 0
            case _:
                raise FrameError(
                    Fault.MALFORMED, f"an unexpected {type(message).__name__} came back"
                )

    def _refused(self, channel: Channel, reason: str) -> None:
        channel.refused_until = self._loop.time() + self._delay(channel.failures)
        channel.failures += 1
        self._environment.complaints.warn(
            self.address,
            f"refuses {channel.attachment.cluster}",
            f"refuses messages for cluster {channel.attachment.cluster!r}: {reason[:200]!r}",
        )
        channel.attachment.disconnected(channel.member)

    def flush_after_read(self) -> None:
        """All that came in one piece is handled; send what waited for it."""
        if self._state is State.READY:
            if self._finishing:
                self.finish()
            else:
                self._flush()

    # Failing

    def on_fault(self, error: FrameError) -> None:
        """What came back cannot be believed."""
        self._counters.fault(error.fault)
        # Another program at the peer's address means that the peer's own is not there.
        news = error.fault in (Fault.FOREIGN, Fault.VERSION)
        self.break_off(f"answers what cannot be believed: {error.detail}", news=news)

    def break_off(self, detail: str, *, news: bool) -> None:
        """End the connection from this side."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.transport.abort()
            self._failed(detail, news=news)

    def lost(self, connection: DialedConnection, error: Exception | None) -> None:
        """The connection ended, not by this side's doing unless it was finishing."""
        if connection is not self._connection:
            return
        self._connection = None
        if self._finishing:
            self._settle()
            return
        if self._state is State.READY:
            self._counters.connections_lost += 1
        # A timeout of the system's own (ETIMEDOUT) or an unreachable host is silence.
        news = error is None or isinstance(error, ConnectionError)
        self._failed(f"the connection is lost: {error or 'closed by the peer'}", news=news)

    def _failed(self, detail: str, *, news: bool) -> None:
        """A dial, a greeting or a connection has ended."""
        self._stop_timer()
        now = self._loop.time()
        if self._state is State.READY and now - self._ready_since >= STABLE_SECONDS:
            self._failures = 0
            self._next_dial = now
            for channel in self.channels.values():
                channel.failures = 0
            self._environment.complaints.forget(self.address)
            logger.info("%s: %s", self.address, detail)
        else:
            self._counters.dials_failed += 1
            self._next_dial = now + self._delay(self._failures)
            self._failures += 1
            self._environment.complaints.warn(self.address, "dial", detail)
        self._state = State.IDLE
        self._direct = self._paused = False
        for channel in self.channels.values():
            channel.refused_until = 0.0  # the next connection asks afresh
        if self._finishing:
            self._settle()
            return
        self._outbox.keep(self.channels)
        self._outbox.drop_before(now - STALE_SECONDS)
        if self._outbox:
            self._dial_when_due()
        if news:
            for channel in list(self.channels.values()):
                channel.attachment.disconnected(channel.member)

    def _delay(self, failures: int) -> float:
        longest = min(MAX_BACKOFF_SECONDS, BACKOFF_SECONDS * 2.0 ** min(failures, 16))
        return longest * self._environment.random.uniform(0.5, 1.0)

    # Ending

    def finish(self) -> None:
        """Send what waits if a connection stands or is about to, then end. ``done`` tells when."""
        self._finishing = True
        if self._state is State.READY and self._connection is not None:
            self._flush()
            self._direct = False
            self._connection.transport.close()
        elif self._state is State.IDLE or not self._outbox:
            self.abort()

    def abort(self) -> None:
        """End now. ``done`` tells when nothing is left."""
        self._finishing = True
        self._stop_timer()
        if self._connection is not None:
            self._connection.transport.abort()
        if self._task is not None:
            self._task.cancel()
        self._settle()

    def _settle(self) -> None:
        """The end, as soon as neither a connection nor a dial is left."""
        if self._connection is not None or self._task is not None or self._state is State.DONE:
            return
        self._state = State.DONE
        self._direct = False
        self._stop_timer()
        self._outbox.clear()
        self.channels.clear()
        if not self.done.done():
            self.done.set_result(None)
        self._on_done(self)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
