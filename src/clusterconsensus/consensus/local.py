"""What one member knows, shared by the parts of the core.

The parts (acceptor, election, master, membership, reads) each hold rules; this holds the facts they
speak of, and the few acts that several of them need: sending, persisting, raising the promise,
moving the commit. Safety rests on three of them:

* ``raise_promise`` only ever raises, and every higher ballot ends whatever this member was doing
  under a lower one (I-5).
* ``advance_commit`` never goes back (I-6).
* ``durable_seq`` and ``promised_durable`` move only when the journal reports a sync (D-rules).
"""

from __future__ import annotations

import math
from collections import deque

import msgspec

from clusterconsensus.consensus.effects import (
    Apply,
    ConfigurationChanged,
    Effect,
    Halt,
    Persist,
    RoleChanged,
    Send,
)
from clusterconsensus.consensus.log import Log
from clusterconsensus.consensus.messages import Message
from clusterconsensus.consensus.types import (
    NOBODY,
    ZERO,
    Ballot,
    Entry,
    Incarnation,
    Position,
    Role,
    SnapshotId,
    Standing,
)

FEATURE_LEVEL = 2
"""What this version knows: 1, adding members; 2, all other changes of the membership, snapshots,
transfer, leases, recovery. A cluster does what all its members know."""

RECENT_SYNCS = 16
"""Of how many finished syncs the durations are kept."""

MAX_INSTANCE_JUMP = 2**32
"""A ballot further above everything seen is refused: it could exhaust the instances (A-50)."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The settings that the core needs; see ``Settings`` for each."""

    heartbeat_seconds: float = 0.1
    election_timeout_seconds: float = 1.0
    disk_timeout_seconds: float = 1.0
    reconnect_delay_seconds: float = 0.02
    request_timeout_seconds: float = 10.0
    session_expiry_seconds: float = 3600.0
    max_sessions: int = 10_000
    max_batch_bytes: int = 1024 * 1024
    max_staged_bytes: int = 64 * 1024 * 1024
    window_messages: int = 64
    window_bytes: int = 16 * 1024 * 1024
    log_cache_bytes: int = 16 * 1024 * 1024
    keep_log_entries: int = 10_000
    keep_log_bytes: int = 256 * 1024 * 1024
    max_kept_log_entries: int = 10_000_000
    chunk_bytes: int = 256 * 1024
    catch_up_bytes_per_second: int = 64 * 1024 * 1024
    lease_reads: bool = False
    max_clock_drift: float = 0.1
    slow_disk_seconds: float = 0.25


class Ticket(msgspec.Struct):
    """One ``Persist`` on its way to the disk."""

    number: int
    since: float
    last_seq: int
    promised: Ballot


