"""Reading again what lies on the disk: all of it, slowly, and what is found is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import cast

from clusterconsensus.consensus.types import SnapshotId
from clusterconsensus.errors import DamagedError
from clusterconsensus.runtime.scrubbing import SLICE_BYTES, Scrubber
from clusterconsensus.runtime.worker import ThreadWorker, Worker
from clusterconsensus.simulation.world.loop import World
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.snapshots import SnapshotStore
from tests.runtime.hand import QuickWorker, head_of, store_in
from tests.runtime.helpers import Member, changes, group, request, run, session


class FakeJournal:
    """A journal of slices; ``damage`` is raised behind the first one."""

    def __init__(self, *slices: int) -> None:
        self.slices = slices
        self.damage: Exception | None = None
        self.begun = 0
        self.begins = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def scrub(self, max_bytes: int) -> Iterator[int]:
        self.begun += 1
        self._loop.call_soon_threadsafe(self.begins.set)
        for place, size in enumerate(self.slices):
            if place == 1 and self.damage is not None:
                raise self.damage
            yield min(size, max_bytes)


class Stand:
    """A scrubber with everything around it. Made in a running loop."""

    def __init__(
        self,
        store: SnapshotStore,
        *slices: int,
        worker: Worker | None = None,
        bytes_per_second: int = 1 << 40,
        pass_pause_seconds: float = 0.0,
    ) -> None:
        self.journal = FakeJournal(*slices)
        self.damage: list[tuple[str, str, SnapshotId | None]] = []
        self.found = asyncio.Event()
        self.scrubber = Scrubber(
            cast(Journal, self.journal),
            store,
            worker or QuickWorker(),
            bytes_per_second,
            self._on_damage,
            pass_pause_seconds=pass_pause_seconds,
        )

    def _on_damage(self, kind: str, detail: str, snapshot: SnapshotId | None) -> None:
        self.damage.append((kind, detail, snapshot))
        self.found.set()

    async def pass_once(self) -> None:
        """Wait until one more pass has ended."""
        before = self.scrubber.passes
        while self.scrubber.passes == before:
            self.journal.begins.clear()
            await self.journal.begins.wait()


def snapshots_in(path: Path, count: int) -> SnapshotStore:
    store, member = store_in(path), Member()
    member.feed(session(1))
    for seq in range(2, 2 + count):
        member.feed(changes(seq, group(1, seq, request("x" * 300_000))))
        capture = member.applier.capture()
        store.write(head_of(capture), [], capture.state)
    return store


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_a_pass_reads_journal_and_snapshots(tmp_path: Path) -> None:
    store = snapshots_in(tmp_path, 2)

    async def main() -> None:
        worker = ThreadWorker("scrub")
        stand = Stand(store, 1_000, 2_000, worker=worker)
        stand.scrubber.start()
        await stand.pass_once()
        stand.scrubber.stop()
        await worker.aclose()
        size = sum(held.size_bytes for held in store.ids)
        passes = stand.journal.begun
        assert 3_000 + size <= stand.scrubber.bytes <= passes * (3_000 + size)
        assert stand.scrubber.statistics()["found"] == 0
        assert stand.damage == []

    run(main())


def test_a_damaged_snapshot_is_set_aside_and_told(tmp_path: Path) -> None:
    store = snapshots_in(tmp_path, 3)
    newest, middle, oldest = store.ids
    flip(tmp_path / f"snapshot-{middle.seq:020d}.snap", 200_000)

    async def main() -> None:
        stand = Stand(store)
        stand.scrubber.start()
        await stand.pass_once()
        await stand.pass_once()
        stand.scrubber.stop()
        ((kind, detail, snapshot),) = stand.damage
        assert (kind, snapshot) == ("snapshot", middle)
        assert f"{middle.seq:020d}.snap: at offset" in detail
        assert store.ids == (newest, oldest)
        assert stand.scrubber.statistics()["found"] == 1

    run(main())


def test_damage_of_the_journal_is_told_in_each_pass_and_the_rest_is_read(tmp_path: Path) -> None:
    store = snapshots_in(tmp_path, 1)
    flip(tmp_path / f"snapshot-{store.ids[0].seq:020d}.snap", 200_000)

    async def main() -> None:
        stand = Stand(store, 100, 100)
        stand.journal.damage = DamagedError("segment 7")
        stand.scrubber.start()
        await stand.pass_once()
        await stand.pass_once()
        stand.scrubber.stop()
        kinds = [(kind, detail) for kind, detail, _ in stand.damage]
        assert kinds[0] == kinds[2] == ("journal", "segment 7")
        assert kinds[1][0] == "snapshot"

    run(main())


def test_what_cannot_be_read_counts_as_damaged(tmp_path: Path) -> None:
    async def main() -> None:
        stand = Stand(store_in(tmp_path), 100, 100)
        stand.journal.damage = OSError("input/output error")
        stand.scrubber.start()
        await stand.found.wait()
        stand.scrubber.stop()
        assert stand.damage[0] == ("journal", "OSError: input/output error", None)

    run(main())


def test_a_snapshot_that_goes_meanwhile_is_no_damage(tmp_path: Path) -> None:
    store = snapshots_in(tmp_path, 2)
    older = store.ids[1]

    class Removing(QuickWorker):
        """Removes the older snapshot when the reading is in the middle of it."""

        stand: Stand

        def step(self) -> None:
            super().step()
            if self.stand.scrubber._reading == older:
                store.keep(store.ids[:1])

    async def main() -> None:
        worker = Removing()
        stand = worker.stand = Stand(store, worker=worker)
        stand.scrubber.start()
        await stand.pass_once()
        stand.scrubber.stop()
        assert len(store.ids) == 1
        assert stand.damage == []

    run(main())


def test_the_pace_is_kept_and_a_pause_between_passes(tmp_path: Path) -> None:
    """On virtual time: 3 MiB at 1 MiB a second, then a minute of nothing."""
    store = store_in(tmp_path)
    world = World()

    async def main() -> tuple[int, int, int]:
        slices = [SLICE_BYTES] * 12
        stand = Stand(store, *slices, bytes_per_second=1 << 20, pass_pause_seconds=60.0)
        stand.scrubber.start()
        await asyncio.sleep(59.9)
        before = stand.journal.begun
        await asyncio.sleep(1.55)
        meanwhile = stand.scrubber.bytes
        await asyncio.sleep(1.6)
        assert stand.scrubber.passes == 1
        await asyncio.sleep(58.0)
        again = stand.journal.begun
        stand.scrubber.stop()
        await asyncio.sleep(600.0)
        assert stand.journal.begun == again
        return before, meanwhile, again

    before, meanwhile, again = world.run(main())
    assert before == 0
    assert meanwhile == 6 * SLICE_BYTES
    assert again == 1


def test_doing_nothing_costs_one_timer_a_pass(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    world = World()

    async def main() -> None:
        stand = Stand(store, pass_pause_seconds=60.0)
        stand.scrubber.start()
        await asyncio.sleep(3_601.0)
        stand.scrubber.stop()
        assert stand.scrubber.passes == 60

    world.run(main())
    assert world.events < 60 + 60 + 10, "a timer each, and what the fake tells of each"
