"""One simulated member: a disk that forgets what was not synced, a state machine, a client.

Nothing here knows the protocol. The disk keeps whole ``Persist`` batches in order; a crash loses
the batches that no sync has covered, all of them or from some point on. The state machine goes
through the real ``SessionTable``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from zlib import crc32

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.events import Event
from clusterconsensus.consensus.local import Limits, Local
from clusterconsensus.consensus.log import Log
from clusterconsensus.consensus.messages import Group
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.sessions import (
    CloseSessions,
    SessionTable,
    decode_groups,
    decode_requests,
    decode_session_order,
    encode_requests,
)
from clusterconsensus.consensus.types import (
    NOBODY,
    ZERO,
    Ballot,
    Entry,
    EntryKind,
    Incarnation,
    Role,
    incarnation,
)

STALE = b"stale"


class Store:
    """A disk: what is durable, and what was written and not synced."""

    def __init__(self) -> None:
        self.cluster_id = ""
        self.promised = ZERO
        self.entries: list[Entry] = []
        self.commit_hint = 0
        self.pending: deque[Persist] = deque()

    def sync(self, batches: int | None = None) -> int:
        """Make the oldest batches durable; returns the ticket of the last one, 0 for none."""
        ticket = 0
        count = len(self.pending) if batches is None else min(batches, len(self.pending))
        for _ in range(count):
            batch = self.pending.popleft()
            self._take(batch)
            ticket = batch.ticket
        return ticket

    def crash(self, kept: int) -> None:
        """Lose the unsynced batches but the first ``kept``."""
        self.sync(kept)
        self.pending.clear()

    def _take(self, batch: Persist) -> None:
        if batch.promised is not None:
            self.promised = batch.promised
        if batch.truncate_from is not None:
            del self.entries[batch.truncate_from - 1 :]
        for entry in batch.entries:
            if entry.seq != len(self.entries) + 1:
                raise AssertionError(f"entry {entry} written behind {len(self.entries)}")
            self.entries.append(entry)
        self.commit_hint = max(self.commit_hint, batch.commit)

    def ballot_at(self, seq: int) -> Ballot | None:
        return self.entries[seq - 1].ballot if 0 < seq <= len(self.entries) else None

    def read(self, first: int, last: int, max_bytes: int) -> tuple[Entry, ...]:
        """Entries that are durable, as ``Load`` asks for them."""
        taken: list[Entry] = []
        size = 0
        for entry in self.entries[first - 1 : last]:
            size += len(entry.payload)
            if taken and size > max_bytes:
                break
            taken.append(entry)
        return tuple(taken)


@dataclass(frozen=True)
class Done:
    """A group that was applied: its outcomes, None for each request of an unknown session."""

    seq: int
    place: int
    session: int
    first: int
    outcomes: tuple[bytes | None, ...]


@dataclass(frozen=True)
class Opened:
    """A session entry that was applied."""

    seq: int
    owner: Incarnation
    nonce: int
    session: int


class Machine:
    """Applies entries: sessions first, then a handful of named numbers.

    A change reads ``x=5`` (set), ``x+5`` (add) or ``x!`` (raises); it returns the new value.
    """

    def __init__(self) -> None:
        self.sessions = SessionTable()
        self.values: dict[str, int] = {}
        self.applied = 0
        self.checksum = 0
        self.time = 0.0
        self.executed: list[tuple[int, int, int, str]] = []
        """Each change that was executed: sequence, session, number, text."""
        self.skew = 0
        """Added to every result: a state machine that is not deterministic."""

    def apply(self, entry: Entry) -> list[Done | Opened]:
        if entry.seq != self.applied + 1:
            raise AssertionError(f"{entry} applied after {self.applied} (R8)")
        if entry.time < self.time:
            raise AssertionError(f"replicated time goes back at {entry} (R10)")
        told: list[Done | Opened] = []
        pieces: list[bytes] = []
        if entry.kind == EntryKind.SESSION:
            order = decode_session_order(entry.payload)
            if isinstance(order, CloseSessions):
                self.sessions.close(order)
            else:
                number = self.sessions.open(entry.seq, order, entry.time)
                told.append(Opened(entry.seq, order.owner, order.nonce, number))
        elif entry.kind == EntryKind.CHANGES:
            for place, group in enumerate(decode_groups(entry.payload)):
                outcomes = self._apply_group(entry, group)
                pieces.extend(outcome for outcome in outcomes if outcome is not None)
                told.append(Done(entry.seq, place, group.session, group.first, outcomes))
        self.applied = entry.seq
        self.time = entry.time
        self.checksum = crc32(b"".join(pieces), crc32(entry.crc.to_bytes(4, "big"), self.checksum))
        return told

    def _apply_group(self, entry: Entry, group: Group) -> tuple[bytes | None, ...]:
        session = self.sessions.get(group.session)
        if session is None:
            return (None,) * group.count
        session.acknowledge(group.acked_below)
        session.last_time = entry.time
        outcomes: list[bytes | None] = []
        for number, request in enumerate(decode_requests(group.body), group.first):
            outcome = session.outcomes.get(number)
            if outcome is None and number < session.acked_below:
                outcome = STALE
            elif outcome is None:
                text = request.decode() if isinstance(request, bytes) else ""
                outcome = self._change(text)
                session.outcomes[number] = outcome
                self.executed.append((entry.seq, session.number, number, text))
            outcomes.append(outcome)
        return tuple(outcomes)

    def _change(self, text: str) -> bytes:
        for mark in "=+!":
            name, found, value = text.partition(mark)
            if not found:
                continue
            if mark == "!":
                return b"error"
            before = self.values.get(name, 0) if mark == "+" else 0
            self.values[name] = before + int(value)
            return str(self.values[name] + self.skew).encode()
        raise AssertionError(f"no change: {text!r}")


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
        self.adding: dict[int, str] = {}
        """Outcome of each membership request; ``waiting`` until it ends."""

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
        self.loads: deque[Event] = deque()

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
    def durable_last(self) -> int:
        return len(self.store.entries)

    def durable_ballot(self, seq: int) -> Ballot | None:
        return self.store.ballot_at(seq)

    def durable_entry(self, seq: int) -> Entry:
        return self.store.entries[seq - 1]

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
        """Start from the disk: apply what is known to be chosen, then take part (W7)."""
        store = self.store
        store.pending.clear()
        self.inbox.clear()
        self.loads.clear()
        self.starts += 1
        self.client = Client(self.starts * 1_000)
        self.machine = Machine()
        commit = min(store.commit_hint, len(store.entries))
        runs: list[tuple[int, Ballot]] = []
        configurations: list[Entry] = []
        for entry in store.entries[:commit]:
            self.machine.apply(entry)
            if not runs or runs[-1][1] != entry.ballot:
                runs.append((entry.seq, entry.ballot))
            if entry.kind == EntryKind.CONFIG:
                configurations.append(entry)
        log = Log(commit, runs, configurations, self.machine.time)
        for entry in store.entries[commit:]:
            log.append(entry)
        log.durable_seq = log.last_seq
        local = Local(
            self.name,
            self.limits,
            log,
            store.promised,
            commit,
            self.machine.checksum,
            store.cluster_id,
        )
        self.asked_apply = commit
        self.halted = ""
        self.diverged = False
        self.replica = Replica(local)
        self.replica.start(now + self.clock_offset, chance)
