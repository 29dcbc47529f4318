"""Virtual time: what asyncio promises holds, and what would leave the simulation is refused."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from clusterconsensus.simulation.world.guard import RealWorldError
from clusterconsensus.simulation.world.loop import (
    Killed,
    SimulatedLoop,
    StalledError,
    World,
)


def test_time_jumps_and_order_is_kept() -> None:
    world = World()
    told: list[tuple[float, str]] = []

    async def wait(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        told.append((asyncio.get_running_loop().time(), name))

    async def main() -> str:
        await asyncio.gather(wait("late", 3600.0), wait("soon", 1.0), wait("also soon", 1.0))
        return "done"

    assert world.run(main()) == "done"
    assert told == [(1.0, "soon"), (1.0, "also soon"), (3600.0, "late")]
    assert world.now == 3600.0
    assert world.events < 30


def test_timeouts_locks_queues_and_cancellation_work() -> None:
    async def main() -> list[str]:
        told: list[str] = []
        queue: asyncio.Queue[int] = asyncio.Queue()
        lock = asyncio.Lock()

        async def hold() -> None:
            async with lock:
                try:
                    await asyncio.sleep(100)
                except asyncio.CancelledError:
                    told.append("cancelled")
                    raise

        task = asyncio.get_running_loop().create_task(hold())
        try:
            async with asyncio.timeout(5):
                await queue.get()
        except TimeoutError:
            told.append(f"timed out at {asyncio.get_running_loop().time():g}")
        task.cancel()
        async with lock:
            told.append("locked")
        async with asyncio.TaskGroup() as group:
            group.create_task(queue.put(7))
            got = group.create_task(queue.get())
        told.append(str(got.result()))
        return told

    assert World().run(main()) == ["timed out at 5", "cancelled", "locked", "7"]


def test_a_seed_gives_its_chance_by_name() -> None:
    one, same, other = World(5), World(5), World(6)
    assert one.chance("x").random() == same.chance("x").random()
    assert one.chance("x").random() != one.chance("y").random()
    assert one.chance("x").random() != other.chance("x").random()


REACHES: dict[str, Callable[[], Any]] = {
    "threading.Thread.start": lambda: threading.Thread(target=print).start(),
    "socket.__new__": socket.socket,
    "time.sleep": lambda: time.sleep(0.01),
    "subprocess.Popen": lambda: subprocess.run([sys.executable, "-c", ""], check=True),
}


@pytest.mark.parametrize("name", sorted(REACHES))
def test_what_reaches_for_the_real_world_is_refused_by_name(name: str) -> None:
    async def main() -> None:
        REACHES[name]()

    with pytest.raises(RealWorldError, match=name.replace(".", r"\.")):
        World().run(main())
    if name == "time.sleep":
        REACHES[name]()  # outside of a simulation it works as ever


AWAITS: dict[str, Callable[[], Awaitable[Any]]] = {
    "run_in_executor": lambda: asyncio.to_thread(print),
    "create_connection": lambda: asyncio.open_connection("127.0.0.1", 1),
    "create_server": lambda: asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0),
    "subprocess_exec": lambda: asyncio.create_subprocess_exec("true"),
    "getaddrinfo": lambda: asyncio.get_running_loop().getaddrinfo("localhost", 1),
}


@pytest.mark.parametrize("name", sorted(AWAITS))
def test_what_a_coroutine_cannot_have_is_refused_by_name(name: str) -> None:
    async def main() -> None:
        await AWAITS[name]()

    with pytest.raises(RealWorldError, match=name):
        World().run(main())


def test_other_threads_are_left_alone() -> None:
    """Only the simulation's own thread is guarded."""
    slept = threading.Event()
    go = threading.Event()

    def elsewhere() -> None:
        go.wait(10)
        time.sleep(0.001)
        slept.set()

    thread = threading.Thread(target=elsewhere)
    thread.start()

    async def main() -> bool:
        go.set()
        return slept.wait(10)

    assert World().run(main())
    thread.join()


