"""What members may say: no message may tell more than the disk holds, or act where none may act.

The D-rules are judged here, the promises (I-5), the votes of those that have none (I-19, I-20), and
what an acknowledgement claims (I-8).
"""

from __future__ import annotations

from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Message,
    Prepare,
    Probe,
    ProbeReply,
    Promise,
    RecoverTell,
    Refusal,
    StartParticipation,
)
from clusterconsensus.consensus.types import ZERO, Ballot, Position
from clusterconsensus.simulation.judges.observed import Observed
from clusterconsensus.simulation.judges.truth import Truth


class Speech(Truth):
    """Judges every message that leaves a member."""

    def on_send(self, member: Observed, message: Message) -> None:
        """A message leaves: it must not say more than is durable (the D-rules)."""
        if isinstance(message, Accept):
            if message.ballot not in self._accepting:
                self._on_first_accept(member, message)
        elif isinstance(message, Accepted):
            self._on_accepted(member, message)
        elif isinstance(message, Probe | Prepare):
            self._on_stands(member, message)
        elif isinstance(message, ProbeReply | Promise):
            if message.refusal is Refusal.NONE:
                self._on_grant(member, message)
        elif isinstance(message, StartParticipation):
            snapshot = message.snapshot
            if not self.is_chosen(snapshot.position):
                self.fail("S5", f"{member} sends a snapshot of {snapshot}, which is not chosen")
            if member.durable_snapshot < snapshot.seq:
                self.fail("S1", f"{member} sends a snapshot of {snapshot}, which is not durable")
        elif isinstance(message, RecoverTell) and all(
            ballot != message.ballot for ballot, _ in reversed(self.chosen_in)
        ):
            self.fail("W5", f"{member} tells where {message.ballot} ends, and leads not yet")

    def _on_stands(self, member: Observed, message: Probe | Prepare) -> None:
        """A member wants to lead."""
        if member.recovering:
            self.fail("I-19", f"{member} stands for {message.ballot} while it is recovering")
        gone = self.removed.get(member.name)
        if gone is not None and member.local.commit >= gone[0]:
            self.fail("I-20", f"{member} stands for {message.ballot}, removed by {gone[0]}")
        if isinstance(message, Prepare):
            if member.durable_promise < message.ballot:
                self.fail(
                    "D1", f"{member} asks for {message.ballot}, durable {member.durable_promise}"
                )
            self._note_promise(member, message.ballot)

    def _on_grant(self, member: Observed, message: ProbeReply | Promise) -> None:
        if member.recovering:
            self.fail("I-19", f"{member} grants {message.ballot} while it is recovering")
        if isinstance(message, Promise):
            if member.durable_promise < message.ballot:
                self.fail(
                    "D2", f"{member} promises {message.ballot}, durable {member.durable_promise}"
                )
            self._note_promise(member, message.ballot)
            self.granted.setdefault(message.ballot, set()).add(member.name)

    def _on_first_accept(self, member: Observed, message: Accept) -> None:
        """What the ballot stands on, its own first entry included, must be durable (D6)."""
        self._accepting.add(message.ballot)
        log = member.local.log
        first = log.run_start(log.last_seq)
        if member.durable_ballot(first) != message.ballot:
            self.fail("D6", f"{member} sends accepts in {message.ballot}, {first} is not durable")

    def _note_promise(self, member: Observed, ballot: Ballot) -> None:
        before = self.promises.get(member.name, ZERO)
        if ballot is before:
            return
        if ballot < before:
            self.fail("I-5", f"{member} acts in {ballot} after {before}")
        self.promises[member.name] = ballot

    def _on_accepted(self, member: Observed, message: Accepted) -> None:
        durable = member.durable_promise
        if durable is not message.ballot and durable < message.ballot:
            self.fail("D3", f"{member} accepts in {message.ballot}, durable {durable}")
        self._note_promise(member, message.ballot)
        match = message.match
        if not match:
            return
        if match > member.durable_last and match > member.durable_snapshot:
            self.fail("D3", f"{member} claims {match}, durable {member.durable_last}")
        held = member.durable_ballot(match)
        if match <= member.durable_snapshot and match in self.chosen:
            held = self.chosen[match].ballot
        said = self.acknowledged.setdefault(member.name, {})
        if message.ballot not in said or match > said[message.ballot].seq:
            said[message.ballot] = Position(held or ZERO, match)
        master = self._members.get(message.ballot.owner)
        if master is not None and master.is_up and master.local.leads:
            if master.running.master.ballot != message.ballot:
                return
            theirs = master.local.log.ballot_at(match)
            if theirs != held and match >= master.local.log.base.seq:
                self.fail("I-8", f"{member} claims to match {master} at {match}")
