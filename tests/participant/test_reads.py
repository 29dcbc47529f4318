"""Reads: current or refused, never stale without having been asked for."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterconsensus import (
    NotReadyError,
    OverloadedError,
    ReadFailedError,
    SettingsError,
)
from tests.participant.helpers import FAST, STEADY, Book, cluster, error_of, run, until


def x_of(book: Book) -> int:
    return book.items.get("x", 0)


def test_every_member_reads_what_was_acknowledged_anywhere(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            for number in range(1, 31):
                await held["abc"[number % 3]].submit(["x", 1])
                seen = await asyncio.gather(*(held[name].read(x_of) for name in "abc"))
                assert seen == [number] * 3

    run(main())


def test_a_cut_off_master_serves_nothing_stale(tmp_path: Path) -> None:
    """A-34, C-21."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            master = await held.has_master()
            names = [name for name in "abc" if name != master.member.id]
            await master.submit(["x", 1])
            held.cuts.isolate(master.member.id, *names)
            reads: list[int] = []
            refused = 0

            async def reader() -> None:
                nonlocal refused
                try:
                    reads.append(await master.read(x_of, timeout=1.0))
                except ReadFailedError:
                    refused += 1

            readers = [asyncio.ensure_future(reader()) for _ in range(5)]
            assert await held[names[0]].submit(["x", 1]) == 2
            await asyncio.gather(*readers, reader())
            assert (reads, refused) == ([], 6)
            assert await master.read(x_of, consistency="local") == 1, "it was asked for"
            held.cuts.heal()
            assert await master.read(x_of) == 2

    run(main())


def test_a_read_that_began_before_the_cut_is_served_after_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            await held["a"].submit(["x", 1])
            held.cuts.isolate("a", "b", "c")
            read = asyncio.ensure_future(held["a"].read(x_of))
            assert await held["b"].submit(["x", 1]) == 2
            held.cuts.heal()
            assert await read == 2

    run(main())


def test_pinging_is_a_round_trip_to_a_quorum(tmp_path: Path) -> None:
    """A-35."""

    async def main() -> None:
        settings = msgspec.structs.replace(FAST, election_timeout_seconds=1.0)
        async with cluster(tmp_path, "abc", settings=settings) as held:
            for name in "abc":
                assert await held[name].ping_master() > 0
            held.cuts.isolate("a", "b", "c")
            for _ in range(2):
                error = await error_of(held["a"].ping_master(0.1))
                assert isinstance(error, ReadFailedError)
            await until(lambda: not held["a"].is_master)
            error = await error_of(held["a"].ping_master(0.1))
            assert isinstance(error, ReadFailedError)
            assert error.retryable
            held.cuts.heal()
            assert await held["a"].ping_master() > 0

    run(main())


def test_a_local_read_needs_a_master_to_have_been_heard(tmp_path: Path) -> None:
    """C-24."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            fresh = await held.start("d")
            error = await error_of(fresh.read(x_of, consistency="local"))
            assert isinstance(error, NotReadyError)
            await held["a"].submit(["x", 1])
            held.cuts.isolate("c", "a", "b")  # before it stops: nothing waits for its return
            await held.stop("c")
            c = await held.start("c")
            for _ in range(3):
                assert isinstance(await error_of(c.read(x_of, consistency="local")), NotReadyError)
                assert isinstance(await error_of(c.read(x_of, timeout=0.05)), ReadFailedError)
            held.cuts.heal()
            await c.wait_for_master()
            assert await c.read(x_of, consistency="local") in (0, 1)
            assert await c.read(x_of) == 1
            assert await c.read(x_of, consistency="local") == 1

    run(main())


def test_a_read_on_a_member_that_lags_waits_for_it(tmp_path: Path) -> None:
    """L3: what the follower lacks is what it waits for."""

    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            await held.stop("c")
            for _ in range(300):
                await held["a"].submit(["x", 1])
            await held.start("c")
            assert await held["c"].read(x_of) == 300

    run(main())


def test_what_a_query_raises_is_the_callers(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            assert isinstance(await error_of(held["a"].read(lambda book: book.items[""])), KeyError)
            assert await held["a"].read(x_of) == 0

    run(main())


def test_an_unknown_consistency_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            odd: Any = "eventual"
            error = await error_of(held["a"].read(x_of, consistency=odd))
            assert isinstance(error, SettingsError)
            assert "eventual" in str(error)

    run(main())


def test_so_many_reads_wait_at_one_participant(tmp_path: Path) -> None:
    async def main() -> None:
        settings = msgspec.structs.replace(STEADY, max_pending_reads=10)
        async with cluster(tmp_path, "a", settings=settings) as held:
            calls = [held["a"].read(x_of) for _ in range(15)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert sum(isinstance(result, OverloadedError) for result in results) == 5
            assert results.count(0) == 10
            assert await held["a"].read(x_of) == 0

    run(main())


def test_cancelled_reads_make_room(tmp_path: Path) -> None:
    async def main() -> None:
        settings = msgspec.structs.replace(STEADY, max_pending_reads=10)
        async with cluster(tmp_path, settings=settings) as held:
            fresh = await held.start("a")
            for _ in range(3):
                reads = [asyncio.ensure_future(fresh.read(x_of)) for _ in range(10)]
                await asyncio.sleep(0)
                for read in reads:
                    read.cancel()
                assert all(
                    isinstance(result, asyncio.CancelledError)
                    for result in await asyncio.gather(*reads, return_exceptions=True)
                )

    run(main())


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_thousand_reads_cost_few_messages(tmp_path: Path, name: str) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "ab") as held:
            await held[name].read(x_of)
            before = held[name].status().transport["messages_sent"]
            await asyncio.gather(*(held[name].read(x_of) for _ in range(1_000)))
            assert held[name].status().transport["messages_sent"] - before < 200

    run(main())
