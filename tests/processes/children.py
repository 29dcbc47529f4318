"""Starts, kills and stops member processes, and keeps what they acknowledged.

Each child is known by its own process object; nothing else is ever signalled. A child dies with
this process: its standard input closes, and the kernel is asked to kill it.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

import clusterconsensus
from clusterconsensus.simulation.judges.history import Operation
from clusterconsensus.simulation.judges.linearizability import check as linearizable
from clusterconsensus.simulation.judges.models import MapModel
from tests.processes.member import Order
from tests.processes.operations import gathered, outcomes, placed

PATIENCE = 60.0

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path(clusterconsensus.__path__[0]).parent


Changes = list[tuple[Any, ...]]
"""What one member has applied: changes of lanes, which have two parts, and of the map."""


class Child:
    """One process, from its start to its end."""

    def __init__(self, group: Group, name: str, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.ready = asyncio.Event()
        self.acknowledged = 0
        self._group = group
        self._process = process
        self._answers: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._next = 1
        self._reading = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        stdout = self._process.stdout
        assert stdout is not None
        while (line := await stdout.readline()).endswith(b"\n"):
            told = msgspec.json.decode(line)
            if "lane" in told:
                self.acknowledged += 1
                if told["place"]:
                    self._group.acknowledged.append((told["lane"], told["number"], told["place"]))
            elif "ready" in told:
                self.ready.set()
            else:
                answer = self._answers.pop(told["answer"], None)
                if answer is not None and not answer.done():
                    answer.set_result(told)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(ConnectionError(f"{self.name} is gone"))

    async def ask(self, do: str, **content: str) -> dict[str, Any]:
        """Have a command obeyed.

        Raises:
            ConnectionError: the process has ended.
        """
        answer: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        number, self._next = self._next, self._next + 1
        self._answers[number] = answer
        stdin = self._process.stdin
        if stdin is None or self._reading.done():
            raise ConnectionError(f"{self.name} is gone")
        stdin.write(msgspec.json.encode({"do": do, "number": number, **content}) + b"\n")
        found = await answer
        assert "error" not in found, f"{self.name}: {do}: {found['error']}"
        return found

    @property
    def ended(self) -> bool:
        """Whether the process is gone."""
        return self._process.returncode is not None

    def resident_bytes(self) -> int:
        """The memory that this process has, 0 where it is gone or the system does not tell."""
        try:
            pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        except OSError:
            return 0
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def signal(self, number: signal.Signals) -> None:
        """Signal this process, if it still runs."""
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def kill(self) -> None:
        """``kill -9``, and read what it had said until then."""
        self.signal(signal.SIGKILL)
        await self._process.wait()
        await self._reading

    async def leave(self) -> int:
        """Let it end in good order; returns its exit status."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        status = await self._process.wait()
        await self._reading
        return status