def test_who_waits_for_nothing_is_told() -> None:
    async def main() -> None:
        await asyncio.get_running_loop().create_future()

    with pytest.raises(StalledError, match="nothing can happen"):
        World().run(main())


def test_a_run_has_an_end() -> None:
    async def main() -> None:
        await asyncio.sleep(1_000)

    with pytest.raises(StalledError, match="at 10 s"):
        World().run(main(), until=10)


def test_time_that_stands_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clusterconsensus.simulation.world.loop.MAX_EVENTS_IN_ONE_INSTANT", 1_000)

    async def main() -> None:
        for _ in range(10_000):
            await asyncio.sleep(0)

    with pytest.raises(StalledError, match="time does not go on"):
        World().run(main())


def test_what_nobody_handles_ends_the_simulation() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_soon(lambda: 1 / 0)
        await asyncio.sleep(10)

    with pytest.raises(ZeroDivisionError):
        World().run(main())


def test_one_world_at_a_time() -> None:
    async def nothing() -> None:
        pass

    async def main() -> None:
        inner = nothing()
        try:
            World().run(inner)
        finally:
            inner.close()

    with pytest.raises(RealWorldError, match="inside another"):
        World().run(main())


# -- machines


def ticking(loop: SimulatedLoop, told: list[float], world: World) -> None:
    """Let a loop tell the true time at each second of its own clock."""

    async def tick() -> None:
        while True:
            await asyncio.sleep(1.0)
            told.append(round(world.now, 6))

    loop.create_task(tick())


def run_for(world: World, seconds: float) -> None:
    world.run(asyncio.sleep(seconds))


def test_a_paused_machine_catches_up_and_a_frozen_one_does_not_know() -> None:
    world = World()
    paused, frozen = world.make_loop("paused"), world.make_loop("frozen")
    first: list[float] = []
    second: list[float] = []
    ticking(paused, first, world)
    ticking(frozen, second, world)
    run_for(world, 1.5)
    paused.pause()
    frozen.freeze()
    run_for(world, 10.0)
    assert first == second == [1.0]
    paused.resume()
    frozen.resume()
    run_for(world, 2.2)
    assert paused.time() == pytest.approx(13.7)
    assert frozen.time() == pytest.approx(3.7)
    assert first == [1.0, 11.5, 12.5, 13.5]
    assert second == [1.0, 12.0, 13.0]
    world.close()
    paused.kill()
    frozen.kill()


def test_a_clock_may_be_fast_or_slow_and_never_goes_back() -> None:
    world = World()
    loop = world.make_loop("a")
    told: list[float] = []
    ticking(loop, told, world)
    loop.set_rate(2.0)
    run_for(world, 2.2)
    assert told == [0.5, 1.0, 1.5, 2.0]
    before = loop.time()
    loop.set_rate(0.5)
    assert loop.time() == pytest.approx(before)
    run_for(world, 4.0)
    assert told[4:] == pytest.approx([2.0 + 0.2 + 0.6 / 0.5, 2.0 + 0.2 + 1.6 / 0.5])
    loop.kill()


def test_a_killed_machine_does_nothing_more() -> None:
    world = World()
    loop = world.make_loop("a")
    told: list[str] = []

    async def stubborn() -> None:
        try:
            await asyncio.sleep(1_000)
        except Killed:
            told.append("killed")
            raise
        finally:
            loop.call_soon(told.append, "after death")
            try:
                await asyncio.sleep(0)
            finally:
                await asyncio.sleep(0)

    task = loop.create_task(stubborn())
    run_for(world, 1.0)
    loop.kill()
    loop.resume()
    run_for(world, 10.0)
    assert told == ["killed"]
    assert not task.done()
    assert loop.is_closed()
    loop.kill()  # again does nothing


def test_a_callback_of_a_dead_machine_raises_for_nobody() -> None:
    world = World()
    loop = world.make_loop("a")
    loop.call_later(1.0, lambda: 1 / 0)
    loop.kill()
    run_for(world, 5.0)
    assert world.failure is None
