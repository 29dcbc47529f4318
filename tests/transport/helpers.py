"""What the transport tests share: a recording receiver, waiting for a condition, raw peers."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TypeVar

import clusterconsensus
from clusterconsensus.consensus.types import Member
from clusterconsensus.settings import KIB, Settings
from clusterconsensus.transport.tcp import TcpTransport
from clusterconsensus.transport.wire import Hello, Open, encode_control, encode_frame, preamble

T = TypeVar("T")

SMALL = Settings(
    max_change_bytes=KIB,
    max_batch_bytes=KIB,
    max_message_bytes=80 * KIB,
    peer_queue_bytes=100 * KIB,
    window_bytes=80 * KIB,
)


class Recorder:
    """A receiver that keeps what it is given."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.batches: list[int] = []
        self.lost: list[Member] = []

    def receive(self, messages: Sequence[bytes]) -> None:
        self.messages.extend(messages)
        self.batches.append(len(messages))

    def disconnected(self, member: Member) -> None:
        self.lost.append(member)


def run(main: Coroutine[None, None, T]) -> T:
    """``asyncio.run`` that also demands that nothing is left running, or left to the collector
    (whose complaints are errors in these tests)."""

    async def checked() -> T:
        result = await main
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left: {left}"
        return result

    result = asyncio.run(checked())
    gc.collect()
    return result


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait for a condition that has no event of its own."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition never came true"
        await asyncio.sleep(0.002)


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def member(name: str) -> Member:
    """A member at a free port of this host."""
    return Member(name, f"127.0.0.1:{free_port()}")


def open_sockets() -> int:
    """How many sockets this process holds."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            count += os.readlink(descriptor).startswith("socket:")
        except OSError:
            continue
    return count


def source_path() -> str:
    """Where another process finds the package."""
    return str(Path(clusterconsensus.__path__[0]).parent)


@asynccontextmanager
async def attached(
    own: Member, *, cluster: str = "shop", settings: Settings | None = None
) -> AsyncIterator[tuple[TcpTransport, Recorder]]:
    """A transport with one cluster attached."""
    transport = TcpTransport(own.address, settings=settings)
    recorder = Recorder()
    await transport.attach(cluster, own, recorder)
    try:
        yield transport, recorder
    finally:
        await transport.detach(cluster)


class RawPeer:
    """A hand-made peer that says whatever a test wants it to."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    def greet(self, *, cluster: str = "shop", channel: int = 1, run: int = 7) -> None:
        """Say what a well-behaved dialer says first."""
        opening = encode_control(Open(channel, cluster, "raw", "127.0.0.1:9"))
        self.write(preamble() + encode_control(Hello("127.0.0.1:9", run)) + opening)

    def send(self, content: bytes, channel: int = 1) -> None:
        """Send a message."""
        self.write(encode_frame(channel, (content,)))

    async def answer(self) -> bytes:
        """All that comes back until the other side closes."""
        try:
            return await asyncio.wait_for(self.reader.read(), 20)
        except ConnectionError:
            return b""


@asynccontextmanager
async def raw_peer(to: Member) -> AsyncIterator[RawPeer]:
    """Dial a member by hand."""
    host, port = to.address.split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield RawPeer(reader, writer)
    finally:
        writer.transport.abort()
        with suppress(ConnectionError):
            await writer.wait_closed()
