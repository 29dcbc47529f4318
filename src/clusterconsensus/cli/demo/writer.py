"""A writer process: transfers money through the members, and keeps its own account of it.

A writer runs several *lanes*. Each lane has one transfer under way at a time, and before it begins
the next it has written into the writer's journal what became of the last:

* ``acknowledged``: a member said that it is done. From here on it must never be lost.
* ``unknown``: the connection broke, or no answer came in time. It may be done, and it is never
  tried again: under the same id it could be done twice, under a new id too.
* ``refused``: it was never handed to a member, or the member said that it was not and will not be
  applied. After such a word the lane tries the *same* id again, here or elsewhere, as the library
  says it may; a false word of this kind would show as a transfer that is applied twice. Only the
  last transfer of a lane can end like this.

The journal belongs to the writer alone, so the check at the end rests on nothing that a member says
of itself. It needs no fsync: writers are never killed, and the machine is not switched off.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path

from clusterconsensus.cli.demo.bank import Transfer, transfer_of
from clusterconsensus.cli.demo.child import WriterOrder
from clusterconsensus.cli.demo.protocol import Connection, Done, DoTransfer, Refused

PATIENCE_SECONDS = 3.0
"""How long a lane waits for an answer. Longer than a fail-over after silence takes, so that only
writes through the silent member itself stay unknown."""

PAUSE_SECONDS = 0.02
"""Between two attempts when nobody takes a transfer."""

HOME_SECONDS = 1.0
"""How long a lane stays away from its own member after that was out of reach."""


class Fate(StrEnum):
    """What a writer knows of one of its transfers."""

    ACKNOWLEDGED = "acknowledged"
    UNKNOWN = "unknown"
    REFUSED = "refused"


class Journal:
    """A writer's own list of what became of each transfer: one line each, written at once."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def record(self, fate: Fate, transfer_id: str) -> None:
        """Append a line; when this returns it is the operating system's."""
        os.write(self._file, f"{fate} {transfer_id}\n".encode())

    def close(self) -> None:
        os.close(self._file)


def read_journal(path: Path) -> Iterator[tuple[Fate, str]]:
    """What a writer has recorded, in order."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            fate, _, transfer_id = line.rstrip("\n").partition(" ")
            yield Fate(fate), transfer_id


class Lane:
    """One transfer at a time.

    Arguments:
        name: Part of the ids, unique in the run.
        seed: What the transfers are computed from.
        ports: Of all members.
        home: Index of the member that this lane uses while it can.
        journal: Where fates go.
    """

    def __init__(
        self, name: str, seed: int, ports: Sequence[int], home: int, journal: Journal
    ) -> None:
        self._name = name
        self._seed = seed
        self._ports = ports
        self._home = home % len(ports)
        self.at = self._home
        """Index of the member that is used now."""
        self._away_until = 0.0
        self._journal = journal
        self._connection: Connection | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Do transfers until told to stop; the one under way is brought to an end."""
        number = 0
        while not stop.is_set():
            number += 1
            transfer = transfer_of(f"{self._name}.{number}", self._seed)
            self._journal.record(await self.settle(transfer, stop), transfer.id)
        self.hang_up()

    async def settle(self, transfer: Transfer, stop: asyncio.Event) -> Fate:
        """Bring one transfer to an end, and return what is known of it."""
        while True:
            connection = await self._connect()
            if connection is not None:
                fate = await self._ask(connection, transfer)
                if fate is not Fate.REFUSED:
                    return fate
            if stop.is_set():
                return Fate.REFUSED
            await asyncio.sleep(PAUSE_SECONDS)

    async def _ask(self, connection: Connection, transfer: Transfer) -> Fate:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                answer = await connection.ask(DoTransfer(transfer))
        except (OSError, TimeoutError):
            self._move_on()
            return Fate.UNKNOWN
        if isinstance(answer, Done):
            return Fate.ACKNOWLEDGED
        self._move_on()
        return Fate.REFUSED if isinstance(answer, Refused) else Fate.UNKNOWN

    async def _connect(self) -> Connection | None:
        """The connection in use, or a new one; None if this member cannot be reached now."""
        now = asyncio.get_running_loop().time()
        if self.at != self._home and now >= self._away_until:
            self.hang_up()
            self.at = self._home
        if self._connection is None:
            try:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    self._connection = await Connection.open(self._ports[self.at])
            except (OSError, TimeoutError):
                self._move_on()
        return self._connection

    def _move_on(self) -> None:
        """To the next member; back to the own one after a while."""
        self.hang_up()
        if self.at == self._home:
            self._away_until = asyncio.get_running_loop().time() + HOME_SECONDS
        self.at = (self.at + 1) % len(self._ports)

    def hang_up(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


async def _run(order: WriterOrder) -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    journal = Journal(Path(order.journal))
    with contextlib.closing(journal):
        async with asyncio.TaskGroup() as lanes:
            for number in range(order.lanes):
                name = f"{order.name}.{number}"
                lane = Lane(name, order.seed, order.ports, number, journal)
                lanes.create_task(lane.run(stop))


def run(order: WriterOrder) -> None:
    """Write until SIGTERM, then bring what is under way to its end and return."""
    asyncio.run(_run(order))