class Group:
    """The members of one cluster, each in a process.

    Arguments:
        base: Where their directories and their logs lie.
        names: Their ids.
        seed: Of every choice.
        reads_locally: Whether the members' clients get unproven reads; see ``Clients``.
        compacts: Whether the members take snapshots often and keep little of the log.
        lanes: How many writers each member has.
    """

    def __init__(
        self,
        base: Path,
        names: str,
        seed: int,
        *,
        reads_locally: bool = False,
        compacts: bool = False,
        lanes: int = 3,
    ) -> None:
        self.base = base
        self.reads_locally = reads_locally
        self.compacts = compacts
        self.lanes = lanes
        self.names = names
        self.chance = random.Random(seed)
        self.acknowledged: list[tuple[str, int, int]] = []
        self.running: dict[str, Child] = {}
        self._lives: dict[str, int] = dict.fromkeys(names, 0)
        self._sockets: list[socket.socket] = []
        self.addresses = {name: self._take_port() for name in names}

    def _take_port(self) -> str:
        """A port that stays bound, without listening, so that nobody else gets it."""
        held = socket.socket()
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        self._sockets.append(held)
        return f"127.0.0.1:{held.getsockname()[1]}"

    async def start(self, name: str) -> Child:
        """Start a member, new or again."""
        self._lives[name] += 1
        order = Order(
            id=name,
            address=self.addresses[name],
            directory=str(self.base / name),
            life=self._lives[name],
            parent=os.getpid(),
            clients=str(self.base / f"{name}.{self._lives[name]}.operations"),
            reads_locally=self.reads_locally,
            compacts=self.compacts,
            lanes=self.lanes,
        )
        with self._log(name) as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.processes.member",
                msgspec.json.encode(order).decode(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{SOURCE}:{ROOT}"},
            )
        child = self.running[name] = Child(self, name, process)
        await asyncio.wait_for(child.ready.wait(), PATIENCE)
        return child

    def _log(self, name: str) -> Any:
        return (self.base / f"{name}.log").open("ab")

    def logs(self) -> str:
        """What the members complained about."""
        return "\n".join(
            f"{name}: {(self.base / f'{name}.log').read_text()}" for name in self.names
        )

    async def form(self) -> None:
        """Start all members; the first founds the cluster and adds the others."""
        await asyncio.gather(*(self.start(name) for name in self.names))
        first = self.running[self.names[0]]
        await first.ask("found")
        for name in self.names[1:]:
            await first.ask("add", id=name, address=self.addresses[name])
        for child in self.running.values():
            await child.ask("write")

    async def kill(self, *names: str) -> None:
        """Kill members, all at once."""
        children = [self.running.pop(name) for name in names]
        for child in children:
            child.signal(signal.SIGKILL)
        await asyncio.gather(*(child.kill() for child in children))

    async def restart(self, *names: str) -> None:
        """Start members again, and let them write."""
        children = await asyncio.gather(*(self.start(name) for name in names))
        for child in children:
            await child.ask("write")

    async def master(self, *names: str) -> str:
        """Whom one of these members knows as the master; waits until that is one of the running
        members that says so itself."""
        while True:
            for name in names or tuple(self.running):
                said = (await self.running[name].ask("status"))["master"]
                if said in (names or self.running):
                    status = await self.running[said].ask("status")
                    if status["role"] == "master":
                        return str(said)
            await asyncio.sleep(0.01)

    async def progress(self, *names: str) -> None:
        """Wait until each of these members has got more of its changes acknowledged."""
        before = {name: self.running[name].acknowledged for name in names or self.running}
        await until(
            lambda: all(self.running[name].acknowledged > count for name, count in before.items())
        )

    def operations(self) -> list[Operation]:
        """What the clients of all members' lives have written down so far."""
        return gathered(self.base.glob("*.operations"))

    async def finish(self) -> list[Changes]:
        """Stop the writers, wait until all members are equal, and return their histories."""
        children = list(self.running.values())
        await asyncio.gather(*(child.ask("rest") for child in children))
        while True:
            found = [await child.ask("status") for child in children]
            assert not any(status["diverged"] for status in found)
            if len({(status["applied"], status["checksum"]) for status in found}) == 1 and all(
                status["applied"] == status["last"] for status in found
            ):
                break
            await asyncio.sleep(0.02)
        histories = []
        for child in children:
            path = self.base / f"{child.name}.history"
            await child.ask("dump", path=str(path))
            histories.append(read_history(path))
        assert [await child.leave() for child in children] == [0] * len(children)
        self.running.clear()
        return histories

    async def close(self) -> None:
        """End what still runs."""
        await self.kill(*self.running)
        for held in self._sockets:
            held.close()


def read_history(path: Path) -> Changes:
    return msgspec.json.decode(path.read_bytes(), type=Changes)


async def until(condition: Callable[[], object]) -> None:
    """Wait for a condition that has no event of its own."""
    deadline = asyncio.get_running_loop().time() + PATIENCE
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "the condition never came true"
        await asyncio.sleep(0.005)


def check(group: Group, histories: list[Changes]) -> None:
    """No acknowledged change is lost or misplaced, none is applied twice, all members are equal;
    and what the clients of the map were told makes sense in some order (I-16)."""
    history = histories[0]
    assert all(other == history for other in histories)
    assert len(set(history)) == len(history), "a change was applied twice"
    assert group.acknowledged, "nothing was acknowledged"
    for lane, number, place in group.acknowledged:
        assert history[place - 1] == (lane, number), f"change {number} of {lane} is not at {place}"
    last: dict[str, int] = {}
    for change in history:
        if len(change) == 2:
            lane, number = change
            assert number == last.get(lane, 0) + 1, f"{lane} is out of order at {number}"
            last[lane] = number
    operations = group.operations()
    placed(operations, history)
    found = outcomes(operations)
    assert found.get("get ok"), found
    assert found.get("put ok"), found
    verdict = linearizable(operations, MapModel())
    assert verdict.ok, verdict.explain()
