"""What all parts of a simulated cluster share: its members, the links between them, one clock."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import msgspec

from clusterconsensus.consensus import events
from clusterconsensus.consensus.local import Limits
from clusterconsensus.consensus.messages import Message
from clusterconsensus.consensus.types import NOBODY, Incarnation
from clusterconsensus.simulation.cores.ghost import CoreGhost
from clusterconsensus.simulation.cores.member import Member
from clusterconsensus.simulation.cores.notes import UNNUMBERED, Notes

encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True)
class Packet:
    """A message under way."""

    source: Incarnation
    data: bytes
    kind: str
    number: int = UNNUMBERED
    """In the notes, if there are any."""
    to: Incarnation = NOBODY
    """Whom it is for; another disk at the same address gets nothing (I4)."""


class World:
    """Members, the network between them, and one clock.

    Arguments:
        limits: For every member.
        chance: Gives a number in [0, 1) each time it is called.
    """

    def __init__(
        self, limits: Limits | None = None, chance: Callable[[], float] | None = None
    ) -> None:
        self.limits = limits or Limits()
        self.chance = chance or (lambda: 0.5)
        self.now = 0.0
        self.members: dict[Incarnation, Member] = {}
        self.by_id: dict[str, Member] = {}
        self.links: dict[tuple[str, str], list[Packet]] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.ghost = CoreGhost(self.members)
        self.notes: Notes | None = None
        """Where everything is written down for a drawing."""
        self.told: list[str] = []
        self.tells = False
        self.tells_details = True
        """Whether messages and writes are told too."""
        self.next_attempt = 1
        self.turns = 0

    def say(self, text: str, *, detail: bool = False) -> None:
        if self.tells and (self.tells_details or not detail):
            self.told.append(text)
        if self.notes is not None:
            self.notes.recorder.say(text)

    def post(self, member: Member, event: events.Event) -> None:
        """Put an event into a member's inbox; the next turn takes it."""
        member.inbox.append(event)

    def send(self, source: Member, target: Member, packet: Packet) -> None:
        is_cut = (source.id, target.id) in self.cuts
        packet = replace(packet, to=target.name)
        if self.notes is not None:
            packet = self.notes.sent(source.id, target.id, packet)
            if is_cut:
                self.notes.ended(target.id, packet, "cut")
        if not is_cut:
            self.links.setdefault((source.id, target.id), []).append(packet)

    def turn(self, member: Member, happened: Iterable[events.Event] = ()) -> None:
        """One turn of a member with what is in its inbox and these events."""
        raise NotImplementedError

    def post_packet(self, member: Member, to: Incarnation, message: Message) -> None:
        packet = Packet(member.name, encode(message), type(message).__name__.lower())
        self.send(member, self.members[to], packet)

    def cut(self, source: str, target: str, *, both: bool = True) -> None:
        """Lose everything on a link from now on, what is under way included."""
        for link in [(source, target), (target, source)] if both else [(source, target)]:
            self.cuts.add(link)
            lost = self.links.pop(link, [])
            if self.notes is not None:
                self.notes.cut(*link)
                for packet in lost:
                    self.notes.ended(link[1], packet, "cut")
