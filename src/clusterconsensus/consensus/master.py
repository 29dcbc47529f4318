"""The master: batches, pipelines, commit, and when to stop leading.

A master never changes its log but by appending, and gives a sequence out once (R2). It commits an
entry of its own ballot when a majority of voters hold it durably, itself counted like any other
(R5, D4); entries of older ballots commit through it, never by counting (C-2). It leads only as long
as a majority keeps answering: the *send* time of the rounds they acknowledged proves it (E9).
"""

from __future__ import annotations

import math
from collections import deque

import msgspec

from clusterconsensus.consensus.catchup import CatchUp
from clusterconsensus.consensus.comparison import Comparison
from clusterconsensus.consensus.effects import Load, SubmitRefused
from clusterconsensus.consensus.events import ChunkLoaded
from clusterconsensus.consensus.local import FEATURE_LEVEL, Local
from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Group,
    Refusal,
    Regressed,
    Reject,
    SnapshotAck,
    SubmitReply,
)
from clusterconsensus.consensus.progress import Progress
from clusterconsensus.consensus.quorum import majority_value
from clusterconsensus.consensus.reads import Reads
from clusterconsensus.consensus.sessions import (
    CloseSessions,
    NewSession,
    SessionOrder,
    encode_groups,
    encode_session_order,
)
from clusterconsensus.consensus.types import (
    NOBODY,
    ZERO,
    Ballot,
    Entry,
    EntryKind,
    Incarnation,
    Role,
)

MAX_UNSYNCED_BATCHES = 1
"""Batches of submits on their way to the own disk; what comes meanwhile gathers in the next."""

GROUP_OVERHEAD_BYTES = 64
"""What a group takes in an entry beside its body, at most."""

MAX_SESSION_ORDERS = 1_024
"""Session entries that wait for a batch; the asker repeats what is dropped beyond it."""


class Origin(msgspec.Struct, frozen=True, gc=False):
    """Who waits for an outcome (NOBODY for this member itself), and under which number."""

    source: Incarnation
    attempt: int


