"""Several real replicas in one thread, on virtual time, with every fault at one's command.

Nothing happens by itself: messages wait on their link until they are delivered, dropped or
repeated; a member turns when it is told to; time passes when it is told to. ``settle`` and ``run``
are for when nothing special is wanted. After every turn the ``Ghost`` checks the invariants.

Every message goes through its real encoding: what cannot travel is noticed here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec

from clusterconsensus.consensus import effects, events, messages
from clusterconsensus.consensus.local import Limits
from clusterconsensus.consensus.log import encode_configuration
from clusterconsensus.consensus.messages import Message, Refusal
from clusterconsensus.consensus.types import (
    NOBODY,
    ZERO,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    Role,
    Seat,
    Standing,
    member_id_of,
)
from clusterconsensus.consensus.types import Member as Peer
from tests.core.describe import describe, describe_entry
from tests.core.ghost import BrokenError, Ghost
from tests.core.member import Call, Done, Member, Opened, ReadCall

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Message).decode

CLUSTER_ID = "c1"
WALL_START = 1_700_000_000.0


@dataclass(frozen=True)
class Packet:
    """A message under way."""

    source: Incarnation
    data: bytes
    kind: str


class Cluster:
    """Members, the network between them, and one clock.

    Arguments:
        limits: For every member.
        chance: Gives a number in [0, 1) each time it is called.
    """

    def __init__(self, limits: Limits | None = None, chance: Callable[[], float] | None = None):
        self.limits = limits or Limits()
        self.chance = chance or (lambda: 0.5)
        self.now = 0.0
        self.members: dict[Incarnation, Member] = {}
        self.by_id: dict[str, Member] = {}
        self.links: dict[tuple[str, str], list[Packet]] = {}
        self.cuts: set[tuple[str, str]] = set()
        self.ghost = Ghost(self.members)
        self.told: list[str] = []
        self.tells = False
        self.tells_details = True
        """Whether messages and writes are told too."""
        self.next_attempt = 1
        self.turns = 0

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
        self.ghost.chosen[1] = entry
        self.ghost.entries[(1, ballot)] = (entry.crc, ZERO)
        self.ghost.chosen_in.append((ballot, 1))
        for member in made:
            member.store.cluster_id = CLUSTER_ID
            member.store.promised = ballot
            member.store.entries.append(entry)
            member.store.commit_hint = 1
            self.start(member)

    def start(self, member: Member) -> None:
        member.start(self.now, self.chance())
        self.ghost.on_start(member)
        self.ghost.on_executed(member.machine, 0)
        if member.machine.applied:
            self.ghost.on_applied(member)

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
        self.say(f"{member} crashes")

    def restart(self, member: Member) -> None:
        self.start(member)
        local = member.local
        self.say(
            f"{member} starts: promised {local.promised}, last {local.log.last}, "
            f"commit {local.commit}"
        )

    def say(self, text: str, *, detail: bool = False) -> None:
        if self.tells and (self.tells_details or not detail):
            self.told.append(text)

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
        self.ghost.on_turn(member)
        for effect in todo:
            self._perform(member, effect)
            if not member.is_up:
                return  # it crashed between two effects
        self._apply(member)

    def post(self, member: Member, event: events.Event) -> None:
        """Put an event into a member's inbox; the next turn takes it."""
        member.inbox.append(event)

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
        elif isinstance(effect, effects.Apply):
            member.asked_apply = effect.seq
            if member.holds_apply:
                self.say(f"{member} knows that {effect.seq} is chosen")
        elif isinstance(effect, effects.Halt):
            member.halted = effect.reason
            self.say(f"{member} halts: {effect.reason}")
            if not effect.diverged:
                raise BrokenError(f"{member} halts: {effect.reason}")
        elif isinstance(effect, effects.RoleChanged):
            self._on_role(member, effect)
        else:
            self._tell_client(member, effect)

    def _persist(self, member: Member, batch: effects.Persist) -> None:
        self.ghost.on_persist(member, batch)
        self.say(f"{member} writes {_describe_batch(batch)}", detail=True)
        member.store.pending.append(batch)
        if member.crash_at_persist:
            member.crash_at_persist -= 1
            if not member.crash_at_persist:
                self.crash(member, len(member.store.pending) if member.crash_keeps else 0)
                return
        if not member.holds_disk:
            self.sync(member)

    def sync(self, member: Member, batches: int | None = None) -> bool:
        """A sync ends: these many batches are durable, and the member is told."""
        ticket = member.store.sync(batches)
        if ticket:
            self.post(member, events.Persisted(ticket))
        return ticket > 0

    def _apply(self, member: Member) -> None:
        if not member.holds_apply:
            self.apply(member)

    def apply(self, member: Member) -> bool:
        """Apply everything that the core asked for; False if there is nothing."""
        machine = member.machine
        if machine.applied >= member.asked_apply:
            return False
        while machine.applied < member.asked_apply:
            entry = member.local.log.entry(machine.applied + 1)
            done = len(machine.executed)
            told = machine.apply(entry)
            self.ghost.on_executed(machine, done)
            self.ghost.on_applied(member)
            for item in told:
                if isinstance(item, Done):
                    self._on_done(member, item)
                else:
                    self._on_opened(member, item)
            member.running.master.origins.pop(entry.seq, None)
            self.say(f"{member} applies {describe_entry(entry, told)}")
        self.post(member, events.Applied(machine.applied, machine.checksum))
        self._serve_reads(member)
        return True

    # -- network

    def send(self, source: Member, target: Member, packet: Packet) -> None:
        if (source.id, target.id) not in self.cuts:
            self.links.setdefault((source.id, target.id), []).append(packet)

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
        if member.replica is None:
            return
        message = decode(packet.data)
        self.say(f"{member_id_of(packet.source)} -> {member}  {describe(message)}", detail=True)
        if isinstance(message, messages.Accept) and not member.store.cluster_id:
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
            member.client.adding[message.nonce] = message.refusal or "ok"
            self.say(f"client of {member}: adding: {message.refusal or 'ok'}")
        else:
            self.turn(member, [events.Received(packet.source, message)])

    def cut(self, source: str, target: str, *, both: bool = True) -> None:
        """Lose everything on a link from now on, what is under way included."""
        for link in [(source, target), (target, source)] if both else [(source, target)]:
            self.cuts.add(link)
            self.links.pop(link, None)

    # -- clients

    def submit(self, member: Member, *texts: str) -> list[Call]:
        """The client of a member submits changes; they leave with the next ``send_calls``."""
        return [member.client.new_call(text) for text in texts]

    def send_calls(self, member: Member, numbers: Sequence[int] | None = None) -> None:
        """Send calls (all that wait) to whom the member takes for the master."""
        client = member.client
        leader = member.leader if member.is_up else None
        if leader is None or (not client.calls and numbers is None):
            return
        if not client.session:
            if leader == member.name:
                self.turn(member, [events.OpenSessionLocal(client.nonce)])
            else:
                self._post_packet(member, leader, messages.OpenSession(client.nonce))
            return
        chosen = sorted(client.calls) if numbers is None else list(numbers)
        runs: list[list[int]] = []
        size = 0
        for number in chosen:
            length = len(client.calls[number].text)
            if (
                not runs
                or number != runs[-1][-1] + 1
                or size + length > self.limits.max_batch_bytes
            ):
                runs.append([])
                size = 0
            runs[-1].append(number)
            size += length
        for run in runs:
            self._send_group(member, leader, run)

    def _send_group(self, member: Member, leader: Incarnation, numbers: list[int]) -> None:
        if not member.is_up or any(number not in member.client.calls for number in numbers):
            return  # what came before it in this loop has ended it
        attempt = self.next_attempt
        self.next_attempt += 1
        group = member.client.group(numbers, attempt)
        if leader == member.name:
            self.turn(member, [events.SubmitLocal(attempt, group)])
        else:
            self._post_packet(member, leader, messages.Submit(attempt, group))

    def _post_packet(self, member: Member, to: Incarnation, message: Message) -> None:
        packet = Packet(member.name, encode(message), type(message).__name__.lower())
        self.send(member, self.members[to], packet)

    def give_up(self, member: Member, number: int) -> None:
        """The client stops waiting; what it learns is what the attempts' answers prove (X4)."""
        client = member.client
        call = client.calls[number]
        if call.open_attempts:
            client.end(number, "unknown")
        else:
            client.end(number, "not applied")
            self.ghost.never.add((client.session, number))

    def _on_submit_reply(self, member: Member, message: messages.SubmitReply) -> None:
        client = member.client
        numbers = client.attempts.get(message.attempt, ())
        if message.refusal is not Refusal.NONE:
            client.attempts.pop(message.attempt, None)
            for number in numbers:
                if number in client.calls:
                    client.calls[number].open_attempts.discard(message.attempt)
            self.say(f"client of {member}: refused, {message.refusal.name}")
            return
        if not numbers:
            return  # an earlier run's, or an expired session's
        for number, outcome in zip(numbers, message.outcomes, strict=True):
            self._end_call(member, number, outcome)

    def _end_call(self, member: Member, number: int, outcome: bytes | None) -> None:
        client = member.client
        text = "session expired" if outcome is None else outcome.decode()
        call = client.end(number, text)
        if call is None:
            return
        self.say(f"client of {member}: {call.text} gives {text}")
        if outcome is None:
            self._expire(member)
        if outcome is not None and outcome != b"stale":
            self.ghost.on_acknowledged(self.ghost.executed[(client.session, number)])

    def _expire(self, member: Member) -> None:
        """The session is gone: nothing more can be learned of what was sent in it."""
        client = member.client
        for number in tuple(client.calls):
            client.end(number, "session expired")
        client.session = 0
        client.nonce += 1
        client.attempts.clear()

    def _on_done(self, member: Member, done: Done) -> None:
        if done.session == member.client.session:
            for number, outcome in enumerate(done.outcomes, done.first):
                self._end_call(member, number, outcome)
        origins = member.running.master.origins.get(done.seq)
        if origins is None:
            return
        origin = origins[done.place]
        if origin.source != NOBODY:
            reply = messages.SubmitReply(origin.attempt, Refusal.NONE, done.outcomes)
            self._post_packet(member, origin.source, reply)

    def _on_opened(self, member: Member, opened: Opened) -> None:
        if opened.owner == member.name:
            self._on_session(member, opened.nonce, opened.session)
        for origin in member.running.master.origins.get(opened.seq, ()):
            if origin.source != NOBODY:
                reply = messages.SessionOpened(opened.nonce, opened.session)
                self._post_packet(member, origin.source, reply)

    def _on_session(self, member: Member, nonce: int, session: int) -> None:
        client = member.client
        if nonce == client.nonce and session and not client.session:
            client.session = session

    def read(self, member: Member) -> ReadCall | None:
        """The client of a member reads, if it knows whom to ask."""
        leader = member.leader
        if leader is None:
            return None
        client = member.client
        call = ReadCall(client.new_nonce(), self.ghost.floor)
        client.reads[call.nonce] = call
        if leader == member.name:
            self.turn(member, [events.ReadLocal(call.nonce)])
        else:
            self._post_packet(member, leader, messages.ReadAsk(call.nonce))
        return call

    def _on_read_tell(self, member: Member, nonce: int, granted: bool, seq: int) -> None:
        for call in list(member.client.reads.values()):
            if call.nonce == nonce and not call.outcome:
                if granted:
                    call.wanted = seq
                else:
                    call.outcome = "refused"
                    self.say(f"client of {member}: the read is refused")
        self._serve_reads(member)

    def _serve_reads(self, member: Member) -> None:
        machine = member.machine
        for call in member.client.reads.values():
            if call.outcome or call.wanted is None or machine.applied < call.wanted:
                continue
            values = " ".join(f"{name}={value}" for name, value in sorted(machine.values.items()))
            call.outcome = values or "nothing"
            self.say(f"client of {member}: reads {call.outcome}")
            if machine.applied < call.floor:
                raise AssertionError(
                    f"I-16: {member} reads at {machine.applied}, {call.floor} was acknowledged"
                )
            self.ghost.on_acknowledged(machine.applied)

    def add(self, via: Member, member: Member) -> int:
        """The client of ``via`` wants a member added; returns the request's number."""
        nonce = via.client.new_nonce()
        via.client.adding[nonce] = "waiting"
        leader = via.leader
        if leader == via.name:
            peer = Peer(member.id, member.id)
            self.turn(via, [events.AddMemberLocal(nonce, peer)])
        elif leader is not None:
            self._post_packet(via, leader, messages.AddMember(nonce, member.id, member.id))
        return nonce

    def _tell_client(self, member: Member, effect: effects.Effect) -> None:
        client = member.client
        if isinstance(effect, effects.SubmitRefused):
            refusal = Refusal.OVERLOADED if effect.overloaded else Refusal.NOT_APPENDED
            self._on_submit_reply(member, messages.SubmitReply(effect.attempt, refusal))
        elif isinstance(effect, effects.ReadReady):
            self._on_read_tell(member, effect.nonce, True, effect.seq)
        elif isinstance(effect, effects.ReadRefused):
            self._on_read_tell(member, effect.nonce, False, 0)
        elif isinstance(effect, effects.MembershipDone):
            client.adding[effect.nonce] = effect.refusal or "ok"
            self.say(f"client of {member}: adding: {effect.refusal or 'ok'}")
        elif isinstance(effect, effects.ElectionEnded):
            self.say(f"client of {member}: election: {effect.refusal or 'won'}")
        elif isinstance(effect, effects.ConfigurationChanged):
            voters = member.local.log.configuration.seats
            text = " ".join(f"{seat.id}({seat.standing})" for seat in voters)
            state = "chosen" if effect.committed else "in force"
            self.say(f"{member} has members {text}, {state}")
        elif isinstance(effect, effects.Diverged):
            member.diverged = True
            self.say(f"{member} has diverged at or before {effect.seq}")

    def _on_role(self, member: Member, effect: effects.RoleChanged) -> None:
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
    parts.extend(describe_entry(entry) for entry in batch.entries)
    return ", ".join(parts)
