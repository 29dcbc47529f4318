"""Snapshots that travel: piece by piece out of one member, and whole into another."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.types import NOWHERE, Incarnation, SnapshotId
from clusterconsensus.errors import BrokenInvariantError, DamagedError, SnapshotError
from clusterconsensus.runtime.snapshots import Snapshotter
from clusterconsensus.runtime.transfers import Transfers
from clusterconsensus.settings import Settings
from clusterconsensus.storage.files import RealFiles, WritableFile
from clusterconsensus.storage.snapshots import SnapshotStore
from tests.runtime.hand import HandWorker, head_of, store_in
from tests.runtime.helpers import Member, Recorder, changes, group, request, run, session

TO = Incarnation("b@1")


class Stand:
    """One member's transfers with everything around them. Made in a running loop."""

    def __init__(
        self, path: Path, state: Recorder | None = None, store: SnapshotStore | None = None
    ) -> None:
        self.state = state or Recorder()
        self.member = Member(self.state)
        self.applier = self.member.applier
        self.store = store or store_in(path)
        self.worker, self.reader = HandWorker(), HandWorker()
        self.events: list[events.Event] = []
        self.installed = 0
        self.troubles: list[str] = []
        self.failures: list[Exception] = []
        self.snapshots = Snapshotter(
            self.store,
            self.applier,
            Settings(),
            self.worker,
            head_of,
            lambda snapshot, older_seq: None,
            lambda code, detail: self.troubles.append(code),
            lambda seconds: None,
        )
        self.transfers = Transfers(
            self.store,
            self.applier,
            self.snapshots,
            self.reader,
            self.worker,
            self.events.append,
            self._on_installed,
            lambda code, detail: self.troubles.append(code),
            self.failures.append,
        )

    def _on_installed(self) -> None:
        assert not self.transfers.installing
        self.installed += 1

    def apply(self, up_to: int) -> None:
        for seq in range(self.applier.applied + 1, up_to + 1):
            content = request("x" * 1_000)
            self.member.feed(session(1) if seq == 1 else changes(seq, group(1, seq, content)))

    def take(self) -> SnapshotId:
        wanted = self.snapshots.request()
        self.worker.steps()
        return wanted.result()

    def keep(self, snapshot: SnapshotId, offset: int, chunk: bytes) -> events.Event:
        """Store a chunk; what was reported."""
        self.transfers.keep_chunk(effects.StoreChunk(snapshot, offset, chunk))
        self.worker.steps()
        return self.events.pop()

    def chunk(self, snapshot: SnapshotId, offset: int, max_bytes: int) -> bytes:
        self.transfers.load(effects.LoadChunk(TO, snapshot, offset, max_bytes))
        self.reader.steps()
        loaded = self.events.pop()
        assert isinstance(loaded, events.ChunkLoaded)
        assert (loaded.to, loaded.snapshot, loaded.offset) == (TO, snapshot, offset)
        return loaded.chunk


def copy(source: Stand, target: Stand, snapshot: SnapshotId, max_bytes: int) -> events.Event:
    """Let a snapshot travel; what was reported last."""
    offset = 0
    while True:
        told = target.keep(snapshot, offset, source.chunk(snapshot, offset, max_bytes))
        if not isinstance(told, events.ChunkStored):
            return told
        assert told.next_offset == min(offset + max_bytes, snapshot.size_bytes)
        offset = told.next_offset


@pytest.mark.parametrize("max_bytes", [777, 1 << 20])
def test_a_snapshot_travels_and_is_installed(tmp_path: Path, max_bytes: int) -> None:
    async def main() -> None:
        source, target = Stand(tmp_path / "a"), Stand(tmp_path / "b")
        source.apply(5)
        snapshot = source.take()
        target.apply(2)
        told = copy(source, target, snapshot, max_bytes)
        head = source.store.head(snapshot)
        assert told == events.SnapshotStored(snapshot, 0, head.configuration, head.time)
        assert target.store.ids == (snapshot,)
        target.transfers.install(effects.Install(snapshot))
        before = (target.transfers.installing, target.applier.applied)
        target.worker.steps()
        assert before == (True, 2)
        assert not target.transfers.installing
        assert target.events == [events.Applied(5, source.applier.checksum)]
        assert target.installed == 1
        assert target.state.applied == source.state.applied
        assert target.applier.sessions.export() == source.applier.sessions.export()
        assert not target.snapshots.due
        source.apply(7)
        target.apply(7)
        assert target.applier.checksum == source.applier.checksum
        assert (target.troubles, target.failures) == ([], [])

    run(main())


def test_a_piece_of_a_newer_one_ends_the_taking_of_an_own_one(tmp_path: Path) -> None:
    async def main() -> None:
        source, target = Stand(tmp_path / "a"), Stand(tmp_path / "b")
        source.apply(101)
        snapshot = source.take()
        target.apply(100)
        own = target.snapshots.request()
        told = target.keep(snapshot, 0, source.chunk(snapshot, 0, 500))
        assert told == events.ChunkStored(snapshot, 500)
        with pytest.raises(SnapshotError, match="given up"):
            await own
        assert target.store.ids == ()

    run(main())


