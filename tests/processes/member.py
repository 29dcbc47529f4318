"""A member in a process of its own, which the tests start, kill and stop.

It obeys lines of JSON on its standard input and answers on its standard output. Of its own accord
it writes: each of its *lanes* submits one change after the other and prints every acknowledgement,
with the place in the history that ``apply`` returned. What was printed was acknowledged, whatever
becomes of the process afterwards. And it has clients of a replicated map (``clients``).

It ends when its standard input closes, and the kernel kills it when its parent dies.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec

from clusterconsensus import (
    ConsensusError,
    Context,
    Member,
    NotAppliedError,
    OutcomeUnknownError,
    Participant,
    ParticipantClosedError,
    SessionExpiredError,
    Settings,
    TcpTransport,
)
from clusterconsensus.settings import KIB
from clusterconsensus.state import Readable
from tests.processes.clients import Clients, Map

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>

SETTINGS = Settings(
    heartbeat_seconds=0.04,
    election_timeout_seconds=0.4,
    retry_seconds=0.2,
    submit_timeout_seconds=1.0,
    segment_bytes=256 * KIB,
    log_cache_bytes=64 * KIB,
)

COMPACTING = msgspec.structs.replace(
    SETTINGS,
    snapshot_entries=400,
    keep_log_entries=50,
    segment_bytes=64 * KIB,
    chunk_bytes=16 * KIB,
    scrub_bytes_per_second=16 * 1024 * KIB,
    read_timeout_seconds=20.0,
)

PAUSE_SECONDS = 0.004
"""Between two changes of one lane, so that the histories stay small."""


class Order(msgspec.Struct, kw_only=True):
    """What a process is told on its command line."""

    id: str
    address: str
    directory: str
    life: int
    """Which start of this member it is."""
    parent: int
    lanes: int = 3
    clients: str = ""
    """Where its clients write down what they do and are told; the name of a file."""
    reads_locally: bool = False
    """See ``Clients``."""
    compacts: bool = False
    """Whether snapshots are taken often, and little of the log is kept behind them."""


class Command(msgspec.Struct, kw_only=True):
    """One line of input."""

    do: str
    number: int
    id: str = ""
    address: str = ""
    path: str = ""


class History:
    """A state that keeps everything: a change is ``[lane, number]``, or one of the map."""

    def __init__(self) -> None:
        self.changes: list[list[Any]] = []
        self.map = Map()

    def apply(self, change: list[Any], context: Context) -> Any:
        self.changes.append(change)
        return len(self.changes) if len(change) == 2 else self.map.apply(change)

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode((self.changes, self.map.values))

    def install(self, snapshot: Readable) -> None:
        self.changes, self.map.values = msgspec.msgpack.decode(snapshot.read())


def say(**content: object) -> None:
    """Print a line at once, whole."""
    os.write(1, msgspec.json.encode(content) + b"\n")


def end_with_parent(parent: int) -> None:
    """Make sure that this process does not outlive its parent, even while it is stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


class Writer:
    """The lanes of one process."""

    def __init__(self, participant: Participant[History], order: Order) -> None:
        self._participant = participant
        self._lanes = [f"{order.id}.{order.life}.{lane}" for lane in range(order.lanes)]
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = False

    def start(self) -> None:
        self._stop = False
        self._tasks = [asyncio.ensure_future(self._write(lane)) for lane in self._lanes]

    async def stop(self) -> None:
        """Let every lane finish what it is at."""
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _write(self, lane: str) -> None:
        number = 0
        while not self._stop:
            number += 1
            place = await self._submit([lane, number])
            say(lane=lane, number=number, place=place)
            await asyncio.sleep(PAUSE_SECONDS)

    async def _submit(self, change: list[Any]) -> int:
        """Insist until there is an outcome. A place of 0: it can no longer be told."""
        unknown: OutcomeUnknownError | None = None
        while True:
            try:
                if unknown is None:
                    return int(await self._participant.submit(change))
                return int(await self._participant.retry(unknown))
            except SessionExpiredError:
                return 0
            except OutcomeUnknownError as error:
                unknown = error
                await asyncio.sleep(PAUSE_SECONDS)  # one that has stopped says so at once
            except ParticipantClosedError:
                return 0
            except NotAppliedError:
                await asyncio.sleep(PAUSE_SECONDS)


async def main(order: Order) -> None:
    participant = Participant(
        cluster="shop",
        member=Member(order.id, order.address),
        state=History(),
        directory=order.directory,
        transport=TcpTransport(order.address),
        settings=COMPACTING if order.compacts else SETTINGS,
    )
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    async with participant:
        writer = Writer(participant, order)
        clients = Clients(
            participant,
            f"{order.id}.{order.life}",
            order.clients,
            reads_locally=order.reads_locally,
        )
        say(ready=True)
        while line := await reader.readline():
            command = msgspec.json.decode(line, type=Command)
            try:
                found = await obey(command, participant, writer, clients)
            except ConsensusError as error:
                found = {"error": f"{error.code}: {error}"}
            say(answer=command.number, **found)


def dump(path: str, state: History) -> None:
    Path(path).write_bytes(msgspec.json.encode(state.changes))


async def obey(
    command: Command, participant: Participant[History], writer: Writer, clients: Clients
) -> dict[str, object]:
    """Do what a line asks for."""
    if command.do == "found":
        await participant.init_master()
    elif command.do == "add":
        await participant.add_participant(Member(command.id, command.address))
    elif command.do == "remove":
        await participant.remove_participant(command.id)
    elif command.do == "replace":
        await participant.replace_participant(Member(command.id, command.address))
    elif command.do == "demote":
        await participant.demote_participant(command.id)
    elif command.do == "promote":
        await participant.promote_participant(command.id)
    elif command.do == "transfer":
        await participant.transfer_master(command.id or None)
    elif command.do == "snapshot":
        await participant.snapshot()
    elif command.do == "write":
        writer.start()
        clients.start()
    elif command.do == "rest":
        await asyncio.gather(writer.stop(), clients.stop())
    elif command.do == "dump":
        dump(command.path, participant.state)
    elif command.do == "status":
        status = participant.status()
        return {
            "role": status.role.value,
            "master": "" if status.master is None else status.master.id,
            "last": status.last_sequence,
            "applied": status.applied_sequence,
            "checksum": status.checksum,
            "diverged": status.diverged,
            "recovering": status.recovering,
            "snapshots": status.snapshots["taken"],
            "first": status.first_sequence,
        }
    return {}


if __name__ == "__main__":
    given = msgspec.json.decode(sys.argv[1], type=Order)
    end_with_parent(given.parent)
    asyncio.run(main(given))
