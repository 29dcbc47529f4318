"""The receiving side: the listening socket and the connections that peers dialed to it.

A stranger costs little: before its hello is good a connection has a small buffer, a short time, and
one of few places; a newcomer takes the place of the oldest of them, so that strangers who hold
places without a word do not keep a real peer out. After the hello it is one of a bounded number of
connections, in all and per host.

Whatever arrives is either believed or the connection is dropped: the fault is counted, logged once
in a while per host, and the process goes on. What was whole and intact before the fault is still
delivered.

All messages of one cluster that arrive in one read are handed over as one batch. The end of a
connection is news (E13) to every cluster that had a channel on it, about the member that opened the
channel, unless that member has meanwhile opened one on a newer connection of the same process.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from typing import cast

from clusterconsensus.consensus.types import Member
from clusterconsensus.errors import TransportError
from clusterconsensus.transport.address import format_address, parse_address
from clusterconsensus.transport.common import Attachment, Environment, logger
from clusterconsensus.transport.wire import (
    MAX_CONTROL_BYTES,
    MAX_NAME_BYTES,
    READ_BYTES,
    Accepted,
    Close,
    Control,
    Fault,
    FrameError,
    FrameParser,
    Hello,
    Open,
    Refused,
    Welcome,
    decode_control,
    encode_control,
    preamble,
)

HANDSHAKE_SECONDS = 3.0
"""A connection without a good hello is closed after this long; and one that is told to go."""
MAX_STRANGERS = 64
"""Connections without a good hello; the oldest makes room for a new one."""
MAX_CONNECTIONS = 1024
"""Accepted connections in all: far above the members of any cluster, below the usual limit of open
files."""
MAX_CONNECTIONS_PER_HOST = 256
"""The same from one IP address: many members may share a host, but none may take every place."""
MAX_CHANNELS = 1024
"""Open channels on one connection: the clusters that two processes share."""
MAX_REPLY_BYTES = 64 * 1024
"""Answers that a peer does not read; beyond it the connection is dropped."""
BACKLOG = 128
"""Connections that the system keeps for us until the loop accepts them."""
ITERATIONS_OF_AN_ACCEPT = 3
"""Iterations of the event loop from an accepted socket to ``connection_made``."""


class Inlet:
    """One open channel of an accepted connection: where its messages go, and from whom."""

    __slots__ = ("attachment", "cluster", "member", "number")

    def __init__(
        self, number: int, cluster: str, member: Member, attachment: Attachment | None
    ) -> None:
        self.number = number
        self.cluster = cluster
        self.member = member
        self.attachment = attachment
        """None while the cluster is not attached here."""


class Acceptor:
    """Listens, and keeps the accepted connections within their limits.

    Arguments:
        on_alive: called with the address of a member that has just opened a channel.
    """

    def __init__(self, environment: Environment, on_alive: Callable[[str], None]) -> None:
        self.environment = environment
        self.on_alive = on_alive
        self.connections: dict[AcceptedConnection, None] = {}
        self.strangers: dict[AcceptedConnection, None] = {}
        """Those without a good hello, the oldest first."""
        self.holders: dict[tuple[str, str], AcceptedConnection] = {}
        """By cluster and member id: the connection on which that member spoke last."""
        self._hosts: dict[str, int] = {}
        self.stopped = False
        self._server: asyncio.Server | None = None
        self._emptied: asyncio.Future[None] | None = None

    async def start(self) -> str:
        """Listen, and return the address with the port that is really used.

        Raises:
            TransportError: naming the address and the system's reason.
        """
        address = self.environment.address
        host, port = parse_address(address)
        try:
            self._server = await self.environment.loop.create_server(
                lambda: AcceptedConnection(self), host, port, backlog=BACKLOG
            )
        except (OSError, UnicodeError) as error:
            reason = str(error)
            if isinstance(error, OSError) and not isinstance(error, socket.gaierror):
                reason = os.strerror(error.errno) if error.errno else reason
            raise TransportError(f"cannot listen on {address}: {reason}") from error
        bound: int = self._server.sockets[0].getsockname()[1]
        return format_address(host, bound)

    async def stop(self) -> None:
        """Stop to listen and drop every connection; returns when all are gone."""
        self.stopped = True
        if self._server is not None:
            # The loop makes a connection over several of its iterations, and a server that is
            # closed in between leaves it unclosed. So first accept no more, then let those that
            # were accepted be made (they drop themselves), and only then close.
            for sock in self._server.sockets:
                self.environment.loop.remove_reader(sock.fileno())
            for _ in range(ITERATIONS_OF_AN_ACCEPT):
                await asyncio.sleep(0)
            self._server.close()
        for connection in list(self.connections):
            connection.drop()
        if self.connections:
            self._emptied = self.environment.loop.create_future()
            await self._emptied
        if self._server is not None:
            await self._server.wait_closed()
            self._server = None

    def attached(self, attachment: Attachment) -> None:
        """Take the channels that were refused because this cluster was not here."""
        for connection in list(self.connections):
            connection.attached(attachment)

    def detached(self, attachment: Attachment) -> None:
        """Refuse the channels of a cluster from now on."""
        for connection in list(self.connections):
            connection.detached(attachment)

    def admit(self, connection: AcceptedConnection) -> str | None:
        """Count a new connection in; returns the reason if there is no place for it."""
        self.environment.counters.accepted += 1
        here = self._hosts.get(connection.host, 0)
        self._hosts[connection.host] = here + 1
        crowded = len(self.connections)
        self.connections[connection] = None
        if crowded >= MAX_CONNECTIONS:
            return f"there are {MAX_CONNECTIONS} connections already"
        if here >= MAX_CONNECTIONS_PER_HOST:
            return f"there are {MAX_CONNECTIONS_PER_HOST} connections from this host already"
        if len(self.strangers) >= MAX_STRANGERS:
            oldest = next(iter(self.strangers))
            del self.strangers[oldest]
            self.environment.counters.turned_away += 1
            oldest.drop()
        self.strangers[connection] = None
        return None

    def gone(self, connection: AcceptedConnection) -> None:
        """Count an ended connection out."""
        self.connections.pop(connection, None)
        self.strangers.pop(connection, None)
        here = self._hosts[connection.host] - 1
        if here:
            self._hosts[connection.host] = here
        else:
            del self._hosts[connection.host]
        if not self.connections and self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)


class AcceptedConnection(asyncio.BufferedProtocol):
    """A connection that a peer dialed: its messages come in, short answers go back."""

    transport: asyncio.Transport

    def __init__(self, acceptor: Acceptor) -> None:
        self.host = "?"
        self.run: int | None = None
        """The peer's run number; None until its hello was good."""
        self._acceptor = acceptor
        self._environment = acceptor.environment
        self._counters = acceptor.environment.counters
        self._parser = FrameParser(MAX_CONTROL_BYTES)
        self._inlets: dict[int, Inlet] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._dropped = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        sock = self.transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # Nothing is sent on this side, so only the system can notice that a host is gone.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peername = self.transport.get_extra_info("peername")
        self.host = str(peername[0]) if peername else "?"
        self._timer = self._environment.loop.call_later(HANDSHAKE_SECONDS, self._timeout)
        self.transport.write(preamble())
        reason = self._acceptor.admit(self)
        if reason is not None:
            self._counters.turned_away += 1
            self._environment.complaints.warn(self.host, "crowd", f"is turned away: {reason}")
            self._refuse(reason)
        if self._acceptor.stopped:
            self.drop()

    # Reading

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._parser.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        if self._dropped:
            return
        try:
            frames = self._parser.advance(nbytes)
        except FrameError as error:
            self._handle(error.frames)
            self._fault(error)
        else:
            self._handle(frames)

    def _handle(self, frames: list[tuple[int, bytes]]) -> None:
        """Deliver messages, batched by channel, and obey control messages, in order."""
        batches: dict[int, list[bytes]] = {}
        try:
            for channel, content in frames:
                if channel:
                    batch = batches.get(channel)
                    if batch is None:
                        batches[channel] = [content]
                    else:
                        batch.append(content)
                    continue
                if batches:
                    self._deliver(batches)
                    batches = {}
                if self._dropped:
                    return
                self._on_control(decode_control(content))
            if batches:
                self._deliver(batches)
        except FrameError as error:
            self._fault(error)

    def _deliver(self, batches: dict[int, list[bytes]]) -> None:
        counters = self._counters
        for channel, messages in batches.items():
            if self._dropped:
                return
            inlet = self._inlets.get(channel)
            if inlet is None:
                raise FrameError(Fault.MALFORMED, f"a message on channel {channel}, never opened")
            if inlet.attachment is None:
                counters.dropped_not_attached += len(messages)
                continue
            counters.messages_received += len(messages)
            counters.bytes_received += sum(map(len, messages))
            inlet.attachment.receive(messages)

    def _on_control(self, message: Control) -> None:
        if isinstance(message, Hello):
            if self.run is not None:
                raise FrameError(Fault.MALFORMED, "a second hello")
            self._greeted(message)
        elif self.run is None:
            raise FrameError(Fault.MALFORMED, "the first message is not a hello")
        elif isinstance(message, Open):
            self._open(message)
        elif isinstance(message, Close):
            inlet = self._inlets.pop(message.channel, None)
            if inlet is not None:
                self._left(inlet)
        else:
            raise FrameError(Fault.MALFORMED, f"an unexpected {type(message).__name__}")

    def _greeted(self, hello: Hello) -> None:
        self.run = hello.run
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._acceptor.strangers.pop(self, None)
        self._counters.greeted += 1
        self._parser.limit = self._environment.settings.max_message_bytes
        self._parser.read_bytes = READ_BYTES
        self._reply(Welcome(self._environment.address))

    def _open(self, message: Open) -> None:
        names = (message.cluster, message.id, message.address)
        if any(len(name.encode()) > MAX_NAME_BYTES for name in names):
            raise FrameError(Fault.MALFORMED, f"a name is longer than {MAX_NAME_BYTES} bytes")
        if len(self._inlets) >= MAX_CHANNELS and message.channel not in self._inlets:
            raise FrameError(Fault.MALFORMED, f"more than {MAX_CHANNELS} channels are open")
        member = Member(message.id, message.address)
        earlier = self._inlets.get(message.channel)
        if earlier is not None and (earlier.cluster, earlier.member) != (message.cluster, member):
            raise FrameError(Fault.MALFORMED, f"channel {message.channel} is open for another")
        attachment = self._environment.attachments.get(message.cluster)
        inlet = Inlet(message.channel, message.cluster, member, attachment)
        self._inlets[message.channel] = inlet
        if attachment is None:
            self._environment.complaints.warn(
                self.host,
                "cluster",  # not its name: a stranger may invent any number of them
                f"sends for cluster {message.cluster!r}, which is not attached here: refused",
            )
            self._refuse_channel(inlet)
        else:
            self._hold(inlet)

    def _hold(self, inlet: Inlet) -> None:
        """From now on the member speaks on this connection."""
        key = (inlet.cluster, inlet.member.id)
        earlier = self._acceptor.holders.get(key)
        self._acceptor.holders[key] = self
        if earlier is not None and earlier is not self:
            if earlier.run == self.run:
                earlier.drop()  # one process dials us once, so it has given that one up
            elif inlet.attachment is not None:
                inlet.attachment.disconnected(inlet.member)  # it was restarted
        self._acceptor.on_alive(inlet.member.address)

    def _left(self, inlet: Inlet) -> None:
        """The member does not speak here any more; is that news?"""
        key = (inlet.cluster, inlet.member.id)
        if self._acceptor.holders.get(key) is self:
            del self._acceptor.holders[key]
            if inlet.attachment is not None:
                inlet.attachment.disconnected(inlet.member)

    # Clusters that come and go

    def attached(self, attachment: Attachment) -> None:
        if self._dropped:
            return
        for inlet in self._inlets.values():
            if inlet.cluster == attachment.cluster and inlet.attachment is None:
                inlet.attachment = attachment
                self._reply(Accepted(inlet.number))
                self._hold(inlet)

    def detached(self, attachment: Attachment) -> None:
        for inlet in self._inlets.values():
            if inlet.attachment is attachment:
                inlet.attachment = None
                self._acceptor.holders.pop((inlet.cluster, inlet.member.id), None)
                self._refuse_channel(inlet)

    # Answering and ending

    def _reply(self, message: Control) -> None:
        if self._dropped or self.transport.is_closing():
            return
        self.transport.write(encode_control(message))
        if self.transport.get_write_buffer_size() > MAX_REPLY_BYTES:
            self._fault(FrameError(Fault.MALFORMED, "the answers are not read"))

    def _refuse_channel(self, inlet: Inlet) -> None:
        self._counters.refusals_sent += 1
        self._reply(Refused(inlet.number, f"cluster {inlet.cluster!r} is not attached here"))

    def _refuse(self, reason: str) -> None:
        """Say why, and end. What still comes in is thrown away until the peer closes, for a
        bounded time: to close with unread bytes would reset the connection and lose the reason."""
        self._dropped = True
        self._counters.refusals_sent += 1
        if not self.transport.is_closing():
            self.transport.write(encode_control(Refused(0, reason[:MAX_NAME_BYTES])))
            self.transport.write_eof()
        if self._timer is None:
            self._timer = self._environment.loop.call_later(HANDSHAKE_SECONDS, self.drop)

    def _fault(self, error: FrameError) -> None:
        """Bytes that cannot be believed: drop the connection."""
        if self._dropped:
            return
        self._counters.fault(error.fault)
        self._environment.complaints.warn(
            self.host, error.fault.value, f"the connection is dropped: {error.detail}"
        )
        self._refuse(error.detail)

    def _timeout(self) -> None:
        self._timer = None
        if not self._dropped:
            self._counters.handshake_timeouts += 1
            self._environment.complaints.warn(
                self.host, "handshake", f"has not said hello within {HANDSHAKE_SECONDS} s"
            )
        self.drop()

    def drop(self) -> None:
        """End the connection now."""
        self._dropped = True
        self.transport.abort()

    def eof_received(self) -> bool:
        partial = self._parser.partial
        if partial and not self._dropped:
            self._counters.fault(Fault.TRUNCATED)
            logger.debug("%s: the stream ended inside a frame, after %d bytes", self.host, partial)
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._acceptor.gone(self)
        silent = exc is not None and not isinstance(exc, ConnectionError)
        inlets, self._inlets = self._inlets, {}
        for inlet in inlets.values():
            if silent:
                # Keepalive gave up, or the network is unreachable: silence, not news.
                self._acceptor.holders.pop((inlet.cluster, inlet.member.id), None)
            else:
                self._left(inlet)
