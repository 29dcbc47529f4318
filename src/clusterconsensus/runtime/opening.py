"""From a directory to a running member, and back.

Opening takes the directory's lock, learns who it is, lets the journal recover (``restoring``),
installs the newest snapshot, and applies again what is known to be chosen behind it (W7). Entries
behind that are kept in memory: whether they are chosen, the next master will say.
"""

from __future__ import annotations

import asyncio
import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from clusterconsensus.consensus import events
from clusterconsensus.consensus.local import Limits, Local
from clusterconsensus.consensus.log import Log
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.types import (
    Configuration,
    Entry,
    Member,
    SnapshotId,
    incarnation,
    member_id_of,
)
from clusterconsensus.errors import (
    DamagedError,
    DirectoryNotEmptyError,
    InvalidChangeError,
    StoragePoisonedError,
)
from clusterconsensus.runtime.applier import Applier, Installed
from clusterconsensus.runtime.driver import Driver, Parts
from clusterconsensus.runtime.envelope import Gate
from clusterconsensus.runtime.environment import Environment
from clusterconsensus.runtime.restoring import restore
from clusterconsensus.runtime.status import Status
from clusterconsensus.runtime.worker import Worker, call
from clusterconsensus.settings import KIB, Settings
from clusterconsensus.state import Codec, State
from clusterconsensus.storage.identity import Directory, open_directory
from clusterconsensus.storage.snapshot_format import SnapshotHead
from clusterconsensus.storage.snapshots import SnapshotStore
from clusterconsensus.transport.base import Transport

logger = logging.getLogger("clusterconsensus.runtime")

REPLAY_BYTES = 4 * 1024 * 1024
"""How much of the journal is in memory at a time while it is applied again."""


class Echo:
    """Stands between the applier and the driver, which is made later; silent until then."""

    def __init__(self) -> None:
        self.driver: Driver | None = None

    def on_group(
        self, seq: int, place: int, session: int, first: int, found: Sequence[bytes | None]
    ) -> None:
        if self.driver is not None:
            self.driver.on_group(seq, place, session, first, found)

    def on_session(self, seq: int, owner: str, nonce: int, session: int) -> None:
        if self.driver is not None:
            self.driver.on_session(seq, owner, nonce, session)

    def on_entry(self, seq: int, changes: list[Any], results: list[bytes]) -> None:
        if self.driver is not None:
            self.driver.on_entry(seq, changes, results)


@dataclass(frozen=True)
class Workers:
    """The threads of one member: ``keeper`` writes snapshots."""

    writer: Worker
    reader: Worker
    keeper: Worker


