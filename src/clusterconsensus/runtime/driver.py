"""The turn: drains the inbox, steps the core, and does what the core asks.

Everything that arrives (messages, calls of the application, finished syncs, timers) is put into one
inbox. A turn steps the core through all of it, ends with ``EndOfTurn``, and then performs the
effects in order: messages leave at once, everything that must become durable in this turn is one
write and one sync on the writer's thread. While that runs, the next turn's writes gather. Nothing
here makes a task, a thread hop or a message per change.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from clusterconsensus.consensus import effects, events, messages
from clusterconsensus.consensus.changes import Change
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.types import (
    NOBODY,
    Ballot,
    Entry,
    Incarnation,
    Member,
    Role,
    member_id_of,
)
from clusterconsensus.errors import (
    BrokenInvariantError,
    ConsensusError,
    DiskFullError,
    DivergedError,
    ElectionError,
    ParticipantClosedError,
    RemovedError,
)
from clusterconsensus.runtime.applier import Applier
from clusterconsensus.runtime.envelope import Arrival, Gate
from clusterconsensus.runtime.environment import Environment
from clusterconsensus.runtime.joining import JoinDesk, Joins
from clusterconsensus.runtime.keeping import Keeping
from clusterconsensus.runtime.mail import Mail
from clusterconsensus.runtime.questions import MembershipQuestions, ReadQuestions
from clusterconsensus.runtime.status import (
    BecameMaster,
    CatchUp,
    LostMaster,
    MasterChanged,
    MembershipChanged,
    Removed,
    Trouble,
)
from clusterconsensus.runtime.submits import Submits
from clusterconsensus.runtime.worker import Worker
from clusterconsensus.runtime.writing import Writing
from clusterconsensus.settings import Settings
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.snapshots import SnapshotStore
from clusterconsensus.transport.base import Transport

logger = logging.getLogger("clusterconsensus.runtime")

LOOK_FOR_IDLE_SESSIONS_SECONDS = 60.0

TELL_OF_CATCH_UP_SECONDS = 1.0


@dataclass(frozen=True)
class Parts:
    """What a driver ties together; ``opening`` makes it from a directory."""

    cluster: str
    member: Member
    settings: Settings
    environment: Environment
    transport: Transport
    journal: Journal
    replica: Replica
    applier: Applier
    gate: Gate
    directory: str
    store: SnapshotStore
    older_seq: int
    """What the snapshot before the newest one covers, 0 if there is none."""
    damage: tuple[str, ...]
    """What the start found damaged."""
    writer: Worker
    reader: Worker
    keeper: Worker
    join: Callable[[str], None]
    """Makes the id of the cluster that took this member in durable; blocks."""


class Driver:
    """One running member. Also the receiver of its transport and the listener of its applier.

    Arguments:
        parts: What it ties together.
        publish: Hears every ``ParticipantEvent``; what it raises closes the participant.
        on_commit: Hears the changes and encoded results of each entry, where they are collected.
        failed: Is told once when trouble has stopped this driver.
    """

    def __init__(
        self,
        parts: Parts,
        publish: Callable[[Any], None],
        on_commit: Callable[[int, list[Any], list[bytes]], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self.parts = parts
        self._publish = publish
        self._on_commit = on_commit
        self._failed = failed
        self.replica = parts.replica
        self._local = parts.replica.local
        self._core_reads = parts.replica.master.reads
        self._applier = parts.applier
        self._gate = parts.gate
        self._clock = parts.environment.clock
        self._chance = parts.environment.chance.random
        self._wall = parts.environment.wall_seconds
        self._inbox: list[events.Event] = []
        self._turn_due = False
        self._receiving = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self._applying = False
        self._joining = False
        self._leader: Incarnation | None = None
        """Who is asked: NOBODY is this member itself, None is nobody."""
        self._told_master = False
        self._elections: list[asyncio.Future[None]] = []
        self._masters: list[asyncio.Future[None]] = []
        self._successors: list[tuple[Ballot, asyncio.Future[None]]] = []
        """Who waits for a master of a higher ballot than this."""
        self._idle_sessions_at = 0.0
        self._told_catch_up_at: dict[Incarnation, float] = {}
        self.removed: RemovedError | None = None
        """What everybody is told once this member was removed (M8)."""
        self.disk_full = False
        self.heard_master = False
        """Whether any master was heard, or this member was one, since the start."""
        self.error: Exception | None = None
        self.failed = False
        """Whether trouble has stopped it."""
        self.serving = True
        """Whether nothing stands against taking changes and reads: not stopped, not removed, not
        diverged."""
        settings = parts.settings
        self._mail = Mail(
            parts.cluster, parts.transport, parts.gate, self._local.log, settings.max_batch_bytes
        )
        self._writing = Writing(
            parts.journal, parts.writer, self._on_durable, self._set_disk_full, self.fail
        )
        first_number = 1 + parts.environment.chance.getrandbits(48)
        self.submits = Submits(
            settings,
            self._clock,
            self._send_submit,
            self._send_open_session,
            self.wake,
            int(self._wall() * 1e9),
            first_number,
        )
        self.reads = ReadQuestions(settings, self._clock, self._ask_read, self.wake, first_number)
        self.memberships = MembershipQuestions(
            settings, self._clock, self._ask_change, self.wake, first_number
        )
        self.joins = Joins(
            parts.member,
            settings,
            self._clock,
            lambda to, message: self._mail.on_contact(effects.Contact(to, message)),
            self.wake,
            first_number + 2**50,
        )
        self._join_desk = JoinDesk(
            lambda change: self.memberships.change(change, None), self._mail.send
        )
        self.keeping = Keeping(
            parts, self.post, publish, self.feature_level, self._on_installed, self.fail
        )
        transfers = self.keeping.transfers
        self._perform: dict[type[Any], Callable[[Any], None]] = {
            effects.Persist: self._writing.add,
            effects.Send: self._mail.on_send,
            effects.Contact: self._mail.on_contact,
            effects.Load: self._on_load,
            effects.Apply: lambda effect: None,  # done at the end of the turn
            effects.LoadChunk: self.keeping.on_load_chunk,
            effects.StoreChunk: transfers.keep_chunk,
            effects.Install: transfers.install,
            effects.Compact: self.keeping.on_compact,
            effects.FoundRegressed: self.keeping.on_regressed,
            effects.Recovered: self.keeping.on_recovered,
            effects.ReadReady: lambda effect: self.reads.on_ready(
                effect.nonce, effect.seq, self._applier.applied
            ),
            effects.ReadRefused: lambda effect: self.reads.on_refused(effect.nonce),
            effects.SubmitRefused: self._on_submit_refused,
            effects.MembershipDone: lambda effect: self.memberships.on_reply(
                effect.nonce, effect.refusal, effect.retryable
            ),
            effects.RoleChanged: self._on_role_changed,
            effects.ConfigurationChanged: self._on_configuration_changed,
            effects.ElectionEnded: self._on_election_ended,
            effects.Diverged: self._on_diverged,
            effects.Halt: self._on_halt,
        }

    # -- the turn

    def start(self) -> None:
        """Begin to take part."""
        self._idle_sessions_at = self._clock() + LOOK_FOR_IDLE_SESSIONS_SECONDS
        self.replica.start(self._clock(), self._chance())
        self.keeping.start()
        if self._local.removed:
            self._on_removed()
        self.wake()

    def post(self, event: events.Event) -> None:
        """Put an event into the inbox."""
        self._inbox.append(event)
        self.wake()

    def wake(self) -> None:
        """Ask for a turn."""
        if not self._turn_due:
            self._turn_due = True
            if not self._receiving:
                self._loop.call_soon(self._turn_if_due)

    def _turn_if_due(self) -> None:
        if self._turn_due:
            self._turn()

    def _turn(self) -> None:
        """Take a turn now, whether or not one was asked for."""
        self._turn_due = False
        if self.error is not None:
            return
        try:
            # Whoever waits to send does so first: what it sends to this member is in this turn.
            if self._leader is not None:
                self.submits.flush()
                self.reads.flush(self._applier.applied)
                self.memberships.flush()
            if self.joins:
                self._flush_joins()
            inbox, self._inbox = self._inbox, []
            step, now, chance = self.replica.step, self._clock(), self._chance
            todo: list[effects.Effect] = []
            for event in inbox:
                todo += step(event, now, chance())
            todo += step(events.EndOfTurn(self._wall()), now, chance())
            perform = self._perform
            for effect in todo:
                perform[type(effect)](effect)
            # Messages leave before the writer's thread wakes: the two would contend for the
            # interpreter, and the followers' disks are on the longer way. Applying comes last,
            # while others' disks work.
            self._writing.flush()
            if not self._applying and self._local.apply_asked > self._applier.applied:
                self._apply_slice()
            self.keeping.snapshotter.take()
            self._set_timer()
        except Exception as error:
            self.fail(error)

    def _set_timer(self) -> None:
        """One timer for everything that waits for time."""
        soonest = min(
            self.replica.deadline,
            self.submits.deadline,
            self.reads.deadline,
            self.memberships.deadline,
            self.joins.deadline,
            self._idle_sessions_at,
        )
        if self._timer is not None:
            if self._timer_at <= soonest:
                return  # it rings, finds little to do, and is set anew
            self._timer.cancel()
        # At least a moment, so that a deadline in the past cannot keep the loop from everything.
        now = self._clock()
        self._timer_at = max(soonest, now + 0.001)
        self._timer = self._loop.call_later(self._timer_at - now, self._on_timer)

    def _on_timer(self) -> None:
        self._timer = None
        if self.error is not None:
            return
        now = self._clock()
        self.submits.on_tick(now)
        self.reads.on_tick(now)
        self.memberships.on_tick(now)
        self.joins.on_tick(now)
        if self._local.log.promoting:
            self._tell_of_catch_up(now)
        local = self._local
        self._writing.note(min(local.commit, local.log.durable_seq))
        if now >= self._idle_sessions_at:
            self._idle_sessions_at = now + LOOK_FOR_IDLE_SESSIONS_SECONDS
            self._close_idle_sessions()
        self.post(events.Tick())

    def _close_idle_sessions(self) -> None:
        if self._local.role is not Role.MASTER:
            return
        settings = self.parts.settings
        before = max(self._applier.time, self._wall()) - settings.session_expiry_seconds
        order = self._applier.sessions.idle(before, settings.max_sessions)
        if order is not None:
            self.post(events.CloseSessionsLocal(order))

    # -- durability

    def _on_durable(self, ticket: int) -> None:
        self._inbox.append(events.Persisted(ticket))
        self._turn()

    def _set_disk_full(self, detail: str) -> None:
        """Note a full disk, or (empty) that it has space again."""
        full = bool(detail)
        if full and not self.disk_full:
            logger.error("%s: %s", self.parts.member.id, detail)
            self._publish(Trouble(DiskFullError.code, detail))
        elif self.disk_full and not full:
            logger.warning("%s: the disk has space again", self.parts.member.id)
        self.disk_full = full

    def _on_load(self, effect: effects.Load) -> None:
        journal = self.parts.journal

        def done(entries: list[Entry] | None, error: Exception | None) -> None:
            if self.error is not None:
                return
            if error is not None:
                self.fail(error)
            else:
                loaded = tuple(entries or ())
                self.post(events.Loaded(effect.purpose, effect.first, loaded))

        self.parts.reader.call(
            lambda: journal.read(effect.first, effect.last, effect.max_bytes), done
        )

    # -- messages

    def receive(self, arrived: Sequence[bytes]) -> None:
        """Messages have come in (``Receiver``)."""
        if self.error is not None:
            return
        self._receiving = True
        try:
            for data in arrived:
                arrival = self._gate.admit(data)
                if arrival is not None:
                    self._take(arrival)
            self._receiving = False
            if self._turn_due:
                self._turn()  # not one iteration of the loop later: latency counts here
        except Exception as error:
            self.fail(error)

    def _take(self, arrival: Arrival) -> None:
        message = arrival.message
        if not self._gate.cluster_id and isinstance(message, messages.Accept):
            self._join(arrival.cluster_id)
        elif isinstance(message, messages.Identify):
            reply = messages.Identity(message.nonce, self._gate.cluster_id)
            self._mail.send(arrival.source, reply)
        elif isinstance(message, messages.SubmitReply):
            self.submits.on_reply(
                message.attempt, message.refusal, message.outcomes, message.offset
            )
            self.wake()
        elif isinstance(message, messages.SessionOpened):
            self.submits.on_session(message.nonce, message.session)
        elif isinstance(message, messages.ReadTell):
            if message.granted:
                self.reads.on_ready(message.nonce, message.seq, self._applier.applied)
            else:
                self.reads.on_refused(message.nonce)
                self.wake()
        elif isinstance(message, messages.MembershipReply):
            if not self.joins.on_reply(message):
                self.memberships.on_reply(message.nonce, message.refusal, message.retryable)
            self.wake()
        elif isinstance(message, messages.JoinAsk):
            self._on_join_ask(arrival.source, message)
        else:
            self.post(events.Received(arrival.source, message))

    def _join(self, cluster_id: str) -> None:
        """A master has taken this member in: its cluster's id is made durable first (D9, I1). The
        master sends again what is dropped meanwhile."""
        if self._joining:
            return
        self._joining = True

        def done(_: None, error: Exception | None) -> None:
            self._joining = False
            if isinstance(error, DiskFullError):
                self._set_disk_full(str(error))  # nothing was written; the master asks again
                return
            if error is not None:
                self.fail(error)
                return
            self._gate.cluster_id = cluster_id
            self._local.cluster_id = cluster_id
            self._mail.forget_routes()
            logger.info("%s: joined cluster %s", self.parts.member.id, cluster_id)

        self.parts.writer.call(lambda: self.parts.join(cluster_id), done)

    def disconnected(self, member: Member) -> None:
        """The connection to a member broke (``Receiver``)."""
        seat = self._local.log.configuration.seat_of_id(member.id)
        # Another process of that id, at another address, is not the member that has the seat.
        if seat is not None and seat.address == member.address and self.error is None:
            self.post(events.Disconnected(seat.incarnation))

    # -- the application's calls

    def _send_submit(self, to: Incarnation, attempt: int, group: messages.Group) -> None:
        if to == NOBODY:
            self._inbox.append(events.SubmitLocal(attempt, group))
        else:
            self._mail.send(to, messages.Submit(attempt, group))

    def _send_open_session(self, to: Incarnation, nonce: int) -> None:
        if to == NOBODY:
            self._inbox.append(events.OpenSessionLocal(nonce))
        else:
            self._mail.send(to, messages.OpenSession(nonce))

    def _ask_read(self, to: Incarnation, nonce: int, lease: bool) -> None:
        if to == NOBODY:
            self._inbox.append(events.ReadLocal(nonce, lease))
        else:
            self._mail.send(to, messages.ReadAsk(nonce, lease))

    def holds_lease(self) -> bool:
        """Whether this member may serve a read of its own state at this very instant, without
        asking anybody: it leads, its lease has not run out, and what it committed is applied
        (L2)."""
        now, local = self._clock(), self._local
        return (
            local.now <= now < self._core_reads.lease_ends
            and local.role is Role.MASTER
            and self._applier.applied >= local.commit
        )

    def _ask_change(self, to: Incarnation, nonce: int, change: Change) -> None:
        action, member = change.action, change.member
        if to == NOBODY:
            self._inbox.append(
                events.ChangeMemberLocal(nonce, action, member, change.priority, change.force)
            )
        elif action is messages.Action.ADD and change.priority == 1:
            # Understood by a master of any version.
            self._mail.send(to, messages.AddMember(nonce, member.id, member.address))
        else:
            self._mail.send(
                to,
                messages.ChangeMember(
                    nonce, action, member.id, member.address, change.priority, change.force
                ),
            )

    def _flush_joins(self) -> None:
        _, configuration = self._local.log.committed_configuration(self._local.commit)
        self.joins.flush(configuration.seat(self._local.name))

    def _on_join_ask(self, source: Incarnation, message: messages.JoinAsk) -> None:
        """A member of no cluster wants to be of this one."""
        name = self.parts.member.id
        if self.removed is not None:
            refusal = f"member {name!r} was removed from its cluster itself"
            self._mail.send(source, messages.MembershipReply(message.nonce, refusal, False))
        elif not self._gate.cluster_id:
            refusal = f"member {name!r} belongs to no cluster yet"
            self._mail.send(source, messages.MembershipReply(message.nonce, refusal, True))
        else:
            self._join_desk.on_ask(source, message)

    async def hand_over(self) -> None:
        """Before an orderly end: if this member leads and another could, let it, and wait for that,
        at most E."""
        local = self._local
        if self.error is not None or local.role is not Role.MASTER:
            return
        if self.replica.membership.handover.best() == NOBODY:
            return
        anybody = Change(messages.Action.TRANSFER, Member("", ""))
        seconds = self.parts.settings.election_timeout_seconds
        try:
            async with asyncio.timeout(seconds):
                await self.memberships.change(anybody, seconds)
                await self.master_known()
        except (ConsensusError, TimeoutError) as error:
            why = str(error) or f"it took longer than {seconds} s"
            logger.warning("%s: closes without handing over: %s", self.parts.member.id, why)

    def known_staleness_seconds(self) -> float | None:
        """``staleness_seconds``, or None where nothing is known."""
        seconds = self.staleness_seconds()
        return seconds if seconds < math.inf else None

    def staleness_seconds(self) -> float:
        """How long ago the last instant was before which everything that was acknowledged is
        known to be applied here; infinite if there was none."""
        return self._clock() - self.reads.proven_at

    def start_election(self) -> asyncio.Future[None]:
        """A future that is done when this member leads."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._elections = [held for held in self._elections if not held.done()]
        self._elections.append(future)
        self.post(events.StartElection())
        return future

    def master_known(self) -> asyncio.Future[None]:
        """A future that is done when a master is known that serves, as far as can be seen here."""
        future: asyncio.Future[None] = self._loop.create_future()
        if self._serving_master_known():
            future.set_result(None)
        else:
            self._masters = [held for held in self._masters if not held.done()]
            self._masters.append(future)
        return future

    def successor_known(self, ballot: Ballot) -> asyncio.Future[None]:
        """A future that is done when a master of a higher ballot than this is known that serves, as
        far as can be seen here."""
        future: asyncio.Future[None] = self._loop.create_future()
        self._successors = [held for held in self._successors if not held[1].done()]
        self._successors.append((ballot, future))
        self._end_waiting_for_masters()
        return future

    def _waiting(self) -> list[asyncio.Future[None]]:
        """Whoever waits for a mastership."""
        successors = [future for _, future in self._successors]
        return [*self._elections, *self._masters, *successors]

    def _end_waiting_for_masters(self) -> None:
        if not self._serving_master_known():
            return
        waiting, self._masters = self._masters, []
        for before, future in self._successors:
            if before < self._local.master_ballot:
                waiting.append(future)
        for future in waiting:
            if not future.done():
                future.set_result(None)

    def _serving_master_known(self) -> bool:
        local = self._local
        return local.role is Role.MASTER or (not local.leads and local.master != NOBODY)

    # -- what the core tells

    def _on_submit_refused(self, effect: effects.SubmitRefused) -> None:
        refusal = (
            messages.Refusal.OVERLOADED if effect.overloaded else messages.Refusal.NOT_APPENDED
        )
        self.submits.on_reply(effect.attempt, refusal)

    def _on_role_changed(self, effect: effects.RoleChanged) -> None:
        level = logging.DEBUG if effect.role is Role.CANDIDATE else logging.INFO
        logger.log(
            level,
            "%s: %s, ballot %s, master %s: %s",
            self.parts.member.id,
            effect.role,
            effect.ballot,
            member_id_of(effect.master) or "unknown",
            effect.reason,
        )
        led = self._leader == NOBODY
        leader: Incarnation | None = effect.master or None
        if effect.role in (Role.MASTER, Role.PENDING_MASTER):
            leader = NOBODY
        changed = leader != self._leader
        self._leader = leader
        self.submits.on_leader(leader)
        self.reads.on_leader(leader)
        self.memberships.on_leader(leader)
        if leader is not None:
            self.heard_master = True
            self.wake()
        if effect.role is Role.MASTER:
            self._told_master = True
            self._publish(BecameMaster(effect.ballot))
        elif led and leader != NOBODY and self._told_master:
            self._told_master = False
            self._publish(LostMaster(effect.reason))
        if changed and leader != NOBODY:
            self._publish(MasterChanged(self.master()))
        self._end_waiting_for_masters()
        if effect.role is Role.REMOVED:
            self._on_removed()

    def master(self) -> Member | None:
        """Who leads, as far as is known here."""
        local = self._local
        if local.role is Role.MASTER:
            return self.parts.member
        if local.leads or local.master == NOBODY:
            return None
        seat = local.log.configuration.seat(local.master)
        return seat.member if seat is not None else self._gate.address_of(local.master)

    def _on_configuration_changed(self, effect: effects.ConfigurationChanged) -> None:
        self._mail.forget_routes()
        configuration = self._local.log.configuration
        members = ", ".join(f"{seat.id} ({seat.standing})" for seat in configuration.seats)
        state = "committed" if effect.committed else "in force"
        logger.info("%s: configuration %d %s: %s", self.parts.member.id, effect.seq, state, members)
        self._publish(MembershipChanged(configuration, effect.committed))
        if self._local.log.promoting:
            self._tell_of_catch_up(self._clock())

    def _tell_of_catch_up(self, now: float) -> None:
        """How far those are that are to become voters, now and then."""
        if self._local.role is not Role.MASTER:
            return
        log, progress = self._local.log, self.replica.master.progress
        told, self._told_catch_up_at = self._told_catch_up_at, {}
        for seat in log.configuration.seats:
            name = seat.incarnation
            if not seat.promoting or name not in progress:
                continue
            self._told_catch_up_at[name] = told_at = told.get(name, -math.inf)
            if now >= told_at + TELL_OF_CATCH_UP_SECONDS:
                self._told_catch_up_at[name] = now
                self._publish(CatchUp(seat.member, progress[name].match, log.last_seq))

    def _on_removed(self) -> None:
        """This member is none any more: whoever waits is told, and whoever asks will be (M8)."""
        if self.removed is not None:
            return
        name = self.parts.member.id
        error = RemovedError(
            f"member {name!r} was removed from cluster {self.parts.cluster!r}; to come back it "
            "needs an empty directory, and must be added again"
        )
        logger.warning("%s: %s", name, error)
        self.removed = error
        self.serving = False
        self.submits.close(error, f"member {name!r} was removed from its cluster")
        self.reads.close(error)
        self.memberships.on_removed(name, error)
        self.joins.close(error)
        for future in self._waiting():
            if not future.done():
                future.set_exception(error)
        self._publish(Removed())

    def _on_election_ended(self, effect: effects.ElectionEnded) -> None:
        waiting, self._elections = self._elections, []
        for future in waiting:
            if future.done():
                continue
            if effect.refusal:
                future.set_exception(ElectionError(f"not elected: {effect.refusal}"))
            else:
                future.set_result(None)

    def _on_diverged(self, effect: effects.Diverged) -> None:
        detail = (
            f"the state of member {self.parts.member.id!r} differs from the majority's at or "
            f"before sequence {effect.seq}: its state machine is not deterministic"
        )
        logger.critical("%s: %s; it stops serving", self.parts.member.id, detail)
        error = DivergedError(detail)
        self.serving = False
        self.keeping.snapshotter.stop()  # what it computed is wrong, and must not be kept
        self.reads.close(error)
        self._publish(Trouble(DivergedError.code, detail))

    def _on_halt(self, effect: effects.Halt) -> None:
        if effect.diverged:
            raise DivergedError(effect.reason)
        raise BrokenInvariantError(f"a rule of the protocol is broken: {effect.reason}")

    # -- applying

    def _apply_slice(self) -> None:
        if self.error is not None:
            return
        if self._applier.installing:
            self._applying = False
            return
        local = self._local
        before = self._applier.applied
        try:
            finished = self._applier.run(local.log.entry, local.apply_asked)
        except BaseException as error:
            self.fail(error if isinstance(error, Exception) else BrokenInvariantError(repr(error)))
            if not isinstance(error, Exception):
                raise
            return
        applied = self._applier.applied
        if applied > before:
            # The core hears of it in the next turn, whenever that is: nothing waits for it there.
            self._inbox.append(events.Applied(applied, self._applier.checksum))
            self.reads.on_applied(applied)
        self._applying = not finished
        if not finished:
            self._loop.call_soon(self._apply_slice)

    def _on_installed(self) -> None:
        """The state is that of a snapshot now: go on behind it."""
        self.reads.on_applied(self._applier.applied)
        self.wake()

    @property
    def installing(self) -> bool:
        """Whether the state may not be asked now."""
        return self._applier.installing

    def feature_level(self) -> int:
        """What all members of the cluster know, as far as this one can tell."""
        local = self._local
        return self.replica.master.feature_level if local.leads else local.cluster_level

    def on_group(
        self, seq: int, place: int, session: int, first: int, found: Sequence[bytes | None]
    ) -> None:
        """A group was applied (``Listener``): tell whoever waits for it."""
        if session == self.submits.session:
            self.submits.on_outcomes(first, found)
        origins = self.replica.master.origins.get(seq)
        if origins is not None:
            origin = origins[place]
            if origin.source != NOBODY:
                self._mail.reply(origin.source, origin.attempt, found)

    def on_session(self, seq: int, owner: str, nonce: int, session: int) -> None:
        """A session was opened (``Listener``)."""
        if len(self._applier.sessions) > self.parts.settings.max_sessions:
            self._idle_sessions_at = self._clock()
        if owner == self._local.name:
            self.submits.on_session(nonce, session)
        for origin in self.replica.master.origins.get(seq, ()):
            if origin.source != NOBODY:
                opened = messages.SessionOpened(nonce, session)
                self._mail.send(origin.source, opened)

    def on_entry(self, seq: int, changes: list[Any], results: list[bytes]) -> None:
        """An entry was applied (``Listener``)."""
        self.replica.master.origins.pop(seq, None)
        if changes:
            self._on_commit(seq, changes, results)

    # -- endings

    def fail(self, error: Exception) -> None:
        """Stop for good because of trouble; everything that waits gets it once."""
        if self.error is not None:
            return
        if not isinstance(error, ConsensusError):
            wrapped = BrokenInvariantError(f"unexpected {type(error).__name__}: {error}")
            wrapped.__cause__ = error
            error = wrapped
        self.failed = True
        logger.critical("%s: stopped: %s", self.parts.member.id, error, exc_info=error)
        self._stop(error, str(error))
        self._failed(error)

    def stop(self) -> None:
        """Stop in good order; storage and transport are the caller's to close."""
        self._stop(ParticipantClosedError("the participant was closed"), "the participant closed")

    def _stop(self, error: Exception, reason: str) -> None:
        if self.error is not None:
            return
        self.error = error
        self.serving = False
        self._writing.stop()
        self.keeping.stop()
        if self._timer is not None:
            self._timer.cancel()
        closed = ParticipantClosedError(f"the participant has stopped: {reason}")
        self.submits.close(closed, reason)
        self.reads.close(closed)
        self.memberships.close(closed)
        self.joins.close(closed)
        for future in self._waiting():
            if not future.done():
                future.set_exception(closed)
        if self._told_master:
            self._told_master = False
            try:
                self._publish(LostMaster(reason))
            except Exception:
                logger.exception("%s: the event handler failed at the end", self.parts.member.id)
