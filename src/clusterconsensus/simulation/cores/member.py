"""One simulated member: its core, with a disk (``store``), a state machine (``machine``) and a
client. Nothing here knows the protocol."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

from clusterconsensus.consensus.events import Event
from clusterconsensus.consensus.local import Limits, Local
from clusterconsensus.consensus.log import Log
from clusterconsensus.consensus.messages import Group
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.sessions import encode_requests
from clusterconsensus.consensus.types import (
    NOBODY,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    Position,
    Role,
    SnapshotId,
    incarnation,
)
from clusterconsensus.simulation.cores.machine import Machine
from clusterconsensus.simulation.cores.store import Snapshot, Store


@dataclass
class Call:
    """A change that the client waits for."""

    number: int
    text: str
    open_attempts: set[int] = field(default_factory=set)
    """Attempts of which no refusal came back: the change may be applied."""
    outcome: str = ""
    """Empty while it waits; then the result, ``not applied`` or ``unknown``."""


@dataclass
class ReadCall:
    """A read that the client waits for: everything up to ``floor`` was acknowledged before it."""

    nonce: int
    floor: int
    wanted: int | None = None
    """Where it may be served, None until the master has told."""
    outcome: str = ""
    """Empty while it waits, then ``refused`` or what was read."""


class Client:
    """The application's side of one run of one member."""

    def __init__(self, nonce: int) -> None:
        self.nonce = nonce
        self.session = 0
        self.calls: dict[int, Call] = {}
        self.ended: dict[int, Call] = {}
        self.reads: dict[int, ReadCall] = {}
        self.next_number = 1
        self.next_nonce = nonce * 1_000
        self.attempts: dict[int, tuple[int, ...]] = {}
        self.asked: dict[int, str] = {}
        """What each membership request asks for, until it ends."""
        self.answer = ""
        """What came of the last one that ended: ``ok``, or why not."""

    def new_call(self, text: str) -> Call:
        call = Call(self.next_number, text)
        self.next_number += 1
        self.calls[call.number] = call
        return call

    def new_nonce(self) -> int:
        self.next_nonce += 1
        return self.next_nonce

    def group(self, numbers: Sequence[int], attempt: int) -> Group:
        """One group of consecutive requests, as a new attempt."""
        acked_below = min(self.calls, default=self.next_number)
        for number in numbers:
            self.calls[number].open_attempts.add(attempt)
        self.attempts[attempt] = tuple(numbers)
        body = encode_requests([self.calls[number].text.encode() for number in numbers])
        return Group(self.session, acked_below, numbers[0], len(numbers), body)

    def end(self, number: int, outcome: str) -> Call | None:
        call = self.calls.pop(number, None)
        if call is not None:
            call.outcome = outcome
            self.ended[number] = call
        return call


class Member:
    """One member of a simulated cluster, running or crashed."""

    def __init__(self, member_id: str, place: int, limits: Limits, disk_id: str = "") -> None:
        self.id = member_id
        self.disk_id = disk_id or f"d{place}"
        self.name = incarnation(member_id, self.disk_id)
        self.limits = limits
        self.clock_offset = 1_000.0 * place
        self.wall_skew = 0.5 * place
        self.store = Store()
        self.inbox: deque[Event] = deque()
        self.machine = Machine()
        self.client = Client(0)
        self.starts = 0
        self.replica: Replica | None = None
        self.halted = ""
        self.diverged = False
        self.holds_disk = False
        self.holds_apply = False
        self.crash_at_persist = 0
        self.crash_keeps = False
        self.asked_apply = 0
        self.asked_install: SnapshotId | None = None
        self.taking: Snapshot | None = None
        """A snapshot that is being written."""
        self.loads: deque[Event] = deque()
        """What was read or kept beside the log, and is not told to the core yet."""

    def __str__(self) -> str:
        return self.id

    @property
    def running(self) -> Replica:
        if self.replica is None:
            raise AssertionError(f"{self.id} does not run")
        return self.replica

    @property
    def local(self) -> Local:
        return self.running.local

    @property
    def is_up(self) -> bool:
        return self.replica is not None

    # -- for the ghost: what a power failure would leave

    @property
    def durable_promise(self) -> Ballot:
        return self.store.promised

    @property
    def durable_base(self) -> Position:
        return self.store.base

    @property
    def durable_last(self) -> int:
        return self.store.last_seq

    @property
    def durable_snapshot(self) -> int:
        return self.store.snapshot_seq

    @property
    def recovering(self) -> bool:
        return self.store.recovering

    def durable_ballot(self, seq: int) -> Ballot | None:
        return self.store.ballot_at(seq)

    def durable_entry(self, seq: int) -> Entry:
        return self.store.entry(seq)

    @property
    def leader(self) -> Incarnation | None:
        """Whom this member's client would ask: itself, the master it hears, or nobody."""
        local = self.local
        if local.leads:
            return self.name
        return None if local.master == NOBODY else local.master

    @property
    def serves(self) -> bool:
        return self.is_up and self.local.role is Role.MASTER

    def start(self, now: float, chance: float) -> None:
        """Start from the disk: install the newest snapshot, apply what is known to be chosen behind
        it, then take part (W7)."""
        store = self.store
        commit = store.open()
        self.inbox.clear()
        self.loads.clear()
        self.starts += 1
        self.client = Client(self.starts * 1_000)
        machine = self.machine = Machine()
        newest = store.snapshot
        configuration = (0, Configuration())
        if newest is not None:
            machine.install(newest)
            head = newest.content.head
            configuration = (head.configuration_seq, head.configuration)
        runs: list[tuple[int, Ballot]] = []
        configurations: list[Entry] = []
        for entry in store.entries[: commit - store.base.seq]:
            if entry.seq > machine.applied:
                machine.apply(entry)
            if not runs or runs[-1][1] != entry.ballot:
                runs.append((entry.seq, entry.ballot))
            if entry.kind == EntryKind.CONFIG:
                configurations.append(entry)
        log = Log(commit, runs, configurations, machine.time, store.base, configuration)
        for entry in store.entries[commit - store.base.seq :]:
            log.append(entry)
        log.durable_seq = log.last_seq
        local = Local(
            self.name,
            self.limits,
            log,
            store.promised,
            commit,
            machine.checksum,
            store.cluster_id,
            None if newest is None else newest.id,
            store.recovering,
        )
        self.asked_apply = commit
        self.asked_install = None
        self.taking = None
        self.halted = ""
        self.diverged = False
        self.replica = Replica(local)
        self.replica.start(now + self.clock_offset, chance)

    # -- snapshots

    def begin_snapshot(self) -> bool:
        """Catch the state as it is now; False if there is nothing new to keep."""
        applied = self.machine.applied
        if applied <= self.store.snapshot_seq or self.asked_install is not None:
            return False
        log = self.local.log
        self.taking = self.machine.save(log.position(applied), log.committed_configuration(applied))
        return True
