"""Disks that are full, fail or hang, and state machines that are not deterministic."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterconsensus import (
    Context,
    DivergedError,
    NotAppliedError,
    OutcomeUnknownError,
    ParticipantClosedError,
    StoragePoisonedError,
    Trouble,
)
from clusterconsensus.settings import KIB
from tests.participant.helpers import (
    FAST,
    STEADY,
    Book,
    FaultyFiles,
    Told,
    cluster,
    error_of,
    run,
    until,
)
from tests.participant.test_events import Reader, reader_of

SMALL = msgspec.structs.replace(
    STEADY,
    segment_bytes=64 * KIB,
    max_change_bytes=16 * KIB,
    max_batch_bytes=16 * KIB,
    retry_seconds=0.2,
)
TEXT = "x" * 10_000


def test_a_full_disk_is_survived_alone(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, settings=SMALL) as held:
            files = FaultyFiles()
            a = await held.start("a", files=files)
            reader = await reader_of(a)
            await a.init_master()
            files.full = True
            acknowledged = 0
            error: BaseException | None = None
            while error is None:
                try:
                    await a.submit(TEXT, timeout=1)
                    acknowledged += 1
                except (NotAppliedError, OutcomeUnknownError) as caught:
                    error = caught
            assert acknowledged > 0
            await until(lambda: a.status().disk_full)
            assert [event.code for event in reader.of(Trouble)] == ["disk_full"]
            assert len(a.state.history) == acknowledged
            files.full = False
            assert isinstance(error, OutcomeUnknownError)
            assert await a.retry(error) == len(TEXT)
            assert not a.status().disk_full
            assert await a.submit(["x", 1]) == 1
            assert len(a.state.history) == acknowledged + 2
            await held.stop("a")
            await reader.task
            await held.start("a")
            assert await held["a"].read(lambda book: len(book.history)) == acknowledged + 2

    run(main())


@pytest.mark.parametrize("place", ["master", "follower"])
def test_a_full_disk_of_one_does_not_stop_the_others(tmp_path: Path, place: str) -> None:
    async def main() -> None:
        settings = msgspec.structs.replace(
            SMALL, disk_timeout_seconds=0.3, election_timeout_seconds=0.6
        )
        async with cluster(tmp_path, settings=settings) as held:
            files = FaultyFiles()
            for name in "abc":
                await held.start(name, files=files if name == "a" else None)
            first = "a" if place == "master" else "b"
            await held[first].init_master()
            for name in "abc":
                await held[first].add_participant(held.member(name))
            files.full = True
            for number in range(12):
                assert await held["abc"[number % 3]].submit(TEXT) == len(TEXT)
            await until(lambda: held["a"].status().disk_full)
            assert not held["a"].is_master or place == "master"
            assert await held["c"].submit(TEXT) == len(TEXT)
            assert await held["b"].read(lambda book: len(book.history)) == 13
            files.full = False
            await until(lambda: not held["a"].status().disk_full)
            assert await held["a"].read(lambda book: len(book.history)) == 13
            await held.settled()

    run(main())


def test_a_disk_that_is_full_while_joining(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a", settings=SMALL) as held:
            files = FaultyFiles()
            b = await held.start("b", files=files)
            files.full = True
            error = await error_of(held["a"].add_participant(held.member("b"), timeout=1))
            assert "b" in str(error)
            await until(lambda: b.status().disk_full)
            files.full = False
            await held["a"].add_participant(held.member("b"))
            assert await b.submit(["x", 1]) == 1
            assert not b.status().disk_full

    run(main())


def test_a_failed_sync_stops_the_participant_and_loses_nothing_acknowledged(tmp_path: Path) -> None:
    """W2, C-5."""

    async def main() -> None:
        async with cluster(tmp_path) as held:
            files = FaultyFiles()
            a = await held.start("a", files=files)
            await a.init_master()
            acknowledged = 0
            for _ in range(20):
                acknowledged = await a.submit(["x", 1])
            files.failing = True
            assert isinstance(await error_of(a.submit(["x", 1])), OutcomeUnknownError)
            files.failing = False
            for _ in range(2):
                assert isinstance(await error_of(a.wait_closed()), StoragePoisonedError)
            error = await error_of(a.submit(["x", 1]))
            assert isinstance(error, ParticipantClosedError)
            assert isinstance(error.__cause__, StoragePoisonedError)
            await held.start("a")
            assert await held["a"].read(lambda book: book.items["x"]) in (
                acknowledged,
                acknowledged + 1,
            )

    run(main())


def test_a_failed_sync_leaves_the_block_that_did_not_look(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            files = FaultyFiles()

            async def block() -> None:
                async with held.make("a", files=files) as a:
                    await a.init_master()
                    files.failing = True
                    await asyncio.wait([asyncio.ensure_future(error_of(a.submit(["x", 1])))])

            assert isinstance(await error_of(block()), StoragePoisonedError)

    run(main())


@pytest.mark.parametrize("place", ["master", "follower"])
def test_a_failed_sync_of_one_does_not_stop_the_others(tmp_path: Path, place: str) -> None:
    async def main() -> None:
        async with cluster(tmp_path, settings=FAST) as held:
            files = FaultyFiles()
            told = Told()
            for name in "abc":
                if name == "a":
                    await held.start(name, files=files, handler=told)
                else:
                    await held.start(name)
            first = "a" if place == "master" else "b"
            await held[first].init_master()
            for name in "abc":
                await held[first].add_participant(held.member(name))
            for number in range(1, 11):
                assert await held["abc"[number % 3]].submit(["x", 1]) == number
            files.failing = True
            assert await held["b"].submit(["x", 1]) == 11
            error = await error_of(held["a"].wait_closed())
            assert isinstance(error, StoragePoisonedError)
            assert told.masterships.count("become") == told.masterships.count("lose")
            assert await held["c"].submit(["x", 1]) == 12
            await held.stop("a")
            await held.start("a")
            assert await held["a"].submit(["x", 1]) == 13
            await held.settled()

    run(main())


def test_a_master_whose_disk_hangs_is_replaced(tmp_path: Path) -> None:
    """C-26, E9: its heartbeats do not wait for the disk, its mastership does."""

    async def main() -> None:
        settings = msgspec.structs.replace(FAST, disk_timeout_seconds=0.3)
        async with cluster(tmp_path, settings=settings) as held:
            files = FaultyFiles()
            for name in "abc":
                await held.start(name, files=files if name == "a" else None)
            await held["a"].init_master()
            for name in "bc":
                await held["a"].add_participant(held.member(name))
            await held["a"].submit(["x", 1])
            files.go.clear()
            submits = [asyncio.ensure_future(held[name].submit(["x", 1])) for name in "abc"]
            await until(lambda: held["b"].is_master or held["c"].is_master)
            assert await held["b"].submit(["y", 1]) == 1
            assert not held["a"].is_master
            files.go.set()
            assert sorted(await asyncio.gather(*submits)) == [2, 3, 4]
            await held.settled()

    run(main())


# -- divergence (R9)


class Odd(Book):
    """Computes something else than the others do."""

    def apply(self, change: Any, context: Context) -> Any:
        result = super().apply(change, context)
        return result + 1 if change == ["odd", 1] else result


async def formed(held: Any, odd: str) -> dict[str, Reader]:
    readers = {}
    for name in "abc":
        await held.start(name, state=Odd() if name in odd else Book())
        readers[name] = await reader_of(held[name])
    await held["a"].init_master()
    for name in "bc":
        await held["a"].add_participant(held.member(name))
    return readers


def test_a_follower_whose_state_differs_stops_serving(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            readers = await formed(held, "c")
            assert await held["a"].submit(["x", 1]) == 1
            assert await held["a"].submit(["odd", 1]) == 1
            c = held["c"]
            await until(lambda: c.status().diverged)
            assert [event.code for event in readers["c"].of(Trouble)] == ["diverged"]
            for call in (
                c.submit(["x", 1]),
                c.submit_all([["x", 1]]),
                c.read(lambda book: book.items),
                c.read(lambda book: book.items, consistency="local"),
                c.start_election(),
            ):
                assert isinstance(await error_of(call), DivergedError)
            assert await held["b"].submit(["x", 1]) == 2
            assert not held["a"].status().diverged
            assert not held["b"].status().diverged
            await held.stop("c")
            await held.start("c")
            assert await held["c"].submit(["x", 1]) == 3, "with a sound state it serves again"
            await held.settled()
            await held.close()
            await asyncio.gather(*(reader.task for reader in readers.values()))

    run(main())


def test_a_master_whose_state_differs_from_the_majoritys_stops(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            readers = await formed(held, "a")
            a = held["a"]
            await held["b"].submit(["odd", 1])
            error = await error_of(a.wait_closed())
            assert isinstance(error, DivergedError)
            assert "not deterministic" in str(error)
            assert isinstance(await error_of(a.submit(["x", 1])), ParticipantClosedError)
            assert await held["b"].submit(["x", 1]) == 1
            await held.stop("a")
            await held.start("a")
            assert await held["a"].submit(["x", 1]) == 2
            await held.settled()
            await held.close()
            await asyncio.gather(*(reader.task for reader in readers.values()))

    run(main())


class Tired(Book):
    """Runs out of memory once."""

    tired = False

    def apply(self, change: Any, context: Context) -> Any:
        if self.tired and change == ["x", 1]:
            raise MemoryError
        return super().apply(change, context)


def test_what_is_no_answer_stops_one_member_and_is_applied_after_its_restart(
    tmp_path: Path,
) -> None:
    """R8: it never skips."""

    async def main() -> None:
        async with cluster(tmp_path, settings=FAST) as held:
            tired = Tired()
            for name in "abc":
                await held.start(name, state=tired if name == "c" else Book())
            await held["a"].init_master()
            for name in "bc":
                await held["a"].add_participant(held.member(name))
            tired.tired = True
            assert await held["a"].submit(["x", 1]) == 1
            error = await error_of(held["c"].wait_closed())
            assert "MemoryError" in str(error)
            assert await held["b"].submit(["y", 1]) == 1
            await held.stop("c")
            await held.start("c")
            await held.settled()
            assert held["c"].state.items == {"x": 1, "y": 1}

    run(main())