@dataclass
class Opened:
    """An opened directory and everything made from it."""

    parts: Parts
    directory: Directory
    echo: Echo
    founding: bool = False

    def attach(self, driver: Driver) -> None:
        """Let the driver hear what is applied from now on."""
        self.echo.driver = driver

    async def found(self, driver: Driver, snapshot: bytes | None) -> None:
        """Found a new cluster on this directory (I1).

        Raises:
            DirectoryNotEmptyError: it belongs to a cluster already.
            InvalidChangeError: the state does not install the snapshot.
        """
        parts, identity = self.parts, self.directory.identity
        local = parts.replica.local
        if self.founding and not local.log.last_seq:
            raise DirectoryNotEmptyError(
                f"a cluster is being founded on directory {self.directory.path} already"
            )
        begun = identity.founder and not local.log.last_seq
        if not begun and (identity.cluster_id or local.log.last_seq):
            raise DirectoryNotEmptyError(
                f"directory {self.directory.path} belongs to cluster {identity.cluster!r} "
                f"({identity.cluster_id}) already; it rejoins it by itself, without init_master"
            )
        if snapshot is not None:
            # Refused now rather than by every start of every member.
            try:
                parts.applier.state.install(io.BytesIO(snapshot))
            except Exception as error:
                raise InvalidChangeError(
                    f"the state does not install the snapshot of {len(snapshot)} bytes: {error}"
                ) from error
        cluster_id = identity.cluster_id or parts.environment.new_id()
        self.founding = True
        try:
            await call(parts.writer, lambda: self.directory.found(cluster_id))
        except BaseException:
            self.founding = False
            raise
        parts.gate.cluster_id = cluster_id
        local.cluster_id = cluster_id
        driver.post(
            events.Bootstrap(parts.environment.wall_seconds(), parts.member.address, snapshot)
        )

    async def aclose(self, driver: Driver | None = None) -> None:
        """Take a last snapshot, mark the journal clean, close it and give the directory back.

        Arguments:
            driver: What ran on it, if anything did.
        """
        parts = self.parts
        local = parts.replica.local
        journal = parts.journal
        # What was to be written and never will be may have replaced entries that the disk still
        # has: these must not be called chosen in their place (W7).
        known = min(local.commit, local.log.durable_seq)
        if driver is None:
            await parts.keeper.aclose()
        else:
            # What a member in trouble holds is in doubt, and not to be kept.
            sound = not driver.failed and not local.quarantined
            await driver.keeping.snapshotter.aclose(take=sound)

        def close() -> None:
            try:
                journal.close(known)
            except StoragePoisonedError as error:
                logger.error("%s: the journal was not closed: %s", parts.member.id, error)
            finally:
                self.directory.close()

        await call(parts.writer, close)
        await parts.reader.aclose()
        await parts.writer.aclose()

    def status(self, driver: Driver) -> Status:
        """What an operator asks first."""
        parts = self.parts
        local = parts.replica.local
        log = local.log
        identity = self.directory.identity
        now = parts.environment.clock()
        heard: float | None = None
        if local.leads:
            heard = 0.0
        elif local.heard_at > 0:
            heard = now - local.heard_at
        return Status(
            cluster=identity.cluster,
            cluster_id=identity.cluster_id,
            member=parts.member,
            disk_id=identity.disk_id,
            role=local.role,
            ballot=local.master_ballot,
            promised=local.promised,
            master=driver.master(),
            master_seconds=heard,
            last_sequence=log.last_seq,
            durable_sequence=log.durable_seq,
            commit_sequence=local.commit,
            applied_sequence=parts.applier.applied,
            checksum=parts.applier.checksum,
            replicated_time=parts.applier.time,
            members=log.configuration.seats,
            configuration_sequence=log.configuration_seq,
            configuration_committed=log.configuration_seq <= local.commit,
            sessions=len(parts.applier.sessions),
            pending_changes=len(driver.submits),
            sync_seconds=local.disk_waits_seconds(),
            disk_full=driver.disk_full,
            diverged=local.quarantined,
            log_cache_bytes=log.cached_bytes,
            first_sequence=log.base.seq + 1,
            snapshot_sequence=local.snapshot.seq if local.snapshot is not None else 0,
            feature_level=driver.feature_level(),
            recovering=local.recovering,
            recovery_target_sequence=parts.replica.recovery.target_seq,
            damage=tuple(driver.keeping.damage),
            holds_lease=driver.holds_lease(),
            staleness_seconds=driver.known_staleness_seconds(),
            snapshots=driver.keeping.statistics(),
            scrubbing=driver.keeping.scrubber.statistics(),
            followers={
                member_id_of(name): progress.match
                for name, progress in parts.replica.master.progress.items()
            },
            dropped=dict(parts.gate.dropped),
            transport=parts.transport.statistics(),
            journal=parts.journal.statistics(),
        )


async def open_member(
    *,
    cluster: str,
    member: Member,
    state: State,
    codec: Codec,
    directory: str,
    settings: Settings,
    environment: Environment,
    transport: Transport,
) -> Opened:
    """Open a member's directory and bring its state to what is known to be chosen.

    Raises:
        StorageError: the directory is in use, foreign or damaged.
        BrokenInvariantError: a committed entry cannot be applied again.
    """
    writer = environment.make_worker(f"clusterconsensus-writer-{member.id}")
    reader = environment.make_worker(f"clusterconsensus-reader-{member.id}")
    disk_id = environment.new_id()
    held: list[Directory] = []

    def hold() -> Directory:
        held.append(open_directory(environment.files, directory, cluster, member.id, disk_id))
        return held[0]

    def release() -> None:
        for each in held:
            each.close()

    try:
        taken = await call(writer, hold)
        workers = Workers(
            writer,
            reader,
            environment.make_worker(f"clusterconsensus-snapshots-{member.id}"),
        )
        return await _open(taken, member, state, codec, settings, environment, transport, workers)
    except BaseException:
        await call(writer, release)  # after whatever a cancelled call is still doing
        await reader.aclose()
        await writer.aclose()
        raise


