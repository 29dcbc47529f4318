"""Leases and bounded staleness: what a read may skip, and what it may not (L2, L4)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from clusterconsensus import ReadFailedError, SettingsError
from clusterconsensus.runtime.environment import Environment, boot_seconds
from tests.participant.helpers import FAST, STEADY, Cluster, cluster, error_of, run, until

LEASES = msgspec.structs.replace(STEADY, lease_reads=True)
SHORT = msgspec.structs.replace(FAST, lease_reads=True)


async def led_by_a(held: Cluster) -> None:
    """Wait until a leads and a majority has acknowledged it."""
    await until(lambda: held["a"].status().holds_lease)


def sent(held: Cluster, name: str) -> int:
    return held[name].status().transport["messages_sent"]


class MovableClock:
    """A clock that can be moved, as when the machine sleeps or its clock goes wrong."""

    def __init__(self) -> None:
        self.offset_seconds = 0.0

    def __call__(self) -> float:
        return boot_seconds() + self.offset_seconds


def test_a_lease_read_on_the_master_asks_nobody(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=LEASES) as held:
            await held["a"].submit(["x", 7])
            await led_by_a(held)
            before = sent(held, "a")
            for _ in range(100):
                assert await held["a"].read(lambda book: book.items["x"], consistency="lease") == 7
            # Not one turn of the loop has passed, so not even a heartbeat.
            assert sent(held, "a") == before
            assert await held["b"].read(lambda book: book.items["x"], consistency="lease") == 7

    run(main())


def test_a_cut_off_master_serves_no_longer_than_its_lease(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=SHORT) as held:
            await held["a"].submit(["x", 1])
            await led_by_a(held)
            held.cuts.isolate("a", "b", "c")
            await until(lambda: held["b"].is_master or held["c"].is_master)
            assert not held["a"].status().holds_lease
            other = held["b"] if held["b"].is_master else held["c"]
            assert await other.submit(["x", 1]) == 2
            reading = held["a"].read(lambda book: book.items["x"], consistency="lease", timeout=0.2)
            assert isinstance(await error_of(reading), ReadFailedError)
            held.cuts.heal()
            assert await held["a"].read(lambda book: book.items["x"], consistency="lease") == 2

    run(main())


def test_a_machine_that_slept_and_a_clock_that_goes_back_have_no_lease(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, settings=SHORT) as held:
            clock = MovableClock()
            await held.start("a", environment=Environment(clock=clock))
            await held["a"].init_master()
            for name in "bc":
                await held.start(name)
                await held["a"].add_participant(held.member(name))
            await led_by_a(held)
            clock.offset_seconds += 60.0  # suspended: this clock went on, the process did not
            assert not held["a"].status().holds_lease
            held.cuts.isolate("a", "b", "c")
            reading = held["a"].read(len_of, consistency="lease", timeout=0.2)
            assert isinstance(await error_of(reading), ReadFailedError)
            held.cuts.heal()
            master = await held.has_master()
            if master is held["a"]:
                await led_by_a(held)
            clock.offset_seconds -= 120.0
            await asyncio.sleep(0)
            assert not held["a"].status().holds_lease

    run(main())


def len_of(book: object) -> int:
    return len(getattr(book, "history"))  # noqa: B009  # a query may be any callable


def test_a_lease_ends_before_the_mastership_is_handed_over(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=LEASES) as held:
            await led_by_a(held)
            await held["a"].transfer_master("b")
            assert not held["a"].status().holds_lease
            await until(lambda: held["b"].status().holds_lease)
            assert await held["b"].submit(["x", 1]) == 1
            assert await held["a"].read(lambda book: book.items["x"], consistency="lease") == 1

    run(main())


def test_without_the_setting_a_lease_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            error = await error_of(held["a"].read(len_of, consistency="lease"))
            assert isinstance(error, SettingsError)
            assert "lease_reads" in str(error)
            error = await error_of(held["a"].read(len_of, max_staleness_seconds=1.0))
            assert isinstance(error, SettingsError)
            assert "max_staleness_seconds" in str(error)

    run(main())


def test_one_member_without_leases_is_not_counted_for_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, settings=LEASES) as held:
            await held.start("a")
            await held["a"].init_master()
            await held.start("b", settings=STEADY)
            await held["a"].add_participant(held.member("b"))
            await held["a"].submit(["x", 1])
            await until(lambda: held["a"].status().followers.get("b", 0) > 3)
            assert not held["a"].status().holds_lease
            assert await held["a"].read(lambda book: book.items["x"], consistency="lease") == 1

    run(main())


def test_a_local_read_is_as_old_as_it_may_be(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=STEADY) as held:
            await held["a"].submit(["x", 1])
            seen = await held["b"].read(
                lambda book: book.items["x"], consistency="local", max_staleness_seconds=60.0
            )
            assert seen == 1  # nothing was proven here before, so the master was asked
            age = held["b"].status().staleness_seconds
            assert age is not None
            assert 0 <= age < 60
            held.cuts.isolate("b", "a", "c")
            await held["a"].submit(["x", 1])
            for _ in range(3):
                seen = await held["b"].read(
                    lambda book: book.items["x"], consistency="local", max_staleness_seconds=60.0
                )
                assert seen == 1
            reading = held["b"].read(
                len_of, consistency="local", max_staleness_seconds=1e-9, timeout=0.2
            )
            assert isinstance(await error_of(reading), ReadFailedError)
            held.cuts.heal()
            seen = await held["b"].read(
                lambda book: book.items["x"], consistency="local", max_staleness_seconds=0.0
            )
            assert seen == 2

    run(main())
