"""The example store, as real processes that are told what to do on their standard input.

A child is known by its own process object; nothing else is ever signalled, and all of them are dead
when a test ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import runpy
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from tests.test_docs import free_ports

ROOT = Path(__file__).resolve().parents[2]
STORE = ROOT / "examples" / "store.py"
PATIENCE_SECONDS = 25.0


class Member:
    """One member's process. What it answers is read line by line; events are kept apart."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.events: list[str] = []

    async def line(self) -> str:
        """The next line that is no event; empty at the end."""
        assert self.process.stdout is not None
        while True:
            line = (await self.process.stdout.readline()).decode().rstrip("\n")
            if not line.startswith("event "):
                return line
            self.events.append(line)

    async def __call__(self, command: str) -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")
        return await self.line()

    async def status(self, field: str) -> str:
        return (await self(f"status {field}")).removeprefix(f"{field}=")

    async def end(self) -> tuple[int, str]:
        """Close its input; returns the exit status and what it said on standard error."""
        _, complaint = await self.process.communicate(b"")
        assert self.process.returncode is not None
        return self.process.returncode, complaint.decode()


class Shop:
    """The processes of a test."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._ports = dict(zip("abcd", free_ports(4), strict=True))
        self._started: list[Member] = []

    def address(self, name: str) -> str:
        return f"127.0.0.1:{self._ports[name]}"

    def directory(self, name: str) -> Path:
        return self._base / name

    async def start(self, name: str, *options: str) -> Member:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(STORE),
            *("--id", name, "--listen", self.address(name)),
            *("--directory", str(self.directory(name)), *options),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
        )
        member = Member(process)
        self._started.append(member)
        return member

    async def close(self) -> None:
        for member in self._started:
            with contextlib.suppress(ProcessLookupError):
                member.process.kill()
            await member.process.communicate()


@contextlib.asynccontextmanager
async def shop_in(base: Path) -> AsyncIterator[Shop]:
    shop = Shop(base)
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            yield shop
    finally:
        await shop.close()


async def three(shop: Shop) -> tuple[Member, Member, Member]:
    """A cluster of a, which leads, b and c."""
    a = await shop.start("a", "--found")
    assert await a.line() == f"a listens on {shop.address('a')}"
    assert await a.line() == "founded"
    others = []
    for name in "bc":
        member = await shop.start(name, "--join", shop.address("a"))
        assert (await member.line()).startswith(f"{name} listens on ")
        assert await member.line() == "joined"
        others.append(member)
    return a, others[0], others[1]


async def until(ask: Callable[[], Awaitable[str]], wanted: str) -> None:
    """Ask again until the answer is as wanted; the test's own limit ends it."""
    while await ask() != wanted:  # noqa: ASYNC110 - what happens in another process
        await asyncio.sleep(0.02)


def test_a_cluster_obeys_every_command(tmp_path: Path) -> None:
    async def run() -> None:
        async with shop_in(tmp_path) as shop:
            a, b, c = await three(shop)
            assert (await a("members")).count("voter") == 3
            assert (await b("set apple a red one")).startswith("done at ")
            assert await c("get apple") == "apple = a red one"
            assert await a("get apple lease") == (
                "error settings: a lease read needs the setting lease_reads on every member"
            )
            assert await a("get apple local") == "apple = a red one"
            assert (await a("delete apple")).startswith("done at ")
            assert await a("delete apple") == "error apply: apply raised KeyError: 'apple'"
            assert await b("get apple") == "apple is not set"

            d = await shop.start("d", "--join", shop.address("b"), "--learner")
            assert (await d.line()).startswith("d listens on ")
            assert await d.line() == "joined"
            assert await d.status("role") == "learner"
            assert await b("promote d") == "promoted d"
            assert await b("demote d") == "demoted d"
            assert await b(f"add d {shop.address('d')}") == "added d"
            assert await b("priority d 0") == "priority of d is 0"
            assert "priority 0" in await b("members")
            assert await b(f"move d {shop.address('d')}") == "moved d"
            assert await b(f"replace d {shop.address('d')}") == "replaced d"

            assert await c("events on") == "telling events"
            assert await c("transfer b") == "b leads"
            assert await c("remove a") == "removed a"
            await until(lambda: a.status("role"), "removed")
            assert (await a("get apple")).startswith("error removed: ")
            assert any("MembershipChanged" in event for event in c.events)
            assert await c("events off") == "telling no events"
            assert (await b("remove x")).startswith("error membership: no member 'x'")

            assert (await c("snapshot")).startswith("snapshot up to ")
            assert list(shop.directory("c").glob("*.snap"))
            for wrong in (
                "bogus",
                "get",
                "priority d x",
                "events",
                "remove a b",
                "status no",
                "retry",
            ):
                assert (await c(wrong)).startswith("error usage: "), wrong
            assert await c("quit") == "c ended"
            assert await c.process.wait() == 0
            b.process.send_signal(signal.SIGTERM)
            assert await b.line() == "b ended"
            assert await b.process.wait() == 0
            status, complaint = await d.end()
            assert status == 0
            assert "Traceback" not in complaint

    asyncio.run(run())


def test_a_killed_member_comes_back_with_everything(tmp_path: Path) -> None:
    async def run() -> None:
        async with shop_in(tmp_path) as shop:
            a, b, _ = await three(shop)
            assert (await a("set k 1")).startswith("done at ")
            a.process.kill()
            await a.process.wait()
            assert (await b("set k 2")).startswith("done at ")
            a = await shop.start("a", "--found")  # as before: it founds no second cluster
            assert (await a.line()).startswith("a listens on ")
            assert await a("get k") == "k = 2"

            second = await shop.start("a")
            status, complaint = await second.end()
            assert status == 1
            assert complaint.startswith("error directory_in_use: ")
            assert "Traceback" not in complaint
            unknown = await shop.start("d", "--set", "no_such=1")
            status, complaint = await unknown.end()
            assert (status, complaint) == (2, "error settings: no such setting: 'no_such=1'\n")

    asyncio.run(run())


def test_the_state_goes_through_a_snapshot_in_pieces() -> None:
    found: dict[str, Any] = runpy.run_path(str(STORE.parent / "store_state.py"))
    old, new = found["Store"](), found["Store"]()
    old.values = {f"key {number}": "x" * number for number in range(1000)}
    new.values = {"nothing of this": "remains"}
    pieces = old.snapshot()
    expected = old.values.copy()
    old.values["later"] = "is not in it"
    taken = list(pieces)
    assert len(taken) == 4
    new.install(io.BytesIO(b"".join(taken)))
    assert new.values == expected