async def _open(
    held: Directory,
    member: Member,
    state: State,
    codec: Codec,
    settings: Settings,
    environment: Environment,
    transport: Transport,
    workers: Workers,
) -> Opened:
    identity = held.identity
    files, reader = environment.files, workers.reader
    store = SnapshotStore(files, held.path, max_snapshot_bytes=settings.max_snapshot_bytes)
    restored = await call(
        workers.writer, lambda: restore(files, held.path, identity, settings, store)
    )
    journal, recovered, snapshot = restored.journal, restored.found, restored.snapshot
    commit = min(recovered.commit_hint, recovered.last_seq)
    clock = asyncio.get_running_loop().time
    echo = Echo()
    applier = Applier(state, codec, echo, clock, settings.apply_slice_seconds)
    configuration = (0, Configuration())
    if snapshot is not None:
        commit = max(commit, snapshot.seq)
        applier.begin_install()

        def install(newest: SnapshotId = snapshot) -> tuple[SnapshotHead, Installed]:
            head, sessions, content = store.load(newest)
            return head, applier.install(newest.seq, head.checksum, head.time, sessions, content)

        head, installed = await call(reader, install)
        applier.end_install(installed)
        configuration = (head.configuration_seq, head.configuration)
    configurations: list[Entry] = list(recovered.configurations)
    runs = list(recovered.runs)

    async def read(first: int, last: int) -> list[Entry]:
        entries = await call(reader, lambda: journal.read(first, last, REPLAY_BYTES))
        if not entries:
            raise DamagedError(f"{held.path}: entries {first} to {last} cannot be read back")
        return entries

    while applier.applied < commit:
        entries = {entry.seq: entry for entry in await read(applier.applied + 1, commit)}
        finished = False
        while not finished:
            finished = applier.run(entries.__getitem__, max(entries))
            await asyncio.sleep(0)
    log = Log(
        commit,
        [(first, ballot) for first, ballot in runs if first <= commit],
        [entry for entry in configurations if entry.seq <= commit],
        applier.time,
        recovered.base,
        configuration,
    )
    while log.last_seq < recovered.last_seq:
        for entry in await read(log.last_seq + 1, recovered.last_seq):
            log.append(entry)
    log.durable_seq = log.last_seq
    name = incarnation(member.id, identity.disk_id)
    limits = Limits(
        heartbeat_seconds=settings.heartbeat_seconds,
        election_timeout_seconds=settings.election_timeout_seconds,
        disk_timeout_seconds=settings.disk_timeout_seconds,
        reconnect_delay_seconds=settings.reconnect_delay_seconds,
        request_timeout_seconds=settings.read_timeout_seconds,
        session_expiry_seconds=settings.session_expiry_seconds,
        max_sessions=settings.max_sessions,
        max_batch_bytes=settings.max_batch_bytes,
        max_staged_bytes=settings.max_staged_bytes,
        window_messages=settings.window_messages,
        window_bytes=settings.window_bytes,
        log_cache_bytes=settings.log_cache_bytes,
        keep_log_entries=settings.keep_log_entries,
        keep_log_bytes=settings.keep_log_bytes,
        max_kept_log_entries=settings.max_kept_log_entries,
        chunk_bytes=min(settings.chunk_bytes, settings.max_message_bytes - 64 * KIB),
        catch_up_bytes_per_second=settings.catch_up_bytes_per_second,
        lease_reads=settings.lease_reads,
        max_clock_drift=settings.max_clock_drift,
        slow_disk_seconds=settings.slow_disk_seconds,
    )
    local = Local(
        name,
        limits,
        log,
        recovered.promised,
        commit,
        applier.checksum,
        identity.cluster_id,
        snapshot,
        recovered.recovering,
    )
    replica = Replica(local)
    if environment.watch is not None:
        environment.watch(replica)
    parts = Parts(
        cluster=identity.cluster,
        member=member,
        settings=settings,
        environment=environment,
        transport=transport,
        journal=journal,
        replica=replica,
        applier=applier,
        gate=Gate(member, identity.disk_id, identity.cluster_id),
        directory=held.path,
        store=store,
        older_seq=restored.older_seq,
        damage=restored.damage,
        writer=workers.writer,
        reader=workers.reader,
        keeper=workers.keeper,
        join=held.join,
    )
    return Opened(parts, held, echo)