def test_a_piece_that_is_not_the_next_one_is_answered_with_what_is(tmp_path: Path) -> None:
    async def main() -> None:
        source, target = Stand(tmp_path / "a"), Stand(tmp_path / "b")
        source.apply(5)
        snapshot = source.take()
        piece = source.chunk(snapshot, 500, 500)
        assert target.keep(snapshot, 500, piece) == events.ChunkStored(snapshot, 0)
        first = source.chunk(snapshot, 0, 500)
        assert target.keep(snapshot, 0, first) == events.ChunkStored(snapshot, 500)
        assert target.keep(snapshot, 0, first) == events.ChunkStored(snapshot, 500)

    run(main())


def test_what_was_changed_on_the_way_is_trouble_and_begins_anew(tmp_path: Path) -> None:
    async def main() -> None:
        source, target = Stand(tmp_path / "a"), Stand(tmp_path / "b")
        source.apply(5)
        snapshot = source.take()
        content = source.chunk(snapshot, 0, 1 << 20)
        wrong = bytes([content[1_000] ^ 1])
        for _ in range(2):
            target.transfers.keep_chunk(
                effects.StoreChunk(snapshot, 0, content[:1_000] + wrong + content[1_001:])
            )
            target.worker.steps()
        assert target.events == []
        assert target.troubles == ["snapshot"], "told once"
        assert target.store.ids == ()
        assert isinstance(copy(source, target, snapshot, 900), events.SnapshotStored)

    run(main())


class FullFiles(RealFiles):
    """Files on a full disk."""

    def create(self, path: str) -> WritableFile:
        raise OSError(errno.ENOSPC, "no space left")


def test_a_full_disk_is_trouble_told_once(tmp_path: Path) -> None:
    async def main() -> None:
        store = SnapshotStore(FullFiles(), str(tmp_path))
        target = Stand(tmp_path, store=store)
        snapshot = SnapshotId(NOWHERE, 100, 0)
        for _ in range(3):
            target.transfers.keep_chunk(effects.StoreChunk(snapshot, 0, b"x"))
            target.worker.steps()
        assert (target.events, target.troubles) == ([], ["disk_full"])
        assert target.failures == []

    run(main())


def test_a_snapshot_that_is_gone_is_an_empty_piece(tmp_path: Path) -> None:
    async def main() -> None:
        source = Stand(tmp_path)
        assert source.chunk(SnapshotId(NOWHERE, 100, 0), 0, 50) == b""

    run(main())


def test_a_damaged_snapshot_is_not_installed(tmp_path: Path) -> None:
    async def main() -> None:
        stand = Stand(tmp_path)
        stand.apply(5)
        snapshot = stand.take()
        (path,) = files_in(tmp_path)
        flip(path, 3_000)
        stand.transfers.install(effects.Install(snapshot))
        stand.worker.steps()
        (failure,) = stand.failures
        assert isinstance(failure, DamagedError)
        assert (stand.events, stand.installed) == ([], 0)

    run(main())


def files_in(path: Path) -> list[Path]:
    return sorted(path.iterdir())


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def test_a_state_that_does_not_install_stops_the_member(tmp_path: Path) -> None:
    class Refusing(Recorder):
        def install(self, snapshot: Any) -> None:
            raise ValueError("no")

    async def main() -> None:
        stand = Stand(tmp_path, Refusing())
        stand.apply(5)
        snapshot = stand.take()
        stand.transfers.install(effects.Install(snapshot))
        stand.worker.steps()
        (failure,) = stand.failures
        assert isinstance(failure, BrokenInvariantError)
        assert isinstance(failure.__cause__, ValueError)
        assert stand.transfers.installing, "nothing is applied to a state that nobody knows"

    run(main())


def test_what_ends_after_the_stop_is_not_heard(tmp_path: Path) -> None:
    async def main() -> None:
        stand = Stand(tmp_path)
        stand.apply(5)
        snapshot = stand.take()
        stand.transfers.install(effects.Install(snapshot))
        stand.transfers.load(effects.LoadChunk(TO, snapshot, 0, 100))
        stand.transfers.keep_chunk(effects.StoreChunk(snapshot, 0, b"x"))
        stand.transfers.stop()
        assert stand.worker.steps() + stand.reader.steps() == 3
        assert (stand.events, stand.installed, stand.failures) == ([], 0, [])

    run(main())


def test_the_newest_two_are_kept_and_those_that_somebody_still_reads(tmp_path: Path) -> None:
    async def main() -> None:
        stand = Stand(tmp_path)
        taken = []
        for seq in (2, 3, 4, 5):
            stand.apply(seq)
            taken.append(stand.take())
        stand.transfers.forget((taken[0],))
        stand.worker.steps()
        assert list(stand.store.ids) == [taken[3], taken[2], taken[0]]
        stand.transfers.forget(())
        stand.worker.steps()
        assert list(stand.store.ids) == [taken[3], taken[2]]
        assert len(files_in(tmp_path)) == 2

    run(main())
