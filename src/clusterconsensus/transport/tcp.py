"""The TCP transport: many clusters over one listening socket and one connection pair per address.

Theory. TCP gives order and a sudden end; consensus needs whole messages, and to hear quickly of the
end. Each side dials for what it sends, so a connection carries messages in one direction and the
way back is left for refusals. Then who may dial whom, and which of two simultaneous connections
survives, are no questions at all, and either side notices the other's death on two sockets at once.

- ``wire``: what the bytes mean;
- ``peer``: the sending side, with its queue, dials and back-off;
- ``accept``: the receiving side, with its suspicion;
- this module: which cluster sends and receives through which of them.

Nothing runs before the first ``attach`` and nothing after the last ``detach``. A transport belongs
to the event loop that it is attached in and is not thread-safe. Bytes from the network, whatever
they are, raise nothing past this package. There is no encryption and no authentication here: the
checksums guard against accidents, not against an enemy; keep the port on a trusted network.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

import msgspec

from clusterconsensus.consensus.types import Member
from clusterconsensus.errors import TransportError
from clusterconsensus.settings import Settings
from clusterconsensus.transport.accept import Acceptor
from clusterconsensus.transport.address import parse_address
from clusterconsensus.transport.base import Receiver
from clusterconsensus.transport.common import Attachment, Counters, Environment
from clusterconsensus.transport.dialed import Channel
from clusterconsensus.transport.peer import Peer
from clusterconsensus.transport.wire import MAX_NAME_BYTES

LINGER_SECONDS = 0.5
"""How long ``detach`` lets what was sent before leave."""
MAX_PEERS = 1024
"""Addresses that one transport sends to; an unused one makes room for a new one."""


class TcpTransport:
    """Carries messages over TCP; implements ``Transport``.

    Arguments:
        address: ``"host:port"`` to listen on; an IPv6 host stands in brackets. Port 0 takes a free
            one, see ``address``. Peers reach this process at the ``Member.address`` given to
            ``attach``, which may differ (``"0.0.0.0:7001"`` here).
        settings: ``max_message_bytes`` and ``peer_queue_bytes`` are used.

    Raises:
        TransportError: the address cannot be parsed.
        SettingsError: settings that contradict themselves.
    """

    def __init__(self, address: str, *, settings: Settings | None = None) -> None:
        parse_address(address)
        self._address = address
        self._settings = (settings or Settings()).validate()
        self._counters = Counters()
        self._environment: Environment | None = None
        self._acceptor: Acceptor | None = None
        self._attachments: dict[str, Attachment] = {}
        self._peers: dict[str, Peer] = {}
        self._retiring: dict[Peer, None] = {}
        self._listening: str | None = None
        self._lock: tuple[asyncio.AbstractEventLoop, asyncio.Lock] | None = None

    @property
    def address(self) -> str:
        """The address given, and while listening with the port that is really used."""
        return self._listening or self._address

    async def attach(self, cluster: str, member: Member, receiver: Receiver) -> None:
        """Start to deliver what arrives for a cluster; listens from the first attachment on.

        Arguments:
            cluster: the cluster's name, at most 255 bytes in UTF-8.
            member: this process's member of it, as its peers know it.
            receiver: called in the event loop.

        Raises:
            TransportError: the address cannot be listened on, the cluster is attached already, a
                name is too long, or the transport is in use in another event loop.

        **Cancellation**: the cluster is not attached then.
        """
        for name in (cluster, member.id, member.address):
            if not name or len(name.encode()) > MAX_NAME_BYTES:
                raise TransportError(f"the name {name!r} must have 1 to {MAX_NAME_BYTES} bytes")
        async with self._exclusive():
            if cluster in self._attachments:
                raise TransportError(f"the cluster {cluster!r} is attached already")
            if self._environment is None or self._acceptor is None:
                environment, acceptor = await self._start()
            else:
                environment, acceptor = self._environment, self._acceptor
            attachment = Attachment(environment, cluster, member, receiver)
            self._attachments[cluster] = attachment
            acceptor.attached(attachment)

    async def _start(self) -> tuple[Environment, Acceptor]:
        loop = asyncio.get_running_loop()
        environment = Environment(loop, self._address, self._settings, self._counters)
        environment.attachments = self._attachments
        acceptor = Acceptor(environment, self._is_alive)
        try:
            self._listening = await acceptor.start()
        except BaseException:
            await acceptor.stop()
            raise
        environment.address = self._listening
        self._environment = environment
        self._acceptor = acceptor
        return environment, acceptor

    async def detach(self, cluster: str) -> None:
        """Stop to deliver. What was sent before is given ``LINGER_SECONDS`` to leave; after the
        last detachment nothing of the transport is left running. Safe to repeat.

        **Cancellation**: what was sent before may be lost; everything still ends, unless the call
        was still waiting for another ``attach`` or ``detach``.
        """
        async with self._exclusive():
            attachment = self._attachments.pop(cluster, None)
            if attachment is None:
                return
            attachment.is_live = False
            for channel in attachment.routes.values():
                channel.peer.close_channel(channel)
                if channel.peer.is_finishing:
                    self._retire(channel.peer)
            attachment.routes.clear()
            if self._acceptor is not None:
                self._acceptor.detached(attachment)
            leaving = list(self._retiring)
            try:
                if leaving:
                    await asyncio.wait([peer.done for peer in leaving], timeout=LINGER_SECONDS)
            finally:
                for peer in leaving:
                    peer.abort()
                if not self._attachments:
                    await self._stop()

    async def _stop(self) -> None:
        """End everything. Only waits for the loop to close sockets, which takes a few turns."""
        peers = [*self._peers.values(), *self._retiring]
        acceptor, self._acceptor = self._acceptor, None
        self._environment = None
        self._listening = None
        self._peers.clear()
        for peer in peers:
            peer.abort()
        if acceptor is not None:
            await acceptor.stop()
        if peers:
            await asyncio.wait([peer.done for peer in peers])
        # A connection broken off just before closes its socket in the next turn.
        await asyncio.sleep(0)

    def send(self, cluster: str, to: Member, parts: Sequence[bytes]) -> None:
        """Send the concatenation of ``parts`` as one message to a member.

        Never blocks and never raises. Messages to one member arrive in order while its connection
        stands. What cannot be sent is dropped whole and counted in ``statistics``.
        """
        attachment = self._attachments.get(cluster)
        if attachment is None:
            self._counters.dropped_not_attached += 1
            return
        channel = attachment.routes.get(to)
        if channel is None:
            channel = self._route(attachment, to)
            if channel is None:
                return
        channel.peer.send(channel, parts)

    @property
    def max_message_bytes(self) -> int:
        """The largest message, in bytes, from the settings of this transport."""
        return self._settings.max_message_bytes

    def statistics(self) -> dict[str, int]:
        """Counters since the transport was made (see ``common.Counters``), and how many of each
        are there now: ``now_listening``, ``now_connected``, ``now_accepted``, ``now_queued_bytes``.
        """
        numbers: dict[str, int] = msgspec.structs.asdict(self._counters)
        peers = self._peers.values()
        numbers["now_listening"] = int(self._listening is not None)
        numbers["now_connected"] = sum(peer.is_ready for peer in peers)
        numbers["now_accepted"] = len(self._acceptor.connections) if self._acceptor else 0
        numbers["now_queued_bytes"] = sum(peer.queue_bytes for peer in peers)
        return numbers

    # Inside

    def _exclusive(self) -> asyncio.Lock:
        """One attachment or detachment at a time; a transport may be used in one loop after
        another, but not in two at once."""
        loop = asyncio.get_running_loop()
        if self._lock is None or self._lock[0] is not loop:
            if self._environment is not None:
                raise TransportError(f"{self._address} is in use in another event loop")
            self._lock = (loop, asyncio.Lock())
        return self._lock[1]

    def _route(self, attachment: Attachment, to: Member) -> Channel | None:
        """The first message to this member: find or make its peer, and open a channel."""
        environment = self._environment
        if environment is None:
            self._counters.dropped_not_attached += 1
            return None
        peer = self._peers.get(to.address)
        if peer is None:
            try:
                host, port = parse_address(to.address)
                if port == 0:
                    raise TransportError(f"the address {to.address!r} has port 0")
            except TransportError as error:
                self._counters.dropped_bad_address += 1
                environment.complaints.warn(to.id, "address", str(error))
                return None
            if len(self._peers) >= MAX_PEERS and not self._evict(self._peers.values()):
                self._counters.dropped_too_many_peers += 1
                environment.complaints.warn(
                    to.address, "peers", f"there are {MAX_PEERS} peers in use already"
                )
                return None
            peer = Peer(environment, to.address, host, port, self._forget)
            self._peers[to.address] = peer
        channel = peer.open_channel(attachment, to)
        attachment.routes[to] = channel
        return channel

    def _evict(self, peers: Iterable[Peer]) -> bool:
        """Forget a peer that is not in use; False if there is none."""
        for peer in peers:
            if peer.is_unused:
                for channel in peer.channels.values():
                    channel.attachment.routes.pop(channel.member, None)
                self._retire(peer)
                peer.abort()
                return True
        return False

    def _retire(self, peer: Peer) -> None:
        """Let a peer that finishes do so by itself; its address may get a new one meanwhile."""
        if self._peers.get(peer.address) is peer:
            del self._peers[peer.address]
        if not peer.done.done():
            self._retiring[peer] = None

    def _forget(self, peer: Peer) -> None:
        self._retiring.pop(peer, None)

    def _is_alive(self, address: str) -> None:
        peer = self._peers.get(address)
        if peer is not None:
            peer.hurry()
