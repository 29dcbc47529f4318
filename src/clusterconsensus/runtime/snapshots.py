"""Takes snapshots of this member's own state while it goes on working (S5).

A snapshot has two halves. In the event loop, between two entries, the state machine gives its
content (or a generator over a copy) and the session table is copied: that must be quick, and is.
The rest, which is nearly all of the work, happens on a worker's thread of its own: making bytes,
writing, syncing, reading back. There the *pacing* matters. Threads share the interpreter, and one
that never lets go of it makes the loop wait several milliseconds each time it wakes. So after each
piece the worker rests as long as it worked: the loop keeps half of the interpreter, and the
snapshot takes twice as long at most.

Nothing about a snapshot that fails is dangerous: the log still holds everything. It is told as
trouble and tried again later; the member goes on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator

from clusterconsensus.consensus.sessions import encode_saved
from clusterconsensus.consensus.types import SnapshotId
from clusterconsensus.errors import ConsensusError, ParticipantClosedError, SnapshotError
from clusterconsensus.runtime.applier import Applier, Capture
from clusterconsensus.runtime.worker import Worker, call
from clusterconsensus.settings import Settings
from clusterconsensus.storage.snapshot_format import SnapshotHead
from clusterconsensus.storage.snapshots import SnapshotStore

REST_AT_MOST_SECONDS = 0.05
"""One rest, however long the piece of work before it took."""

RETRY_SECONDS = 5.0
"""How long after a failure the next snapshot is tried; twice as long after each further one."""

RETRY_AT_MOST_SECONDS = 300.0


class AbandonedError(Exception):
    """A snapshot is not wanted any more: a newer one comes, or this member stops."""


class Pacer:
    """Lets a worker's thread rest as long as it worked. Called between two pieces of work.

    Arguments:
        pause: Keeps the calling thread waiting for some seconds.
    """

    def __init__(self, pause: Callable[[float], None]) -> None:
        self._pause = pause
        self.hurries = False
        """Whether there is no rest any more."""
        self.abandoned = False
        """Whether the next call ends the work."""

    def __call__(self, worked_seconds: float) -> None:
        """Rest.

        Arguments:
            worked_seconds: The processor time of the last piece of work.

        Raises:
            AbandonedError: the work is to end.
        """
        if self.abandoned:
            raise AbandonedError
        if not self.hurries:
            self._pause(min(worked_seconds, REST_AT_MOST_SECONDS))


class Snapshotter:
    """Decides when a snapshot is taken, and takes one at a time. All calls in the event loop.

    Arguments:
        store: Where snapshots go, on the worker's thread.
        applier: What they are taken of.
        settings: ``snapshot_log_bytes``, ``snapshot_entries``, ``snapshot_on_close``.
        worker: A worker of its own; ``aclose`` closes it.
        describe: Makes the head of a snapshot file for a capture; called at once after it.
        on_taken: Is told of each durable snapshot, with the sequence of the newest one before it (0
            if there is none).
        on_trouble: Is told of each failure: a short code and a sentence.
        pause: Keeps the worker's thread waiting for some seconds.
    """

    def __init__(
        self,
        store: SnapshotStore,
        applier: Applier,
        settings: Settings,
        worker: Worker,
        describe: Callable[[Capture], SnapshotHead],
        on_taken: Callable[[SnapshotId, int], None],
        on_trouble: Callable[[str, str], None],
        pause: Callable[[float], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._store = store
        self._applier = applier
        self._settings = settings
        self._worker = worker
        self._describe = describe
        self._on_taken = on_taken
        self._on_trouble = on_trouble
        self._clock = self._loop.time
        self._pause = pause
        self._pacer = Pacer(pause)
        self._waiting: list[asyncio.Future[SnapshotId]] = []
        self._busy: asyncio.Future[None] | None = None
        self._stopped = False
        self._closing = False
        self._held_until = 0.0
        """No snapshot is begun before this: a newer one is coming."""
        self._retry_at = 0.0
        self._retry_seconds = RETRY_SECONDS
        self._timer: asyncio.TimerHandle | None = None
        # What was applied since counts from here on.
        self._since_seq = store.ids[0].seq if store.ids else 0
        self._since_bytes = 0
        self._newest_bytes = store.ids[0].size_bytes if store.ids else 0
        self.taken = 0
        self.failed = 0

    # -- when

    @property
    def busy(self) -> bool:
        """Whether a snapshot is being taken now."""
        return self._busy is not None

    @property
    def due(self) -> bool:
        """Whether a snapshot should be taken as soon as an entry is applied as a whole."""
        if self._busy is not None or self._stopped:
            return False
        if self._waiting:
            return self._clock() >= self._held_until
        applier, settings = self._applier, self._settings
        # A state that is larger than that would be written again and again for little news.
        enough = max(settings.snapshot_log_bytes, self._newest_bytes)
        if (
            applier.applied_bytes - self._since_bytes < enough
            and applier.applied - self._since_seq < settings.snapshot_entries
        ):
            return False
        return self._clock() >= max(self._retry_at, self._held_until)

    def take(self) -> None:
        """Begin a snapshot, if one is due and nothing is applied by half. To be called after each
        slice; costs next to nothing if there is nothing to do."""
        if not self.due:
            if self._waiting and self._busy is None:
                self._wake_at(self._held_until)
            return
        if self._applier.is_between_entries:
            self._begin()
        else:
            self._applier.stop_between_entries()

    def request(self) -> asyncio.Future[SnapshotId]:
        """A future of a durable snapshot that holds at least what is applied now.

        It ends with ``SnapshotError`` where that fails, and with ``ParticipantClosedError`` if this
        is closed before.
        """
        future: asyncio.Future[SnapshotId] = self._loop.create_future()
        if self._stopped or self._closing:
            future.set_exception(ParticipantClosedError("no more snapshots are taken here"))
            return future
        self._waiting.append(future)
        self.take()
        return future

    # -- what happens beside

    def abandon(self) -> None:
        """A newer snapshot is coming from the master: what is being taken is not needed, and
        nothing is begun for a while."""
        self._pacer.abandoned = True
        self._held_until = self._clock() + RETRY_SECONDS
        if self._waiting:
            self._wake_at(self._held_until)

    def on_installed(self) -> None:
        """The applier goes on behind a snapshot of somebody else: count from there."""
        self._held_until = 0.0
        self._note(self._applier.applied, self._applier.applied_bytes)
        self.take()

    def stop(self) -> None:
        """Take no more snapshots and give up what is under way: the state is not to be kept."""
        self._stopped = True
        self._pacer.abandoned = True
        if self._timer is not None:
            self._timer.cancel()
        waiting, self._waiting = self._waiting, []
        error = ParticipantClosedError("no more snapshots are taken here")
        _end(waiting, error)

    async def aclose(self, *, take: bool) -> None:
        """Finish what is under way, without rest, and close the worker.

        Arguments:
            take: Whether to take a last snapshot, if ``snapshot_on_close`` wants it and there is
                news; if not, what is under way is given up. Never with a state that is in doubt.
        """
        self._closing = True
        if not take:
            self.stop()
        self._pacer.hurries = True
        await self._settle()
        applier = self._applier
        if (
            take
            and not self._stopped
            and self._settings.snapshot_on_close
            and applier.is_between_entries
            and applier.applied > self._since_seq
        ):
            self._begin()
            self._pacer.hurries = True
            await self._settle()
        self.stop()
        await call(self._worker, self._store.close)
        await self._worker.aclose()

    async def _settle(self) -> None:
        while self._busy is not None:
            await asyncio.shield(self._busy)

    # -- taking

    def _begin(self) -> None:
        applier, store = self._applier, self._store
        waiting, self._waiting = self._waiting, []
        if store.ids and store.ids[0].seq == applier.applied:
            self._note(applier.applied, applier.applied_bytes)
            _end(waiting, store.ids[0])
            return
        if not applier.applied:
            _end(
                waiting, SnapshotError("there is nothing to take a snapshot of: nothing is applied")
            )
            return
        try:
            capture = applier.capture()
        except SnapshotError as error:
            self._fail(error, waiting)
            return
        applied_bytes = applier.applied_bytes
        head = self._describe(capture)
        pacer = self._pacer = Pacer(self._pause)
        self._busy = self._loop.create_future()

        def write() -> SnapshotId:
            sessions = encode_saved(capture.sessions)
            state = capture.state
            return store.write(
                head, sessions, state if isinstance(state, bytes) else pieces_of(state), pacer
            )

        def done(snapshot: SnapshotId | None, error: Exception | None) -> None:
            busy, self._busy = self._busy, None
            if busy is not None:
                busy.set_result(None)
            if snapshot is not None:
                self._note(capture.seq, applied_bytes)
                self._newest_bytes = snapshot.size_bytes
                self._retry_at, self._retry_seconds = 0.0, RETRY_SECONDS
                self.taken += 1
                _end(waiting, snapshot)
                if store.ids and store.ids[0] == snapshot:
                    older = [other.seq for other in store.ids if other.seq < snapshot.seq]
                    self._on_taken(snapshot, max(older, default=0))
            elif isinstance(error, AbandonedError):
                _end(waiting, SnapshotError("the snapshot was given up: a newer one is coming"))
            elif error is not None:
                self._fail(error, waiting)
            if not self._closing:
                self.take()

        self._worker.call(write, done)

    def _note(self, seq: int, applied_bytes: int) -> None:
        """There is a snapshot of this sequence."""
        if seq >= self._since_seq:
            self._since_seq, self._since_bytes = seq, applied_bytes

    def _wake_at(self, when: float) -> None:
        if self._closing or self._stopped:
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(when, self.take)

    def _fail(self, error: Exception, waiting: list[asyncio.Future[SnapshotId]]) -> None:
        if not isinstance(error, ConsensusError):
            wrapped = SnapshotError(f"a snapshot cannot be taken: {type(error).__name__}: {error}")
            wrapped.__cause__ = error
            error = wrapped
        self.failed += 1
        _end(waiting, error)
        self._retry_at = self._clock() + self._retry_seconds
        self._wake_at(self._retry_at)
        self._retry_seconds = min(2 * self._retry_seconds, RETRY_AT_MOST_SECONDS)
        self._on_trouble(error.code, str(error))


def pieces_of(state: Iterable[bytes]) -> Iterator[bytes]:
    """What ``State.snapshot`` returned, if it is not bytes.

    Raises:
        SnapshotError: a piece is not bytes, or what makes them raised.
    """
    try:
        for piece in state:
            if not isinstance(piece, bytes):
                raise SnapshotError(
                    f"State.snapshot gave a piece that is a {type(piece).__name__} and not bytes"
                )
            yield piece
    except SnapshotError:
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        # The last two would end the worker's thread, and nobody would know.
        raise SnapshotError(
            f"what State.snapshot returned raised {type(error).__name__}: {error}; it must not "
            "read what apply changes"
        ) from error


def _end(waiting: list[asyncio.Future[SnapshotId]], outcome: SnapshotId | Exception) -> None:
    for future in waiting:
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
