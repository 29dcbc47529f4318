"""The clients of a simulated cluster: what applications submit and read, and what they are told.

A client waits for each call until an outcome arrives or it gives up; what it may say then follows
from the answers to its attempts, as at a real participant. Nothing is sent again by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from clusterconsensus.consensus import effects, events, messages
from clusterconsensus.consensus.messages import Action, Refusal
from clusterconsensus.consensus.types import NOBODY, Incarnation
from clusterconsensus.consensus.types import Member as Peer
from clusterconsensus.simulation.cores.describe import describe_change, describe_seats
from clusterconsensus.simulation.cores.machine import Done, Opened
from clusterconsensus.simulation.cores.member import Call, Member, ReadCall
from clusterconsensus.simulation.cores.world import World


class Clients(World):
    """The part of a cluster that speaks for the applications."""

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
                self.post_packet(member, leader, messages.OpenSession(client.nonce))
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
            self.post_packet(member, leader, messages.Submit(attempt, group))

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
            seq = self.ghost.executed.get((client.session, number))
            if seq is None:
                raise AssertionError(f"D10: {call.text} gives {text}, and has taken no effect")
            self.ghost.on_acknowledged(seq)

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
            self.post_packet(member, origin.source, reply)

    def _on_opened(self, member: Member, opened: Opened) -> None:
        if opened.owner == member.name:
            self._on_session(member, opened.nonce, opened.session)
        for origin in member.running.master.origins.get(opened.seq, ()):
            if origin.source != NOBODY:
                reply = messages.SessionOpened(opened.nonce, opened.session)
                self.post_packet(member, origin.source, reply)

    def _on_session(self, member: Member, nonce: int, session: int) -> None:
        client = member.client
        if nonce == client.nonce and session and not client.session:
            client.session = session

    def read(self, member: Member, *, lease: bool = False) -> ReadCall | None:
        """The client of a member reads, if it knows whom to ask."""
        leader = member.leader
        if leader is None:
            return None
        client = member.client
        call = ReadCall(client.new_nonce(), self.ghost.floor)
        client.reads[call.nonce] = call
        if leader == member.name:
            self.turn(member, [events.ReadLocal(call.nonce, lease)])
        else:
            self.post_packet(member, leader, messages.ReadAsk(call.nonce, lease))
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
        return self.change(via, Action.ADD, member.id)

    def change(
        self,
        via: Member,
        action: Action,
        member_id: str,
        *,
        priority: int = 1,
        force: bool = False,
    ) -> int:
        """The client of ``via`` wants the membership changed, or the mastership handed over;
        returns the request's number."""
        nonce = via.client.new_nonce()
        message = messages.ChangeMember(nonce, action, member_id, member_id, priority, force)
        # What every version knows how to ask for is told as it always was.
        via.client.asked[nonce] = "adding" if action is Action.ADD else describe_change(message)
        leader = via.leader
        if leader == via.name:
            peer = Peer(member_id, member_id)
            self.turn(via, [events.ChangeMemberLocal(nonce, action, peer, priority, force)])
        elif leader is None:
            self._on_changed(via, nonce, "no master is heard")
        elif action is Action.ADD and priority == 1:
            self.post_packet(via, leader, messages.AddMember(nonce, member_id, member_id))
        else:
            self.post_packet(via, leader, message)
        return nonce

    def _on_changed(self, member: Member, nonce: int, refusal: str) -> None:
        """A membership request of this run has ended."""
        what = member.client.asked.pop(nonce, "")
        if what:
            member.client.answer = refusal or "ok"
            self.say(f"client of {member}: {what}: {refusal or 'ok'}")

    def _tell_client(self, member: Member, effect: effects.Effect) -> None:
        if isinstance(effect, effects.SubmitRefused):
            refusal = Refusal.OVERLOADED if effect.overloaded else Refusal.NOT_APPENDED
            self._on_submit_reply(member, messages.SubmitReply(effect.attempt, refusal))
        elif isinstance(effect, effects.ReadReady):
            self._on_read_tell(member, effect.nonce, True, effect.seq)
        elif isinstance(effect, effects.ReadRefused):
            self._on_read_tell(member, effect.nonce, False, 0)
        elif isinstance(effect, effects.MembershipDone):
            self._on_changed(member, effect.nonce, effect.refusal)
        elif isinstance(effect, effects.ElectionEnded):
            self.say(f"client of {member}: election: {effect.refusal or 'won'}")
        elif isinstance(effect, effects.ConfigurationChanged):
            text = describe_seats(member.local.log.configuration)
            state = "chosen" if effect.committed else "in force"
            self.say(f"{member} has members {text}, {state}")
        elif isinstance(effect, effects.FoundRegressed):
            self.say(f"{member} is told that it has lost what it said it holds at {effect.seq}")
        elif isinstance(effect, effects.Recovered):
            self.say(f"{member} is whole again, as the master was at {effect.seq}")
        elif isinstance(effect, effects.Diverged):
            member.diverged = True
            self.say(f"{member} has diverged at or before {effect.seq}")
