"""What a directory holds for a start: the journal and the newest snapshot, brought into agreement.

Four things can have happened since the last run, and all are settled here before anybody believes
anything:

* A snapshot that a master sent became durable, and the crash came before the journal gave up its
  log for it. The rename of the file was the decision (S4); the journal follows now.
* The newest snapshot is damaged. The one before it and the log behind that one hold everything,
  because the log is never compacted beyond the *older* of two (S6).
* The journal is damaged, or begins behind the newest whole snapshot, or lacks what it knows to be
  chosen. The member has lost what it acknowledged. It begins a new journal at the newest whole
  snapshot, with its old promise and without a vote (W4); the damaged files are set aside. If it is
  the only voter there is nobody to get the loss from, and the start is refused: ``clusterconsensus
  recover`` says what can be saved.
* What this member promised cannot be known any more: this incarnation is gone, and the start is
  refused (W6).

Everything here blocks and runs on a worker.
"""

from __future__ import annotations

import contextlib
import logging

import msgspec

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.log import decode_configuration
from clusterconsensus.consensus.types import (
    NOWHERE,
    Ballot,
    Configuration,
    Incarnation,
    SnapshotId,
    incarnation,
)
from clusterconsensus.errors import DamagedError, StorageError
from clusterconsensus.settings import Settings
from clusterconsensus.storage.files import Files
from clusterconsensus.storage.findings import Recovered
from clusterconsensus.storage.identity import Identity
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.recovery import Scan
from clusterconsensus.storage.snapshots import SnapshotStore

logger = logging.getLogger("clusterconsensus.runtime")


class Restored(msgspec.Struct, frozen=True):
    """An opened journal and the snapshot that it continues.

    ``found`` is what the journal holds, once it has followed the snapshot. ``damage`` tells what
    was found damaged and where, for people.
    """

    journal: Journal
    found: Recovered
    snapshot: SnapshotId | None
    older_seq: int
    """What the snapshot before that one covers; 0 if there is none."""
    damage: tuple[str, ...] = ()


def restore(
    files: Files, path: str, identity: Identity, settings: Settings, store: SnapshotStore
) -> Restored:
    """Open the snapshots and the journal of a directory that is held.

    Raises:
        DamagedError: what was acknowledged is damaged, and cannot or must not be got from others.
        StorageError: as from ``Journal.open`` and ``SnapshotStore.open``.
    """
    snapshots = store.open()
    damage = list(store.damaged)
    newest = snapshots[0] if snapshots else None
    older_seq = snapshots[1].seq if len(snapshots) > 1 else 0
    try:
        journal = _open(files, path, identity, settings, newest)
    except DamagedError as error:
        _check_may_recover(files, path, identity, settings, store, newest, error)
        logger.error("%s; this member takes part without a vote until it is whole again", error)
        damage.append(str(error))
        journal = Journal.salvage(
            files,
            path,
            disk_id=identity.disk_id,
            segment_bytes=settings.segment_bytes,
            base=newest.position if newest is not None else NOWHERE,
            paranoid=settings.paranoid,
        )
    found = journal.recovered
    if newest is not None and found.promised < (ballot := newest.position.ballot):
        # The snapshot was durable before the promise that it was taken in: to hold what a master
        # sent is to follow it (R1b).
        journal.append([Persist(0, promised=ballot)])
        found = msgspec.structs.replace(found, promised=ballot)
    if newest is not None and _ballot_at(found, newest.seq) != newest.position.ballot:
        if newest.seq <= found.commit_hint:
            raise DamagedError(
                f"{path}: the log and the snapshot of sequence {newest.seq} are of different "
                "histories, and both call it chosen"
            )
        journal.append([Persist(0, base=newest.position, commit=newest.seq)])
        found = msgspec.structs.replace(
            found,
            base=newest.position,
            last_seq=newest.seq,
            commit_hint=newest.seq,
            runs=[],
            configurations=[],
        )
    return Restored(journal, found, newest, older_seq, tuple(damage))


def _open(
    files: Files, path: str, identity: Identity, settings: Settings, newest: SnapshotId | None
) -> Journal:
    journal = Journal.open(
        files,
        path,
        disk_id=identity.disk_id,
        segment_bytes=settings.segment_bytes,
        paranoid=settings.paranoid,
    )
    found = journal.recovered
    covered = newest.seq if newest is not None else 0
    if found.base.seq > covered:
        journal.close(found.commit_hint)
        raise DamagedError(
            f"{path}: the journal begins behind sequence {found.base.seq}, but the newest whole "
            f"snapshot ends with sequence {covered}"
        )
    return journal


def _ballot_at(found: Recovered, seq: int) -> Ballot | None:
    """The ballot of an entry of the log, or of its base; None where there is none."""
    if seq == found.base.seq:
        return found.base.ballot
    if not found.base.seq < seq <= found.last_seq:
        return None
    held = found.base.ballot
    for first, ballot in found.runs:
        if first > seq:
            break
        held = ballot
    return held


def _check_may_recover(
    files: Files,
    path: str,
    identity: Identity,
    settings: Settings,
    store: SnapshotStore,
    newest: SnapshotId | None,
    error: DamagedError,
) -> None:
    """Refuse where nobody else can have what is lost, or the operator wants to be asked."""
    name = incarnation(identity.member_id, identity.disk_id)
    if not settings.repair:
        raise error
    voters = _known_voters(files, path, identity, store, newest)
    if voters == (name,) or (not voters and identity.founder):
        raise DamagedError(
            f"{error}. This member is the only voter of its cluster, so nobody else has what is "
            "lost; `clusterconsensus recover` tells what can be saved"
        ) from error


def _known_voters(
    files: Files,
    path: str,
    identity: Identity,
    store: SnapshotStore,
    newest: SnapshotId | None,
) -> tuple[Incarnation, ...]:
    """The voters of the newest configuration that can still be read."""
    found = Configuration()
    if newest is not None:
        found = store.head(newest).configuration
    scan = Scan(files, path, identity.disk_id)
    with contextlib.suppress(StorageError):  # what stands before the damage is what is wanted
        scan.run()
    if scan.configurations and (newest is None or scan.configurations[-1].seq > newest.seq):
        found = decode_configuration(scan.configurations[-1].payload)
    return found.voters
