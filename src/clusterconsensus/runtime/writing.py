"""The way to the journal: one writer, group commit, and what happens on a full disk.

While one write is being synced, the next gathers; when it is done, everything that has gathered is
one write and one sync. Group commit needs no timer for this. Between two writes a part of the next
journal file is made, so that no write has to wait for the whole of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.errors import DiskFullError
from clusterconsensus.runtime.worker import Worker
from clusterconsensus.storage.journal import Journal

DISK_FULL_PAUSE_SECONDS = 0.5
"""How long after a refusal for lack of space the same write is tried again; nothing was written."""


class Writing:
    """Hands the core's ``Persist`` effects to the journal.

    Arguments:
        journal: Where they go, on the worker's thread only.
        worker: The one writer.
        on_durable: Is told the last ticket of each write that is durable.
        on_disk_full: Is told when the disk is full, with the reason, and (empty) when it no longer
            is.
        on_error: Is told of any other trouble; nothing is written after it (W2).
    """

    def __init__(
        self,
        journal: Journal,
        worker: Worker,
        on_durable: Callable[[int], None],
        on_disk_full: Callable[[str], None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._journal = journal
        self._worker = worker
        self._on_durable = on_durable
        self._on_disk_full = on_disk_full
        self._on_error = on_error
        self._loop = asyncio.get_running_loop()
        self._gathered: list[Persist] = []
        self._busy = False
        self._stopped = False
        self._prepare_at = 0.0
        self._noted_commit = 0
        self.add = self._gathered.append

    def stop(self) -> None:
        """Write nothing more, and say nothing of what is under way."""
        self._stopped = True

    def note(self, commit: int) -> None:
        """While there is nothing else to write: note what is known to be chosen, so that a start,
        or a backup of the directory, knows it too. Otherwise the next write would tell."""
        if commit > self._noted_commit and not (self._busy or self._stopped or self._gathered):
            self._gathered.append(Persist(0, commit=commit))
            self.flush()

    def flush(self) -> None:
        """Begin to write what has gathered, unless a write is under way."""
        if self._busy or self._stopped or not self._gathered:
            return
        self._busy = True
        batch = tuple(self._gathered)
        self._gathered.clear()
        journal = self._journal

        def done(_: None, error: Exception | None) -> None:
            self._busy = False
            if self._stopped:
                return
            if error is None:
                self._on_disk_full("")
                self._noted_commit = max(self._noted_commit, batch[-1].commit)
                if journal.prepare_due and self._loop.time() >= self._prepare_at:
                    self._prepare()
                self._on_durable(batch[-1].ticket)
                self.flush()
            elif isinstance(error, DiskFullError):
                # Nothing was written: wait for space. The disk timeout ends a mastership (E9).
                self._on_disk_full(str(error))
                self._gathered[:0] = batch
                self._busy = True
                self._loop.call_later(DISK_FULL_PAUSE_SECONDS, self._go_on)
            else:
                self._on_error(error)

        self._worker.call(lambda: journal.append(batch), done)

    def _go_on(self) -> None:
        self._busy = False
        self.flush()

    def _prepare(self) -> None:
        self._busy = True

        def done(_: bool | None, error: Exception | None) -> None:
            if isinstance(error, DiskFullError):
                # Not yet anybody's trouble: the current file has room, and may outlast the need.
                self._prepare_at = self._loop.time() + DISK_FULL_PAUSE_SECONDS
            elif error is not None and not self._stopped:
                self._on_error(error)
            self._go_on()

        self._worker.call(self._journal.prepare_next, done)
