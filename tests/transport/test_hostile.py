"""Peers that say what they should not: counted, told why, dropped; the process goes on."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import pytest

from clusterconsensus.transport import accept as accept_module
from clusterconsensus.transport.wire import (
    HEADER,
    MAX_CONTROL_BYTES,
    VERSION,
    Close,
    Hello,
    Open,
    Welcome,
    encode_control,
    encode_frame,
    preamble,
)
from tests.transport.helpers import SMALL, RawPeer, attached, member, raw_peer, run, until

HELLO = encode_control(Hello("127.0.0.1:9", 7))
GREETING = preamble() + HELLO + encode_control(Open(1, "shop", "raw", "127.0.0.1:9"))
GOOD = encode_frame(1, (b"good",))


@pytest.mark.parametrize(
    ("said", "counter", "reason"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", "fault_foreign", b"begins with", id="foreign"),
        pytest.param(preamble(VERSION + 1), "fault_version", b"speaks version 2", id="version"),
        pytest.param(preamble() + GOOD, "fault_malformed", b"never opened", id="no hello"),
        pytest.param(
            preamble() + encode_control(Close(1)), "fault_malformed", b"not a hello", id="order"
        ),
        pytest.param(
            preamble() + HEADER.pack(MAX_CONTROL_BYTES + 1, 0, 0),
            "fault_oversized",
            b"above the limit 4096",
            id="a stranger's long frame",
        ),
        pytest.param(
            GREETING + HEADER.pack(2**32 - 1, 0, 1),
            "fault_oversized",
            b"above the limit",
            id="oversized",
        ),
        pytest.param(
            GREETING + GOOD[:-1] + b"?", "fault_checksum", b"fails its checksum", id="checksum"
        ),
        pytest.param(
            GREETING + encode_frame(2, (b"x",)), "fault_malformed", b"never opened", id="channel"
        ),
        pytest.param(
            GREETING + encode_control(Open(1, "shop", "other", "127.0.0.1:9")),
            "fault_malformed",
            b"open for another",
            id="reused channel",
        ),
        pytest.param(GREETING + HELLO, "fault_malformed", b"second hello", id="second hello"),
        pytest.param(
            GREETING + encode_control(Welcome("x")), "fault_malformed", b"unexpected", id="welcome"
        ),
        pytest.param(
            GREETING + encode_frame(0, (b"\xc1junk",)),
            "fault_malformed",
            b"cannot be decoded",
            id="undecodable",
        ),
        pytest.param(
            GREETING + encode_control(Open(2, "x" * 256, "raw", "h:1")),
            "fault_malformed",
            b"longer than 255",
            id="long name",
        ),
    ],
)
def test_what_cannot_be_believed_is_counted_told_and_dropped(
    said: bytes, counter: str, reason: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with (
            attached(b, settings=SMALL) as (right, at_b),
            attached(a, settings=SMALL) as (left, _),
        ):
            left.send("shop", b, [b"before"])
            await until(lambda: at_b.messages)
            for count in (1, 2):
                async with raw_peer(b) as raw:
                    raw.write(said)
                    answer = await raw.answer()
                    assert answer.startswith(preamble())
                    assert reason in answer
                assert right.statistics()[counter] == count
            left.send("shop", b, [b"after"])
            await until(lambda: len(at_b.messages) == 2)
            assert at_b.messages == [b"before", b"after"]
            assert left.statistics()["dials"] == 1

    with caplog.at_level(logging.WARNING, "clusterconsensus.transport"):
        run(main())
    assert caplog.text.count("the connection is dropped") == 1, "logged once, counted twice"


def test_the_limit_of_a_message_is_that_of_the_settings() -> None:
    async def main() -> None:
        b = member("b")
        async with attached(b, settings=SMALL) as (right, at_b), raw_peer(b) as raw:
            raw.write(GREETING + GOOD)
            await until(lambda: at_b.messages)
            raw.send(b"x" * SMALL.max_message_bytes)
            await until(lambda: len(at_b.messages) == 2)
            raw.send(b"x" * (SMALL.max_message_bytes + 1))
            assert b"above the limit 81920" in await raw.answer()
            assert right.statistics()["fault_oversized"] == 1
            assert len(at_b.messages) == 2

    run(main())


def test_what_is_intact_before_a_fault_is_delivered() -> None:
    async def main() -> None:
        b = member("b")
        async with attached(b) as (_, at_b), raw_peer(b) as raw:
            raw.write(GREETING + GOOD + GOOD[:-1] + b"?" + GOOD)
            await raw.answer()
            assert at_b.messages == [b"good"]

    run(main())


def test_a_stream_that_ends_inside_a_frame_is_counted() -> None:
    async def main() -> None:
        b = member("b")
        async with attached(b) as (right, at_b):
            async with raw_peer(b) as raw:
                raw.write(GREETING + GOOD + GOOD[:-1])
                await until(lambda: at_b.messages)
            await until(lambda: at_b.lost)
            assert right.statistics()["fault_truncated"] == 1
            assert at_b.messages == [b"good"]

    run(main())


def test_a_cluster_that_is_not_here_is_refused_and_the_rest_goes_on() -> None:
    async def main() -> None:
        b = member("b")
        async with attached(b) as (right, at_b), raw_peer(b) as raw:
            raw.greet(cluster="elsewhere", channel=1)
            raw.write(encode_control(Open(2, "shop", "raw", "127.0.0.1:9")))
            raw.send(b"astray", channel=1)
            raw.send(b"good", channel=2)
            await until(lambda: at_b.messages)
            answer = await raw.reader.readuntil(b"not attached here")
            assert b"elsewhere" in answer
            assert at_b.messages == [b"good"]
            assert right.statistics()["dropped_not_attached"] == 1
            assert right.statistics()["now_accepted"] == 1

    run(main())


def test_a_slow_handshake_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept_module, "HANDSHAKE_SECONDS", 0.05)

    async def main() -> None:
        b = member("b")
        async with attached(b) as (right, at_b), raw_peer(b) as quick, raw_peer(b) as slow:
            quick.greet()
            slow.write(preamble() + HELLO[:5])
            assert await slow.answer() in (preamble(), b"")
            await until(lambda: right.statistics()["now_accepted"] == 1)
            assert right.statistics()["handshake_timeouts"] == 1
            quick.send(b"still welcome")
            await until(lambda: at_b.messages)

    run(main())


def test_strangers_do_not_keep_a_peer_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept_module, "MAX_STRANGERS", 2)

    async def main() -> None:
        b = member("b")
        async with (
            attached(b) as (right, at_b),
            raw_peer(b) as oldest,
            raw_peer(b),
            raw_peer(b) as good,
        ):
            await until(lambda: right.statistics()["turned_away"] == 1)
            assert await oldest.answer() in (preamble(), b"")
            good.greet()
            good.send(b"in")
            await until(lambda: at_b.messages)

    run(main())


@pytest.mark.parametrize("limit", ["MAX_CONNECTIONS", "MAX_CONNECTIONS_PER_HOST"])
def test_connections_are_bounded(limit: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept_module, limit, 1)

    async def main() -> None:
        b = member("b")
        async with attached(b) as (right, at_b):
            async with raw_peer(b) as first, raw_peer(b) as second:
                first.greet()
                assert b"connections" in await second.answer()
                first.send(b"good")
                await until(lambda: at_b.messages)
                assert right.statistics()["turned_away"] == 1
            await until(lambda: right.statistics()["now_accepted"] == 0)
            async with raw_peer(b) as third:
                third.greet()
                third.send(b"room again")
                await until(lambda: len(at_b.messages) == 2)

    run(main())


def test_channels_and_unread_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept_module, "MAX_CHANNELS", 2)

    async def main() -> None:
        b = member("b")
        async with attached(b) as (right, _):
            async with raw_peer(b) as many:
                many.greet()
                for channel in (2, 3):
                    many.write(encode_control(Open(channel, "shop", "raw", "h:1")))
                assert b"more than 2 channels" in await many.answer()
            assert right.statistics()["fault_malformed"] == 1
            async with raw_peer(b) as deaf:
                deaf.greet()
                refused = encode_control(Open(2, "elsewhere", "raw", "h:1")) * 1_000
                while right.statistics()["fault_malformed"] == 1:
                    deaf.write(refused)
                    await asyncio.sleep(0)

    run(main())


@pytest.mark.parametrize(
    ("answer", "counter"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "fault_foreign"),
        (preamble(VERSION + 1), "fault_version"),
        (preamble() + HEADER.pack(2**31, 0, 0), "fault_oversized"),
        (preamble() + encode_frame(1, (b"a message",)), "fault_malformed"),
        (preamble() + encode_control(Close(1)), "fault_malformed"),
        (preamble() + encode_control(Welcome("x")) * 2, "fault_malformed"),
        (preamble() + b"\0" * 11 + b"\1" + b"\0" * 12, "fault_checksum"),
    ],
)
def test_a_dialed_peer_that_answers_garbage_is_given_up(answer: bytes, counter: str) -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        hosts: list[RawPeer] = []

        def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(answer)
            hosts.append(RawPeer(reader, writer))

        host, port = b.address.split(":")
        server = await asyncio.start_server(serve, host, int(port))
        async with attached(a) as (left, _):
            left.send("shop", b, [b"x"])
            await until(lambda: left.statistics()[counter])
            await until(lambda: left.statistics()["dials"] >= 2)
        server.close()
        for raw in hosts:
            raw.writer.transport.abort()
            with suppress(ConnectionError):
                await raw.writer.wait_closed()
        await server.wait_closed()

    run(main())
