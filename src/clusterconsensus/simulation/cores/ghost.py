"""What no member knows: the whole truth about a simulated cluster, and the invariants over it.

``Ghost`` watches every effect and every turn and raises ``BrokenError`` at the first step after
which an invariant does not hold. The numbers are those of the protocol's list of invariants.
"""

from __future__ import annotations

import msgspec

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.messages import Accepted, Message, Prepare, Promise, Refusal
from clusterconsensus.consensus.quorum import majority_size
from clusterconsensus.consensus.types import (
    ZERO,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    Role,
)
from clusterconsensus.simulation.cores.member import Machine, Member

decode_configuration = msgspec.msgpack.Decoder(Configuration).decode


class BrokenError(AssertionError):
    """An invariant does not hold."""


class Seen:
    """What was last seen of one run of one member."""

    def __init__(self, member: Member) -> None:
        local = member.local
        self.start = member.starts
        self.promised = local.promised
        self.commit = local.commit
        self.commit_before = local.commit
        """Before the turn whose effects are being performed."""
        self.applied = member.machine.applied
        self.role = Role.UNJOINED


class Ghost:
    """Checks one cluster. ``members`` is the cluster's own table of members."""

    def __init__(self, members: dict[Incarnation, Member]) -> None:
        self._members = members
        self._seen: dict[Incarnation, Seen] = {}
        self.masters: dict[Ballot, Incarnation] = {}
        self.entries: dict[tuple[int, Ballot], tuple[int, Ballot]] = {}
        """Every entry ever written: its checksum, and the ballot of the one before it."""
        self.chosen: dict[int, Entry] = {}
        self.chosen_in: list[tuple[Ballot, int]] = []
        """Under which ballot the commit first reached which sequence, ascending by sequence."""
        self.checksums: dict[int, int] = {}
        self.executed: dict[tuple[int, int], int] = {}
        """Where each request of a session took effect."""
        self.never: set[tuple[int, int]] = set()
        """Requests that a client was told are not applied and never will be."""
        self.floor = 0
        """Everything up to here was acknowledged to some client, or read by one."""
        self.promises: dict[Incarnation, Ballot] = {}
        """The highest ballot that each member has promised to anybody."""

    def _fail(self, rule: str, text: str) -> None:
        raise BrokenError(f"{rule}: {text}")

    # -- effects

    def on_persist(self, member: Member, batch: Persist) -> None:
        cut = batch.truncate_from
        if cut is not None:
            if cut <= self._seen[member.name].commit_before:
                self._fail("I-7", f"{member} cuts {cut}, committed up to {member.local.commit}")
            lost = self._written_ballot(member, cut)
            chosen = self.chosen.get(cut)
            if chosen is not None and lost == chosen.ballot:
                self._fail("I-4", f"{member} cuts the chosen entry {chosen}")
        for entry in batch.entries:
            before = self._before(member, batch, entry)
            found = self.entries.setdefault((entry.seq, entry.ballot), (entry.crc, before))
            if found != (entry.crc, before):
                self._fail("I-3", f"{member} holds another {entry}: {found}, {before}")
            if entry.kind == EntryKind.CONFIG and entry.ballot.owner == member.name:
                self._on_new_configuration(member, entry)

    def _written_ballot(self, member: Member, seq: int) -> Ballot | None:
        """The ballot at a sequence on this member's disk, synced or not."""
        ballot = member.store.ballot_at(seq)
        for batch in member.store.pending:
            if batch.truncate_from is not None and batch.truncate_from <= seq:
                ballot = None
            for entry in batch.entries:
                if entry.seq == seq:
                    ballot = entry.ballot
        return ballot

    def _before(self, member: Member, batch: Persist, entry: Entry) -> Ballot:
        if entry.seq == 1:
            return ZERO
        place = entry.seq - batch.entries[0].seq
        if place:
            return batch.entries[place - 1].ballot
        ballot = self._written_ballot(member, entry.seq - 1)
        if ballot is None:
            self._fail("I-9", f"{member} writes {entry} behind nothing")
        return ballot or ZERO

    def _on_new_configuration(self, member: Member, entry: Entry) -> None:
        if entry.seq == 1 or (entry.seq, entry.ballot) in self.chosen_ids():
            return
        if member.local.leads and member.local.log.last_seq >= entry.seq:
            own = [seq for ballot, seq in self.chosen_in if ballot == entry.ballot]
            if not own:
                self._fail("I-11", f"{member} appends {entry} before an own entry is chosen")
            previous = decode_configuration(entry.payload).previous_seq
            if previous not in self.chosen:
                self._fail("M2", f"{member} appends {entry}, but {previous} is not chosen")

    def chosen_ids(self) -> set[tuple[int, Ballot]]:
        return {(seq, entry.ballot) for seq, entry in self.chosen.items()}

    def on_send(self, member: Member, message: Message) -> None:
        store = member.store
        if isinstance(message, Prepare):
            if store.promised < message.ballot:
                self._fail("D1", f"{member} asks for {message.ballot}, durable {store.promised}")
            self._note_promise(member, message.ballot)
        elif isinstance(message, Promise) and message.refusal is Refusal.NONE:
            if store.promised < message.ballot:
                self._fail("D2", f"{member} promises {message.ballot}, durable {store.promised}")
            self._note_promise(member, message.ballot)
        elif isinstance(message, Accepted):
            self._on_accepted(member, message)

    def _note_promise(self, member: Member, ballot: Ballot) -> None:
        if ballot < self.promises.get(member.name, ZERO):
            self._fail("I-5", f"{member} acts in {ballot} after {self.promises[member.name]}")
        self.promises[member.name] = ballot

    def _on_accepted(self, member: Member, message: Accepted) -> None:
        store = member.store
        if store.promised < message.ballot:
            self._fail("D3", f"{member} accepts in {message.ballot}, durable {store.promised}")
        self._note_promise(member, message.ballot)
        if message.match > len(store.entries):
            self._fail("D3", f"{member} claims {message.match}, durable {len(store.entries)}")
        master = self._members.get(message.ballot.owner)
        if master is not None and master.is_up and master.local.leads and message.match:
            if master.running.master.ballot != message.ballot:
                return
            theirs = master.local.log.ballot_at(message.match)
            if theirs != store.ballot_at(message.match):
                self._fail("I-8", f"{member} claims to match {master} at {message.match}")

    def on_executed(self, machine: Machine, first: int) -> None:
        """Requests from place ``first`` of the machine's record have just taken effect."""
        for seq, session, number, text in machine.executed[first:]:
            if self.executed.setdefault((session, number), seq) != seq:
                self._fail("I-15", f"{text} took effect at {seq} and before")
            if (session, number) in self.never:
                self._fail("X4", f"{text} took effect at {seq}, but was told to be not applied")

    def on_acknowledged(self, seq: int) -> None:
        """A client got the outcome of what is at ``seq``, or has read it (I-17)."""
        if seq not in self.chosen:
            self._fail("I-17", f"{seq} is acknowledged and not chosen")
        self.floor = max(self.floor, seq)

    # -- turns

    def on_start(self, member: Member) -> None:
        self._seen[member.name] = Seen(member)
        promised = self.promises.get(member.name, ZERO)
        if member.local.promised < promised:
            self._fail("I-5", f"{member} forgot its promise {promised}")
        if member.local.commit and member.local.commit not in self.chosen:
            self._fail("I-6", f"{member} starts with commit {member.local.commit}, not chosen")

    def on_turn(self, member: Member) -> None:
        local = member.local
        seen = self._seen[member.name]
        if local.promised < seen.promised:
            self._fail("I-5", f"{member} lowers its promise to {local.promised}")
        seen.promised = local.promised
        if local.role is not seen.role:
            seen.role = local.role
            if local.leads:
                self._on_master(member)
        seen.commit_before = seen.commit
        if local.commit < seen.commit:
            self._fail("I-6", f"{member} takes back its commit {seen.commit}")
        if local.commit > seen.commit:
            self._on_commit(member, seen.commit, local.commit)
            seen.commit = local.commit

    def on_applied(self, member: Member) -> None:
        machine = member.machine
        known = self.checksums.setdefault(machine.applied, machine.checksum)
        if machine.skew == 0 and known != machine.checksum:
            self._fail("I-13", f"{member} has another checksum at {machine.applied}")

    def _on_master(self, member: Member) -> None:
        ballot = member.running.master.ballot
        if self.masters.setdefault(ballot, member.name) != member.name:
            self._fail("I-2", f"{member} and {self.masters[ballot]} lead in {ballot}")
        if ballot.owner != member.name:
            self._fail("I-2", f"{member} leads in a foreign ballot {ballot}")
        lower = [seq for chosen_in, seq in self.chosen_in if chosen_in < ballot]
        if lower and member.local.log.ballot_at(max(lower)) != self.chosen[max(lower)].ballot:
            self._fail("I-4", f"{member} leads in {ballot} without {self.chosen[max(lower)]}")

    def _on_commit(self, member: Member, before: int, commit: int) -> None:
        local = member.local
        for seq in range(before + 1, commit + 1):
            entry = self._entry(member, seq)
            chosen = self.chosen.get(seq)
            if chosen is None:
                self.chosen[seq] = entry
                if entry.kind == EntryKind.CONFIG:
                    self._on_configuration(entry)
            elif (chosen.ballot, chosen.crc) != (entry.ballot, entry.crc):
                self._fail("I-1", f"{member} commits {entry}, chosen is {chosen}")
        if self.chosen_in and commit <= self.chosen_in[-1][1]:
            return
        ballot = local.log.ballot_at(commit)
        if not local.leads or ballot is None or ballot != member.running.master.ballot:
            self._fail("I-10", f"{member} commits {commit} by {ballot} without leading in it")
            return
        self.chosen_in.append((ballot, commit))
        voters = local.log.voters
        holders = [
            name
            for name in voters
            if name in self._members and self._members[name].store.ballot_at(commit) == ballot
        ]
        if len(set(voters)) != len(voters):
            self._fail("I-12", f"a voter counts twice in {voters}")
        if len(holders) < majority_size(len(voters)):
            self._fail("I-10", f"{member} commits {commit}, durable only at {holders} of {voters}")

    def _entry(self, member: Member, seq: int) -> Entry:
        log = member.local.log
        if log.is_cached(seq):
            return log.entry(seq)
        return member.store.entries[seq - 1]

    def _on_configuration(self, entry: Entry) -> None:
        before: set[Incarnation] = set()
        for seq in range(entry.seq - 1, 0, -1):
            if self.chosen[seq].kind == EntryKind.CONFIG:
                before = set(decode_configuration(self.chosen[seq].payload).voters)
                break
        after = set(decode_configuration(entry.payload).voters)
        if before and len(before ^ after) > 1:
            self._fail("I-11", f"{entry} changes {sorted(before)} to {sorted(after)}")

    def check_deeply(self, member: Member) -> None:
        """The slow checks of the parts themselves."""
        running = member.running
        running.local.log.check()
        running.check()
