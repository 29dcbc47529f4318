"""Everything about the snapshots and the health of one running member's directory.

Ties together who takes snapshots (``snapshots``), who moves them (``transfers``) and who looks for
damage (``scrubbing``), and performs what the core asks about them. What the parts have in common:

* A snapshot that is durable is told to the core, which says what of the log may go (S6).
* Damage that is found while the member runs costs nothing, because its memory is whole: a fresh
  snapshot is taken at once, and it takes the place of what is damaged (W8).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.types import Incarnation, SnapshotId
from clusterconsensus.errors import DamagedError
from clusterconsensus.runtime.applier import Capture
from clusterconsensus.runtime.scrubbing import Kind, Scrubber
from clusterconsensus.runtime.snapshots import Snapshotter
from clusterconsensus.runtime.status import Recovered, SnapshotInstalled, SnapshotTaken, Trouble
from clusterconsensus.runtime.transfers import Transfers
from clusterconsensus.storage.snapshot_files import snapshot_path
from clusterconsensus.storage.snapshot_format import SnapshotHead

if TYPE_CHECKING:
    from clusterconsensus.runtime.driver import Parts

logger = logging.getLogger("clusterconsensus.runtime")

MAX_BEGUN = 1_024
CHECK_BYTES = 1024 * 1024
DAMAGE_KEPT = 16
"""How many findings of damage ``status`` tells."""


class Keeping:
    """The snapshots and the scrubber of one running member.

    Arguments:
        parts: What the member is made of.
        post: Takes events for the core.
        publish: Takes events for the application.
        feature_level: What the cluster knows.
        installed: Is told that the state was replaced: whoever waits to apply or to read may.
        failed: Is told of what the member cannot go on with.
    """

    def __init__(
        self,
        parts: Parts,
        post: Callable[[events.Event], None],
        publish: Callable[[Any], None],
        feature_level: Callable[[], int],
        installed: Callable[[], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._parts = parts
        self._local = parts.replica.local
        self._post = post
        self._publish = publish
        self._feature_level = feature_level
        self._installed = installed
        self._failed = failed
        self._stopped = False
        self._journal_damaged = False
        self._waiting: list[asyncio.Future[None]] = []
        self._begun: set[tuple[Incarnation, SnapshotId]] = set()
        """Who was sent the beginning of which file."""
        self.damage: deque[str] = deque(parts.damage, maxlen=DAMAGE_KEPT)
        self.snapshotter = Snapshotter(
            parts.store,
            parts.applier,
            parts.settings,
            parts.keeper,
            self._describe,
            self._on_taken,
            self._on_trouble,
            parts.environment.pause,
        )
        self.transfers = Transfers(
            parts.store,
            parts.applier,
            self.snapshotter,
            parts.reader,
            parts.keeper,
            self._on_event,
            self._on_installed,
            self._on_trouble,
            failed,
        )
        self.scrubber = Scrubber(
            parts.journal,
            parts.store,
            parts.reader,
            parts.settings.scrub_bytes_per_second,
            self._on_damage,
        )

    def start(self) -> None:
        """Tell the core what there is, and begin to look for damage."""
        snapshot = self._local.snapshot
        if snapshot is not None:
            self._post(events.SnapshotTaken(snapshot, self._parts.older_seq))
        for finding in self.damage:
            self._publish(Trouble(DamagedError.code, finding))
        self.scrubber.start()

    def stop(self) -> None:
        """Report nothing more. What is under way on the workers ends unheard."""
        self._stopped = True
        self.scrubber.stop()
        self.transfers.stop()
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)

    # -- what the core asks

    def on_load_chunk(self, effect: effects.LoadChunk) -> None:
        """Read a piece for another member. Who begins the same file again may have found it
        damaged: then it is checked here too."""
        if effect.offset == 0:
            key = (effect.to, effect.snapshot)
            if key in self._begun:
                self._check(effect.snapshot)
            elif len(self._begun) >= MAX_BEGUN:
                self._begun.clear()
            self._begun.add(key)
        self.transfers.load(effect)

    def _check(self, snapshot: SnapshotId) -> None:
        store = self._parts.store

        def check() -> None:
            try:
                for _ in store.verify(snapshot, CHECK_BYTES):
                    pass
            except DamagedError:
                store.set_aside(snapshot)
                raise

        def done(_: None, error: Exception | None) -> None:
            if isinstance(error, DamagedError) and not self._stopped:
                self._on_damage("snapshot", str(error), snapshot)

        self._parts.keeper.call(check, done)

    def on_compact(self, effect: effects.Compact) -> None:
        """Forget the log up to a sequence, and old snapshots."""
        self.transfers.forget(effect.keep)
        journal = self._parts.journal

        def done(_: int | None, error: Exception | None) -> None:
            if error is not None and not self._stopped:
                self._failed(error)

        if effect.seq > journal.base.seq:
            self._parts.writer.call(lambda: journal.compact(effect.seq), done)

    def on_recovered(self, effect: effects.Recovered) -> None:
        """The member is whole again: what was set aside is of no use any more (W5)."""
        logger.warning(
            "%s: whole again up to sequence %d; it votes again", self._parts.member.id, effect.seq
        )
        self._publish(Recovered(effect.seq))
        journal = self._parts.journal

        def done(_: None, error: Exception | None) -> None:
            if error is not None and not self._stopped:
                self._failed(error)

        self._parts.writer.call(journal.forget_damaged, done)

    def on_regressed(self, effect: effects.FoundRegressed) -> None:
        """The member has lost what it acknowledged, and its disk does not show it."""
        finding = (
            f"{self._parts.directory}: this member acknowledged sequence {effect.seq}, and its "
            "disk does not hold it: an old image of it was restored, or it said that it had synced "
            "what it had not. It has no vote until it is whole again; do not trust this disk"
        )
        self.damage.append(finding)
        self._on_trouble(DamagedError.code, finding)

    # -- snapshots

    def _describe(self, capture: Capture) -> SnapshotHead:
        parts, log = self._parts, self._local.log
        seq, configuration = log.committed_configuration(capture.seq)
        return SnapshotHead(
            cluster=parts.cluster,
            cluster_id=self._local.cluster_id,
            member_id=parts.member.id,
            position=log.position(capture.seq),
            configuration_seq=seq,
            configuration=msgspec.structs.replace(configuration, initial=None),
            time=capture.time,
            checksum=capture.checksum,
            level=self._feature_level(),
        )

    def _on_taken(self, snapshot: SnapshotId, older_seq: int) -> None:
        if self._stopped:
            return
        path = snapshot_path(self._parts.directory, snapshot.seq)
        self._publish(SnapshotTaken(snapshot.seq, snapshot.size_bytes, path))
        discard, self._journal_damaged = self._journal_damaged, False
        self._post(events.SnapshotTaken(snapshot, older_seq, discard))

    async def take(self) -> SnapshotTaken:
        """Take a snapshot now."""
        snapshot = await self.snapshotter.request()
        path = snapshot_path(self._parts.directory, snapshot.seq)
        return SnapshotTaken(snapshot.seq, snapshot.size_bytes, path)

    def _on_installed(self) -> None:
        seq = self._parts.applier.applied
        logger.info("%s: installed a snapshot of sequence %d", self._parts.member.id, seq)
        self._publish(SnapshotInstalled(seq))
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
        self._installed()

    def installed(self) -> asyncio.Future[None]:
        """A future that is done when the state may be asked again."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.transfers.installing and not self._stopped:
            self._waiting.append(future)
        else:
            future.set_result(None)
        return future

    def statistics(self) -> dict[str, int]:
        """Counters since the start, and what is under way."""
        receiver = self._parts.replica.receiver
        store = self._parts.store
        return {
            "taken": self.snapshotter.taken,
            "failed": self.snapshotter.failed,
            "kept": len(store.ids),
            "newest_bytes": store.ids[0].size_bytes if store.ids else 0,
            "sending": len(self._parts.replica.master.catch_up.sending),
            "received_bytes": receiver.received_bytes,
            "expected_bytes": receiver.snapshot.size_bytes if receiver.snapshot else 0,
        }

    # -- trouble

    def _on_trouble(self, code: str, detail: str) -> None:
        if not self._stopped:
            logger.error("%s: %s", self._parts.member.id, detail)
            self._publish(Trouble(code, detail))

    def _on_damage(self, kind: Kind, detail: str, snapshot: SnapshotId | None) -> None:
        """The scrubber has found damage; the memory is whole, so a snapshot takes its place."""
        if detail not in self.damage:
            self.damage.append(detail)
            self._on_trouble(DamagedError.code, detail)
        if kind == "journal":
            self._journal_damaged = True
        self._renew()

    def _on_event(self, event: events.Event) -> None:
        self._post(event)
        if isinstance(event, events.ChunkLoaded) and not event.chunk:
            # Gone or damaged: another one is needed. That it was only the oldest does no harm.
            self._renew()

    def _renew(self) -> None:
        """Have a fresh snapshot, also where nothing was applied since the last one."""

        def done(future: asyncio.Future[SnapshotId]) -> None:
            if self._stopped or future.cancelled() or future.exception() is not None:
                return  # it was told as trouble, and is tried again by itself
            discard, self._journal_damaged = self._journal_damaged, False
            self._post(events.SnapshotTaken(future.result(), 0, discard))

        self.snapshotter.request().add_done_callback(done)
