"""What a member has written, as a value: its log behind a base, a snapshot, and what is unsynced.

A snapshot is a file that is there as a whole; what it holds does not matter here, because all that
is applied follows from the log. Only the newest is kept, and the log may be forgotten up to it:
that is the most that the rules allow (S6).
"""

from __future__ import annotations

import msgspec

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.events import SnapshotStored
from clusterconsensus.consensus.types import NOWHERE, Ballot, Entry, Position


class Written(msgspec.Struct, frozen=True):
    """A log, from behind its base on."""

    base: Position = NOWHERE
    entries: tuple[Entry, ...] = ()

    @property
    def last_seq(self) -> int:
        return self.base.seq + len(self.entries)

    def entry(self, seq: int) -> Entry | None:
        """An entry, None where there is none, not yet or not any more."""
        return (
            self.entries[seq - self.base.seq - 1] if self.base.seq < seq <= self.last_seq else None
        )

    def ballot_at(self, seq: int) -> Ballot | None:
        """The ballot of an entry, or of the base."""
        if seq == self.base.seq:
            return self.base.ballot
        entry = self.entry(seq)
        return None if entry is None else entry.ballot

    def with_batch(self, batch: Batch) -> Written:
        """The log after one more batch."""
        base, entries = self.base, self.entries
        if batch.truncate_from is not None:
            entries = entries[: batch.truncate_from - base.seq - 1]
        if batch.base is not None:
            base, entries = batch.base, ()
        return Written(base, entries + batch.entries)

    def compacted(self, seq: int) -> Written:
        """The log without what stands up to a sequence."""
        ballot = self.ballot_at(seq)
        if seq <= self.base.seq or ballot is None:
            return self
        return Written(Position(ballot, seq), self.entries[seq - self.base.seq :])


class Batch(msgspec.Struct, frozen=True, gc=False):
    """One ``Persist`` that is written and not synced, without its number."""

    promised: Ballot | None
    truncate_from: int | None
    entries: tuple[Entry, ...]
    commit: int
    base: Position | None = None
    recovering: bool | None = None

    @staticmethod
    def of(effect: Persist) -> Batch:
        return Batch(
            effect.promised,
            effect.truncate_from,
            effect.entries,
            effect.commit,
            effect.base,
            effect.recovering,
        )


class Disk(msgspec.Struct, frozen=True):
    """What is durable, and what is written behind it."""

    promised: Ballot
    log: Written
    commit_hint: int
    pending: tuple[Batch, ...] = ()
    snapshot: SnapshotStored | None = None
    """The newest one, with its head."""
    lost: Written | None = None
    """While the member is recovering: the log that it had before it was damaged (W4)."""
    runs: int = 0
    """How many starts there were while it was recovering: each asks under another number (W5)."""

    @property
    def snapshot_seq(self) -> int:
        return 0 if self.snapshot is None else self.snapshot.snapshot.seq

    def sync(self, batches: int) -> Disk:
        """The oldest batches become durable, the others are gone."""
        promised, log, hint = self.promised, self.log, self.commit_hint
        lost, runs = self.lost, self.runs
        for batch in self.pending[:batches]:
            if batch.promised is not None:
                promised = batch.promised
            log = log.with_batch(batch)
            hint = max(hint, batch.commit)
            if batch.recovering is False:
                lost, runs = None, 0
        return Disk(promised, log, hint, (), self.snapshot, lost, runs)

    def written(self) -> Written:
        """The log that the disk will hold when everything is synced."""
        log = self.log
        for batch in self.pending:
            log = log.with_batch(batch)
        return log

    def opened(self) -> Disk:
        """What a start makes of it: the log follows a snapshot that it does not lead to (S4)."""
        log, newest = self.log, self.snapshot
        if newest is not None:
            position = newest.snapshot.position
            if log.ballot_at(position.seq) != position.ballot:
                log = Written(position)
        hint = max(self.commit_hint, self.snapshot_seq)
        runs = self.runs + 1 if self.lost is not None else 0
        return msgspec.structs.replace(self, log=log, commit_hint=hint, runs=runs)

    def damaged(self) -> Disk:
        """The log is lost: it begins anew at the snapshot, with the promise and without a vote."""
        base = NOWHERE if self.snapshot is None else self.snapshot.snapshot.position
        lost = self.log if self.lost is None else self.lost
        return Disk(self.promised, Written(base), base.seq, (), self.snapshot, lost, self.runs)

    def holds(self, seq: int, ballot: Ballot) -> bool:
        """Whether an entry counts as held here: it is durable, in the log or in the snapshot; or it
        was, and the member has no vote until it is again (I-8)."""
        if self.log.ballot_at(seq) == ballot or seq <= self.snapshot_seq:
            return True
        return self.lost is not None and self.lost.ballot_at(seq) == ballot
