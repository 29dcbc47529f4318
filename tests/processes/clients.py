"""The clients of one member process: they use a replicated map and write down what comes of it.

A client writes a line into a file before each call and another one after it, with the time of the
machine's one monotonic clock, which all processes share. What is written outlives ``kill -9``: the
kernel has it. ``operations`` makes a history of the lines.

Members import this module at each of their many starts, so it does not import the simulator.
"""

from __future__ import annotations

import asyncio
import os
import time
from random import Random
from typing import Any

import msgspec

from clusterconsensus import (
    ConsensusError,
    Outcome,
    OutcomeUnknownError,
    Participant,
    SessionExpiredError,
)

KEYS = ("x", "y", "z")
PAUSE_SECONDS = 0.02
PATIENCE_SECONDS = 1.0


class Map:
    """A replicated map; ``None`` stands for "nothing there". Values are written once."""

    def __init__(self) -> None:
        self.values: dict[str, str | None] = {}

    def apply(self, change: list[Any]) -> Any:
        """``put`` gives the previous value; ``cas`` swaps if the value is as expected."""
        match change:
            case ["put", key, value]:
                previous = self.values.get(key)
                self.values[key] = value
                return previous
            case ["cas", key, old, new]:
                swapped = self.values.get(key) == old
                if swapped:
                    self.values[key] = new
                return swapped
        raise ValueError(f"a map has no {change!r}")


class Call(msgspec.Struct, tag="call"):
    """The line before a call. ``at`` is in nanoseconds of the machine's monotonic clock."""

    number: int
    at: int
    call: list[Any]


class Return(msgspec.Struct, tag="return"):
    """The line after it. ``number`` is that of its call."""

    number: int
    at: int
    outcome: str
    result: Any = None


class Clients:
    """The clients of one process.

    Arguments:
        participant: Whom they ask; its state has a ``Map`` as ``map``.
        name: Unique for each life of each member; values begin with it.
        path: Where they write down what happens; appended to.
        reads_locally: Breaks a promise on purpose: what this member happens to have passes for what
            is proven current.
    """

    def __init__(
        self, participant: Participant[Any], name: str, path: str, *, reads_locally: bool = False
    ) -> None:
        self._participant = participant
        self._name = name
        self._path = path
        self._reads_locally = reads_locally
        self._file = -1
        self._next = 1
        self._seen: dict[str, Any] = dict.fromkeys(KEYS)
        self._tasks: list[asyncio.Task[None]] = []
        self._stop = False

    def start(self, count: int = 2) -> None:
        """Let these many clients begin."""
        self._stop = False
        if self._file < 0:
            self._file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        chance = Random(self._name)
        self._tasks = [
            asyncio.ensure_future(self._live(Random(chance.random()))) for _ in range(count)
        ]

    async def stop(self) -> None:
        """Let each client finish what it is at."""
        self._stop = True
        await asyncio.gather(*self._tasks)

    async def _live(self, chance: Random) -> None:
        while not self._stop:
            await self._call(self._drawn(chance))
            await asyncio.sleep(PAUSE_SECONDS * 2 * chance.random())

    def _drawn(self, chance: Random) -> list[Any]:
        key = chance.choice(KEYS)
        value = f"{self._name}.{self._next}"
        match chance.randrange(4):
            case 0:
                return ["put", key, value]
            case 1:
                return ["cas", key, self._seen[key], value]
            case _:
                return ["get", key]

    async def _call(self, call: list[Any]) -> None:
        number, self._next = self._next, self._next + 1
        self._write(Call(number, time.monotonic_ns(), call))
        result: Any = None
        try:
            result = await (self._read(call) if call[0] == "get" else self._submit(call))
            outcome = "ok"
        except ConsensusError as error:
            reads = call[0] == "get"
            outcome = "not applied" if reads or error.outcome is Outcome.NOT_APPLIED else "unknown"
        self._write(Return(number, time.monotonic_ns(), outcome, result))
        if outcome == "ok" and result is not False:
            self._seen[call[1]] = result if call[0] == "get" else call[-1]

    async def _read(self, call: list[Any]) -> Any:
        consistency = "local" if self._reads_locally else "linearizable"
        return await self._participant.read(
            lambda state: state.map.values.get(call[1]),
            consistency=consistency,  # type: ignore[arg-type]  # one of the two names
            timeout=PATIENCE_SECONDS,
        )

    async def _submit(self, call: list[Any]) -> Any:
        """Submit, and ask once more inside the session if the outcome is unknown."""
        try:
            return await self._participant.submit(call, timeout=PATIENCE_SECONDS)
        except SessionExpiredError:
            raise
        except OutcomeUnknownError as error:
            if error.request is None:
                raise
            return await self._participant.retry(error, timeout=PATIENCE_SECONDS)

    def _write(self, line: Call | Return) -> None:
        os.write(self._file, msgspec.json.encode(line) + b"\n")
