"""Reads again what lies on the disk, slowly and for ever, to find damage before it is needed (W8).

A bit that flips in a file that nobody reads is found by the next start, when other members may have
lost theirs too. So closed journal segments and snapshots are read and checked in turn, a slice at a
time on the worker that reads, at a pace that nobody notices. Found early, damage costs nothing: the
member's memory is whole, and a fresh snapshot takes the place of what is damaged.

Between two slices there is one timer and nothing else; between two passes there is a longer pause,
so that a small journal is not read over and over.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Literal

from clusterconsensus.consensus.types import SnapshotId
from clusterconsensus.errors import ConsensusError, DamagedError, SnapshotError
from clusterconsensus.runtime.worker import Worker
from clusterconsensus.settings import KIB
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.snapshots import SnapshotStore

SLICE_BYTES = 256 * KIB

PASS_PAUSE_SECONDS = 60.0
"""Before each pass."""

Kind = Literal["journal", "snapshot"]


class Scrubber:
    """Passes over a member's files. All calls in the event loop.

    Arguments:
        journal: Its closed segments are read.
        store: Its snapshots are read.
        worker: Where the reading happens, between whatever else it has to read.
        bytes_per_second: The pace.
        on_damage: Is told what is damaged, a sentence that says how, and which snapshot it was: it
            is set aside already. Damage of the journal that stays is told again in each pass.
        pass_pause_seconds: How long to wait before each pass, the first one too: a start has just
            read everything.
    """

    def __init__(
        self,
        journal: Journal,
        store: SnapshotStore,
        worker: Worker,
        bytes_per_second: int,
        on_damage: Callable[[Kind, str, SnapshotId | None], None],
        *,
        pass_pause_seconds: float = PASS_PAUSE_SECONDS,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._journal = journal
        self._store = store
        self._worker = worker
        self._bytes_per_second = bytes_per_second
        self._on_damage = on_damage
        self._pass_pause_seconds = pass_pause_seconds
        self._slice_bytes = min(SLICE_BYTES, bytes_per_second)
        self._timer: asyncio.TimerHandle | None = None
        self._left: list[SnapshotId] = []
        """The snapshots that this pass has not come to."""
        self._reading: SnapshotId | None = None
        """Which snapshot is being read; None for the journal."""
        self._slices: Iterator[int] | None = None
        self._stopped = False
        self.passes = 0
        self.bytes = 0
        self.found = 0

    def start(self) -> None:
        """Begin, after the pause before the first pass."""
        self._after(self._pass_pause_seconds, self._begin_pass)

    def stop(self) -> None:
        """Read nothing more. A slice that is under way ends unheard."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()

    def statistics(self) -> dict[str, int]:
        """Counters since the start."""
        return {"passes": self.passes, "bytes": self.bytes, "found": self.found}

    def _after(self, seconds: float, function: Callable[[], None]) -> None:
        if not self._stopped:
            self._timer = self._loop.call_later(seconds, function)

    def _begin_pass(self) -> None:
        self._left = list(self._store.ids)
        self._reading = None
        self._slices = self._scrub()
        self._read()

    def _read(self) -> None:
        slices = self._slices
        if slices is not None:
            self._worker.call(lambda: next(slices, None), self._on_read)

    def _on_read(self, count: int | None, error: Exception | None) -> None:
        if self._stopped:
            return
        if error is not None:
            self._note(error)
        elif count is not None:
            self.bytes += count
            self._after(count / self._bytes_per_second, self._read)
            return
        # This file is read, as far as it could be: on with the next one that is still there.
        while self._left:
            snapshot = self._left.pop(0)
            if snapshot in self._store.ids:
                self._reading = snapshot
                self._slices = self._verify(snapshot)
                self._read()
                return
        self._slices = None
        self.passes += 1
        self._after(self._pass_pause_seconds, self._begin_pass)

    # Generators, so that nothing of them runs before the first slice, which is the worker's.

    def _scrub(self) -> Iterator[int]:
        yield from self._journal.scrub(self._slice_bytes)

    def _verify(self, snapshot: SnapshotId) -> Iterator[int]:
        try:
            yield from self._store.verify(snapshot, self._slice_bytes)
        except DamagedError:
            with contextlib.suppress(SnapshotError):  # it is not used any more all the same
                self._store.set_aside(snapshot)
            raise

    def _note(self, error: Exception) -> None:
        snapshot = self._reading
        # Whatever else is raised: what cannot be read is no better than what is damaged.
        detail = str(error)
        if not isinstance(error, ConsensusError):
            detail = f"{type(error).__name__}: {error}"
        self.found += 1
        self._on_damage("journal" if snapshot is None else "snapshot", detail, snapshot)
