"""The network between simulated machines, under the ``Transport`` port.

A message travels as one frame of the real wire format (``transport.wire``), and is cut out of the
stream again by the real parser at the other end. From each machine to each other there is one
connection at a time, made when it is first needed. It keeps its order, unless the fault injector
says otherwise; what it carries reaches the very process that it was made to, or nobody; and when it
breaks, what was under way is lost and the sender's participants are told (E13).

Faults are plain attributes, which the fault injector sets: the share of frames that are lost,
repeated, overtaken, garbled or late; the links that are cut, in one direction or both; the kinds of
message that do not pass.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Protocol

from clusterconsensus.consensus import messages
from clusterconsensus.consensus.types import Member
from clusterconsensus.errors import TransportError
from clusterconsensus.simulation.world.loop import SimulatedLoop, World
from clusterconsensus.transport.base import Receiver
from clusterconsensus.transport.wire import (
    FrameError,
    FrameParser,
    encode_frame,
    preamble,
)

MAX_MESSAGE_BYTES = 64 * 1024 * 1024
KEPT_FOR_REPLAY = 64
"""How many old frames the network keeps, to repeat one of them much later."""

KINDS: dict[int, str] = {
    int(kind.__struct_config__.tag or 0): kind.__name__ for kind in messages.Message.__args__
}
"""The name of a message by the tag on the wire."""


KEEP_EVERY = 4
"""Of how many messages one replaces an old one that is kept."""


def kind_of(content: bytes) -> str:
    """The kind of an encoded message, read off its tag; "?" if it has none that is known."""
    at = 2 + int.from_bytes(content[:2], "big") + 1
    return KINDS.get(content[at] if at < len(content) else -1, "?")


class Watcher(Protocol):
    """Who is told what the network does, for traces and diagrams."""

    def on_sent(self, source: str, target: str, content: bytes, repeated: bool) -> int:
        """A frame leaves; returns a number for it."""
        ...

    def on_fate(self, number: int, source: str, target: str, fate: str, frame: bytes) -> None:
        """What became of it: ``delivered`` or why not."""
        ...


class SimulatedTransport:
    """One process's end of the network. Made by ``Network.transport``."""

    max_message_bytes = MAX_MESSAGE_BYTES

    def __init__(self, network: Network, loop: SimulatedLoop, address: str) -> None:
        self.network = network
        self.loop = loop
        self.address = address
        self.receivers: dict[str, Receiver] = {}
        self.counts: Counter[str] = Counter()
        self.links: dict[str, Link] = {}

    async def attach(self, cluster: str, member: Member, receiver: Receiver) -> None:
        if cluster in self.receivers:
            raise TransportError(f"cluster {cluster!r} is attached already")
        if member.address != self.address:
            raise TransportError(f"{member.address} is not this machine's address {self.address}")
        if not self.receivers:
            self.network.listen(self)
        self.receivers[cluster] = receiver

    async def detach(self, cluster: str) -> None:
        self.receivers.pop(cluster, None)
        if not self.receivers:
            self.network.hang_up(self, told=True)

    def send(self, cluster: str, to: Member, parts: Sequence[bytes]) -> None:
        self.counts["messages_sent"] += 1
        self.network.send(self, cluster, to, b"".join(parts))

    def statistics(self) -> dict[str, int]:
        return dict(self.counts)


class Link:
    """One connection, from one process to another."""

    __slots__ = ("arrives_at", "broken", "cluster", "parser", "source", "target", "to")

    def __init__(
        self,
        source: SimulatedTransport,
        target: SimulatedTransport | None,
        to: Member,
        cluster: str,
    ) -> None:
        self.source = source
        self.target = target
        self.to = to
        self.cluster = cluster
        self.broken = target is None
        self.arrives_at = 0.0
        self.parser = FrameParser(MAX_MESSAGE_BYTES)
        head = preamble()
        self.parser.buffer()[: len(head)] = head
        self.parser.advance(len(head))


def _feed(parser: FrameParser, frame: bytes) -> list[tuple[int, bytes]]:
    """Give bytes to a parser as a socket would, and return the frames that are complete."""
    found: list[tuple[int, bytes]] = []
    rest = memoryview(frame)
    while rest:
        room = parser.buffer()
        count = min(len(room), len(rest))
        room[:count] = rest[:count]
        found += parser.advance(count)
        rest = rest[count:]
    return found


