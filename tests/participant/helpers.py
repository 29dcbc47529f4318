"""What the participant tests share: a cluster in one process, with a network that can be cut.

Nothing here depends on how fast the machine is: times are short so that tests are quick, but what
a test waits for is always a condition, and the patience is large.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import shutil
import socket
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from clusterconsensus import (
    Codec,
    ConsensusError,
    Context,
    EventHandler,
    Member,
    Participant,
    Receiver,
    Settings,
    TcpTransport,
    Transport,
)
from clusterconsensus.runtime.environment import Environment
from clusterconsensus.settings import KIB
from clusterconsensus.state import Readable
from clusterconsensus.storage.files import Files, RealFiles, WritableFile

T = TypeVar("T")

PATIENCE = 40.0

FAST = Settings(
    heartbeat_seconds=0.04,
    election_timeout_seconds=0.3,
    disk_timeout_seconds=5.0,
    retry_seconds=0.2,
    submit_timeout_seconds=PATIENCE,
    read_timeout_seconds=PATIENCE,
    segment_bytes=256 * KIB,
)
"""For tests of fail-over: a master is soon missed."""

STEADY = msgspec.structs.replace(FAST, election_timeout_seconds=3.0)
"""For tests in which the master should stay, however busy the machine is."""


def run(main: Coroutine[None, None, T]) -> T:
    """``asyncio.run`` with an end, which also demands that nothing is left running."""

    async def checked() -> T:
        async with asyncio.timeout(PATIENCE + 10):
            result = await main
        left = asyncio.all_tasks() - {asyncio.current_task()}
        assert not left, f"tasks are left: {left}"
        return result

    result = asyncio.run(checked())
    gc.collect()
    return result


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that has no event of its own."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition never came true"
        await asyncio.sleep(0.005)


async def error_of(call: Awaitable[object]) -> BaseException:
    """The error that a call ends with."""
    try:
        result = await call
    except Exception as error:
        return error
    raise AssertionError(f"no error but {result!r}")


class Ports:
    """Ports of this host that nobody else gets while the test runs."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []

    def take(self) -> str:
        """The address of a port. It stays bound, without listening, until ``close``."""
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        self._sockets.append(held)
        return f"127.0.0.1:{held.getsockname()[1]}"

    def close(self) -> None:
        for held in self._sockets:
            held.close()


class Book:
    """A state that counts, and keeps every change with its context.

    A change is ``[key, amount]``, or one of a few words.
    """

    def __init__(self) -> None:
        self.items: dict[str, int] = {}
        self.history: list[tuple[int, int, str]] = []
        self.times: list[float] = []

    def apply(self, change: Any, context: Context) -> Any:
        self.history.append((context.sequence, context.index, repr(change)))
        self.times.append(context.time)
        if change == "raise":
            raise ValueError("not like this")
        if change == "unencodable":
            return object()
        if isinstance(change, str):
            return len(change)
        key, amount = change
        self.items[key] = self.items.get(key, 0) + amount
        return self.items[key]

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode((self.items, self.history, self.times))

    def install(self, snapshot: Readable) -> None:
        found = msgspec.msgpack.decode(snapshot.read())
        if isinstance(found, dict):
            found = (found, [], [])  # what a test gave to ``init_master``
        items, history, times = found
        self.items = items
        self.history = [(seq, index, change) for seq, index, change in history]
        self.times = times

    def changes(self) -> list[str]:
        """What was applied, in order."""
        return [change for _, _, change in self.history]


class Cuts:
    """Which directions between members are cut; shared by the transports of one cluster."""

    def __init__(self) -> None:
        self._cut: set[tuple[str, str]] = set()

    def cut(self, source: str, to: str) -> None:
        """Lose what ``source`` sends to ``to``."""
        self._cut.add((source, to))

    def isolate(self, name: str, *others: str) -> None:
        """Lose everything between a member and the others, both ways."""
        for other in others:
            self._cut |= {(name, other), (other, name)}

    def heal(self) -> None:
        self._cut.clear()

    def are_cut(self, source: str, to: str) -> bool:
        return (source, to) in self._cut


class CuttableTransport:
    """TCP, but for what is cut: that is lost in silence, and the connections stay."""

    def __init__(self, cuts: Cuts, name: str, inner: Transport) -> None:
        self._cuts = cuts
        self._name = name
        self._inner = inner

    async def attach(self, cluster: str, member: Member, receiver: Receiver) -> None:
        await self._inner.attach(cluster, member, receiver)

    async def detach(self, cluster: str) -> None:
        await self._inner.detach(cluster)

    def send(self, cluster: str, to: Member, parts: Sequence[bytes]) -> None:
        if not self._cuts.are_cut(self._name, to.id):
            self._inner.send(cluster, to, parts)

    @property
    def max_message_bytes(self) -> int:
        return self._inner.max_message_bytes

    def statistics(self) -> dict[str, int]:
        return self._inner.statistics()


class FaultyFile:
    """A file on a ``FaultyFiles`` disk."""

    def __init__(self, disk: FaultyFiles, inner: WritableFile) -> None:
        self._disk = disk
        self._inner = inner

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        self._inner.pwrite(data, offset)

    def datasync(self) -> None:
        self._disk.syncs += 1
        self._disk.go.wait(PATIENCE)
        if self._disk.failing:
            raise OSError(errno.EIO, "the disk is broken")
        self._inner.datasync()

    def close(self) -> None:
        self._inner.close()


