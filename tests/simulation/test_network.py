"""The simulated network: order, faults, connections, and who is told that they broke."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random

import pytest

from clusterconsensus.consensus.types import Member
from clusterconsensus.errors import TransportError
from clusterconsensus.simulation.world.loop import World
from clusterconsensus.simulation.world.network import Network, SimulatedTransport

A, B, C = Member("a", "a"), Member("b", "b"), Member("c", "c")


class Watched:
    """A watcher that counts fates."""

    def __init__(self) -> None:
        self.fates: list[str] = []
        self.sent = 0

    def on_sent(self, source: str, target: str, content: bytes, repeated: bool) -> int:
        self.sent += 1
        return self.sent

    def on_fate(self, number: int, source: str, target: str, fate: str, frame: bytes) -> None:
        self.fates.append(fate)


class Box:
    """A receiver."""

    def __init__(self) -> None:
        self.got: list[bytes] = []
        self.broken: list[str] = []

    def receive(self, messages: Sequence[bytes]) -> None:
        self.got.extend(messages)

    def disconnected(self, member: Member) -> None:
        self.broken.append(member.id)


class Net:
    """A network with three processes on it."""

    def __init__(self, seed: int = 1) -> None:
        self.world = World(seed)
        self.watched = Watched()
        self.network = Network(self.world, Random(seed), self.watched)
        self.ends: dict[str, SimulatedTransport] = {}
        self.boxes: dict[str, Box] = {}
        for member in (A, B, C):
            self.join(member)

    def join(self, member: Member) -> None:
        end = self.network.transport(self.world.make_loop(member.id), member.address)
        box = Box()
        self.ends[member.id], self.boxes[member.id] = end, box
        self.world.run(end.attach("shop", member, box))

    def send(self, source: str, to: Member, *contents: bytes) -> None:
        for content in contents:
            self.ends[source].send("shop", to, (content[:1], content[1:]))

    def rest(self, seconds: float = 1.0) -> None:
        self.world.run(asyncio.sleep(seconds))


def numbered(count: int) -> list[bytes]:
    return [b"\0\0\x90" + str(number).encode() for number in range(count)]


def test_messages_arrive_whole_and_in_order() -> None:
    net = Net()
    net.send("a", B, *numbered(50), b"x" * 300_000)
    net.send("c", B, b"from c")
    net.rest()
    got = net.boxes["b"].got
    assert [content for content in got if content != b"from c"] == [*numbered(50), b"x" * 300_000]
    assert got.count(b"from c") == 1
    assert net.boxes["a"].got == []


def test_lost_repeated_and_overtaken() -> None:
    net = Net()
    net.network.loss = 0.5
    net.send("a", B, *numbered(200))
    net.rest()
    assert 60 < len(net.boxes["b"].got) < 140
    net.network.loss = 0.0
    net.network.repeat = 1.0
    net.send("a", C, b"\0\0\x90twice")
    net.rest()
    assert net.boxes["c"].got == [b"\0\0\x90twice"] * 2
    net.network.repeat = 0.0
    net.network.overtake = 0.5
    net.send("b", A, *numbered(100))
    net.rest()
    assert net.boxes["a"].got != numbered(100)
    assert sorted(net.boxes["a"].got) == sorted(numbered(100))


def test_a_cut_works_in_one_direction_and_loses_what_is_under_way() -> None:
    net = Net()
    net.send("a", B, b"under way")
    net.network.cuts.add(("a", "b"))
    net.send("a", B, b"cut")
    net.send("b", A, b"back")
    net.rest()
    assert net.boxes["b"].got == []
    assert net.boxes["a"].got == [b"back"]
    assert net.watched.fates.count("cut") == 2
    net.network.heal()
    net.send("a", B, b"again")
    net.rest()
    assert net.boxes["b"].got == [b"again"]


def test_garbled_frames_are_noticed_and_cost_the_connection() -> None:
    net = Net()
    net.network.garble = 1.0
    net.send("a", B, b"\0\0\x90never")
    net.rest()
    net.network.garble = 0.0
    assert net.boxes["b"].got == []
    assert net.boxes["a"].broken == ["b"]
    net.send("a", B, b"whole")
    net.rest()
    assert net.boxes["b"].got == [b"whole"]


def test_no_garbled_frame_is_ever_believed() -> None:
    net = Net()
    net.network.garble = 0.3
    sent = numbered(400)
    for content in sent:
        net.send("a", B, content)
        net.rest(0.01)
    assert set(net.boxes["b"].got) <= set(sent)
    assert net.network.counts["garbled"] > 50


def test_a_dead_process_is_news_and_a_dead_machine_is_silence() -> None:
    net = Net()
    net.send("a", B, b"1")
    net.rest()
    net.network.hang_up(net.ends["b"], told=True)
    net.rest()
    assert net.boxes["a"].broken == ["b"]
    net.send("a", B, b"refused")
    net.rest()
    assert net.boxes["a"].broken == ["b", "b"]
    net.send("a", C, b"1")
    net.rest()
    net.network.machines_off.add("c")
    net.network.hang_up(net.ends["c"], told=False)
    net.send("a", C, b"into nothing")
    net.rest(60)
    assert net.boxes["a"].broken == ["b", "b"]
    net.network.machines_off.discard("c")
    net.join(C)
    net.send("a", C, b"the old connection")
    net.rest()
    net.send("a", C, b"a new one")
    net.rest()
    assert net.boxes["a"].broken == ["b", "b", "c"]
    assert net.boxes["c"].got == [b"a new one"]


def test_what_was_sent_to_one_process_never_reaches_the_next() -> None:
    """A late message of an earlier connection could be taken for a new one (X4)."""
    net = Net()
    net.network.late, net.network.late_seconds = 1.0, 50.0
    net.send("a", B, *numbered(20))
    net.network.hang_up(net.ends["b"], told=True)
    net.join(B)
    net.rest(100)
    assert net.boxes["b"].got == []
    net.network.heal()
    net.send("a", B, b"new")
    net.rest()
    assert net.boxes["b"].got == [b"new"]
    assert net.network.replay()
    net.rest()
    assert set(net.boxes["b"].got) == {b"new"}


def test_replays_and_misdeliveries_are_what_was_sent_once() -> None:
    net = Net()
    net.send("a", B, b"\0\0\x90old")
    net.rest()
    assert net.network.replay()
    net.rest()
    assert net.boxes["b"].got == [b"\0\0\x90old"] * 2
    for _ in range(20):
        assert net.network.misdeliver()
    net.rest()
    everything = net.boxes["a"].got + net.boxes["b"].got + net.boxes["c"].got
    assert set(everything) == {b"\0\0\x90old"}
    assert len(everything) == 22
    assert net.boxes["a"].got
    assert net.boxes["c"].got


def test_an_address_is_its_own_and_a_cluster_is_attached_once() -> None:
    net = Net()
    end = net.ends["a"]
    with pytest.raises(TransportError, match="attached already"):
        net.world.run(end.attach("shop", A, Box()))
    with pytest.raises(TransportError, match="not this machine's address"):
        net.world.run(end.attach("other", B, Box()))
    net.send("b", A, b"1")
    net.rest()
    net.world.run(end.detach("shop"))
    net.rest()
    assert net.boxes["b"].broken == ["a"]
    assert end.statistics()["messages_received"] == 1
