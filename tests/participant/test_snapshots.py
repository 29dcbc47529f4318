"""Snapshots, compaction and catching up with a snapshot, on real sockets and files."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from clusterconsensus import Settings, SnapshotError
from clusterconsensus.runtime.status import SnapshotInstalled, SnapshotTaken, Trouble
from tests.participant.helpers import (
    FAST,
    STEADY,
    Book,
    Cluster,
    cluster,
    error_of,
    run,
    until,
)

SMALL = msgspec.structs.replace(
    STEADY,
    snapshot_entries=50,
    keep_log_entries=5,
    segment_bytes=64 * 1024,
    log_cache_bytes=1,
    chunk_bytes=300,
    snapshot_on_close=False,
)


def files_of(held: Cluster, name: str, prefix: str) -> list[str]:
    return sorted(found for found in os.listdir(held.directory(name)) if found.startswith(prefix))


def size_of(path: str) -> int:
    return os.path.getsize(path)


async def write(held: Cluster, by: str, count: int, size: int = 2_000) -> None:
    """So many changes, one entry each; the text makes the journal long and the state not."""
    for number in range(count):
        await held[by].submit("y" * size if size else ["x", number])


def test_the_log_is_compacted_and_a_start_needs_no_more_than_is_left(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=SMALL) as held:
            await write(held, "b", 160)
            for name in "abc":
                await until(lambda name=name: held[name].status().first_sequence > 50)  # type: ignore[misc]  # bound early
                assert "journal-00000001.log" not in files_of(held, name, "journal")
                await until(lambda name=name: len(files_of(held, name, "snapshot")) <= 2)  # type: ignore[misc]  # bound early
                status = held[name].status()
                assert status.snapshot_sequence > status.first_sequence
                assert status.snapshots["taken"] >= 3
            await held.settled()
            for name in "abc":
                await held.stop(name)
            for name in "abc":
                await held.start(name)
            await held.settled()
            assert len(held["a"].state.history) == 160
            assert await held["c"].submit("z") == 1

    run(main())


def test_a_member_that_was_away_too_long_gets_a_snapshot_in_pieces(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=SMALL) as held:
            await write(held, "a", 10)
            await held.stop("c")
            await write(held, "a", 150)
            await until(lambda: held["a"].status().first_sequence > 60)
            await held.start("c")
            events = held["c"].events()
            await held.settled()
            assert held["c"].status().first_sequence > 60
            seen = []
            await held.stop("c")
            async for event in events:
                seen.append(type(event))
            assert SnapshotInstalled in seen
            await held.start("c")
            await held.settled()
            assert len(held["c"].state.history) == 160

    run(main())


def test_a_transfer_goes_on_where_the_connection_broke(tmp_path: Path) -> None:
    slow = msgspec.structs.replace(SMALL, catch_up_bytes_per_second=150_000)

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=slow) as held:
            await held.stop("c")
            await write(held, "a", 150)
            await until(lambda: held["a"].status().first_sequence > 60)
            await held.start("c")
            await until(lambda: held["c"].status().snapshots["received_bytes"] > 600)
            held.cuts.isolate("c", "a", "b")
            await asyncio.sleep(0)
            kept = held["c"].status().snapshots["received_bytes"]
            assert 600 < kept < held["c"].status().snapshots["expected_bytes"]
            held.cuts.heal()
            await until(lambda: held["c"].status().snapshots["received_bytes"] > kept)
            assert held["c"].status().snapshots["received_bytes"] > kept
            await held.settled()

    run(main())


def test_a_new_member_gets_a_snapshot_and_a_vote(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "ab", settings=SMALL) as held:
            await write(held, "a", 150)
            await until(lambda: held["a"].status().first_sequence > 60)
            await held.start("c")
            await held["b"].add_participant(held.member("c"))
            await held.settled()
            assert held["c"].status().first_sequence > 60
            await held.stop("a")
            assert await held["c"].submit(["z", 1]) == 1

    run(main())


def test_a_session_outlives_the_log_that_opened_it(tmp_path: Path) -> None:
    """X1: what was applied once is not applied again, though only the snapshot knows of it."""

    async def main() -> None:
        settings = msgspec.structs.replace(SMALL, submit_timeout_seconds=30.0)
        async with cluster(tmp_path, "abc", settings=settings) as held:
            await write(held, "b", 3, 0)
            session = held["b"]._driver.submits.session  # type: ignore[union-attr]  # it runs
            await write(held, "a", 120)
            await until(lambda: held["a"].status().first_sequence > session)
            for name in "ac":
                await held.stop(name)
                await held.start(name)
            assert await held["b"].submit(["x", 1]) == 0 + 1 + 2 + 1
            assert held["b"]._driver.submits.session == session  # type: ignore[union-attr]  # it runs
            await held.settled()

    run(main())


def test_a_snapshot_by_call_and_on_close(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a", settings=FAST) as held:
            await held["a"].submit(["x", 1])
            taken = await held["a"].snapshot()
            assert taken.sequence == held["a"].status().applied_sequence
            assert size_of(taken.path) == taken.size_bytes
            assert await held["a"].snapshot() == taken  # nothing has changed
            await held["a"].submit(["x", 1])
            await held.stop("a")
            assert len(files_of(held, "a", "snapshot")) == 2
            await held.start("a")
            assert held["a"].status().snapshot_sequence == held["a"].status().applied_sequence
            assert held.x("a") == 2

    run(main())


class Slow(Book):
    """A state whose snapshot takes a while to write, in another thread."""

    def snapshot(self) -> Iterator[bytes]:  # type: ignore[override]  # what State allows, not Book
        content = super().snapshot()
        for place in range(0, len(content), 10):
            yield content[place : place + 10]


class Broken(Book):
    def snapshot(self) -> bytes:
        raise RuntimeError("not today")


def test_a_snapshot_is_of_one_instant_though_changes_go_on(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, settings=STEADY) as held:
            await held.start("a", state=Slow())
            await held["a"].init_master()
            for number in range(200):
                await held["a"].submit([f"k{number}", number])
            taking = asyncio.ensure_future(held["a"].snapshot())
            for number in range(200):
                await held["a"].submit([f"k{number}", 1])
            taken = await taking
            assert taken.sequence < held["a"].status().applied_sequence
            expected = dict(held["a"].state.items)
            await held["a"].aclose()
            held.running.clear()
            await held.start("a", state=Slow())
            assert held["a"].state.items == expected

    run(main())


def test_a_state_that_gives_no_snapshot_is_told_and_does_not_stop(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, settings=SMALL) as held:
            await held.start("a", state=Broken())
            await held["a"].init_master()
            events = held["a"].events()
            await write(held, "a", 60)
            error = await error_of(held["a"].snapshot())
            assert isinstance(error, SnapshotError)
            assert "not today" in str(error)
            assert await held["a"].submit("z") == 1
            await held.stop("a")
            seen = [event async for event in events]
            assert any(isinstance(event, Trouble) and event.code == "snapshot" for event in seen)
            assert not any(isinstance(event, SnapshotTaken) for event in seen)

    run(main())


def test_settings_of_snapshots_are_checked_together() -> None:
    with pytest.raises(ValueError, match="max_kept_log_entries"):
        Settings(keep_log_entries=10, max_kept_log_entries=5).validate()
    with pytest.raises(ValueError, match="max_clock_drift"):
        Settings(max_clock_drift=1.0).validate()