class Master:
    """What a member does while it leads; idle otherwise."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self.ballot = ZERO
        self.started = False
        """The adopted log and the NOOP are durable, so accepts may leave (D6)."""
        self.progress: dict[Incarnation, Progress] = {}
        self.origins: dict[int, list[Origin]] = {}
        """Who waits for the groups (or the session) of an entry, in the entry's order."""
        self.reads = Reads(local)
        self.comparison = Comparison(local)
        self.catch_up = CatchUp(local)
        self.feature_level = 1
        """What all members know (see ``FEATURE_LEVEL``)."""
        self.holding = False
        """Whether submits wait while the mastership is handed over (E11)."""
        self.keep_sending: dict[Incarnation, float] = {}
        """Who was removed and is still told, and until when (M8); none of them counts."""
        self._noop_seq = 0
        self._noop_ticket = 0
        self._queue: deque[tuple[Origin, Group]] = deque()
        self._queued_bytes = 0
        self._session_orders: deque[tuple[SessionOrder, Origin | None]] = deque()
        self._staged: deque[tuple[int, int]] = deque()
        self._staged_bytes = 0
        self._time = 0.0
        self._round = 0
        self._round_sent_at: deque[tuple[int, float]] = deque()
        self._heartbeat_at = math.inf

    # -- beginning and ending

    def begin(self, ballot: Ballot) -> None:
        """Lead in a won ballot: a NOOP of it comes first (E7)."""
        local = self._local
        self.ballot = ballot
        self.started = False
        self.holding = False
        self.keep_sending.clear()
        self.reads.begin()
        self._time = max(local.log.last_time, local.wall_seconds)
        self._round = 0
        self._round_sent_at.clear()
        self._heartbeat_at = local.now
        local.change_role(Role.PENDING_MASTER, ballot, local.name, "won its ballot")
        entry = Entry.make(local.log.last_seq + 1, ballot, EntryKind.NOOP, self._time)
        self._noop_seq = entry.seq
        self._append((entry,))
        self._noop_ticket = local.tickets[-1].number
        self.know_everyone()

    def step_down(self, reason: str) -> None:
        """Stop leading at once: no heartbeat, no answer, no read leaves after this (E9)."""
        local = self._local
        if not local.leads:
            return
        local.change_role(local.passive_role(), self.ballot, NOBODY, reason)
        while self._queue:
            self._refuse(self._queue.popleft()[0], Refusal.NOT_APPENDED)
        self._queued_bytes = 0
        self._session_orders.clear()
        self.reads.refuse_all()
        # Whoever waits for what is staged asks the next master, inside its session (X4).
        self.origins.clear()
        self._staged.clear()
        self._staged_bytes = 0
        self.progress = {}
        self.keep_sending.clear()
        self.comparison.clear()
        self.catch_up.clear()
        self.started = False
        self.holding = False
        self._heartbeat_at = math.inf

    def know_everyone(self) -> None:
        """Keep a ``Progress`` for each other member of the configuration in force, and for those
        that are still told of their removal."""
        local = self._local
        names = dict.fromkeys((*local.log.configuration.everyone, *self.keep_sending))
        names.pop(local.name, None)
        known = self.progress
        first = local.log.last_seq + 1 if self.started else self._noop_seq
        self.progress = {
            name: known[name] if name in known else Progress(first, local.now) for name in names
        }
        for name in tuple(self.catch_up.sending):
            if name not in names:
                self.catch_up.need_no_more(name)
        self._know_level()
        self._renew_lease()

    def _know_level(self) -> None:
        """What every member of the configuration knows: 1 of those that were not heard yet."""
        local = self._local
        levels = [
            max(1, self.progress[name].level)
            for name in local.log.configuration.everyone
            if name != local.name and name in self.progress
        ]
        self.feature_level = min([FEATURE_LEVEL, *levels])

    # -- submits (R4, X5)

    def on_submit(self, origin: Origin, group: Group) -> None:
        """Queue a group for the next batch, or refuse it at once."""
        local = self._local
        size = len(group.body) + GROUP_OVERHEAD_BYTES
        if not local.leads:
            self._refuse(origin, Refusal.NOT_APPENDED)
        elif self._staged_bytes + self._queued_bytes + size > local.limits.max_staged_bytes:
            self._refuse(origin, Refusal.OVERLOADED)
        else:
            self._queue.append((origin, group))
            self._queued_bytes += size

    def on_open_session(self, origin: Origin, owner: Incarnation) -> None:
        """Queue a session entry; whoever gets no answer asks again."""
        if self._local.leads and len(self._session_orders) < MAX_SESSION_ORDERS:
            self._session_orders.append((NewSession(owner, origin.attempt), origin))

    def close_sessions(self, order: CloseSessions) -> None:
        """Propose to close idle sessions; the entry decides (X2)."""
        if self._local.role is Role.MASTER and len(self._session_orders) < MAX_SESSION_ORDERS:
            self._session_orders.append((order, None))

    def _refuse(self, origin: Origin, refusal: Refusal) -> None:
        local = self._local
        if origin.source == NOBODY:
            overloaded = refusal is Refusal.OVERLOADED
            local.effects.append(SubmitRefused(origin.attempt, overloaded))
        else:
            local.send(origin.source, SubmitReply(origin.attempt, refusal))

    def _batch(self) -> None:
        """Everything submitted until now becomes one durable batch.

        While one is being synced the next gathers: group commit needs no timer.
        """
        local = self._local
        if self.holding or not (self._queue or self._session_orders):
            return
        if len(local.tickets) >= MAX_UNSYNCED_BATCHES:
            return
        self._time = max(self._time, local.wall_seconds)
        entries: list[Entry] = []
        seq = local.log.last_seq + 1
        while self._session_orders:
            order, origin = self._session_orders.popleft()
            payload = encode_session_order(order)
            entries.append(Entry.make(seq, self.ballot, EntryKind.SESSION, self._time, payload))
            if origin is not None:
                self.origins[seq] = [origin]
            seq += 1
        while self._queue:
            origins: list[Origin] = []
            groups: list[Group] = []
            size = 0
            while self._queue:
                group = self._queue[0][1]
                more = len(group.body) + GROUP_OVERHEAD_BYTES
                if groups and size + more > local.limits.max_batch_bytes:
                    break
                size += more
                origins.append(self._queue.popleft()[0])
                groups.append(group)
            self._queued_bytes -= size
            self.origins[seq] = origins
            payload = encode_groups(groups)
            entries.append(Entry.make(seq, self.ballot, EntryKind.CHANGES, self._time, payload))
            seq += 1
        self._append(tuple(entries))

    def append_configuration(self, payload: bytes) -> int:
        """Append a CONFIG entry; it is in force from now on (M1). Returns its sequence."""
        seq = self._local.log.last_seq + 1
        self._append((Entry.make(seq, self.ballot, EntryKind.CONFIG, self._time, payload),))
        self.know_everyone()
        return seq

    def _append(self, entries: tuple[Entry, ...]) -> None:
        local = self._local
        for entry in entries:
            local.log.append(entry)
            self._staged.append((entry.seq, len(entry.payload)))
            self._staged_bytes += len(entry.payload)
        local.persist(entries=entries)

    # -- replication (R3, R7)

    def _begin_round(self) -> None:
        local = self._local
        self._round += 1
        self._round_sent_at.append((self._round, local.now))
        horizon = local.now - 2 * local.limits.election_timeout_seconds
        while self._round_sent_at[0][1] < horizon:
            self._round_sent_at.popleft()
        self._heartbeat_at = local.now + local.limits.heartbeat_seconds
        self._renew_lease()  # a lone voter is its own majority

    def _replicate(self, *, everyone: bool) -> None:
        """Send what each follower lacks and its window allows; to ``everyone`` something at all.

        Followers that are equally far share one message, which is encoded once.
        """
        local = self._local
        log = local.log
        made: dict[int, tuple[Accept, int]] = {}
        recipients: dict[int, list[Incarnation]] = {}
        silent: dict[int, list[Incarnation]] = {}
        for name, progress in self.progress.items():
            spoken = False
            if progress.next <= log.base.seq and progress.awaited:
                # What it was sent is lost, or it is away, and the log has been compacted
                # meanwhile: ask it again, from where it still can be answered.
                progress.restart(log.base.seq + 1)
            while progress.next <= log.last_seq and progress.may_send(local.limits):
                first = progress.next
                if first <= log.base.seq:
                    self.catch_up.need(name)  # S1
                    break
                if not log.is_cached(first):
                    progress.loading = True
                    last, size = log.first_cached - 1, local.limits.max_batch_bytes
                    local.effects.append(Load(name, first, last, size))
                    break
                if first not in made:
                    entries = log.slice(first, local.limits.max_batch_bytes)
                    made[first] = (self._accept(first, entries), _payload_bytes(entries))
                message, size = made[first]
                recipients.setdefault(first, []).append(name)
                progress.on_sent(message.entries[-1].seq, size)
                spoken = True
            if everyone and not spoken:
                # Behind the log's base nothing is known any more: whoever has less than that
                # refuses, and shows so that it follows.
                silent.setdefault(max(progress.next, log.base.seq + 1), []).append(name)
        for first, names in recipients.items():
            local.broadcast(tuple(names), made[first][0])
        for first, names in silent.items():
            local.broadcast(tuple(names), self._accept(first, ()))

    def _accept(self, first: int, entries: tuple[Entry, ...]) -> Accept:
        local = self._local
        previous = local.log.position(first - 1)
        return Accept(self.ballot, previous, entries, local.commit, self._round, self.feature_level)

    def on_loaded(self, name: Incarnation, first: int, entries: tuple[Entry, ...]) -> None:
        """Entries that had left the memory are here for a follower."""
        progress = self.progress.get(name)
        if progress is None or not progress.loading:
            return
        progress.loading = False
        if first <= self._local.log.base.seq:
            return  # compacted meanwhile
        if entries and first == progress.next and progress.may_send(self._local.limits):
            self._local.send(name, self._accept(first, entries))
            progress.on_sent(entries[-1].seq, _payload_bytes(entries))

    def on_accepted(self, source: Incarnation, message: Accepted) -> None:
        """A follower holds more, or still follows (R5, E9)."""
        progress = self.progress.get(source)
        if progress is None or message.ballot != self.ballot or not self.started:
            return
        if message.match > self._local.log.last_seq or message.round > self._round:
            return  # nothing that this mastership sent
        progress.on_accepted(message.match)
        if message.level != progress.level:
            progress.level = message.level
            self._know_level()
        progress.leases = message.leases
        progress.recovering = message.recovering
        self._on_contact(progress, message.round)
        if source in self.catch_up.sending and message.match >= self._local.log.base.seq:
            self.catch_up.need_no_more(source)
        self.comparison.on_accepted(source, self.ballot, message)

    def _on_contact(self, progress: Progress, number: int) -> None:
        """A member that has promised nothing higher answered to a round."""
        if number > progress.round:
            progress.round = number
            progress.contact_at = max(progress.contact_at, self._sent_at(number))
            self._renew_lease()

    def _renew_lease(self) -> None:
        """L2: by the configuration in force, and only by members that keep the rules of leases."""
        local = self._local
        if not local.limits.lease_reads:
            return
        contacts = {
            name: progress.contact_at
            for name, progress in self.progress.items()
            if progress.leases and progress.round > 0
        }
        contacts[local.name] = local.now
        self.reads.on_contact(majority_value(local.log.voters, contacts, -math.inf))

    def on_snapshot_ack(self, source: Incarnation, message: SnapshotAck) -> None:
        """A member keeps pieces of a snapshot, or needs none any more."""
        progress = self.progress.get(source)
        if progress is None or message.ballot != self.ballot or not self.started:
            return
        if message.installed > self._local.log.last_seq:
            return  # nothing that this mastership can have sent
        if self.catch_up.on_ack(source, message):
            progress.restart(message.installed + 1)

    def on_chunk_loaded(self, event: ChunkLoaded) -> None:
        """A piece of a snapshot was read for a member."""
        if self._local.leads and self.started:
            self.catch_up.on_loaded(self.ballot, event)

    def _sent_at(self, number: int) -> float:
        """When a round was sent; the past where it is forgotten."""
        if not self._round_sent_at:
            return -math.inf
        index = number - self._round_sent_at[0][0]
        return self._round_sent_at[index][1] if index >= 0 else -math.inf

    def on_reject(self, source: Incarnation, message: Reject) -> None:
        """A follower lacks what came before; a higher ballot is the replica's business."""
        progress = self.progress.get(source)
        if progress is None or message.ballot != self.ballot:
            return
        last_seq = self._local.log.last_seq
        if message.round <= self._round and message.previous_seq <= last_seq:
            if self.catch_up.is_served(source):
                # Otherwise who lacks entries does not prove that it can be given any (E9).
                self._on_contact(progress, message.round)
            if message.refusal is Refusal.GAP:
                if message.hint < progress.match and progress.match > self._local.log.base.seq:
                    # Old, most likely; the member itself can tell.
                    known = self._local.log.position(progress.match)
                    self._local.send(source, Regressed(self.ballot, known))
                progress.on_gap(message.previous_seq, message.hint)
            elif message.refusal is Refusal.LOST and message.hint < last_seq:
                progress.on_lost(message.hint)

    def on_disconnected(self, source: Incarnation) -> None:
        """What was on its way to this member is lost: begin again from what it surely holds."""
        progress = self.progress.get(source)
        self.catch_up.on_disconnected(source)
        if progress is not None and not progress.probing:
            progress.restart(progress.match + 1)

    # -- commit (R5, E8)

    def _commit(self) -> None:
        local = self._local
        matches = {name: progress.match for name, progress in self.progress.items()}
        matches[local.name] = local.log.durable_seq  # the own copy counts like any other (D4)
        reached = majority_value(local.log.voters, matches, 0)
        if reached <= local.commit or reached < self._noop_seq:
            return
        local.advance_commit(reached)
        while self._staged and self._staged[0][0] <= reached:
            self._staged_bytes -= self._staged.popleft()[1]
        if local.role is Role.PENDING_MASTER:
            local.change_role(Role.MASTER, self.ballot, local.name, "first own entry committed")

    # -- time

    @property
    def deadline(self) -> float:
        """When to tick next, if this member leads."""
        if self.catch_up.sending:
            return min(self._heartbeat_at, self.catch_up.deadline)
        return self._heartbeat_at

    def on_tick(self) -> None:
        """Stop leading where that can no longer be justified (E9)."""
        local = self._local
        if not local.leads:
            return
        limit = local.limits.election_timeout_seconds
        contacts = {name: progress.contact_at for name, progress in self.progress.items()}
        contacts[local.name] = local.now
        if local.now - majority_value(local.log.voters, contacts, -math.inf) > limit:
            self.step_down(f"no majority answered within {limit} s")
        elif local.disk_waits_seconds() > local.limits.disk_timeout_seconds:
            self.step_down(f"the disk finished no sync in {local.limits.disk_timeout_seconds} s")
        elif not self.started:
            self._heartbeat_at = local.now + local.limits.heartbeat_seconds

    def heard_within(self, name: Incarnation, seconds: float) -> bool:
        """Whether a member acknowledged a round that was sent this lately."""
        if name == self._local.name:
            return True
        progress = self.progress.get(name)
        return (
            progress is not None
            and progress.round > 0
            and self._local.now - progress.contact_at < seconds
        )

    def end_of_turn(self) -> None:
        """Act on everything that this turn brought, as one."""
        local = self._local
        if not self.started:
            if local.tickets and local.tickets[0].number <= self._noop_ticket:
                return
            self.started = True
            self._heartbeat_at = local.now
        self._commit()
        self._batch()
        serving = local.role is Role.MASTER
        everyone = local.now >= self._heartbeat_at
        if everyone or (serving and self.reads.wait_for_round):
            self._begin_round()
            everyone = True
            if serving:  # not before the NOOP is committed (E8, C-20)
                self.reads.on_round(self._round)
        self._replicate(everyone=everyone)
        if self.catch_up.sending:
            self.catch_up.end_of_turn()
        if self.reads.wait_for_answers:
            rounds = {name: progress.round for name, progress in self.progress.items()}
            rounds[local.name] = self._round
            self.reads.on_confirmed(majority_value(local.log.voters, rounds, 0))
        if self.comparison.found_differences:
            limit = local.limits.election_timeout_seconds
            reachable = (name for name in self.progress if self.heard_within(name, limit))
            self.comparison.decide(frozenset(reachable))


def _payload_bytes(entries: tuple[Entry, ...]) -> int:
    return sum(len(entry.payload) for entry in entries)
