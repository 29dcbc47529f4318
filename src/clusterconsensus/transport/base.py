"""The transport port: how a participant reaches its peers.

One way, unordered as far as the protocol cares, may lose and may repeat; it must not block, and it
must not hand over bytes that were corrupted on the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from clusterconsensus.consensus.types import Member


class Receiver(Protocol):
    """What a participant offers to its transport. Called in the event loop; never raises."""

    def receive(self, messages: Sequence[bytes]) -> None:
        """Messages have arrived for this cluster, in order, as they were sent."""
        ...

    def disconnected(self, member: Member) -> None:
        """The connection to this member was reset, closed or refused: news that its process is
        gone (E13). Mere silence is not reported."""
        ...


class Transport(Protocol):
    """Carries whole messages between members. One transport serves any number of clusters."""

    async def attach(self, cluster: str, member: Member, receiver: Receiver) -> None:
        """Start to deliver what arrives for a cluster; listens from the first attachment on.

        Raises:
            TransportError: the address cannot be listened on, or the cluster is attached already.
        """
        ...

    async def detach(self, cluster: str) -> None:
        """Stop to deliver; after the last detachment nothing of the transport is left running.
        What was sent before is given a short, bounded time to leave. Safe to repeat."""
        ...

    def send(self, cluster: str, to: Member, parts: Sequence[bytes]) -> None:
        """Send the concatenation of ``parts`` as one message to a member.

        Never blocks and never raises: what cannot be sent soon is dropped and counted.
        """
        ...

    @property
    def max_message_bytes(self) -> int:
        """The largest message it carries. A participant refuses a transport that carries less than
        its own ``max_message_bytes``."""
        ...

    def statistics(self) -> dict[str, int]:
        """Counters since the start, by name: frames sent, dropped, refused and why."""
        ...