class Network:
    """All links of a world.

    Arguments:
        world: Whose time it lives in.
        chance: Delays and faults.
        watcher: Is told of every frame.

    Attributes:
        delay_seconds: How long a frame takes at least.
        jitter_seconds: Added at random, evenly.
        late: The share of frames that take up to ``late_seconds`` longer.
        loss, repeat, overtake, garble: Shares of frames, 0 to 1.
        cuts: Pairs of addresses between which nothing passes, in this direction.
        blocked_kinds: Kinds of message that are lost.
        filter: If set, is asked with source, target and content whether a frame is lost.
    """

    def __init__(self, world: World, chance: Random, watcher: Watcher) -> None:
        self._world = world
        self._chance = chance
        self._watcher = watcher
        self._listening: dict[str, SimulatedTransport] = {}
        self._old: list[tuple[Link, bytes]] = []
        """Messages that left once, for ``replay``."""
        self._old_submits: list[tuple[Link, bytes]] = []
        """Submits among them: what they could do twice matters most (I-15, X4)."""
        self._seen = 0
        self.machines_off: set[str] = set()
        """Addresses of machines without power: nobody refuses a connection there."""
        self.delay_seconds = 0.0002
        self.jitter_seconds = 0.0008
        self.late = 0.0
        self.late_seconds = 0.0
        self.loss = 0.0
        self.repeat = 0.0
        self.overtake = 0.0
        self.garble = 0.0
        self.cuts: set[tuple[str, str]] = set()
        self.blocked_kinds: set[str] = set()
        self.filter: Callable[[str, str, bytes], bool] | None = None
        self.counts: Counter[str] = Counter()

    def transport(self, loop: SimulatedLoop, address: str) -> SimulatedTransport:
        """A transport for one process at an address."""
        return SimulatedTransport(self, loop, address)

    # -- connections

    def listen(self, transport: SimulatedTransport) -> None:
        """A process takes connections from now on."""
        self._listening[transport.address] = transport

    def hang_up(self, transport: SimulatedTransport, *, told: bool) -> None:
        """A process is gone, and its connections with it; ``told`` is whether its machine says so
        (a dead process, whose kernel resets what it had) or is silent (a dead machine)."""
        if self._listening.get(transport.address) is transport:
            del self._listening[transport.address]
        for source in list(self._listening.values()):
            link = source.links.get(transport.address)
            if link is not None and link.target is transport:
                link.broken = True
                if told:
                    self._tell_broken(link)
        for link in transport.links.values():
            link.broken = True
        transport.links.clear()

    def break_link(self, source: str, target: str) -> None:
        """Reset the connection from one address to another, if there is one."""
        transport = self._listening.get(source)
        link = transport.links.get(target) if transport is not None else None
        if link is not None and not link.broken:
            link.broken = True
            self._tell_broken(link)

    def _tell_broken(self, link: Link) -> None:
        source = link.source
        if source.links.get(link.to.address) is link:
            del source.links[link.to.address]
        if (link.to.address, source.address) in self.cuts:
            return  # the news does not pass either
        delay = self.delay_seconds + self._chance.random() * self.jitter_seconds
        self._world.schedule(source.loop, self._world.now + delay, self._disconnected, (link,))

    def _disconnected(self, link: Link) -> None:
        for receiver in list(link.source.receivers.values()):
            receiver.disconnected(link.to)

    # -- frames

    def send(self, source: SimulatedTransport, cluster: str, to: Member, content: bytes) -> None:
        """Carry a message, or lose it."""
        link = source.links.get(to.address)
        if link is not None and link.broken:
            # It broke without a word: the machine lost power. Once it is back it says so.
            if to.address in self._listening:
                self._tell_broken(link)
        elif link is None:
            target = self._listening.get(to.address)
            link = Link(source, target, to, cluster)
            if target is not None:
                source.links[to.address] = link
            elif to.address not in self.machines_off and (
                (source.address, to.address) not in self.cuts
            ):
                self._tell_broken(link)  # refused
        repeated = self.repeat > 0.0 and self._chance.random() < self.repeat
        for again in range(2 if repeated else 1):
            number = self._watcher.on_sent(source.address, to.address, content, again > 0)
            fate = self._lost(link, content)
            if fate:
                self.counts[fate] += 1
                self._watcher.on_fate(number, source.address, to.address, fate, content)
            else:
                self._travel(link, content, number)

    def _lost(self, link: Link, content: bytes) -> str:
        pair = (link.source.address, link.to.address)
        if link.broken:
            return "refused"
        if pair in self.cuts:
            return "cut"
        if self.loss > 0.0 and self._chance.random() < self.loss:
            return "lost"
        if self.blocked_kinds and kind_of(content) in self.blocked_kinds:
            return "blocked"
        if self.filter is not None and self.filter(*pair, content):
            return "filtered"
        return ""

    def _travel(self, link: Link, content: bytes, number: int) -> None:
        chance = self._chance
        frame = encode_frame(1, (content,))
        when = self._world.now + self.delay_seconds + chance.random() * self.jitter_seconds
        if self.late > 0.0 and chance.random() < self.late:
            when += chance.random() ** 3 * self.late_seconds
        if self.overtake > 0.0 and chance.random() < self.overtake:
            when += chance.random() * 20 * self.jitter_seconds
        else:
            when = link.arrives_at = max(when, link.arrives_at)
        if self.garble > 0.0 and chance.random() < self.garble:
            frame = self._garbled(frame)
        self._seen += 1
        if self._seen % KEEP_EVERY == 0 or len(self._old) < KEPT_FOR_REPLAY:
            old = self._old_submits if kind_of(content) == "Submit" else self._old
            if len(old) < KEPT_FOR_REPLAY:
                old.append((link, content))
            else:
                old[chance.randrange(KEPT_FOR_REPLAY)] = (link, content)
        target = link.target
        assert target is not None
        self._world.schedule(target.loop, when, self._arrive, (link, frame, number))

    def _garbled(self, frame: bytes) -> bytes:
        damaged = bytearray(frame)
        if self._chance.random() < 0.3:
            return bytes(damaged[: self._chance.randrange(len(damaged))])  # reset inside a frame
        damaged[self._chance.randrange(len(damaged))] ^= 1 << self._chance.randrange(8)
        return bytes(damaged)

    def _arrive(self, link: Link, frame: bytes, number: int) -> None:
        source, target = link.source.address, link.to.address
        if link.broken or (source, target) in self.cuts:
            fate = "reset" if link.broken else "cut"
            self.counts[fate] += 1
            self._watcher.on_fate(number, source, target, fate, frame)
            return
        parser = link.parser
        contents: Sequence[tuple[int, bytes]]
        try:
            contents = _feed(parser, frame)
        except FrameError as error:
            contents = error.frames
            self._break(link)
        if not contents:
            self.counts["garbled"] += 1
            self._watcher.on_fate(number, source, target, "garbled", frame)
            self._break(link)
            return
        self._watcher.on_fate(number, source, target, "delivered", frame)
        self.deliver(link, [content for _, content in contents])

    def _break(self, link: Link) -> None:
        if not link.broken:
            link.broken = True
            self._tell_broken(link)

    def deliver(self, link: Link, contents: list[bytes]) -> None:
        """Hand messages to whoever listens for their cluster."""
        target = link.target
        if target is None:
            return
        target.counts["messages_received"] += len(contents)
        receiver = target.receivers.get(link.cluster)
        if receiver is not None:
            receiver.receive(contents)

    # -- what the fault injector does

    def heal(self) -> None:
        """Lose and repeat nothing any more, cut nothing, be quick; and reset what is stuck behind
        a frame that is very late."""
        self.loss = self.repeat = self.overtake = self.garble = self.late = 0.0
        self.delay_seconds, self.jitter_seconds = 0.0002, 0.0008
        self.blocked_kinds.clear()
        self.filter = None
        self.cuts.clear()
        for source in list(self._listening.values()):
            for link in list(source.links.values()):
                if link.arrives_at > self._world.now + 0.1 and not link.broken:
                    self._break(link)

    def replay(self) -> bool:
        """Have something old arrive once more: at the process it was for, if that still runs."""
        alive = [
            (link, content)
            for link, content in (*self._old, *self._old_submits)
            if link.target is not None and self._listening.get(link.to.address) is link.target
        ]
        if not alive:
            return False
        link, content = alive[self._chance.randrange(len(alive))]
        target = link.target
        assert target is not None
        number = self._watcher.on_sent(link.source.address, target.address, content, True)
        self._world.schedule(target.loop, self._world.now, self._again, (link, content, number))
        return True

    def _again(self, link: Link, content: bytes, number: int) -> None:
        source, target = link.source.address, link.to.address
        self._watcher.on_fate(number, source, target, "delivered", content)
        self.deliver(link, [content])

    def misdeliver(self) -> bool:
        """Have something old arrive at a machine that it was not for."""
        addresses = sorted(self._listening)
        if not self._old or not addresses:
            return False
        link, content = self._old[self._chance.randrange(len(self._old))]
        target = self._listening[addresses[self._chance.randrange(len(addresses))]]
        wrong = Link(link.source, target, link.to, link.cluster)
        self._world.schedule(target.loop, self._world.now, self.deliver, (wrong, [content]))
        return True
