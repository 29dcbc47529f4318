"""What the tests of snapshots share: a worker that works when told to, and stores of real files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clusterconsensus.consensus.types import Configuration, Position
from clusterconsensus.runtime.applier import Capture
from clusterconsensus.storage.files import RealFiles
from clusterconsensus.storage.snapshot_format import SnapshotHead
from clusterconsensus.storage.snapshots import SnapshotStore
from tests.runtime.helpers import BALLOT

Job = tuple[Callable[[], Any], Callable[[Any, Exception | None], None]]


class HandWorker:
    """A worker without a thread: each call waits for ``step``."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.called = asyncio.Event()
        self.closed = False

    def call(
        self, function: Callable[[], Any], done: Callable[[Any, Exception | None], None]
    ) -> None:
        self.jobs.append((function, done))
        self.called.set()

    def step(self) -> None:
        """Run the oldest call, and tell what came of it."""
        function, done = self.jobs.pop(0)
        result, trouble = None, None
        try:
            result = function()
        except Exception as error:
            trouble = error
        done(result, trouble)

    def steps(self) -> int:
        """Run all calls, and those that they lead to; how many."""
        count = 0
        while self.jobs:
            self.step()
            count += 1
        return count

    async def aclose(self) -> None:
        self.steps()
        self.closed = True


class QuickWorker(HandWorker):
    """A worker that does at once what it is called for."""

    def call(
        self, function: Callable[[], Any], done: Callable[[Any, Exception | None], None]
    ) -> None:
        super().call(function, done)
        self.steps()


def store_in(path: Path) -> SnapshotStore:
    """A store on a directory of real files."""
    path.mkdir(exist_ok=True)
    store = SnapshotStore(RealFiles(), str(path))
    store.open()
    return store


def head_of(capture: Capture) -> SnapshotHead:
    """The head that goes with a capture of a member whose entries are all of one ballot."""
    return SnapshotHead(
        cluster="c",
        cluster_id="1",
        member_id="a",
        position=Position(BALLOT, capture.seq),
        configuration_seq=0,
        configuration=Configuration(),
        time=capture.time,
        checksum=capture.checksum,
    )
