"""Snapshots on their way: pieces of an own file for others, those of a master's, and the install.

All of it blocks, so each step runs on a worker and reports back as an event of the core. Pieces for
others are read by the worker that reads the journal. Whatever writes shares a thread with the
taking of snapshots, which is given up when a master's snapshot comes: it would be older.

An install may take long. The event loop goes on meanwhile, and heartbeats are answered; but nothing
is applied, and nothing may be asked of the state, until it is done.
"""

from __future__ import annotations

from collections.abc import Callable

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.types import SnapshotId
from clusterconsensus.errors import ConsensusError, DiskFullError, SnapshotError
from clusterconsensus.runtime.applier import Applier, Installed
from clusterconsensus.runtime.snapshots import Snapshotter
from clusterconsensus.runtime.worker import Worker
from clusterconsensus.storage.snapshot_format import SnapshotHead
from clusterconsensus.storage.snapshots import SnapshotStore

KEPT = 2
"""The newest snapshots that are always kept: should one be damaged, there is the other."""


class Transfers:
    """Performs the effects about snapshots. All calls in the event loop.

    Arguments:
        store: The snapshots.
        applier: What a snapshot is installed into.
        snapshotter: Is told when its work is not needed.
        reader: The worker that reads.
        worker: The worker of ``snapshotter``.
        post: Takes the events that report what was done.
        on_installed: Is told that an install is complete, before it is reported.
        on_trouble: Is told of a snapshot that cannot be kept: a short code and a sentence. The
            master sends it again.
        failed: Is told of what the member cannot go on with.
    """

    def __init__(
        self,
        store: SnapshotStore,
        applier: Applier,
        snapshotter: Snapshotter,
        reader: Worker,
        worker: Worker,
        post: Callable[[events.Event], None],
        on_installed: Callable[[], None],
        on_trouble: Callable[[str, str], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._store = store
        self._applier = applier
        self._snapshotter = snapshotter
        self._reader = reader
        self._worker = worker
        self._post = post
        self._on_installed = on_installed
        self._on_trouble = on_trouble
        self._failed = failed
        self._stopped = False
        self._installs = 0
        """How many were asked for and are not complete."""
        self._trouble = ""
        """The code that was told last, until a snapshot was received as a whole."""

    @property
    def installing(self) -> bool:
        """Whether nothing may be applied and nothing asked of the state now."""
        return self._applier.installing

    def stop(self) -> None:
        """Report nothing more."""
        self._stopped = True

    def load(self, effect: effects.LoadChunk) -> None:
        """Perform ``LoadChunk``."""
        snapshot, offset = effect.snapshot, effect.offset

        def done(chunk: bytes | None, error: Exception | None) -> None:
            if self._stopped:
                return
            if error is not None:
                self._failed(error)
            else:
                self._post(events.ChunkLoaded(effect.to, snapshot, offset, chunk or b""))

        self._reader.call(lambda: self._store.read_chunk(snapshot, offset, effect.max_bytes), done)

    def keep_chunk(self, effect: effects.StoreChunk) -> None:
        """Perform ``StoreChunk``. Where it fails nothing is reported: the master sends something
        again after a while and is then told what is wanted."""
        store, snapshot = self._store, effect.snapshot
        self._snapshotter.abandon()

        def keep() -> int | SnapshotHead:
            wanted = store.receive(snapshot, effect.offset, effect.chunk)
            return wanted if wanted < snapshot.size_bytes else store.finish(snapshot)

        def done(found: int | SnapshotHead | None, error: Exception | None) -> None:
            if self._stopped:
                return
            if isinstance(error, SnapshotError | DiskFullError):
                if error.code != self._trouble:
                    self._trouble = error.code
                    self._on_trouble(error.code, str(error))
            elif error is not None:
                self._failed(error)
            elif isinstance(found, SnapshotHead):
                self._trouble = ""
                self._post(
                    events.SnapshotStored(
                        snapshot, found.configuration_seq, found.configuration, found.time
                    )
                )
            elif found is not None:
                self._post(events.ChunkStored(snapshot, found))

        self._worker.call(keep, done)

    def install(self, effect: effects.Install) -> None:
        """Perform ``Install``. If it fails the member cannot go on: its state is what nobody
        knows."""
        store, applier = self._store, self._applier
        applier.begin_install()
        self._installs += 1
        self._snapshotter.abandon()

        def install() -> Installed:
            head, sessions, state = store.load(effect.snapshot)
            return applier.install(head.position.seq, head.checksum, head.time, sessions, state)

        def done(installed: Installed | None, error: Exception | None) -> None:
            self._installs -= 1
            if self._stopped:
                return
            if error is not None:
                self._failed(error)
            elif installed is not None and not self._installs:
                # Behind a snapshot that gives way to the next one the log has nothing any more.
                applier.end_install(installed)
                self._snapshotter.on_installed()
                self._on_installed()
                self._post(events.Applied(installed.seq, installed.checksum))

        self._worker.call(install, done)

    def forget(self, keep: tuple[SnapshotId, ...]) -> None:
        """Perform that part of ``Compact``: remove the snapshots other than the newest two and
        those in ``keep``."""
        store = self._store

        def forget() -> None:
            store.keep((*store.ids[:KEPT], *keep))

        def done(_: None, error: Exception | None) -> None:
            if self._stopped or error is None:
                return
            if isinstance(error, ConsensusError):
                self._on_trouble(error.code, str(error))
            else:
                self._failed(error)

        self._worker.call(forget, done)
