"""Two or more TcpTransports in one process: delivery, order, limits, coming and going."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Sequence
from typing import ClassVar

import pytest

from clusterconsensus.consensus.types import Member
from clusterconsensus.errors import TransportError
from clusterconsensus.settings import KIB, MIB
from clusterconsensus.transport import peer as peer_module
from clusterconsensus.transport import tcp as tcp_module
from clusterconsensus.transport.base import Transport
from clusterconsensus.transport.outbox import MESSAGE_BYTES
from clusterconsensus.transport.tcp import TcpTransport
from tests.transport.helpers import SMALL, Recorder, attached, member, open_sockets, run, until


def test_round_trip() -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a) as (left, at_a), attached(b) as (right, at_b):
            left.send("shop", b, [b"he", b"", b"llo"])
            right.send("shop", a, [b"hi"])
            await until(lambda: at_a.messages and at_b.messages)
            assert at_b.messages == [b"hello"]
            assert at_a.messages == [b"hi"]
            sent, received = left.statistics(), right.statistics()
            assert (sent["messages_sent"], sent["bytes_sent"]) == (1, 5)
            assert (received["messages_received"], received["bytes_received"]) == (1, 5)
            assert at_a.lost == at_b.lost == []

    run(main())


def test_it_is_a_transport() -> None:
    transport: Transport = TcpTransport("127.0.0.1:0")
    assert transport.statistics()["messages_sent"] == 0


def test_messages_arrive_in_order_and_in_batches() -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a) as (left, _), attached(b) as (_, at_b):
            expected = [b"%d" % index * (index % 700) for index in range(3_000)]
            for index, message in enumerate(expected):
                left.send("shop", b, [message])
                if index % 97 == 0:
                    await asyncio.sleep(0)
            await until(lambda: len(at_b.messages) == len(expected))
            assert at_b.messages == expected
            assert len(at_b.batches) < len(expected) / 4
            assert left.statistics()["dials"] == 1

    run(main())


def test_the_largest_message_passes_and_a_larger_one_is_dropped(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a) as (left, _), attached(b) as (_, at_b):
            largest = bytes(range(256)) * (8 * MIB // 256)
            left.send("shop", b, [largest, b"!"])
            left.send("shop", b, [largest])
            left.send("shop", b, [b"after"])
            await until(lambda: len(at_b.messages) == 2)
            assert at_b.messages == [largest, b"after"]
            assert left.statistics()["dropped_too_large"] == 1
            assert left.statistics()["dropped_queue_full"] == 0

    with caplog.at_level(logging.ERROR, "clusterconsensus.transport"):
        run(main())
    assert "max_message_bytes (8388608)" in caplog.text


def test_more_than_the_sockets_hold_waits_and_arrives() -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a) as (left, _), attached(b) as (_, at_b):
            left.send("shop", b, [b"first"])
            await until(lambda: at_b.messages)
            for index in range(24):
                left.send("shop", b, [bytes([index]) * MIB])
            await until(lambda: len(at_b.messages) == 25)
            assert [message[0] for message in at_b.messages[1:]] == list(range(24))
            await until(lambda: left.statistics()["now_queued_bytes"] == 0)

    run(main())


def test_many_clusters_share_one_connection_each_way() -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        left, right = TcpTransport(a.address), TcpTransport(b.address)
        names = [f"cluster {index}" for index in range(20)]
        at_a = {name: Recorder() for name in names}
        at_b = {name: Recorder() for name in names}
        for name in names:
            await left.attach(name, a, at_a[name])
            await right.attach(name, b, at_b[name])
        for turn in range(3):
            for name in names:
                left.send(name, b, [name.encode(), b" %d" % turn])
                right.send(name, a, [b"to a"])
        await until(lambda: all(len(at_b[name].messages) == 3 for name in names))
        await until(lambda: all(len(at_a[name].messages) == 3 for name in names))
        for name in names:
            assert at_b[name].messages == [f"{name} {turn}".encode() for turn in range(3)]
        for transport in (left, right):
            assert transport.statistics()["dials"] == 1
            assert transport.statistics()["now_accepted"] == 1
        # One cluster leaves on one side: its other member hears of it, no other cluster does.
        await left.detach(names[0])
        await until(lambda: at_b[names[0]].lost)
        assert set(at_b[names[0]].lost) == {a}
        left.send(names[1], b, [b"still here"])
        await until(lambda: b"still here" in at_b[names[1]].messages)
        assert all(not at_b[name].lost for name in names[1:])
        for name in names:
            await left.detach(name)
            await right.detach(name)

    run(main())


def test_a_cluster_that_is_attached_later_is_reached_at_once() -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a) as (left, at_a), attached(b, cluster="other") as (right, _):
            left.send("shop", b, [b"lost"])
            await until(lambda: left.statistics()["refusals_received"])
            assert at_a.lost == [b], "the refusal is news"
            await until(lambda: right.statistics()["dropped_not_attached"] == 1)
            at_b = Recorder()
            await right.attach("shop", b, at_b)
            for count in range(1_000):
                left.send("shop", b, [b"%d" % count])
                if at_b.messages:
                    break
                await asyncio.sleep(0.002)
            assert at_b.messages
            assert left.statistics()["connected"] == 1
            await right.detach("shop")

    run(main())


def test_a_full_queue_drops_the_oldest_messages_whole() -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a, settings=SMALL) as (left, _):
            messages = [b"%03d" % index * KIB for index in range(100)]
            for message in messages:
                left.send("shop", b, [message])
            fit = SMALL.peer_queue_bytes // (3 * KIB + MESSAGE_BYTES)
            assert left.statistics()["dropped_queue_full"] == 100 - fit
            assert left.statistics()["now_queued_bytes"] <= SMALL.peer_queue_bytes
            async with attached(b, settings=SMALL) as (_, at_b):
                await until(lambda: len(at_b.messages) == fit)
                assert at_b.messages == messages[-fit:]

    run(main())


def test_a_peer_that_comes_late_or_again_on_the_same_port_is_reached() -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a) as (left, at_a):
            left.send("shop", b, [b"waits"])
            await until(lambda: left.statistics()["dials_failed"] >= 2)
            async with attached(b) as (_, at_b):
                await until(lambda: at_b.messages)
                assert at_b.messages == [b"waits"]
            at_a.lost.clear()
            await until(lambda: left.statistics()["now_connected"] == 0)
            async with attached(b) as (right, at_b):
                left.send("shop", b, [b"again"])
                right.send("shop", a, [b"back"])
                await until(lambda: at_b.messages and at_a.messages)
                assert at_b.messages == [b"again"]
                assert left.statistics()["connected"] == 2

    run(main())


def test_a_restarted_peer_that_speaks_first_ends_the_back_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peer_module, "MAX_BACKOFF_SECONDS", 3_600.0)

    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a) as (left, at_a):
            monkeypatch.setattr(peer_module, "BACKOFF_SECONDS", 3_600.0)
            left.send("shop", b, [b"hello"])
            await until(lambda: left.statistics()["dials_failed"] == 1)
            monkeypatch.setattr(peer_module, "BACKOFF_SECONDS", 0.01)
            async with attached(b) as (right, at_b):
                right.send("shop", a, [b"I am back"])
                await until(lambda: at_a.messages and at_b.messages)
                assert at_b.messages == [b"hello"]

    run(main())


def test_messages_for_a_peer_that_stays_away_get_stale(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_module, "STALE_SECONDS", 0.0)

    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a) as (left, at_a):
            left.send("shop", b, [b"soon old"])
            await until(lambda: left.statistics()["dropped_stale"] == 1)
            assert left.statistics()["now_queued_bytes"] == 0
            assert at_a.lost == [b]
            assert left.statistics()["dials"] == 1, "nothing waits, so nothing is dialed"

    run(main())


def test_a_port_in_use_is_an_error_that_names_it() -> None:
    async def main() -> None:
        a = member("a")
        async with attached(a):
            second = TcpTransport(a.address)
            with pytest.raises(TransportError, match=f"{a.address}: Address already in use"):
                await second.attach("shop", a, Recorder())
            await second.detach("shop")
        await second.attach("shop", a, Recorder())
        await second.detach("shop")

    run(main())


def test_what_cannot_be_attached_is_an_error() -> None:
    with pytest.raises(TransportError, match="'nowhere'"):
        TcpTransport("nowhere")

    async def main() -> None:
        a = member("a")
        with pytest.raises(TransportError, match=r"203\.0\.113\.1:9"):  # an address of no host
            await TcpTransport("203.0.113.1:9").attach("shop", a, Recorder())
        async with attached(a) as (transport, _):
            with pytest.raises(TransportError, match="'shop' is attached already"):
                await transport.attach("shop", a, Recorder())
            with pytest.raises(TransportError, match="1 to 255 bytes"):
                await transport.attach("x" * 256, a, Recorder())

    run(main())


def test_sending_never_raises() -> None:
    async def main() -> None:
        a = member("a")
        transport = TcpTransport(a.address)
        transport.send("shop", a, [b"before"])
        async with attached(a) as (left, _):
            for address in ("nonsense", "127.0.0.1:0", "::1:7"):
                left.send("shop", Member("b", address), [b"x"])
            assert left.statistics()["dropped_bad_address"] == 3
            left.send("elsewhere", a, [b"x"])
            assert left.statistics()["dropped_not_attached"] == 1
        left.send("shop", a, [b"after"])
        assert left.statistics()["dropped_not_attached"] == 2
        assert transport.statistics()["dropped_not_attached"] == 1

    run(main())


def test_an_unused_peer_makes_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tcp_module, "MAX_PEERS", 1)
    monkeypatch.setattr(peer_module, "STALE_SECONDS", 0.0)

    async def main() -> None:
        a, b, c = member("a"), member("b"), member("c")
        async with attached(a) as (left, _), attached(c) as (_, at_c):
            left.send("shop", b, [b"nobody there"])
            left.send("shop", c, [b"no room"])
            assert left.statistics()["dropped_too_many_peers"] == 1
            await until(lambda: left.statistics()["dropped_stale"])
            left.send("shop", c, [b"room"])
            await until(lambda: at_c.messages)
            assert at_c.messages == [b"room"]

    run(main())


class Failing(Recorder):
    """A receiver with a defect."""

    calls: ClassVar[int] = 0

    def receive(self, messages: Sequence[bytes]) -> None:
        super().receive(messages)
        raise LookupError("a defect in receive")

    def disconnected(self, member: Member) -> None:
        super().disconnected(member)
        raise LookupError("a defect in disconnected")


def test_an_exception_of_a_receiver_is_logged_and_survived(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        right, at_b = TcpTransport(b.address), Failing()
        await right.attach("shop", b, at_b)
        async with attached(a) as (left, _):
            for count in (1, 2):
                left.send("shop", b, [b"x"])
                await until(lambda count=count: len(at_b.messages) == count)  # type: ignore[misc]  # mypy cannot type a default of a lambda
            assert right.statistics()["receiver_errors"] == 2
        await until(lambda: at_b.lost)
        assert right.statistics()["receiver_errors"] == 3
        await right.detach("shop")

    with caplog.at_level(logging.ERROR, "clusterconsensus.transport"):
        run(main())
    assert "LookupError: a defect in receive" in caplog.text
    assert "LookupError: a defect in disconnected" in caplog.text


def test_what_was_sent_before_a_detachment_still_leaves() -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(b) as (_, at_b):
            async with attached(a) as (left, _):
                left.send("shop", b, [b"not even dialed"])
            assert at_b.messages == [b"not even dialed"]
            async with attached(a) as (left, _):
                left.send("shop", b, [b"first"])
                await until(lambda: len(at_b.messages) == 2)
                for _ in range(8):
                    left.send("shop", b, [b"x" * MIB])
            await until(lambda: len(at_b.messages) == 10)

    run(main())


def test_detaching_leaves_nothing_and_attaching_works_again() -> None:
    async def main() -> None:
        a, b, gone = member("a"), member("b"), member("gone")
        before = open_sockets()
        left, right = TcpTransport(a.address), TcpTransport(b.address)
        for turn in (1, 2):
            at_a, at_b = Recorder(), Recorder()
            await left.attach("shop", a, at_a)
            await right.attach("shop", b, at_b)
            left.send("shop", b, [b"x"])
            right.send("shop", a, [b"y"])
            left.send("shop", gone, [b"z"])
            await until(lambda at_a=at_a, at_b=at_b: at_a.messages and at_b.messages)  # type: ignore[misc]  # as above
            assert open_sockets() >= before + 6
            await left.detach("shop")
            await right.detach("shop")
            await left.detach("shop")
            assert open_sockets() == before, "detach closes every socket before it returns"
            assert asyncio.all_tasks() == {asyncio.current_task()}
            assert left.statistics()["now_listening"] == 0
            assert left.statistics()["connected"] == turn

    run(main())


@pytest.mark.parametrize("turns", range(8))
def test_detaching_at_any_moment_of_a_dial_leaves_nothing(turns: int) -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        before = open_sockets()
        async with attached(b) as (_, at_b):
            left = TcpTransport(a.address)
            await left.attach("shop", a, Recorder())
            left.send("shop", b, [b"x"])
            for _ in range(turns):
                await asyncio.sleep(0)
            leaving = asyncio.create_task(left.detach("shop"))
            for _ in range(turns % 3 + 1):  # a detachment that has begun ends everything
                await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.wait([leaving])
            await until(lambda: left.statistics()["now_listening"] == 0)
            await left.attach("shop", a, Recorder())
            await left.detach("shop")
            assert len(at_b.messages) <= 1
        assert open_sockets() == before

    run(main())


def test_a_transport_serves_one_loop_after_another() -> None:
    a, b = member("a"), member("b")
    left = TcpTransport(a.address)

    async def main() -> None:
        await left.attach("shop", a, Recorder())
        async with attached(b) as (_, at_b):
            left.send("shop", b, [b"x"])
            await until(lambda: at_b.messages)
        await left.detach("shop")

    run(main())
    run(main())
    assert left.statistics()["connected"] == 2


def test_ipv6_and_a_port_of_the_systems_choice() -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("this host has no IPv6 loopback")

    async def main() -> None:
        a = member("a")
        right, at_b = TcpTransport("[::1]:0"), Recorder()
        await right.attach("shop", Member("b", "[::1]:0"), at_b)
        assert right.address.startswith("[::1]:")
        assert not right.address.endswith(":0")
        async with attached(a) as (left, _):
            left.send("shop", Member("b", right.address), [b"six"])
            await until(lambda: at_b.messages)
        await right.detach("shop")

    run(main())


def test_a_name_is_looked_up() -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a) as (left, at_a), attached(b) as (_, at_b):
            named = Member("b", b.address.replace("127.0.0.1", "localhost"))
            left.send("shop", named, [b"by name"])
            await until(lambda: at_b.messages)
            nobody = Member("c", member("c").address.replace("127.0.0.1", "localhost"))
            left.send("shop", nobody, [b"x"])
            await until(lambda: at_a.lost)
            assert at_a.lost[0] == nobody

    run(main())
