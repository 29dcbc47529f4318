"""What the two directions of the TCP transport share: counters, complaints, attached clusters.

Everything hangs on an ``Environment``, of which there is one for each ``TcpTransport`` and running
loop: no state is global, so any number of transports live in one process.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from clusterconsensus.consensus.types import Member
from clusterconsensus.settings import Settings
from clusterconsensus.transport.base import Receiver
from clusterconsensus.transport.wire import Fault

if TYPE_CHECKING:
    from clusterconsensus.transport.dialed import Channel

logger = logging.getLogger("clusterconsensus.transport")

COMPLAINT_SECONDS = 60.0
"""The same complaint about the same peer is logged again after this long."""
MAX_COMPLAINTS = 256
"""Complaints remembered for that; beyond it the oldest is forgotten, and may be logged again."""


class Counters(msgspec.Struct):
    """What happened since the transport was made. Only ever counted up."""

    messages_sent: int = 0
    """Handed to the system's socket, which is not the same as arrived."""
    bytes_sent: int = 0
    messages_received: int = 0
    bytes_received: int = 0
    dropped_queue_full: int = 0
    """Messages that were the oldest in a full queue (``peer_queue_bytes``)."""
    dropped_stale: int = 0
    """Messages that waited too long for a peer that cannot be dialed."""
    dropped_too_large: int = 0
    """Messages above ``max_message_bytes``."""
    dropped_refused: int = 0
    """Messages for a cluster that the peer refuses for now."""
    dropped_not_attached: int = 0
    """Messages to or from a cluster that is not attached here, or closing."""
    dropped_bad_address: int = 0
    dropped_too_many_peers: int = 0
    dials: int = 0
    dials_failed: int = 0
    connected: int = 0
    """Dials that were welcomed."""
    connections_lost: int = 0
    """Welcomed connections that broke or were closed by the other side."""
    accepted: int = 0
    greeted: int = 0
    """Accepted connections whose hello was good."""
    handshake_timeouts: int = 0
    turned_away: int = 0
    """Accepted connections above a limit on their number."""
    refusals_sent: int = 0
    refusals_received: int = 0
    fault_foreign: int = 0
    fault_version: int = 0
    fault_oversized: int = 0
    fault_checksum: int = 0
    fault_malformed: int = 0
    fault_truncated: int = 0
    receiver_errors: int = 0
    """Exceptions out of a ``Receiver``."""
    disconnects: int = 0
    """Calls of ``Receiver.disconnected``."""

    def fault(self, fault: Fault) -> None:
        """Count a fault of a peer's bytes."""
        name = f"fault_{fault.value}"
        setattr(self, name, getattr(self, name) + 1)


class Complaints:
    """Logs a complaint about a peer once in a while, however often it has reason to."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._last: dict[tuple[str, str], float] = {}

    def warn(self, peer: str, kind: str, detail: str) -> None:
        """Log unless the same was logged lately. ``kind`` names the complaint."""
        key = (peer, kind)
        now = self._loop.time()
        last = self._last.pop(key, None)
        if last is None or now - last >= COMPLAINT_SECONDS:
            last = now
            logger.warning("%s: %s", peer, detail)
        while len(self._last) >= MAX_COMPLAINTS:
            del self._last[next(iter(self._last))]
        self._last[key] = last

    def forget(self, peer: str) -> None:
        """The peer is well again: its next complaint is news."""
        for key in [key for key in self._last if key[0] == peer]:
            del self._last[key]


class Attachment:
    """A cluster that is attached here: its name, its member here, and who receives."""

    __slots__ = ("_environment", "cluster", "is_live", "member", "receiver", "routes")

    def __init__(
        self, environment: Environment, cluster: str, member: Member, receiver: Receiver
    ) -> None:
        self._environment = environment
        self.cluster = cluster
        self.member = member
        self.receiver = receiver
        self.routes: dict[Member, Channel] = {}
        """The open channels to the cluster's other members."""
        self.is_live = True
        """False from the detachment on: the receiver is not called any more."""

    def receive(self, messages: Sequence[bytes]) -> None:
        """Hand messages over; an exception of the receiver ends here."""
        if not self.is_live:
            self._environment.counters.dropped_not_attached += len(messages)
            return
        try:
            self.receiver.receive(messages)
        except Exception:
            self._environment.counters.receiver_errors += 1
            logger.exception("the receiver of cluster %r failed on a message", self.cluster)

    def disconnected(self, member: Member) -> None:
        """Tell that a member's process is gone (E13)."""
        if not self.is_live:
            return
        self._environment.counters.disconnects += 1
        try:
            self.receiver.disconnected(member)
        except Exception:
            self._environment.counters.receiver_errors += 1
            logger.exception(
                "the receiver of cluster %r failed on the loss of %s", self.cluster, member
            )


class Environment:
    """What every connection of one transport needs to know, for one running loop."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, address: str, settings: Settings, counters: Counters
    ) -> None:
        self.loop = loop
        self.address = address
        self.settings = settings
        self.counters = counters
        self.random = random.Random()
        self.run = self.random.getrandbits(63)
        self.complaints = Complaints(loop)
        self.attachments: dict[str, Attachment] = {}
