"""``kill -9``, ``SIGSTOP`` and restarts of real processes, with writers at work all the time.

What clients of a replicated map do and are told meanwhile is written down by each process and
judged in the end by the judge of the simulator (``simulation.judges.linearizability``).

``CLUSTERCONSENSUS_KILL_CYCLES`` sets the number of cycles, ``CLUSTERCONSENSUS_KILL_SEED`` the seed.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from clusterconsensus.simulation.judges.history import Operation
from clusterconsensus.simulation.judges.linearizability import Verdict
from clusterconsensus.simulation.judges.linearizability import check as linearizable
from clusterconsensus.simulation.judges.models import MapModel
from tests.processes.children import Group, check, until
from tests.processes.operations import with_a_stale_read

CYCLES = int(os.environ.get("CLUSTERCONSENSUS_KILL_CYCLES", "20"))
SEED = int(os.environ.get("CLUSTERCONSENSUS_KILL_SEED", "0")) or random.randrange(1, 1_000_000)

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGKILL"), reason="there is no kill -9 on this system"
)


def run(base: Path, names: str, story: Callable[[Group], Awaitable[None]], seconds: float) -> None:
    """Form a group, let a story happen to it, and check what is left."""

    async def main() -> None:
        group = Group(base, names, SEED)
        try:
            async with asyncio.timeout(seconds):
                await group.form()
                await group.progress()
                await story(group)
                check(group, await group.finish())
        except BaseException:
            print(f"seed {SEED}\n{group.logs()}", file=sys.stderr)
            raise
        finally:
            await group.close()

    asyncio.run(main())


async def kill_one(group: Group, name: str) -> None:
    """Kill a member; the others go on; it comes back."""
    others = [other for other in group.names if other != name]
    await group.kill(name)
    await group.progress(*others)
    await group.restart(name)
    await group.progress(name)


async def kill_master(group: Group) -> None:
    await kill_one(group, await group.master())


async def kill_follower(group: Group) -> None:
    master = await group.master()
    await kill_one(group, group.chance.choice([name for name in group.names if name != master]))


async def kill_two(group: Group) -> None:
    """Kill the majority; nothing can be acknowledged until one of them is back."""
    names = group.chance.sample(group.names, 2)
    await group.kill(*names)
    await group.restart(*names)
    await group.progress()


async def kill_all(group: Group) -> None:
    await group.kill(*group.names)
    await group.restart(*group.names)
    await group.progress()


async def kill_while_it_starts(group: Group) -> None:
    """Kill a member again at any moment of its start."""
    name = group.chance.choice(group.names)
    await group.kill(name)
    starting = asyncio.ensure_future(group.start(name))
    await asyncio.sleep(group.chance.random() * 0.3)
    if name in group.running:
        await group.kill(name)
    starting.cancel()
    await asyncio.gather(starting, return_exceptions=True)
    if name in group.running:
        await group.kill(name)
    await group.restart(name)
    await group.progress()


async def stop_master(group: Group) -> None:
    """A master that stands still is replaced, and does no harm when it goes on (C-23)."""
    name = await group.master()
    others = [other for other in group.names if other != name]
    stopped = group.running[name]
    stopped.signal(signal.SIGSTOP)
    try:
        assert await group.master(*others) != name
        await group.progress(*others)
    finally:
        stopped.signal(signal.SIGCONT)
    await group.progress()


async def stop_and_kill(group: Group) -> None:
    """The new master dies while the old one stands still."""
    name = await group.master()
    others = [other for other in group.names if other != name]
    stopped = group.running[name]
    stopped.signal(signal.SIGSTOP)
    try:
        new = await group.master(*others)
        await group.kill(new)
    finally:
        stopped.signal(signal.SIGCONT)
    await group.progress(*(other for other in group.names if other != new))
    await group.restart(new)
    await group.progress()


DEEDS = [
    kill_master,
    kill_follower,
    kill_master,
    kill_all,
    stop_master,
    kill_while_it_starts,
    kill_two,
    kill_master,
    stop_and_kill,
    kill_follower,
]


@pytest.mark.timeout(120 + 20 * CYCLES)
def test_nothing_acknowledged_is_lost_whatever_is_killed(tmp_path: Path) -> None:
    """C-35, A-27, A-28."""

    async def story(group: Group) -> None:
        for cycle in range(CYCLES):
            deed = DEEDS[cycle] if cycle < len(DEEDS) else group.chance.choice(DEEDS)
            await deed(group)

    run(tmp_path, "abc", story, 100 + 20 * CYCLES)


def test_one_alone_loses_nothing(tmp_path: Path) -> None:
    """C-4."""

    async def story(group: Group) -> None:
        for _ in range(3):
            await group.kill("a")
            await group.restart("a")
            await group.progress()

    run(tmp_path, "a", story, 55)


def test_a_process_dies_with_its_parent(tmp_path: Path) -> None:
    """Here: when its standard input closes; and it leaves in good order."""

    async def main() -> None:
        group = Group(tmp_path, "a", SEED)
        try:
            child = await group.start("a")
            await child.ask("found")
            assert await child.leave() == 0
            del group.running["a"]
            await until(lambda: "Traceback" not in group.logs())
        finally:
            await group.close()

    asyncio.run(main())


def test_a_history_of_processes_can_be_rejected(tmp_path: Path) -> None:
    """A stale read is put into a history that is right."""

    async def story(group: Group) -> None:
        await group.kill("a")
        await group.restart("a")
        await group.progress()
        await until(lambda: rejects(with_a_stale_read(group.operations())))
        assert linearizable(group.operations(), MapModel()).ok

    def rejects(history: list[Operation] | None) -> bool:
        return history is not None and not linearizable(history, MapModel()).ok

    run(tmp_path, "a", story, 55)


def test_members_that_break_a_promise_are_found_out(tmp_path: Path) -> None:
    """They serve the copy that they have as if it had been proven current (L1)."""

    async def main() -> None:
        group = Group(tmp_path, "abc", SEED, reads_locally=True)
        try:
            await group.form()
            await until(lambda: stale(linearizable(group.operations(), MapModel())))
        finally:
            await group.close()

    def stale(verdict: Verdict) -> bool:
        return verdict.decided and not verdict.ok

    asyncio.run(main())
