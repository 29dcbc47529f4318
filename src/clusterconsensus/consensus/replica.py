"""The façade of the core: ``step(event) -> effects``. It dispatches, and keeps the parts in step.

The rule of the house is here too: whatever a part finds that cannot be (a committed entry replaced,
a promise lowered) stops this member, loudly, with the reason; nothing is repaired in silence.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from clusterconsensus.consensus.acceptor import Acceptor
from clusterconsensus.consensus.catchup import Receiver
from clusterconsensus.consensus.effects import Diverged, Effect
from clusterconsensus.consensus.election import Election
from clusterconsensus.consensus.events import (
    Applied,
    Bootstrap,
    ChangeMemberLocal,
    ChunkLoaded,
    ChunkStored,
    CloseSessionsLocal,
    Disconnected,
    EndOfTurn,
    Event,
    Loaded,
    OpenSessionLocal,
    Persisted,
    ReadLocal,
    Received,
    SnapshotStored,
    SnapshotTaken,
    StartElection,
    SubmitLocal,
    Tick,
)
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.log import LogError, encode_configuration
from clusterconsensus.consensus.master import Master, Origin
from clusterconsensus.consensus.membership import Change, Membership
from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Action,
    AddMember,
    ChangeMember,
    Identity,
    OpenSession,
    Prepare,
    Probe,
    ProbeReply,
    Promise,
    PromisePart,
    PromisePull,
    Quarantine,
    ReadAsk,
    RecoverAsk,
    RecoverTell,
    Refusal,
    Regressed,
    Reject,
    SnapshotAck,
    StartParticipation,
    Submit,
    TransferMaster,
)
from clusterconsensus.consensus.recovery import Recovery
from clusterconsensus.consensus.sessions import is_well_formed
from clusterconsensus.consensus.types import (
    NOBODY,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    Member,
    Role,
    Seat,
    Standing,
    member_id_of,
)

MAX_SESSIONS_SEEN = 10_000
"""Sessions of which the latest attempt is remembered, to ignore repeated messages."""


class Replica:
    """One member's half of the consensus, without any world around it.

    Arguments:
        local: What this member knows at its start.
    """

    def __init__(self, local: Local) -> None:
        self.local = local
        self.acceptor = Acceptor(local)
        self.election = Election(local)
        self.master = Master(local)
        self.membership = Membership(local, self.master)
        self.receiver = Receiver(local, self.acceptor)
        self.recovery = Recovery(local, self.acceptor)
        self._attempts_seen: OrderedDict[tuple[Incarnation, int], int] = OrderedDict()
        self._halted = False
        self._events: dict[type[Any], Callable[[Any], None]] = {
            Received: self._on_received,
            Persisted: lambda event: local.on_persisted(event.ticket),
            Loaded: self._on_loaded,
            Applied: self._on_applied,
            SnapshotTaken: self.master.catch_up.on_taken,
            SnapshotStored: self._on_snapshot_stored,
            ChunkStored: self.receiver.on_stored,
            ChunkLoaded: self.master.on_chunk_loaded,
            Disconnected: self._on_disconnected,
            Tick: self._on_tick,
            EndOfTurn: self._on_end_of_turn,
            SubmitLocal: lambda event: self.master.on_submit(
                Origin(NOBODY, event.attempt), event.group
            ),
            OpenSessionLocal: lambda event: self.master.on_open_session(
                Origin(NOBODY, event.nonce), local.name
            ),
            CloseSessionsLocal: lambda event: self.master.close_sessions(event.order),
            ReadLocal: lambda event: self.master.reads.ask(NOBODY, event.nonce, lease=event.lease),
            ChangeMemberLocal: lambda event: self.membership.on_request(
                Origin(NOBODY, event.nonce),
                Change(event.action, event.member, event.priority, event.force),
            ),
            StartElection: lambda event: self.election.start_now(),
            Bootstrap: self._on_bootstrap,
        }
        self._messages: dict[type[Any], Callable[[Incarnation, Any], None]] = {
            Probe: self.acceptor.on_probe,
            ProbeReply: self._on_probe_reply,
            Prepare: self._on_prepare,
            Promise: self.election.on_promise,
            PromisePull: self.acceptor.on_promise_pull,
            PromisePart: self.election.on_promise_part,
            Accept: self._on_accept,
            Accepted: self._on_accepted,
            Reject: self._on_reject,
            Submit: self._on_submit,
            OpenSession: self._on_open_session,
            ReadAsk: lambda source, message: self.master.reads.ask(
                source, message.nonce, lease=message.lease
            ),
            AddMember: lambda source, message: self.membership.on_request(
                Origin(source, message.nonce),
                Change(Action.ADD, Member(message.id, message.address)),
            ),
            ChangeMember: lambda source, message: self.membership.on_request(
                Origin(source, message.nonce),
                Change(
                    message.action,
                    Member(message.id, message.address),
                    message.priority,
                    message.force,
                ),
            ),
            Identity: self.membership.on_identity,
            Quarantine: self._on_quarantine,
            StartParticipation: self._on_start_participation,
            SnapshotAck: self._on_snapshot_ack,
            RecoverAsk: self.recovery.on_ask,
            RecoverTell: self.recovery.on_tell,
            Regressed: self.recovery.on_regressed,
            TransferMaster: self.election.on_transfer,
        }

    def start(self, now: float, chance: float) -> None:
        """Set the first timers."""
        local = self.local
        local.now, local.chance = now, chance
        if local.limits.lease_reads and local.log.voters != (local.name,):
            # What it acknowledged before it stopped may be somebody's lease still (L2).
            local.heard_at = now
        self.recovery.start()
        self.election.start()

    def step(self, event: Event, now: float, chance: float) -> list[Effect]:
        """Take one event and return what is to be done, in order.

        Arguments:
            event: What has happened.
            now: A monotone clock in seconds; only differences matter.
            chance: A fresh random number in [0, 1).
        """
        local = self.local
        if now < local.now:
            self.master.reads.lease_off()  # a clock that goes back measures nothing (L2)
            now = local.now
        local.now, local.chance = now, chance
        if not self._halted:
            try:
                self._events[type(event)](event)
            except (AssertionError, LogError) as error:
                self._halted = True
                local.halt(str(error))
        effects, local.effects = local.effects, []
        return effects

    @property
    def deadline(self) -> float:
        """When to send the next ``Tick``, in the clock of ``step``."""
        return min(self.election.deadline, self.master.deadline, self.membership.deadline)

    # -- events

    def _on_received(self, event: Received) -> None:
        handler = self._messages.get(type(event.message))
        if handler is not None:
            handler(event.source, event.message)

    def _on_loaded(self, event: Loaded) -> None:
        if not self.acceptor.on_loaded(event.purpose, event.first, event.entries):
            self.master.on_loaded(event.purpose, event.first, event.entries)

    def _on_applied(self, event: Applied) -> None:
        local = self.local
        if not local.applied <= event.seq <= local.apply_asked:
            raise AssertionError(f"applied {event.seq}, asked for {local.apply_asked} (I-6)")
        local.applied, local.checksum = event.seq, event.checksum
        if local.leads:
            self.master.comparison.on_applied(event.seq, event.checksum)

    def _on_snapshot_stored(self, event: SnapshotStored) -> None:
        local = self.local
        if local.leads:
            return  # a master's own log is the one that counts; its state is at least as new
        self.receiver.on_whole(event)

    def _on_disconnected(self, event: Disconnected) -> None:
        local = self.local
        if event.source == local.master and not local.leads and not local.limits.lease_reads:
            self.election.on_master_lost()
        self.master.on_disconnected(event.source)

    def _on_tick(self, event: Tick) -> None:
        led = self.local.leads
        self.master.on_tick()
        if led and not self.local.leads:
            self._after_step_down()
        self.election.on_tick()

    def _on_end_of_turn(self, event: EndOfTurn) -> None:
        local = self.local
        local.wall_seconds = event.wall_seconds
        if self.election.end_of_turn():
            self.master.begin(self.election.won())
        if local.leads:
            self.membership.end_of_turn()
            self.master.end_of_turn()
        self.acceptor.end_of_turn()
        self.recovery.end_of_turn()
        local.finish_turn()
        self.check()

    def _on_bootstrap(self, event: Bootstrap) -> None:
        local = self.local
        if local.log.last_seq or local.promised.instance:
            raise AssertionError("a new cluster on top of an existing log (I1)")
        member_id, _, disk_id = local.name.partition("@")
        seat = Seat(member_id, disk_id, event.address, Standing.VOTER)
        ballot = Ballot(1, local.name)
        local.raise_promise(ballot)
        payload = encode_configuration(Configuration((seat,), 0, event.initial))
        entry = Entry.make(1, ballot, EntryKind.CONFIG, event.wall_seconds, payload)
        local.log.append(entry)
        local.persist(promised=ballot, entries=(entry,))
        self.election.start()

    # -- messages

    def _on_prepare(self, source: Incarnation, message: Prepare) -> None:
        if self.acceptor.ignore_prepare(source, message):
            return
        if self.acceptor.on_prepare(source, message):
            self._step_down(f"{message.ballot} was promised")
            local = self.local
            local.heard_at = -math.inf
            self.election.on_promised()
            local.change_role(local.passive_role(), message.ballot, NOBODY, "promised a candidate")

    def _on_accept(self, source: Incarnation, message: Accept) -> None:
        local = self.local
        acceptor = self.acceptor
        if acceptor.ignore_accept(source, message) or acceptor.refuse_lower(source, message):
            return
        self._step_down(f"{message.ballot} leads")
        local.heard_at = local.now
        self.election.on_master_heard(source)
        acceptor.on_accept(source, message)
        local.change_role(local.passive_role(), message.ballot, source, "master heard")

    def _on_start_participation(self, source: Incarnation, message: StartParticipation) -> None:
        """A piece of a snapshot: only a ballot's owner sends one, and it is followed for it as for
        an accept (R1a to R1c)."""
        local = self.local
        ballot = message.ballot
        if ballot.owner != source or not local.see_ballot(ballot):
            return
        if message.snapshot.position.ballot > ballot:
            return  # no master has anything of a later ballot
        if ballot < local.promised:
            local.send(source, Reject(ballot, Refusal.LOWER, local.promised, 0, 0, 0))
            return
        self._step_down(f"{ballot} leads")
        local.heard_at = local.now
        self.election.on_master_heard(source)
        self.acceptor.on_snapshot(ballot, raised=ballot > local.promised)
        self.receiver.on_piece(source, message)
        local.change_role(local.passive_role(), ballot, source, "master heard")

    def _on_snapshot_ack(self, source: Incarnation, message: SnapshotAck) -> None:
        if self.local.leads:
            self.master.on_snapshot_ack(source, message)

    def _on_probe_reply(self, source: Incarnation, message: ProbeReply) -> None:
        local = self.local
        if message.refusal is Refusal.REMOVED and not local.leads:
            local.told_removed = True
            self.election.abandon(f"{member_id_of(source)} says that this member was removed")
            local.change_role(Role.REMOVED, local.master_ballot, NOBODY, "removed")
            return
        self.election.on_probe_reply(source, message)

    def _on_accepted(self, source: Incarnation, message: Accepted) -> None:
        if self.local.leads:
            self.master.on_accepted(source, message)

    def _on_reject(self, source: Incarnation, message: Reject) -> None:
        local = self.local
        local.see_ballot(message.promised)
        if local.leads and message.ballot == self.master.ballot:
            if message.promised > message.ballot:
                self._step_down(f"{member_id_of(source)} has promised {message.promised}")
            else:
                self.master.on_reject(source, message)

    def _on_submit(self, source: Incarnation, message: Submit) -> None:
        """Queue or refuse, each attempt once: a repeated message is neither taken after the first
        was refused, nor refused after the first was taken (X4). The submitter needs no second
        answer; what it sends again has a new number."""
        group = message.group
        if not is_well_formed(group):
            return
        key = (source, group.session)
        if message.attempt <= self._attempts_seen.get(key, 0):
            return
        self._attempts_seen[key] = message.attempt
        self._attempts_seen.move_to_end(key)
        if len(self._attempts_seen) > MAX_SESSIONS_SEEN:
            self._attempts_seen.popitem(last=False)
        self.master.on_submit(Origin(source, message.attempt), group)

    def _on_open_session(self, source: Incarnation, message: OpenSession) -> None:
        self.master.on_open_session(Origin(source, message.nonce), source)

    def _on_quarantine(self, source: Incarnation, message: Quarantine) -> None:
        local = self.local
        if message.ballot == local.master_ballot and source == local.master:
            if not local.quarantined:
                local.effects.append(Diverged(message.seq))
            local.quarantined = True

    # -- together

    def _step_down(self, reason: str) -> None:
        if self.local.leads:
            self.master.step_down(reason)
            self._after_step_down()

    def _after_step_down(self) -> None:
        local = self.local
        self.membership.step_down()
        self.election.deadline = local.now + local.election_delay()

    def check(self) -> None:
        """Assert what must hold between the parts after every turn (section 12)."""
        local = self.local
        log = local.log
        if not local.applied <= local.apply_asked <= local.commit <= log.last_seq:
            raise AssertionError(
                f"applied {local.applied} <= asked {local.apply_asked} <= commit {local.commit} "
                f"<= last {log.last_seq} does not hold (I-6, I-7)"
            )
        if local.apply_asked > log.durable_seq:
            raise AssertionError(f"{local.apply_asked} applied before it is durable (D5)")
        if log.last.ballot > local.promised or local.promised_durable > local.promised:
            raise AssertionError(f"promise {local.promised} is behind the log (I-5)")
        if local.leads and self.master.ballot != local.promised:
            raise AssertionError(f"leads {self.master.ballot}, promised {local.promised} (I-2)")
