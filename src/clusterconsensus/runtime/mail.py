"""What leaves: the address and the envelope of every message.

A message for several members is encoded once. Address and header of each member of the
configuration are kept until the configuration changes.
"""

from __future__ import annotations

from collections.abc import Sequence

from clusterconsensus.consensus.effects import Contact, Send
from clusterconsensus.consensus.log import Log
from clusterconsensus.consensus.messages import Message, Refusal, SubmitReply
from clusterconsensus.consensus.types import Incarnation, Member
from clusterconsensus.runtime.envelope import Gate, encode_message
from clusterconsensus.transport.base import Transport


class Mail:
    """Sends for one member.

    Arguments:
        cluster: The cluster's name.
        transport: What carries the messages.
        gate: Makes the headers; knows where members outside the configuration were heard from.
        log: Holds the configuration in force.
        max_reply_bytes: About how much of outcomes one reply carries.
    """

    def __init__(
        self, cluster: str, transport: Transport, gate: Gate, log: Log, max_reply_bytes: int
    ) -> None:
        self._cluster = cluster
        self._transport = transport
        self._gate = gate
        self._log = log
        self._max_reply_bytes = max_reply_bytes
        self._routes: dict[Incarnation, tuple[Member, bytes]] = {}

    def forget_routes(self) -> None:
        """The configuration or the own cluster has changed."""
        self._routes.clear()

    def on_send(self, effect: Send) -> None:
        """Send as the core asks."""
        body = encode_message(effect.message)
        for name in effect.to:
            self._send(name, body)

    def on_contact(self, effect: Contact) -> None:
        """Send to whoever answers at an address (I2)."""
        header = self._gate.header(effect.to.id, "")
        body = encode_message(effect.message)
        self._transport.send(self._cluster, effect.to, (header, body))

    def send(self, name: Incarnation, message: Message) -> None:
        """Send one message to one member."""
        self._send(name, encode_message(message))

    def reply(self, name: Incarnation, attempt: int, found: Sequence[bytes | None]) -> None:
        """Tell another member the outcomes of its group, in messages of bounded size."""
        start = size = 0
        for place, outcome in enumerate((*found, None)):
            full = place > start and size + len(outcome or b"") > self._max_reply_bytes
            if full or place == len(found):
                part = tuple(found[start:place])
                self.send(name, SubmitReply(attempt, Refusal.NONE, part, start))
                start, size = place, 0
            size += len(outcome or b"")

    def _send(self, name: Incarnation, body: bytes) -> None:
        route = self._routes.get(name)
        if route is None:
            seat = self._log.configuration.seat(name)
            member = seat.member if seat is not None else self._gate.address_of(name)
            if member is None:
                return
            member_id, _, disk_id = name.partition("@")
            route = (member, self._gate.header(member_id, disk_id))
            if seat is not None:
                self._routes[name] = route
        self._transport.send(self._cluster, route[0], (route[1], body))
