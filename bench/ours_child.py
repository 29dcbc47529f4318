"""One member of a clusterconsensus cluster, as a child process."""

from __future__ import annotations

import asyncio
import os
import sys
import time

import msgspec

from bench.ours import Status
from bench.processes import Order, die_with_parent, encode_answer, encode_failure
from bench.workload import VALUE, Load, closed_loop, key_of
from clusterconsensus import ConsensusError, Context, Member, Participant, TcpTransport
from clusterconsensus.state import Readable

PROBE_SECONDS = 0.005
"""While a failover is awaited, one write starts this often: the resolution of what is found."""


class Image(msgspec.Struct):
    """A snapshot."""

    items: dict[str, bytes]
    applied: int
    sequence: int


class Store:
    """A replicated dict that counts the changes applied to it."""

    def __init__(self) -> None:
        self.items: dict[str, bytes] = {}
        self.applied = 0
        self.sequence = 0

    def apply(self, change: tuple[str, bytes], context: Context) -> None:
        key, value = change
        self.items[key] = value
        self.applied += 1
        self.sequence = context.sequence

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(Image(self.items, self.applied, self.sequence))

    def install(self, snapshot: Readable) -> None:
        image = msgspec.msgpack.decode(snapshot.read(), type=Image)
        self.items, self.applied, self.sequence = image.items, image.applied, image.sequence


class Host:
    """A participant that obeys the benchmark."""

    def __init__(self, member: Member, directory: str) -> None:
        self.store = Store()
        self.participant = Participant(
            cluster="bench",
            member=member,
            state=self.store,
            directory=directory,
            transport=TcpTransport(member.address),
        )
        self._prober: asyncio.Task[None] | None = None
        self._writes: set[asyncio.Task[None]] = set()
        self._acknowledged: list[tuple[float, float]] = []
        self._news = asyncio.Event()

    async def put(self, number: int) -> None:
        await self.participant.submit((key_of(number), VALUE))

    async def get(self, number: int) -> None:
        await self.participant.read(lambda store: store.items.get(key_of(number)))

    async def handle(self, order: Order) -> object:
        """Carry out one order."""
        match order.do:
            case "start":
                await self.participant.start()
            case "init":
                await self.participant.init_master()
            case "add":
                address = f"127.0.0.1:{order.ports[0]}"
                await self.participant.add_participant(Member(id=order.path, address=address))
            case "status":
                return Status(
                    self.participant.is_master,
                    self.participant.has_master,
                    self.store.applied,
                    self.store.sequence,
                )
            case "fill":
                return await closed_loop(self.put, outstanding=order.outstanding, count=order.count)
            case "submit":
                return await closed_loop(
                    self.put, outstanding=order.outstanding, seconds=order.seconds
                )
            case "read":
                return await closed_loop(
                    self.get, outstanding=order.outstanding, seconds=order.seconds
                )
            case "entries":
                return await self.grow_log(order.count, order.seconds)
            case "probe":
                self._acknowledged.clear()
                self._prober = asyncio.create_task(self.probe())
            case "first since":
                return await asyncio.wait_for(self.first_since(order.seconds), 25)
            case _:
                raise ValueError(order.do)
        return None

    async def grow_log(self, entries: int, seconds: float) -> Load:
        """Write one change after the other, so that each makes a log entry of its own."""
        target = self.store.sequence + entries
        deadline = time.monotonic() + seconds
        begin = time.perf_counter()
        latencies: list[float] = []
        while self.store.sequence < target and time.monotonic() < deadline:
            started = time.perf_counter()
            await self.put(len(latencies))
            latencies.append(time.perf_counter() - started)
        return Load.of(latencies, time.perf_counter() - begin)

    async def probe(self) -> None:
        """Start a write every few milliseconds, whether or not those before have ended."""
        number = 0
        while True:
            write = asyncio.create_task(self.probe_once(number))
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)
            number += 1
            await asyncio.sleep(PROBE_SECONDS)

    async def probe_once(self, number: int) -> None:
        started = time.monotonic()
        try:
            await self.put(number)
        except ConsensusError:
            return  # the next one tries again
        self._acknowledged.append((started, time.monotonic()))
        self._news.set()

    async def first_since(self, moment: float) -> float:
        """When the first write that began after ``moment`` was acknowledged; ends the probing."""
        while True:
            ends = [end for started, end in self._acknowledged if started >= moment]
            if ends:
                break
            self._news.clear()
            await self._news.wait()
        if self._prober is not None:
            self._prober.cancel()
        return min(ends)


async def serve(host: Host) -> None:
    """Take orders from standard input, one after the other, until it closes."""
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), sys.stdin
    )
    while line := await reader.readline():
        try:
            reply = encode_answer(await host.handle(msgspec.json.decode(line, type=Order)))
        except Exception as error:
            reply = encode_failure(error)
        os.write(1, reply)
    await host.participant.aclose()


async def run() -> None:
    directory, member_id, address = sys.argv[2:]
    await serve(Host(Member(id=member_id, address=address), directory))


def main() -> None:
    """``ours_child PARENT DIRECTORY ID ADDRESS``"""
    die_with_parent()
    asyncio.run(run())


if __name__ == "__main__":
    main()