class FaultyFiles(RealFiles):
    """A disk that can be full, fail its syncs, or hang."""

    def __init__(self) -> None:
        self.full = False
        self.failing = False
        self.go = threading.Event()
        """Clear it and every sync hangs."""
        self.go.set()
        self.syncs = 0

    def free_bytes(self, path: str) -> int:
        return 0 if self.full else super().free_bytes(path)

    def create(self, path: str) -> WritableFile:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left")
        return FaultyFile(self, super().create(path))

    def open(self, path: str) -> WritableFile:
        return FaultyFile(self, super().open(path))


class Told(EventHandler):
    """A handler that keeps what it is told."""

    def __init__(self) -> None:
        self.masterships: list[str] = []
        self.commits: list[tuple[int, list[Any], list[Any]]] = []

    def on_become_master(self) -> None:
        self.masterships.append("become")

    def on_lose_master(self) -> None:
        self.masterships.append("lose")

    def on_commit(self, sequence: int, changes: list[Any], results: list[Any]) -> None:
        self.commits.append((sequence, changes, results))


class Cluster:
    """Members of one cluster, by name, in this process."""

    def __init__(self, base: Path, ports: Ports, settings: Settings, name: str = "shop") -> None:
        self.base = base
        self.ports = ports
        self.settings = settings
        self.name = name
        self.cuts = Cuts()
        self.running: dict[str, Participant[Book]] = {}
        self._addresses: dict[str, str] = {}

    def __getitem__(self, name: str) -> Participant[Book]:
        return self.running[name]

    def member(self, name: str) -> Member:
        """A member's id and address, which stay."""
        if name not in self._addresses:
            self._addresses[name] = self.ports.take()
        return Member(name, self._addresses[name])

    def directory(self, name: str) -> str:
        return str(self.base / name)

    def is_on_disk(self, name: str) -> bool:
        """Whether a member's directory exists."""
        return (self.base / name).exists()

    def wipe(self, name: str) -> None:
        """Lose a member's disk."""
        shutil.rmtree(self.base / name)

    def x(self, name: str, key: str = "x") -> int:
        """A number in a running member's own state."""
        return self[name].state.items.get(key, 0)

    def make(
        self,
        name: str,
        *,
        state: Book | None = None,
        settings: Settings | None = None,
        codec: Codec | None = None,
        handler: EventHandler | None = None,
        files: Files | None = None,
        transport: Transport | None = None,
        directory: str | None = None,
        environment: Environment | None = None,
    ) -> Participant[Book]:
        """A participant that is not started."""
        member = self.member(name)
        inner = transport or TcpTransport(member.address)
        return Participant(
            cluster=self.name,
            member=member,
            state=Book() if state is None else state,
            directory=directory or self.directory(name),
            transport=CuttableTransport(self.cuts, name, inner),
            settings=settings or self.settings,
            codec=codec,
            event_handler=handler,
            environment=environment or (None if files is None else Environment(files=files)),
        )

    async def start(self, name: str, **options: Any) -> Participant[Book]:
        """Start a member, new or again."""
        participant = self.make(name, **options)
        await participant.start()
        self.running[name] = participant
        return participant

    async def stop(self, name: str) -> None:
        """Stop a member in good order."""
        await self.running.pop(name).aclose()

    async def form(self, names: str, **options: Any) -> None:
        """Start members; the first founds the cluster and adds the others."""
        for name in names:
            await self.start(name, **options)
        first = self[names[0]]
        await first.init_master()
        for name in names[1:]:
            await first.add_participant(self.member(name))

    async def close(self) -> None:
        self.cuts.heal()
        for participant in self.running.values():
            await participant.aclose()

    def master(self) -> Participant[Book] | None:
        """Who leads, if exactly one member says so."""
        masters = [held for held in self.running.values() if held.is_master]
        return masters[0] if len(masters) == 1 else None

    async def has_master(self) -> Participant[Book]:
        """Wait until exactly one running member leads."""
        await until(self.master)
        master = self.master()
        return await self.has_master() if master is None else master

    async def settled(self) -> list[Participant[Book]]:
        """Wait until all running members have applied the same, and compare their states."""
        members = list(self.running.values())

        def equal() -> bool:
            states = [member.status() for member in members]
            return (
                len({(held.applied_sequence, held.checksum) for held in states}) == 1
                and len({held.last_sequence for held in states}) == 1
                and states[0].applied_sequence == states[0].last_sequence
            )

        await until(equal)
        for member in members[1:]:
            assert member.state.items == members[0].state.items
            assert member.state.history == members[0].state.history
            assert member.state.times == members[0].state.times
        return members


@asynccontextmanager
async def cluster(base: Path, names: str = "", **options: Any) -> AsyncIterator[Cluster]:
    """A cluster of these members, formed, and closed in the end."""
    settings = options.pop("settings", STEADY)
    ports = Ports()
    held = Cluster(base, ports, settings)
    try:
        if names:
            await held.form(names, **options)
        yield held
    finally:
        await held.close()
        ports.close()


def is_once(history: Sequence[str]) -> bool:
    """Whether every change was applied once."""
    return len(history) == len(set(history))


__all__ = [
    "FAST",
    "PATIENCE",
    "STEADY",
    "Book",
    "Cluster",
    "ConsensusError",
    "Cuts",
    "FaultyFiles",
    "Ports",
    "Told",
    "cluster",
    "error_of",
    "is_once",
    "run",
    "until",
]
