"""The parts of a peer: the channels through its connection, and the connection itself.

``DialedConnection`` is the thin asyncio side of a ``Peer``; all decisions are the peer's. A peer
has one connection after another, and tells by identity which of them is speaking.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, cast

from clusterconsensus.consensus.types import Member
from clusterconsensus.transport.common import Attachment
from clusterconsensus.transport.wire import (
    MAX_CONTROL_BYTES,
    Fault,
    FrameError,
    FrameParser,
    Open,
    decode_control,
    encode_control,
)

if TYPE_CHECKING:
    from clusterconsensus.transport.peer import Peer

HIGH_WATER_BYTES = 1024 * 1024
"""Above this the connection's write buffer takes no more; below ``LOW_WATER_BYTES`` it does."""
LOW_WATER_BYTES = 256 * 1024


class Channel:
    """The way of one cluster to one member through a peer's connection."""

    __slots__ = ("attachment", "failures", "member", "number", "peer", "refused_until")

    def __init__(self, peer: Peer, number: int, attachment: Attachment, member: Member) -> None:
        self.peer = peer
        self.number = number
        self.attachment = attachment
        self.member = member
        self.refused_until = 0.0
        """While the peer refuses the cluster: when to ask again. 0 when it does not."""
        self.failures = 0

    def announcement(self) -> bytes:
        """The frame that opens this channel."""
        own = self.attachment.member
        return encode_control(Open(self.number, self.attachment.cluster, own.id, own.address))


class DialedConnection(asyncio.BufferedProtocol):
    """A connection to a peer. Only control messages come back on it."""

    transport: asyncio.Transport

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self._parser = FrameParser(MAX_CONTROL_BYTES)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.get_extra_info("socket").setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )
        self.transport.set_write_buffer_limits(high=HIGH_WATER_BYTES, low=LOW_WATER_BYTES)
        self._peer.greet(self)

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._parser.buffer()

    def buffer_updated(self, nbytes: int) -> None:
        try:
            for channel, content in self._parser.advance(nbytes):
                if self.transport.is_closing():
                    return
                if channel:
                    raise FrameError(Fault.MALFORMED, "a message came back on a dialed connection")
                self._peer.on_control(decode_control(content))
        except FrameError as error:
            self._peer.on_fault(error)
        else:
            self._peer.flush_after_read()

    def eof_received(self) -> bool:
        # The peer's process is gone or closes: what is buffered would never be read (E13).
        self.transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._peer.lost(self, exc)

    def pause_writing(self) -> None:
        self._peer.pause_writing()

    def resume_writing(self) -> None:
        self._peer.resume_writing()
