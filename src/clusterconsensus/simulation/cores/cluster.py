"""Several real replicas in one thread, on virtual time, with every fault at one's command.

Nothing happens by itself: messages wait on their link until they are delivered, dropped or
repeated; a member turns when it is told to; time passes when it is told to. ``settle`` and ``run``
are for when nothing special is wanted. After every turn the ``Ghost`` checks the invariants.

Every message goes through its real encoding: what cannot travel is noticed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import msgspec

from clusterconsensus.consensus import effects, events, messages
from clusterconsensus.consensus.log import encode_configuration
from clusterconsensus.consensus.messages import Message
from clusterconsensus.consensus.types import (
    NOBODY,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Role,
    Seat,
    SnapshotId,
    Standing,
    member_id_of,
)
from clusterconsensus.simulation.cores.clients import Clients
from clusterconsensus.simulation.cores.describe import describe, describe_entry
from clusterconsensus.simulation.cores.machine import Done
from clusterconsensus.simulation.cores.member import Member
from clusterconsensus.simulation.cores.world import Packet, encode
from clusterconsensus.simulation.judges.invariants import BrokenError, rule_of
from clusterconsensus.simulation.telling.recording import Fate

decode = msgspec.msgpack.Decoder(Message).decode

CLUSTER_ID = "c1"
WALL_START = 1_700_000_000.0


class Cluster(Clients):
    """The whole: turns, effects, deliveries, time."""

    # -- building

    def add_machine(self, member_id: str) -> Member:
        """A new, empty member that belongs to no cluster."""
        member = Member(member_id, len(self.members) + 1, self.limits)
        self.members[member.name] = member
        self.by_id[member_id] = member
        return member

    def found(self, ids: Sequence[str]) -> None:
        """A cluster of these voters, as if the first had founded it and added the others."""
        made = [self.add_machine(member_id) for member_id in ids]
        seats = tuple(Seat(m.id, m.disk_id, m.id, Standing.VOTER) for m in made)
        ballot = Ballot(1, made[0].name)
        payload = encode_configuration(Configuration(tuple(sorted(seats)), 0, None))
        entry = Entry.make(1, ballot, EntryKind.CONFIG, WALL_START, payload)
        self.ghost.found(entry)
        for member in made:
            member.store.cluster_id = CLUSTER_ID
            member.store.promised = ballot
            member.store.entries.append(entry)
            member.store.commit_hint = 1
            self.start(member)

    def wipe(self, member: Member) -> Member:
        """A member's disk is replaced by an empty one: another member under the same id (I0)."""
        if member.is_up:
            self.crash(member)
        fresh = Member(member.id, len(self.members) + 1, self.limits)
        self.members[fresh.name] = self.by_id[member.id] = fresh
        self.start(fresh)
        return fresh

    def start(self, member: Member) -> None:
        if self.notes is not None:
            self.notes.started(member.id)
        member.start(self.now, self.chance())
        self.ghost.on_start(member)
        self.ghost.on_machine(member.machine, 0)
        if member.machine.applied:
            self._tell_applied(member)

    def crash(self, member: Member, kept: int = 0) -> None:
        """End a member at once; of its unsynced writes the first ``kept`` batches survive."""
        client = member.client
        for number in tuple(client.calls):
            client.end(number, "unknown")
        member.replica = None
        member.store.crash(kept)
        member.inbox.clear()
        member.loads.clear()
        member.crash_at_persist = 0
        if self.notes is not None:
            self.notes.crashed(member.id)
        self.say(f"{member} crashes")

    def restart(self, member: Member) -> None:
        self.start(member)
        local = member.local
        recovering = ", without a vote: it has lost something" if local.recovering else ""
        self.say(
            f"{member} starts: promised {local.promised}, last {local.log.last}, "
            f"commit {local.commit}{recovering}"
        )

    # -- turns

    def turn(self, member: Member, happened: Iterable[events.Event] = ()) -> None:
        """One turn of a member with what is in its inbox and these events."""
        if member.replica is None:
            return
        self.turns += 1
        inbox = [*member.inbox, *happened]
        member.inbox.clear()
        now = self.now + member.clock_offset
        todo: list[effects.Effect] = []
        step = member.replica.step
        for event in inbox:
            todo += step(event, now, self.chance())
        wall = WALL_START + self.now + member.wall_skew
        todo += step(events.EndOfTurn(wall), now, self.chance())
        self.ghost.on_turn(member, todo)
        self.judge_lease(member)
        if self.notes is not None:
            self.notes.committed(member.id, member.local.commit)
        for effect in todo:
            self._perform(member, effect)
            if not member.is_up:
                return  # it crashed between two effects
        self._apply(member)

    def _perform(self, member: Member, effect: effects.Effect) -> None:
        if isinstance(effect, effects.Persist):
            self._persist(member, effect)
        elif isinstance(effect, effects.Send):
            self.ghost.on_send(member, effect.message)
            data = encode(effect.message)
            kind = type(effect.message).__name__.lower()
            for name in effect.to:
                target = self.members.get(name)
                if target is not None:
                    self.send(member, target, Packet(member.name, data, kind))
        elif isinstance(effect, effects.Contact):
            target = self.by_id.get(effect.to.address)
            if target is not None:
                self.send(member, target, Packet(member.name, encode(effect.message), "identify"))
        elif isinstance(effect, effects.Load):
            entries = member.store.read(effect.first, effect.last, effect.max_bytes)
            member.loads.append(events.Loaded(effect.purpose, effect.first, entries))
        elif isinstance(effect, effects.LoadChunk):
            piece = member.store.piece(effect.snapshot, effect.offset, effect.max_bytes)
            member.loads.append(
                events.ChunkLoaded(effect.to, effect.snapshot, effect.offset, piece)
            )
        elif isinstance(effect, effects.StoreChunk):
            wanted = member.store.add_piece(effect.snapshot, effect.offset, effect.chunk)
            if wanted < effect.snapshot.size_bytes:
                member.loads.append(events.ChunkStored(effect.snapshot, wanted))
            elif not member.holds_disk:
                self.store_snapshot(member)
        elif isinstance(effect, effects.Install):
            member.asked_install = effect.snapshot
        elif isinstance(effect, effects.Compact):
            self._compact(member, effect)
        elif isinstance(effect, effects.Apply):
            member.asked_apply = effect.seq
            if member.holds_apply:
                self.say(f"{member} knows that {effect.seq} is chosen")
        elif isinstance(effect, effects.Halt):
            member.halted = effect.reason
            if self.notes is not None:
                self.notes.mark(member.id, "halt", effect.reason)
            self.say(f"{member} halts: {effect.reason}")
            if not effect.diverged:
                raise BrokenError(*rule_of(f"{member} halts: {effect.reason}"))
        elif isinstance(effect, effects.RoleChanged):
            self._on_role(member, effect)
        else:
            self._tell_client(member, effect)

    def _persist(self, member: Member, batch: effects.Persist) -> None:
        self.ghost.on_persist(member, batch)
        if self.notes is not None:
            self.notes.mark(member.id, "persist", _describe_batch(batch))
        self.say(f"{member} writes {_describe_batch(batch)}", detail=True)
        member.store.pending.append(batch)
        if member.crash_at_persist:
            member.crash_at_persist -= 1
            if not member.crash_at_persist:
                self.crash(member, len(member.store.pending) if member.crash_keeps else 0)
                return
        if not member.holds_disk:
            self.sync(member)

    def _compact(self, member: Member, effect: effects.Compact) -> None:
        before = member.store.base.seq
        member.store.compact(effect.seq, effect.keep)
        if member.store.base.seq > before:
            self.say(f"{member} forgets its log up to {member.store.base}")

    def sync(self, member: Member, batches: int | None = None) -> bool:
        """A sync ends: these many batches are durable, and the member is told."""
        ticket = member.store.sync(batches)
        if ticket and self.notes is not None:
            self.notes.mark(member.id, "durable")
        if ticket:
            self.post(member, events.Persisted(ticket))
        if batches is None:
            return self.store_snapshot(member) or ticket > 0
        return ticket > 0

    # -- snapshots

    def begin_snapshot(self, member: Member) -> bool:
        """A member catches its state as it is now; False if there is nothing new to keep."""
        if not member.begin_snapshot():
            return False
        self.say(f"{member} takes a snapshot at {member.machine.applied}", detail=True)
        return True

    def finish_snapshot(self, member: Member, *, alone: bool = False) -> None:
        """What was caught is durable. One that a newer one has overtaken is told to nobody (S5).

        ``alone``: the log need not reach back to an older one.
        """
        taken, member.taking = member.taking, None
        if taken is None:
            return
        older_seq = member.store.keep(taken)
        self.say(f"{member} has a snapshot of {taken.id.position}")
        if member.store.snapshot is taken:
            self.post(member, events.SnapshotTaken(taken.id, taken.seq if alone else older_seq))

    def store_snapshot(self, member: Member) -> bool:
        """A snapshot that came in pieces is whole, and durable (D7)."""
        snapshot = member.store.complete()
        if snapshot is None:
            return False
        head = snapshot.content.head
        self.say(f"{member} keeps a snapshot of {snapshot.id.position}")
        member.loads.append(
            events.SnapshotStored(
                snapshot.id, head.configuration_seq, head.configuration, head.time
            )
        )
        return True

    def judge_lease(self, member: Member) -> None:
        """Tell the ghost until when, in true time, a member believes to have a lease (I-18)."""
        local, reads = member.local, member.running.master.reads
        now = self.now + member.clock_offset
        # A clock that has gone back is noticed before anything is done by it.
        holds = now >= local.now and reads.has_lease(now)
        until = reads.lease_ends - member.clock_offset if holds else self.now
        self.ghost.on_lease(member, self.now, until)

    def _apply(self, member: Member) -> None:
        if not member.holds_apply:
            self.apply(member)

    def apply(self, member: Member) -> bool:
        """Apply everything that the core asked for; False if there is nothing."""
        machine = member.machine
        if member.asked_install is not None:
            self._install(member, member.asked_install)
        elif machine.applied >= member.asked_apply:
            return False
        while machine.applied < member.asked_apply:
            entry = member.local.log.entry(machine.applied + 1)
            done = len(machine.executed)
            told = machine.apply(entry)
            self.ghost.on_machine(machine, done)
            self._tell_applied(member)
            for item in told:
                if isinstance(item, Done):
                    self._on_done(member, item)
                else:
                    self._on_opened(member, item)
            member.running.master.origins.pop(entry.seq, None)
            text = describe_entry(entry, told)
            if self.notes is not None:
                self.notes.mark(member.id, "apply", f"{entry.seq} {text}")
            self.say(f"{member} applies {text}")
        self.post(member, events.Applied(machine.applied, machine.checksum))
        self._serve_reads(member)
        return True

    def _install(self, member: Member, wanted: SnapshotId) -> None:
        """The state and the sessions give way to a snapshot that is in the store."""
        member.asked_install = None
        snapshot = next(held for held in member.store.snapshots if held.id == wanted)
        machine = member.machine
        machine.install(snapshot)
        member.asked_apply = max(member.asked_apply, machine.applied)
        self.ghost.on_machine(machine, 0)
        self._tell_applied(member)
        if self.notes is not None:
            self.notes.mark(member.id, "apply", f"snapshot of {wanted.position}")
        self.say(f"{member} installs the snapshot of {wanted.position}")

    def _tell_applied(self, member: Member) -> None:
        machine = member.machine
        if machine.skew == 0:
            self.ghost.on_applied(member, machine.applied, machine.checksum)

    # -- network

    def deliver(self, source: str, target: str, place: int = 0, *, keep: bool = False) -> bool:
        """Deliver the packet at a place of a link; ``keep`` leaves a copy under way."""
        waiting = self.links.get((source, target), [])
        if place >= len(waiting):
            return False
        packet = waiting[place] if keep else waiting.pop(place)
        self.receive(self.by_id[target], packet)
        return True

    def receive(self, member: Member, packet: Packet) -> None:
        """A packet arrives; whatever the member has to say about it, it says in this turn."""
        if self.notes is not None:
            is_for = packet.to in (NOBODY, member.name)
            fate: Fate = "delivered" if member.replica is not None and is_for else "lost"
            self.notes.ended(member.id, packet, fate)
        if member.replica is None or packet.to not in (NOBODY, member.name):
            return
        message = decode(packet.data)
        self.say(f"{member_id_of(packet.source)} -> {member}  {describe(message)}", detail=True)
        follows = isinstance(message, messages.Accept | messages.StartParticipation)
        if follows and not member.store.cluster_id:
            member.store.cluster_id = member.local.cluster_id = CLUSTER_ID
        elif isinstance(message, messages.Identify):
            reply = encode(messages.Identity(message.nonce, member.store.cluster_id))
            target = self.members[packet.source]
            self.send(member, target, Packet(member.name, reply, "identity"))
        elif isinstance(message, messages.SubmitReply):
            self._on_submit_reply(member, message)
        elif isinstance(message, messages.SessionOpened):
            self._on_session(member, message.nonce, message.session)
        elif isinstance(message, messages.ReadTell):
            self._on_read_tell(member, message.nonce, message.granted, message.seq)
        elif isinstance(message, messages.MembershipReply):
            self._on_changed(member, message.nonce, message.refusal)
        else:
            self.turn(member, [events.Received(packet.source, message)])

    def _on_role(self, member: Member, effect: effects.RoleChanged) -> None:
        if self.notes is not None:
            self.notes.role(member.id, effect)
        whom = ""
        if effect.master and effect.role in (Role.FOLLOWER, Role.LEARNER, Role.UNJOINED):
            whom = f" of {member_id_of(effect.master)}"
        self.say(f"{member} is {effect.role}{whom} in {effect.ballot}: {effect.reason}")

    # -- time and rest

    def tick_due(self, member: Member) -> bool:
        """Tick a member whose deadline has come."""
        if member.replica is None or self.now + member.clock_offset < member.running.deadline:
            return False
        self.turn(member, [events.Tick()])
        return True

    def work(self, member: Member) -> bool:
        """Let a member take what waits for it at home: syncs, loads, applied entries."""
        busy = False
        while member.replica is not None and (member.inbox or member.loads):
            if member.loads:
                member.inbox.append(member.loads.popleft())
            self.turn(member)
            busy = True
        return busy

    def settle(self, ids: Iterable[str] | None = None, limit: int = 20_000) -> None:
        """Deliver and work until nothing is under way (between these members)."""
        chosen = sorted(self.by_id) if ids is None else sorted(ids)
        for _ in range(limit):
            busy = False
            for member_id in chosen:
                busy = self.work(self.by_id[member_id]) or busy
            for source in chosen:
                for target in chosen:
                    for _ in range(len(self.links.get((source, target), ()))):
                        busy = self.deliver(source, target) or busy
            if not busy:
                return
        raise AssertionError(f"no rest after {limit} rounds")

    def run(self, seconds: float, until: Callable[[], bool] | None = None) -> bool:
        """Let time pass for everybody, with a quick network; True once ``until`` holds."""
        end = self.now + seconds
        while True:
            self.settle()
            if until is not None and until():
                return True
            soonest = min(
                (
                    member.running.deadline - member.clock_offset
                    for member in self.by_id.values()
                    if member.is_up
                ),
                default=math.inf,
            )
            # A deadline in the past is a defect: nothing that a tick did has moved it on.
            if soonest > end:
                self.now = end
                return until is None
            self.now = max(self.now + 0.001, soonest)
            for member_id in sorted(self.by_id):
                self.tick_due(self.by_id[member_id])


def _describe_batch(batch: effects.Persist) -> str:
    parts: list[str] = []
    if batch.promised is not None:
        parts.append(f"promise {batch.promised}")
    if batch.truncate_from is not None:
        parts.append(f"cut from {batch.truncate_from}")
    if batch.base is not None:
        parts.append(f"log anew behind {batch.base}")
    parts.extend(describe_entry(entry) for entry in batch.entries)
    if batch.recovering is not None:
        parts.append("recovering" if batch.recovering else "whole again")
    return ", ".join(parts)
