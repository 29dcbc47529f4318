"""Damage on a member's disk: found, told, and made good from the others (W3 to W8)."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import msgspec

from clusterconsensus import DamagedError
from clusterconsensus.runtime.status import Recovered
from tests.participant.helpers import STEADY, Cluster, cluster, error_of, run, until

SMALL = msgspec.structs.replace(
    STEADY,
    snapshot_entries=40,
    keep_log_entries=5,
    segment_bytes=64 * 1024,
    snapshot_on_close=False,
)


def flip(path: str, offset: int) -> None:
    """Turn one bit over."""
    with open(path, "r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ 4]))


def journal(held: Cluster, name: str) -> list[str]:
    directory = held.directory(name)
    return sorted(
        f"{directory}/{found}" for found in os.listdir(directory) if found.startswith("journal")
    )


def snapshots(held: Cluster, name: str) -> list[str]:
    directory = held.directory(name)
    return sorted(
        f"{directory}/{found}" for found in os.listdir(directory) if found.startswith("snapshot")
    )


async def write(held: Cluster, by: str, count: int, size: int = 2_000) -> None:
    for _ in range(count):
        await held[by].submit("y" * size)


def test_a_damaged_journal_is_made_good_by_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=STEADY) as held:
            await write(held, "a", 30)
            await held.settled()
            await held.stop("c")
            flip(journal(held, "c")[0], 20_000)
            await write(held, "a", 5)
            participant = await held.start("c")
            events = participant.events()
            assert participant.status().recovering
            assert "offset" in participant.status().damage[0]
            await until(lambda: not participant.status().recovering)
            await held.settled()
            assert len(held["c"].state.history) == 35
            await until(lambda: not [n for n in os.listdir(held.directory("c")) if "damaged" in n])
            await held.stop("c")
            assert Recovered in [type(event) async for event in events]
            await held.start("c")
            assert not held["c"].status().recovering
            await held.stop("a")
            assert await held["c"].submit(["z", 1]) == 1  # its vote counts again

    run(main())


def test_while_it_is_not_whole_it_has_no_vote(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=STEADY) as held:
            await write(held, "a", 30)
            await held.settled()
            for name in "abc":
                await held.stop(name)
            flip(journal(held, "c")[0], 20_000)
            await held.start("c")
            await held.start("b")
            assert held["c"].status().recovering
            await until(lambda: held["b"].status().promised.instance > 0)
            error = await error_of(held["b"].start_election(2 * 0.4))
            assert error is not None
            assert held["c"].status().recovering
            await held.start("a")  # now there is a majority without it
            await until(lambda: not held["c"].status().recovering)
            await held.settled()

    run(main())


def test_a_lone_member_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a", settings=STEADY) as held:
            await write(held, "a", 20)
            await held.stop("a")
            flip(journal(held, "a")[0], 20_000)
            error = await error_of(held.start("a"))
            assert isinstance(error, DamagedError)
            assert "clusterconsensus recover" in str(error)
            assert "journal-00000001.log" in str(error)

    run(main())


def test_repair_can_be_switched_off(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=STEADY) as held:
            await write(held, "a", 20)
            await held.settled()
            await held.stop("c")
            flip(journal(held, "c")[0], 20_000)
            settings = msgspec.structs.replace(STEADY, repair=False)
            assert isinstance(await error_of(held.start("c", settings=settings)), DamagedError)
            await held.start("c")
            await until(lambda: not held["c"].status().recovering)

    run(main())


def test_a_damaged_snapshot_costs_nothing_as_there_is_an_older_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a", settings=SMALL) as held:
            await write(held, "a", 150)
            await until(lambda: len(snapshots(held, "a")) == 2)
            await held.stop("a")
            flip(snapshots(held, "a")[-1], 5_000)
            participant = await held.start("a")
            assert not participant.status().recovering
            assert "snapshot" in participant.status().damage[0]
            assert len(participant.state.history) == 150

    run(main())


def test_both_snapshots_damaged_is_made_good_by_the_others(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=SMALL) as held:
            await write(held, "a", 150)
            await held.settled()
            await until(lambda: len(snapshots(held, "c")) == 2)
            await held.stop("c")
            for path in snapshots(held, "c"):
                flip(path, 3_000)
            participant = await held.start("c")
            assert participant.status().recovering
            await until(lambda: not participant.status().recovering)
            await held.settled()
            assert len(participant.state.history) == 150

    run(main())


def test_damage_that_is_found_while_the_member_runs_is_gone_with_a_snapshot(tmp_path: Path) -> None:
    async def main() -> None:
        settings = msgspec.structs.replace(
            SMALL, snapshot_entries=1_000_000, scrub_bytes_per_second=1 << 30
        )
        async with cluster(tmp_path, "abc", settings=settings) as held:
            await write(held, "a", 100)
            await held.settled()
            first = journal(held, "c")[0]
            flip(first, 20_000)
            scrubber = held["c"]._driver.keeping.scrubber  # type: ignore[union-attr]  # it runs
            scrubber._begin_pass()  # it would come to it in a minute
            await until(lambda: first not in journal(held, "c"))
            status = held["c"].status()
            assert first in status.damage[0]
            assert status.snapshot_sequence > 0
            assert not status.recovering
            await held.stop("c")
            await held.start("c")
            assert not held["c"].status().damage
            await held.settled()

    run(main())


def test_a_snapshot_found_damaged_is_replaced_and_still_sent(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=SMALL) as held:
            await held.stop("c")
            await write(held, "a", 150)
            await until(lambda: held["a"].status().first_sequence > 50)
            for name in "ab":
                flip(snapshots(held, name)[-1], 5_000)
            await held.start("c")  # a master reads the damaged one, and must notice
            await held.settled()
            assert len(held["c"].state.history) == 150

    run(main())


def test_an_old_image_of_a_disk_is_noticed_by_the_master_it_acknowledged_to(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=STEADY) as held:
            await write(held, "a", 10)
            await held.settled()
            await held.stop("c")
            image = f"{tmp_path}/image"
            shutil.copytree(held.directory("c"), image)
            await held.start("c")
            await write(held, "a", 10)
            await held.settled()
            await held.stop("c")
            held.wipe("c")
            shutil.copytree(image, held.directory("c"))
            participant = await held.start("c")
            events = participant.events()
            await until(lambda: bool(participant.status().damage))
            assert "old image" in participant.status().damage[0]
            await until(lambda: not participant.status().recovering)
            await held.settled()
            assert len(participant.state.history) == 20
            await held.stop("c")
            assert Recovered in [type(event) async for event in events]

    run(main())
