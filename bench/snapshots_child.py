"""One member with a large state, as a child process.

The state shows what a large one can do to be saved cheaply: its keys lie in many small dicts, and
a snapshot takes nothing but the list of these. Whoever changes one of them afterwards copies it
first.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterable, Iterator
from zlib import crc32

import msgspec

from bench.ours_child import Host, serve
from bench.processes import Order, die_with_parent
from bench.snapshots import Taken
from bench.workload import VALUE_BYTES
from clusterconsensus import Context, Member, Participant, TcpTransport
from clusterconsensus.settings import Settings
from clusterconsensus.state import Readable

SHARDS = 4_096
FILL = b"fill "
NEVER = 1 << 40

encode = msgspec.msgpack.Encoder().encode
decode_shard = msgspec.msgpack.Decoder(dict[str, bytes]).decode


class Shards:
    """A replicated dict in parts. Begins with as many keys as ``fill 1000`` says."""

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Be empty."""
        self.shards: list[dict[str, bytes]] = [{} for _ in range(SHARDS)]
        self.shared = bytearray(SHARDS)
        """1 for each shard that a snapshot may still be read from."""
        self.applied = 0
        self.sequence = 0

    def apply(self, change: tuple[str, bytes], context: Context) -> None:
        key, value = change
        self.put(key, value)
        self.applied += 1
        self.sequence = context.sequence

    def put(self, key: str, value: bytes) -> None:
        place = crc32(key.encode()) % SHARDS
        if self.shared[place]:
            self.shared[place] = 0
            self.shards[place] = self.shards[place].copy()
        self.shards[place][key] = value

    def snapshot(self) -> Iterable[bytes]:
        self.shared = bytearray(b"\1") * SHARDS
        return self.pieces(self.shards.copy(), self.applied, self.sequence)

    @staticmethod
    def pieces(shards: list[dict[str, bytes]], *head: int) -> Iterator[bytes]:
        for piece in (head, *shards):
            data = encode(piece)
            yield len(data).to_bytes(4, "big") + data

    def install(self, snapshot: Readable) -> None:
        self.clear()
        begin = snapshot.read(4)
        if begin == FILL[:4]:
            value = bytes(VALUE_BYTES)
            for number in range(int(snapshot.read())):
                self.put(f"filled-{number:08d}", value)
            return
        head = msgspec.msgpack.decode(snapshot.read(int.from_bytes(begin, "big")))
        self.applied, self.sequence = head
        for place in range(SHARDS):
            size = int.from_bytes(snapshot.read(4), "big")
            self.shards[place] = decode_shard(snapshot.read(size))


class LargeHost(Host):
    """A participant that obeys the benchmark and takes snapshots only when told to."""

    def __init__(self, member: Member, directory: str) -> None:
        super().__init__(member, directory)
        self.store = Shards()  # type: ignore[assignment]  # counts as the other one does
        self.participant = Participant(
            cluster="bench",
            member=member,
            state=self.store,
            directory=directory,
            transport=TcpTransport(member.address),
            settings=Settings(
                snapshot_log_bytes=NEVER, snapshot_entries=NEVER, snapshot_on_close=False
            ),
        )
        self._taking: asyncio.Task[None] | None = None
        self._taken: list[tuple[float, int]] = []

    async def handle(self, order: Order) -> object:
        """Carry out one order."""
        match order.do:
            case "init":
                await self.participant.init_master(FILL + str(order.count).encode())
            case "take":
                self._taken.clear()
                self._taking = asyncio.create_task(self.take())
            case "rest":
                return await self.rest()
            case _:
                return await super().handle(order)
        return None

    async def take(self) -> None:
        """One snapshot after the other."""
        while True:
            began = time.perf_counter()
            snapshot = await self.participant.snapshot()
            self._taken.append((time.perf_counter() - began, snapshot.size_bytes))
            # Nothing new would be no new snapshot; on a follower the next entry may take a while.
            await asyncio.sleep(0.01)

    async def rest(self) -> Taken:
        """Take no more; what was taken since it began."""
        if self._taking is not None:
            if self._taking.done():
                self._taking.result()  # the error that ended it
            self._taking.cancel()
        new = [(seconds, size) for seconds, size in self._taken if seconds > 0.02]
        if not new:
            return Taken(0, 0.0, 0)
        seconds = sum(each for each, _ in new) / len(new)
        return Taken(len(new), seconds, max(size for _, size in new))


async def run() -> None:
    directory, member_id, address = sys.argv[2:]
    await serve(LargeHost(Member(id=member_id, address=address), directory))


def main() -> None:
    """``snapshots_child PARENT DIRECTORY ID ADDRESS``"""
    die_with_parent()
    asyncio.run(run())


if __name__ == "__main__":
    main()