class Local:
    """The facts about this member.

    Arguments:
        name: This member's incarnation.
        limits: Times and sizes.
        log: What the journal holds.
        promised: The highest ballot promised, from the journal.
        commit: The highest sequence known to be chosen, from the journal; everything up to it is
            applied before the first step.
        checksum: The rolling checksum at ``commit``.
        cluster_id: The cluster this member belongs to, empty while it belongs to none.
        snapshot: The newest snapshot of this member that is durable and whole, if there is one.
        recovering: Whether something that was acknowledged here is lost (W4).
    """

    def __init__(
        self,
        name: Incarnation,
        limits: Limits,
        log: Log,
        promised: Ballot = ZERO,
        commit: int = 0,
        checksum: int = 0,
        cluster_id: str = "",
        snapshot: SnapshotId | None = None,
        recovering: bool = False,
    ) -> None:
        self.name = name
        self.cluster_id = cluster_id
        self.limits = limits
        self.log = log
        self.promised = promised
        self.promised_durable = promised
        self.commit = commit
        self.apply_asked = commit
        self.applied = commit
        self.checksum = checksum
        self.snapshot = snapshot
        self.recovering = recovering
        self.told_removed = False
        """Whether another member said that this one was removed (M8)."""
        self.cluster_level = 1
        """The feature level of the cluster, as the master last told it."""
        self.role = self.passive_role()
        self.master: Incarnation = NOBODY
        """Who is heard as master, NOBODY if none."""
        self.master_ballot = ZERO
        """The ballot under which it is heard."""
        self.heard_at = -math.inf
        """When a valid accept last arrived."""
        self.max_seen_instance = promised.instance
        self.quarantined = False
        self.now = 0.0
        self.chance = 0.0
        self.wall_seconds = 0.0
        self.effects: list[Effect] = []
        self.tickets: deque[Ticket] = deque()
        self.recent_syncs: deque[float] = deque(maxlen=RECENT_SYNCS)
        """How long the latest syncs took, in seconds."""
        self._next_ticket = 1
        self._announced_configuration = (log.configuration_seq, log.configuration_seq <= commit)

    # -- who this member is

    @property
    def standing(self) -> Standing | None:
        """This member's standing in the configuration in force, None without a seat."""
        seat = self.log.configuration.seat(self.name)
        return None if seat is None else seat.standing

    @property
    def is_voter(self) -> bool:
        return self.name in self.log.voters

    @property
    def removed(self) -> bool:
        """Whether this member was removed from its cluster: a committed configuration says so, or
        somebody who has one (M8)."""
        if self.told_removed:
            return True
        return self.name in self.log.committed_configuration(self.commit)[1].removed

    @property
    def leads(self) -> bool:
        """Whether this member is master, serving or not yet."""
        return self.role is Role.MASTER or self.role is Role.PENDING_MASTER

    def hears_master(self) -> bool:
        """Whether a master was heard within E; a master hears itself (E2)."""
        if self.leads:
            return True
        return self.now - self.heard_at < self.limits.election_timeout_seconds

    def election_delay(self) -> float:
        """A random time in [E, 2 E) (E1)."""
        return self.limits.election_timeout_seconds * (1.0 + self.chance)

    # -- acts

    def send(self, to: Incarnation, message: Message) -> None:
        self.effects.append(Send((to,), message))

    def broadcast(self, to: tuple[Incarnation, ...], message: Message) -> None:
        if to:
            self.effects.append(Send(to, message))

    def halt(self, reason: str, *, diverged: bool = False) -> None:
        """Ask the runtime to stop this participant for good."""
        self.effects.append(Halt(reason, diverged))

    def persist(
        self,
        *,
        promised: Ballot | None = None,
        truncate_from: int | None = None,
        entries: tuple[Entry, ...] = (),
        base: Position | None = None,
        recovering: bool | None = None,
    ) -> int:
        """Ask for a durable batch and return its ticket."""
        number = self._next_ticket
        self._next_ticket += 1
        if truncate_from is not None:
            for ticket in self.tickets:
                ticket.last_seq = min(ticket.last_seq, truncate_from - 1)
        if base is not None:
            for ticket in self.tickets:
                ticket.last_seq = 0  # what they bring is given up with the rest of the old log
        self.tickets.append(Ticket(number, self.now, self.log.last_seq, self.promised))
        self.effects.append(
            Persist(number, promised, truncate_from, entries, self.commit, base, recovering)
        )
        return number

    def on_persisted(self, number: int) -> None:
        """The journal has synced everything up to a ticket."""
        while self.tickets and self.tickets[0].number <= number:
            ticket = self.tickets.popleft()
            self.recent_syncs.append(self.now - ticket.since)
            self.log.durable_seq = max(self.log.durable_seq, ticket.last_seq)
            self.promised_durable = max(self.promised_durable, ticket.promised)

    def disk_waits_seconds(self) -> float:
        """How long the oldest unfinished sync has taken so far."""
        return self.now - self.tickets[0].since if self.tickets else 0.0

    def see_ballot(self, ballot: Ballot) -> bool:
        """Note a ballot seen somewhere; False if it is absurdly high and must be ignored."""
        if ballot.instance > self.max_seen_instance:
            if ballot.instance > self.max_seen_instance + MAX_INSTANCE_JUMP:
                return False
            self.max_seen_instance = ballot.instance
        return True

    def raise_promise(self, ballot: Ballot) -> None:
        """Promise a higher ballot; the caller persists it and ends its role under a lower one."""
        if ballot <= self.promised:
            raise AssertionError(f"promise {ballot} is not above {self.promised} (I-5)")
        self.promised = ballot
        self.see_ballot(ballot)

    def advance_commit(self, seq: int) -> None:
        """Everything up to ``seq`` is chosen (R5, R6). Never goes back."""
        if seq > self.log.last_seq:
            raise AssertionError(f"commit {seq} beyond the log's end {self.log.last_seq} (R6)")
        self.commit = max(self.commit, seq)

    def change_role(self, role: Role, ballot: Ballot, master: Incarnation, reason: str) -> None:
        """Take a role and tell the world, if anything in it is new.

        ``ballot`` is the master's, or the one this member stands for.
        """
        changed = role is not self.role or master != self.master
        if master:
            changed = changed or ballot != self.master_ballot
            self.master_ballot = ballot
        self.role, self.master = role, master
        if changed:
            self.effects.append(RoleChanged(role, ballot, master, reason))

    def passive_role(self) -> Role:
        """What this member is while it neither leads nor stands for election."""
        standing = self.standing
        if self.removed:
            return Role.REMOVED
        if standing is None:
            leaving = self.name in self.log.configuration.removed
            return Role.LEARNER if leaving else Role.UNJOINED
        return Role.FOLLOWER if standing is Standing.VOTER else Role.LEARNER

    def finish_turn(self) -> None:
        """What every role does at the end of a turn: apply, announce, forget."""
        ready = min(self.commit, self.log.durable_seq)  # D5
        if ready > self.apply_asked:
            self.apply_asked = ready
            self.effects.append(Apply(ready))
        seq = self.log.configuration_seq
        configuration = (seq, seq <= self.commit)
        if configuration != self._announced_configuration:
            self._announced_configuration = configuration
            self.effects.append(ConfigurationChanged(*configuration))
            if self.role in (Role.UNJOINED, Role.LEARNER, Role.FOLLOWER, Role.REMOVED):
                self.change_role(
                    self.passive_role(), self.master_ballot, self.master, "configuration changed"
                )
        if self.log.cached_bytes > self.limits.log_cache_bytes:
            self.log.evict(min(self.applied, self.log.durable_seq), self.limits.log_cache_bytes)
