"""Taking snapshots beside the applying: when, of what, and what happens if one cannot be had."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from clusterconsensus.consensus.types import SnapshotId
from clusterconsensus.errors import ParticipantClosedError, SnapshotError
from clusterconsensus.runtime import snapshots
from clusterconsensus.runtime.snapshots import AbandonedError, Pacer, Snapshotter
from clusterconsensus.runtime.worker import ThreadWorker, Worker
from clusterconsensus.settings import Settings
from clusterconsensus.storage.files import RealFiles, WritableFile
from clusterconsensus.storage.snapshots import SnapshotStore
from tests.runtime.hand import HandWorker, head_of, store_in
from tests.runtime.helpers import (
    CODEC,
    Member,
    Recorder,
    changes,
    group,
    noop,
    request,
    run,
    session,
)


class Stand:
    """A snapshotter with everything around it. Made in a running loop."""

    def __init__(
        self,
        path: Path,
        state: Recorder | None = None,
        *,
        worker: Worker | None = None,
        store: SnapshotStore | None = None,
        **settings: Any,
    ) -> None:
        self.state = state or Recorder()
        self.member = Member(self.state)
        self.applier = self.member.applier
        self.store = store or store_in(path)
        self.hand = HandWorker()
        self.taken: list[tuple[int, int]] = []
        self.troubles: list[tuple[str, str]] = []
        self.troubled = asyncio.Event()
        self.pauses: list[float] = []
        self.snapshots = Snapshotter(
            self.store,
            self.applier,
            Settings(**settings).validate(),
            worker or self.hand,
            head_of,
            lambda snapshot, older_seq: self.taken.append((snapshot.seq, older_seq)),
            self._trouble,
            self.pauses.append,
        )

    def _trouble(self, code: str, detail: str) -> None:
        self.troubles.append((code, detail))
        self.troubled.set()

    def apply(self, up_to: int, size: int = 1) -> None:
        """Apply entries up to a sequence, of so many bytes each, about, one slice each."""
        for seq in range(self.applier.applied + 1, up_to + 1):
            entry = session(1) if seq == 1 else changes(seq, group(1, seq, request("x" * size)))
            self.member.feed(entry)
            self.snapshots.take()

    def read(self, snapshot: SnapshotId) -> tuple[Any, list[bytes], Any]:
        """Checksum, sessions and content of a snapshot."""
        head, sessions, state = self.store.load(snapshot)
        return head.checksum, sessions, CODEC.decode_change(state.read())

    def now(self) -> tuple[Any, list[bytes], Any]:
        """The same of the member as it is."""
        return self.applier.checksum, self.applier.sessions.export(), list(self.state.applied)


def names(path: Path) -> list[str]:
    return [held.name for held in path.iterdir()]


# -- when


def test_one_is_taken_after_so_many_entries(tmp_path: Path) -> None:
    async def main() -> None:
        stand = Stand(tmp_path, snapshot_entries=3)
        stand.apply(2)
        assert not stand.hand.jobs
        stand.apply(3)
        now = stand.now()
        stand.apply(5)  # while the worker has not even begun
        assert len(stand.hand.jobs) == 1
        assert stand.snapshots.busy
        stand.hand.step()
        assert stand.taken == [(3, 0)]
        assert stand.read(stand.store.ids[0]) == now
        stand.apply(6)
        stand.hand.step()
        assert stand.taken == [(3, 0), (6, 3)], "counted from what is in the snapshot"
        assert not stand.hand.jobs

    run(main())


def test_one_is_taken_after_so_many_bytes(tmp_path: Path) -> None:
    async def main() -> None:
        stand = Stand(tmp_path, snapshot_log_bytes=10_000)
        stand.apply(10, size=1_000)
        assert not stand.snapshots.due
        stand.apply(11, size=1_000)
        assert stand.hand.steps() == 1
        assert stand.taken == [(11, 0)]
        assert not stand.snapshots.due

    run(main())


def test_a_start_counts_from_the_newest_snapshot(tmp_path: Path) -> None:
    async def main() -> None:
        first = Stand(tmp_path, snapshot_entries=4)
        first.apply(4)
        first.hand.step()
        again = Stand(tmp_path, snapshot_entries=4)
        again.apply(7)
        assert not again.hand.jobs
        again.apply(8)
        assert again.hand.steps() == 1
        assert again.taken == [(8, 4)]

    run(main())


def test_none_is_taken_in_the_middle_of_an_entry(tmp_path: Path) -> None:
    async def main() -> None:
        stand = Stand(tmp_path)
        stand.apply(1)
        log = {
            2: changes(2, group(1, 1, *(request(n) for n in range(1_000)))),
            3: noop(3),
            4: noop(4),
        }

        class Late:
            def __call__(self) -> float:
                stand.member.clock.now += 0.6
                return stand.member.clock.now

        stand.applier._clock = Late()
        assert not stand.applier.run(log.__getitem__, 4)
        assert not stand.applier.is_between_entries
        wanted = stand.snapshots.request()
        assert not stand.hand.jobs
        stand.applier._clock = stand.member.clock
        assert not stand.applier.run(log.__getitem__, 4), "the slice ends with the entry"
        stand.snapshots.take()
        stand.hand.step()
        assert (await wanted).seq == 2

    run(main())


def test_a_request_gets_what_is_applied_when_it_is_made(tmp_path: Path) -> None:
    async def main() -> None:
        stand = Stand(tmp_path)
        stand.apply(2)
        first, second = stand.snapshots.request(), stand.snapshots.request()
        stand.apply(3)
        stand.hand.step()
        assert (await first).seq == 2
        assert not second.done(), "it may be too old by now: the next one serves it"
        stand.hand.step()
        assert (await second).seq == 3
        again = await stand.snapshots.request()
        assert again == await second
        assert stand.taken == [(2, 0), (3, 2)]

    run(main())


def test_there_is_nothing_to_take_before_the_first_entry(tmp_path: Path) -> None:
    async def main() -> None:
        stand = Stand(tmp_path)
        with pytest.raises(SnapshotError, match="nothing is applied"):
            await stand.snapshots.request()
        assert stand.troubles == []

    run(main())


# -- what goes wrong


class Failing(Recorder):
    """A state whose snapshot is what a test says."""

    def __init__(self) -> None:
        super().__init__()
        self.answer: Any = None

    def snapshot(self) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return super().snapshot() if self.answer is None else self.answer


def pieces(*content: Any) -> Iterator[Any]:
    for piece in content:
        if isinstance(piece, BaseException):
            raise piece
        yield piece


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (ValueError("no"), "State.snapshot raised ValueError: no"),
        ("text", "returned a str"),
        (pieces(b"x", "text"), "a piece that is a str and not bytes"),
        (pieces(b"x", RuntimeError("changed size")), "raised RuntimeError: changed size"),
        (pieces(SystemExit(3)), "raised SystemExit: 3"),
    ],
)
def test_a_state_that_cannot_be_saved_is_trouble_and_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: Any, said: str
) -> None:
    monkeypatch.setattr(snapshots, "RETRY_SECONDS", 0.01)

    async def main() -> None:
        state = Failing()
        stand = Stand(tmp_path, state, snapshot_entries=2)
        state.answer = answer
        stand.apply(2)
        stand.hand.steps()
        assert [code for code, _ in stand.troubles] == ["snapshot"]
        assert said in stand.troubles[0][1]
        assert (stand.taken, stand.store.ids, stand.snapshots.failed) == ([], (), 1)
        assert names(tmp_path) == []
        state.answer = None
        stand.hand.called.clear()
        await stand.hand.called.wait()  # nobody asks: its own timer does
        stand.hand.steps()
        assert stand.taken == [(2, 0)]

    run(main())


def test_each_failure_makes_the_next_try_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "RETRY_SECONDS", 100.0)

    async def main() -> None:
        state = Failing()
        state.answer = ValueError("no")
        stand = Stand(tmp_path, state, snapshot_entries=2)
        clock = 1_000.0
        stand.snapshots._clock = lambda: clock
        stand.apply(5)
        tried = [(0.0, len(stand.troubles))]
        for second in range(0, 1_100, 50):
            clock = 1_000.0 + second
            stand.snapshots.take()
            if len(stand.troubles) != tried[-1][1]:
                tried.append((second, len(stand.troubles)))
        assert tried == [(0, 1), (100, 2), (300, 3), (600, 4), (900, 5)]
        with pytest.raises(SnapshotError, match="raised ValueError"):
            await stand.snapshots.request()  # who asks is not made to wait
        stand.snapshots.stop()

    run(main())


class FullFiles(RealFiles):
    """Files on a disk that has space or not."""

    full = True

    def create(self, path: str) -> WritableFile:
        if self.full:
            raise OSError(errno.ENOSPC, "no space left")
        return super().create(path)


def test_a_full_disk_is_trouble_and_no_more(tmp_path: Path) -> None:
    async def main() -> None:
        files = FullFiles()
        stand = Stand(tmp_path, store=SnapshotStore(files, str(tmp_path)), snapshot_entries=2)
        stand.apply(2)
        wanted = stand.snapshots.request()
        stand.hand.step()
        assert [code for code, _ in stand.troubles] == ["disk_full"]
        stand.hand.step()
        with pytest.raises(Exception, match="no space left"):
            await wanted
        files.full = False
        stand.apply(3)
        assert not stand.hand.jobs, "not before a while"
        wanted = stand.snapshots.request()
        stand.hand.step()
        assert (await wanted).seq == 3
        stand.snapshots.stop()

    run(main())


def test_one_is_given_up_when_a_newer_one_comes(tmp_path: Path) -> None:
    async def main() -> None:
        state = Failing()
        stand = Stand(tmp_path, state, snapshot_entries=2)
        began = []

        def endless() -> Iterator[bytes]:
            while True:
                began.append(1)
                if len(began) == 5:
                    stand.snapshots.abandon()
                assert len(began) < 100
                yield bytes(100_000)

        state.answer = endless()
        stand.apply(2)
        stand.hand.step()
        assert 5 <= len(began) < 10
        assert (stand.taken, stand.troubles) == ([], [])
        assert names(tmp_path) == []
        state.answer = None
        stand.apply(3)
        wanted = stand.snapshots.request()
        assert not stand.hand.jobs, "while a newer one is coming none is begun"
        stand.snapshots.on_installed()
        stand.hand.step()
        assert (await wanted).seq == 3

    run(main())


def test_a_request_whose_snapshot_is_given_up_fails(tmp_path: Path) -> None:
    async def main() -> None:
        state = Failing()
        state.answer = pieces(bytes(100_000), bytes(100_000))
        stand = Stand(tmp_path, state)
        stand.apply(2)
        wanted = stand.snapshots.request()
        stand.snapshots.abandon()
        stand.hand.step()
        with pytest.raises(SnapshotError, match="given up"):
            await wanted

    run(main())


# -- the end


def test_closing_takes_a_last_one(tmp_path: Path) -> None:
    async def main() -> None:
        stand = Stand(tmp_path, worker=ThreadWorker("last"))
        stand.apply(3)
        await stand.snapshots.aclose(take=True)
        assert [held.seq for held in stand.store.ids] == [3]
        again = Stand(tmp_path, worker=ThreadWorker("none"))
        again.apply(3)
        await again.snapshots.aclose(take=True)
        assert again.taken == [], "there is no news"
        with pytest.raises(ParticipantClosedError):
            await again.snapshots.request()

    run(main())


@pytest.mark.parametrize(("wanted", "take"), [(False, True), (True, False)])
def test_closing_takes_none_that_is_not_wanted(tmp_path: Path, wanted: bool, take: bool) -> None:
    async def main() -> None:
        stand = Stand(tmp_path, worker=ThreadWorker("none"), snapshot_on_close=wanted)
        stand.apply(3)
        await stand.snapshots.aclose(take=take)
        assert stand.store.ids == ()

    run(main())


def test_closing_waits_for_what_is_under_way_without_rest(tmp_path: Path) -> None:
    async def main() -> None:
        gate = threading.Event()

        def slowly() -> Iterator[bytes]:
            gate.wait(30)
            for _ in range(100):
                yield bytes(40_000)

        state = Failing()
        stand = Stand(tmp_path, state, worker=ThreadWorker("slow"))
        state.answer = slowly()
        stand.apply(3)
        wanted = stand.snapshots.request()
        closing = asyncio.ensure_future(stand.snapshots.aclose(take=True))
        await asyncio.sleep(0)
        assert not closing.done()
        stand.pauses.clear()
        gate.set()
        await closing
        assert (await wanted).seq == 3
        assert stand.pauses == []
        assert stand.taken == [(3, 0)]

    run(main())


def test_a_state_in_doubt_is_not_kept(tmp_path: Path) -> None:
    """A member that differs from the majority must not begin with that again."""

    async def main() -> None:
        state = Failing()
        state.answer = pieces(*(bytes(100_000) for _ in range(10)))
        stand = Stand(tmp_path, state, snapshot_entries=2)
        stand.apply(2)
        wanted = stand.snapshots.request()
        stand.snapshots.stop()
        stand.hand.step()
        with pytest.raises(ParticipantClosedError):
            await wanted
        stand.apply(9)
        closing = asyncio.ensure_future(stand.snapshots.aclose(take=True))
        await asyncio.sleep(0)
        assert stand.hand.steps() == 1, "only the store is closed"
        await closing
        assert (stand.store.ids, stand.taken, stand.troubles) == ((), [], [])
        assert stand.hand.closed

    run(main())


# -- the pace


def test_the_worker_rests_as_long_as_it_works() -> None:
    rested: list[float] = []
    pacer = Pacer(rested.append)
    pacer(0.002)
    pacer(7.0)
    assert rested == [0.002, snapshots.REST_AT_MOST_SECONDS]
    pacer.hurries = True
    pacer(0.002)
    assert len(rested) == 2
    pacer.abandoned = True
    with pytest.raises(AbandonedError):
        pacer(0.002)


def test_rests_come_often(tmp_path: Path) -> None:
    async def main() -> None:
        state = Failing()
        state.answer = (bytes(1_000) for _ in range(1_000))
        stand = Stand(tmp_path, state)
        stand.apply(2)
        wanted = stand.snapshots.request()
        stand.hand.step()
        await wanted
        assert len(stand.pauses) > 20

    run(main())
