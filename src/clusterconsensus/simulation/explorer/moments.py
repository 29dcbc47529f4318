"""One member at one moment, and what it makes of one event.

A ``Moment`` is all that a member is between two events: its core, frozen, its disk, and the highest
ballot that it has ever told anybody to have promised. Moments are interned: equal ones are one
object with one number. What an event does to a member depends on the moment and the event alone, so
the real core is stepped once for each such pair, and never again (``Members.step``).

Time is left out. The limits are such that clocks decide nothing by themselves (``LIMITS``):
nobody who does not lead counts as hearing a master, so ``STICKY`` protects none but a master itself
(E2), and a timer may run out at any moment. Each member's clock stands still but for the two things
that a master does by the clock: a heartbeat, and stepping down. Chance only spreads timers, and is
fixed.

``normalise`` brings what cannot matter under these circumstances to one value, so that cores which
behave the same are the same moment. Only what is listed there is left out; everything else that the
core holds tells moments apart.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Sequence
from zlib import crc32

import msgspec

from clusterconsensus.consensus import effects, events
from clusterconsensus.consensus.election import IMMEDIATE_PROBES, Phase
from clusterconsensus.consensus.local import Limits, Local
from clusterconsensus.consensus.log import Log, LogError
from clusterconsensus.consensus.messages import Accepted, Message, Promise, PromisePart
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.types import (
    NOBODY,
    ZERO,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    SnapshotId,
)
from clusterconsensus.simulation.explorer import checks
from clusterconsensus.simulation.explorer.checks import Observation
from clusterconsensus.simulation.explorer.disks import Batch, Disk, Written
from clusterconsensus.simulation.explorer.freezing import Frozen, freeze, thaw
from clusterconsensus.simulation.judges.invariants import rule_of

LIMITS = Limits(
    election_timeout_seconds=0,
    heartbeat_seconds=1,
    disk_timeout_seconds=1_000_000,
    keep_log_entries=0,
)
"""E of 0: who heard a master in an earlier turn does not count as hearing it, every timer has run
out already, and a master that looks at its clock once it has moved finds no majority in time. So
nobody hands over either (E11): whoever may lead stands by himself, at any moment."""

WALL_START = 1_700_000_000.0
CHANCE = 0.5

TICK = events.Tick()
BEAT = events.EndOfTurn(WALL_START)
"""Stands for a turn with nothing in it, at the moment when a heartbeat is due."""


class Moment:
    """A member between two events. ``number`` is its place among all moments."""

    __slots__ = (
        "ballot",
        "can_beat",
        "can_keep",
        "can_stand",
        "disk",
        "frozen",
        "leads",
        "log",
        "number",
        "place",
        "probes",
        "said",
        "stands",
    )

    def __init__(
        self, number: int, place: int, frozen: Frozen, disk: Disk, said: Ballot, replica: Replica
    ) -> None:
        self.number = number
        self.place = place
        self.frozen = frozen
        self.disk = disk
        self.said = said
        """The highest ballot that it acted in towards others (I-5)."""
        self.log = disk.written()
        self.leads = replica.local.leads
        self.ballot = replica.master.ballot
        self.can_beat = self.leads and replica.master.started
        candidacy = replica.election.candidacy
        self.stands = candidacy is not None
        self.probes = candidacy is not None and candidacy.phase is Phase.PROBING
        self.can_stand = not self.leads and not self.probes
        self.can_keep = replica.local.applied > disk.snapshot_seq
        """Whether it has applied something that no snapshot holds."""


class Step(msgspec.Struct, frozen=True):
    """What one event did to one member."""

    after: int
    """The number of the moment that it led to."""
    sends: tuple[tuple[int, bytes], ...]
    """Messages that left: the place of the addressee, and the encoded message."""
    observations: tuple[Observation, ...]
    """What is to be checked against the rest of the cluster, in order."""
    marks: tuple[str, ...] = ()
    """What happened that should happen now and then."""


encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Message).decode
_decode_head = msgspec.msgpack.Decoder(tuple[int, Configuration]).decode


def _head(snapshot: events.SnapshotStored) -> bytes:
    """What a snapshot consists of here."""
    return encode((snapshot.configuration_seq, snapshot.configuration))


class Members:
    """All moments of all members, and the real cores that lead from one to the next.

    Arguments:
        names: The members of the cluster, by place.
        founding: The log that every disk begins with; all of it is committed.
    """

    def __init__(self, names: Sequence[Incarnation], founding: tuple[Entry, ...]) -> None:
        self.names = tuple(names)
        self.moments: list[Moment] = []
        self._places = {name: place for place, name in enumerate(names)}
        self._numbers: dict[tuple[Frozen, Disk, Ballot], int] = {}
        self._replicas = [
            Replica(Local(name, LIMITS, Log(), founding[-1].ballot)) for name in names
        ]
        first = Disk(founding[-1].ballot, Written(entries=founding), len(founding))
        self.first: tuple[int, ...] = tuple(
            self._begin(place, first, first.promised).after for place in range(len(names))
        )

    def step(self, number: int, happened: events.Event) -> Step:
        """Let a member take one event, in a turn of its own, and what follows from it at home.

        Arguments:
            number: Of the moment of the member.
            happened: An event, or ``BEAT``.
        """
        moment = self.moments[number]
        replica = thaw(moment.frozen, self._replicas[moment.place])
        turn = _Turn(moment.place, moment, replica)
        if happened is BEAT:
            turn.run((), LIMITS.heartbeat_seconds)
        elif happened is TICK and moment.leads:
            turn.run((TICK,), LIMITS.heartbeat_seconds)
        else:
            turn.run((happened,), 0.0)
        return self._end(turn)

    def sync(self, number: int) -> Step:
        """The disk of a member finishes everything that is written."""
        moment = self.moments[number]
        replica = thaw(moment.frozen, self._replicas[moment.place])
        turn = _Turn(moment.place, moment, replica)
        turn.disk = moment.disk.sync(len(moment.disk.pending))
        turn.run((events.Persisted(replica.local.tickets[-1].number),), 0.0)
        return self._end(turn)

    def keep(self, number: int) -> Step:
        """A member takes a snapshot of all that it has applied, and forgets its log up to there."""
        moment = self.moments[number]
        replica = thaw(moment.frozen, self._replicas[moment.place])
        turn = _Turn(moment.place, moment, replica)
        local = replica.local
        head = local.log.committed_configuration(local.applied)
        data = encode(head)
        taken = SnapshotId(local.log.position(local.applied), len(data), crc32(data))
        snapshot = events.SnapshotStored(taken, *head, 0.0)
        turn.disk = msgspec.structs.replace(turn.disk, snapshot=snapshot)
        turn.run((events.SnapshotTaken(taken, taken.seq),), 0.0)
        turn.marks.append("snapshots")
        return self._end(turn)

    def damage(self, number: int) -> Step:
        """A member crashes, its log turns out to be damaged, and it starts without a vote (W4)."""
        moment = self.moments[number]
        return self._begin(moment.place, moment.disk.sync(0).damaged(), moment.said)

    def restart(self, number: int, kept: int) -> Step:
        """A member crashes, loses what is unsynced but the first ``kept`` batches, and starts."""
        moment = self.moments[number]
        lost = len(moment.disk.pending) - kept
        step = self._begin(moment.place, moment.disk.sync(kept), moment.said)
        marks = ("restarts", "restarts that lost writes") if lost else ("restarts",)
        return msgspec.structs.replace(step, marks=marks)

    def _begin(self, place: int, disk: Disk, said: Ballot) -> Step:
        """Start from a disk, as a participant does (W7)."""
        disk = disk.opened()
        commit, base = disk.commit_hint, disk.log.base
        newest = disk.snapshot
        configuration = (0, Configuration())
        if newest is not None:
            configuration = (newest.configuration_seq, newest.configuration)
        chosen = disk.log.entries[: commit - base.seq]
        runs: list[tuple[int, Ballot]] = []
        configurations: list[Entry] = []
        for entry in chosen:
            if not runs or runs[-1][1] != entry.ballot:
                runs.append((entry.seq, entry.ballot))
            if entry.kind == EntryKind.CONFIG:
                configurations.append(entry)
        time = max((e.time for e in disk.log.entries), default=0.0)
        log = Log(commit, runs, configurations, time, base, configuration)
        observations = [checks.start(commit, disk.promised, said)]
        try:
            for entry in disk.log.entries[commit - base.seq :]:
                log.append(entry)
        except LogError as error:
            observations.append(checks.broken("halt", str(error)))
        log.durable_seq = log.last_seq
        replica = Replica(
            Local(
                self.names[place],
                LIMITS,
                log,
                disk.promised,
                commit,
                snapshot=None if newest is None else newest.snapshot,
                recovering=disk.lost is not None,
            )
        )
        replica.start(0.0, CHANCE / (1 + disk.runs))
        after = self._intern(place, replica, disk, said)
        return Step(after, (), tuple(observations))

    def _end(self, turn: _Turn) -> Step:
        after = self._intern(turn.place, turn.replica, turn.disk, turn.said)
        sends = tuple((self._places[name], data) for names, data in turn.sends for name in names)
        return Step(after, sends, tuple(turn.observations), tuple(turn.marks))

    def _intern(self, place: int, replica: Replica, disk: Disk, said: Ballot) -> int:
        normalise(replica)
        frozen = freeze(replica)
        key = (frozen, disk, said)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.moments)
            self.moments.append(Moment(number, place, frozen, disk, said, replica))
        return number


class _Turn:
    """The turns of one member that one happening brings about."""

    def __init__(self, place: int, moment: Moment, replica: Replica) -> None:
        self.place = place
        self.replica = replica
        self.disk = moment.disk
        self.log = moment.log
        self.said = moment.said
        self.commit_before = 0
        self.sends: list[tuple[tuple[Incarnation, ...], bytes]] = []
        self.observations: list[Observation] = []
        self.marks: list[str] = []
        self._adopts = False

    def run(self, happened: Iterable[events.Event], now: float) -> None:
        """One turn with this, and more until the member has nothing to do at home."""
        inbox: deque[events.Event] = deque(happened)
        loads: deque[events.Event] = deque()
        while True:
            todo = self._turn(inbox, now)
            inbox.clear()
            for effect in todo:
                self._perform(effect, inbox, loads)
            if loads:
                inbox.append(loads.popleft())
            if not inbox:
                return

    def _turn(self, inbox: Iterable[events.Event], now: float) -> list[effects.Effect]:
        replica = self.replica
        local = replica.local
        promised, commit, role = local.promised, local.commit, local.role
        self.commit_before = commit
        todo: list[effects.Effect] = []
        for event in inbox:
            if isinstance(event, events.Received):
                self._adopts = isinstance(event.message, Promise | PromisePart)
            todo += replica.step(event, now, CHANCE)
        wall = WALL_START + 0.5 * (self.place + 1)
        todo += replica.step(events.EndOfTurn(wall), now, CHANCE)
        self.observations += checks.forgets(replica, self.disk)
        self.observations += checks.turn(replica, promised, commit, role)
        if local.leads and role is not local.role:
            self.marks.append(f"{local.role}s")
        if local.commit > commit:
            self.marks.append("commits")
        return todo

    def _perform(
        self, effect: effects.Effect, inbox: deque[events.Event], loads: deque[events.Event]
    ) -> None:
        if isinstance(effect, effects.Persist):
            self._persist(effect)
        elif isinstance(effect, effects.Send):
            message = effect.message
            found = checks.send(message, self.disk, self.said)
            self.observations += found
            self.said = max(self.said, checks.acts_in(message))
            if isinstance(message, Accepted):
                # What it tells of the applied state is compared (R9) and changes no log.
                message = msgspec.structs.replace(message, applied=0, checksum=0)
            self.sends.append((effect.to, encode(message)))
        elif isinstance(effect, effects.Load):
            log = self.disk.log
            here = log.entries[max(0, effect.first - log.base.seq - 1) : effect.last - log.base.seq]
            entries = here if effect.first > log.base.seq else ()
            loads.append(events.Loaded(effect.purpose, effect.first, entries))
            self.marks.append("loads")
        elif isinstance(effect, effects.LoadChunk):
            newest = self.disk.snapshot
            kept = newest is not None and newest.snapshot == effect.snapshot
            piece = _head(newest) if kept and newest is not None else b""
            loads.append(events.ChunkLoaded(effect.to, effect.snapshot, effect.offset, piece))
        elif isinstance(effect, effects.StoreChunk):
            loads.append(self._store(effect))
        elif isinstance(effect, effects.Install):
            inbox.append(events.Applied(effect.snapshot.seq, 0))
            self.marks.append("snapshots installed")
        elif isinstance(effect, effects.Compact):
            self.disk = msgspec.structs.replace(self.disk, log=self.disk.log.compacted(effect.seq))
            self.log = self.log.compacted(effect.seq)
        elif isinstance(effect, effects.Recovered):
            self.marks.append("members whole again")
        elif isinstance(effect, effects.Apply):
            inbox.append(events.Applied(effect.seq, 0))
        elif isinstance(effect, effects.Halt):
            rule, text = rule_of(f"halts: {effect.reason}")
            self.observations.append(checks.broken(rule, text))

    def _store(self, effect: effects.StoreChunk) -> events.Event:
        """A snapshot comes in one piece, which is its head."""
        snapshot = effect.snapshot
        stored = events.SnapshotStored(snapshot, *_decode_head(effect.chunk), 0.0)
        if snapshot.seq > self.disk.snapshot_seq:
            self.disk = msgspec.structs.replace(self.disk, snapshot=stored)
        return stored

    def _persist(self, effect: effects.Persist) -> None:
        entries = effect.entries
        found = checks.persist(effect, self.log, self.commit_before, self.disk)
        self.observations += found
        if effect.truncate_from is not None:
            self.marks.append("truncations")
        if entries and self._adopts and entries[0].ballot < self.replica.local.promised:
            self.marks.append("adoptions")
        batch = Batch.of(effect)
        self.disk = msgspec.structs.replace(self.disk, pending=(*self.disk.pending, batch))
        self.log = self.log.with_batch(batch)


def normalise(replica: Replica) -> None:
    """Forget what cannot matter: times, places in sequences, and what only limits or reads ask."""
    local = replica.local
    election = replica.election
    master = replica.master
    # Times. Every turn begins at 0 or, for a master's clock, at the next heartbeat.
    local.now = local.chance = local.wall_seconds = 0.0
    local.heard_at = -math.inf
    if election.deadline < math.inf:
        election.deadline = 0.0
    if master.deadline < math.inf:
        master._heartbeat_at = LIMITS.heartbeat_seconds if master.started else 0.0
    master._round_sent_at.clear()  # forgotten rounds count as sent long ago
    local.recent_syncs.clear()
    # Tickets: only which batches are unsynced, and whether the NOOP is among them (D6).
    base = local.tickets[0].number - 1 if local.tickets else local._next_ticket - 1
    local._next_ticket -= base
    for ticket in local.tickets:
        ticket.number -= base
        ticket.since = 0.0
    master._noop_ticket = max(0, master._noop_ticket - base)
    # A candidacy: the timer is always over, and who refused is only told to an application.
    candidacy = election.candidacy
    election._failed_prepares = 0
    if candidacy is None or candidacy.phase is not Phase.PROBING:
        election._probes_left = IMMEDIATE_PROBES
    if candidacy is not None:
        candidacy.progress_at = 0.0
        candidacy.refusals.clear()
    # Recovering: asked is in every turn, and only who recovers asks.
    recovery = replica.recovery
    recovery._ask_at = -math.inf
    recovery._ticket = max(0, recovery._ticket - base) if local.recovering else 0
    if not local.recovering:
        recovery._nonce = recovery.target_seq = 0
        recovery._ballot = ZERO
    # Snapshots: pieces are sent again with the next heartbeat, not with every turn.
    for sending in master.catch_up.sending.values():
        sending.progress_at = sending.acked_at = 0.0
        sending.send_at = LIMITS.heartbeat_seconds if sending.next > sending.acked else 0.0
    receiver = replica.receiver
    if receiver.snapshot is None:
        receiver._source, receiver._ballot = NOBODY, ZERO
    # Handing over and leases need time.
    handover = replica.membership.handover
    handover._ballot, handover._calm_until = ZERO, math.inf
    master.reads._lease_off = False
    master.reads.lease_ends = -math.inf
    # A master: who waits for what, windows that are never full, rounds that only reads ask for, and
    # the comparison of states (R9), which agreement on the log (I-1) makes needless here.
    if not local.leads:
        master.ballot = ZERO
        master._time = 0.0
        master._round = master._noop_seq = master._noop_ticket = 0
    master.origins.clear()
    master.comparison.clear()
    for progress in master.progress.values():
        progress.round = 0
        progress.contact_at = 0.0
        progress._inflight.clear()
        progress._inflight_bytes = 0
