"""``disconnected``: a broken connection is news (E13), silence is not."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys

import pytest

from clusterconsensus.consensus.types import Member
from clusterconsensus.transport import dialed, peer
from clusterconsensus.transport.tcp import TcpTransport
from tests.transport.helpers import (
    Recorder,
    attached,
    member,
    raw_peer,
    run,
    source_path,
    until,
)

CHILD = """
import asyncio, sys
from clusterconsensus.consensus.types import Member
from clusterconsensus.transport.tcp import TcpTransport

class Receiver:
    def receive(self, messages):
        if dials_back:
            transport.send("shop", Member("a", sys.argv[2]), [b"back"])
    def disconnected(self, member):
        pass

async def main():
    await transport.attach("shop", Member("b", sys.argv[1]), Receiver())
    print("ready", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)

dials_back = sys.argv[3] == "True"
transport = TcpTransport(sys.argv[1])
asyncio.run(main())
"""


async def child(b: Member, a: Member, dials_back: bool) -> asyncio.subprocess.Process:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        CHILD,
        b.address,
        a.address,
        str(dials_back),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={"PYTHONPATH": source_path()},
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize("dials_back", [False, True])
def test_a_killed_process_is_noticed(dials_back: bool) -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a) as (left, at_a):
            process = await child(b, a, dials_back)
            left.send("shop", b, [b"x"])
            await until(lambda: left.statistics()["now_connected"])
            await until(lambda: at_a.messages or not dials_back)
            assert at_a.lost == []
            process.send_signal(signal.SIGKILL)
            await until(lambda: len(at_a.lost) == 1 + dials_back)
            assert set(at_a.lost) == {b}, "heard on the dialed and on the accepted connection"
            dials = left.statistics()["dials"]
            assert await process.wait() == -signal.SIGKILL
            left.send("shop", b, [b"y"])
            await until(lambda: left.statistics()["dials"] > dials)
            await until(lambda: len(at_a.lost) > 1 + dials_back)
            assert set(at_a.lost) == {b}, "and a refused dial is news again"

    run(main())


def test_only_an_accepted_connection_that_closes_is_enough() -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a) as (_, at_a):
            async with attached(b) as (right, _):
                right.send("shop", a, [b"x"])
                await until(lambda: at_a.messages)
            await until(lambda: at_a.lost)
            assert at_a.lost == [b]

    run(main())


def test_a_reset_is_news_and_only_for_the_clusters_concerned() -> None:
    async def main() -> None:
        a = member("a")
        async with attached(a) as (transport, at_a):
            other = Recorder()
            await transport.attach("other", a, other)
            async with raw_peer(a) as raw:
                raw.greet()
                raw.send(b"x")
                await until(lambda: at_a.messages)
                sock: socket.socket = raw.writer.get_extra_info("socket")
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            await until(lambda: at_a.lost)
            assert at_a.lost == [Member("raw", "127.0.0.1:9")]
            assert other.lost == []
            await transport.detach("other")

    run(main())


def test_the_same_process_that_dials_again_is_no_news_but_a_restarted_one_is() -> None:
    async def main() -> None:
        a = member("a")
        async with attached(a) as (transport, at_a), raw_peer(a) as first:
            first.greet(run=1)
            first.send(b"1")
            await until(lambda: len(at_a.messages) == 1)
            async with raw_peer(a) as second:
                second.greet(run=1)
                second.send(b"2")
                await until(lambda: len(at_a.messages) == 2)
                await first.answer()  # the stale connection is closed
                assert at_a.lost == []
                async with raw_peer(a) as third:
                    third.greet(run=2)
                    third.send(b"3")
                    await until(lambda: len(at_a.messages) == 3)
                    assert len(at_a.lost) == 1
                    second.writer.transport.abort()
                    await until(lambda: transport.statistics()["now_accepted"] == 1)
                    assert len(at_a.lost) == 1, "the old connection's end is no news any more"

    run(main())


def test_a_refused_dial_is_news_once_per_attempt() -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a) as (left, at_a):
            left.send("shop", b, [b"x"])
            await until(lambda: left.statistics()["dials_failed"] >= 3)
            assert set(at_a.lost) == {b}
            assert len(at_a.lost) == left.statistics()["dials_failed"]

    run(main())


def test_a_dial_that_meets_itself_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On loopback a dial to a free port can be given that very port as its own."""

    async def main() -> None:
        a, b = member("a"), member("b")
        loop = asyncio.get_running_loop()
        real = loop.sock_connect

        async def from_the_same_port(sock: socket.socket, address: tuple[str, int]) -> None:
            sock.bind(address)
            await real(sock, address)

        monkeypatch.setattr(loop, "sock_connect", from_the_same_port)
        async with attached(a) as (left, at_a):
            left.send("shop", b, [b"x"])
            await until(lambda: at_a.lost)
            assert left.statistics()["connected"] == 0
            assert left.statistics()["fault_malformed"] == 0

    run(main())


def test_silence_is_no_news(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer, "GREETING_SECONDS", 0.02)

    async def main() -> None:
        a = member("a")
        with socket.socket() as mute:  # the system connects, nobody ever answers
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            b = Member("b", f"127.0.0.1:{mute.getsockname()[1]}")
            async with attached(a) as (left, at_a):
                left.send("shop", b, [b"x"])
                await until(lambda: left.statistics()["handshake_timeouts"] >= 2)
                assert at_a.lost == []

    run(main())


def test_a_peer_that_does_not_read_only_fills_its_own_queue() -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        async with attached(a) as (left, _), attached(b) as (right, at_b):
            left.send("shop", b, [b"x"])
            await until(lambda: at_b.messages)
            acceptor = right._acceptor
            assert acceptor is not None
            for connection in acceptor.connections:
                connection.transport.pause_reading()
            megabyte = b"x" * dialed.HIGH_WATER_BYTES
            for _ in range(100):
                left.send("shop", b, [megabyte])
                await asyncio.sleep(0)
            numbers = left.statistics()
            assert numbers["dropped_queue_full"] > 0
            assert numbers["now_queued_bytes"] <= 32 * 1024 * 1024
            for connection in acceptor.connections:
                connection.transport.resume_reading()
            left.send("shop", b, [b"last"])
            await until(lambda: at_b.messages[-1] == b"last")
            assert all(message == megabyte for message in at_b.messages[1:-1])

    run(main())


def test_a_transport_without_receivers_hears_nothing_more() -> None:
    async def main() -> None:
        a, b = member("a"), member("b")
        at_a = Recorder()
        left = TcpTransport(a.address)
        await left.attach("shop", a, at_a)
        async with attached(b) as (right, at_b):
            left.send("shop", b, [b"x"])
            right.send("shop", a, [b"y"])
            await until(lambda: at_a.messages and at_b.messages)
            await left.detach("shop")
            right.send("shop", a, [b"z"])
        assert at_a.messages == [b"y"]
        assert at_a.lost == []

    run(main())
