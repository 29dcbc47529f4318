"""What no member knows: the whole truth about a simulated cluster, and the invariants over it.

``Ghost`` is told every durable unit, every message, every turn and everything that is applied, of
all members, and raises ``BrokenError`` at the first of them after which an invariant does not hold.
The numbers are those of section 12 of ``docs/protocol.md``; a D-rule is named where a message says
more than the disk holds.

The ghost believes no member about its own disk: what is durable is read off the simulated disk
(``Observed.durable_ballot`` and its like), and what was written is what the core asked to be
written.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import NoReturn, Protocol

import msgspec

from clusterconsensus.consensus.effects import Effect, Persist
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.messages import Accept, Accepted, Message, Prepare, Promise, Refusal
from clusterconsensus.consensus.quorum import majority_size
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.types import (
    ZERO,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    Role,
)

decode_configuration = msgspec.msgpack.Decoder(Configuration).decode


class BrokenError(AssertionError):
    """An invariant does not hold. ``rule`` is its number, ``text`` what was seen."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.text = text


def rule_of(text: str) -> tuple[str, str]:
    """The rule that a text names, as in "... (I-7)", and the text; "halt" where it names none."""
    found = _RULE.search(text)
    return (found[1] if found else "halt"), text


_RULE = re.compile(r"\(([A-Z]-?\d+)[,)]")


class Observed(Protocol):
    """One member, as the ghost sees it. ``str()`` of it is the member's short name."""

    @property
    def name(self) -> Incarnation: ...

    @property
    def is_up(self) -> bool: ...

    @property
    def running(self) -> Replica: ...

    @property
    def local(self) -> Local: ...

    @property
    def durable_promise(self) -> Ballot:
        """The promise that a power failure now would leave on its disk."""
        ...

    @property
    def durable_last(self) -> int:
        """The last sequence that a power failure now would leave on its disk."""
        ...

    def durable_ballot(self, seq: int) -> Ballot | None:
        """The ballot of an entry that a power failure now would leave on its disk."""
        ...

    def durable_entry(self, seq: int) -> Entry:
        """An entry that is durable."""
        ...


class Seen:
    """What was last seen of one run of one member."""

    def __init__(self, member: Observed) -> None:
        local = member.local
        log = local.log
        self.promised = local.promised
        self.commit = local.commit
        self.commit_before = local.commit
        """Before the turn whose effects are being performed."""
        self.role = Role.UNJOINED
        self.written = [log.ballot_at(seq) or ZERO for seq in range(1, log.last_seq + 1)]
        """The ballot of each entry that was given to the disk, durable or not."""
        self.voters: list[tuple[int, tuple[Incarnation, ...]]] = []
        """The voters of each configuration in the log, by its sequence, ascending."""
        at = log.last_seq
        while at > 0:
            at, configuration = log.committed_configuration(at)
            self.voters.insert(0, (at, configuration.voters))
            at -= 1
        self.cuts: list[tuple[int, int]] = []
        """Cuts that may not be durable yet: ticket, and sequence from which on."""

    @property
    def voters_in_force(self) -> tuple[Incarnation, ...]:
        """Those of the latest configuration in the log, committed or not (M1)."""
        return self.voters[-1][1] if self.voters else ()

    def follow(self, batch: Persist) -> None:
        """Keep up with the configurations in the log: in force from the moment they are in it."""
        cut = batch.truncate_from
        while cut is not None and self.voters and self.voters[-1][0] >= cut:
            self.voters.pop()
        for entry in batch.entries:
            if entry.kind == EntryKind.CONFIG:
                self.voters.append((entry.seq, decode_configuration(entry.payload).voters))

    def ballot_at(self, seq: int) -> Ballot:
        return self.written[seq - 1] if 0 < seq <= len(self.written) else ZERO


class Ghost:
    """Checks one cluster.

    Arguments:
        members: The cluster's own table of members, by incarnation; may grow.
    """

    def __init__(self, members: Mapping[Incarnation, Observed]) -> None:
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
        self._accepting: set[Ballot] = set()
        """Ballots in which an accept has left."""

    def found(self, entry: Entry) -> None:
        """A cluster begins with this entry, chosen."""
        self.chosen[entry.seq] = entry
        before = ZERO if entry.seq == 1 else self.chosen[entry.seq - 1].ballot
        self.entries[(entry.seq, entry.ballot)] = (entry.crc, before)
        self.chosen_in.append((entry.ballot, entry.seq))

    def fail(self, rule: str, text: str) -> NoReturn:
        """A rule does not hold.

        Raises:
            BrokenError: always.
        """
        raise BrokenError(rule, text)

    # -- effects

    def on_persist(self, member: Observed, batch: Persist) -> None:
        """The core asks for a durable unit."""
        seen = self._seen[member.name]
        written = seen.written
        cut = batch.truncate_from
        if cut is not None:
            if cut <= seen.commit_before:
                self.fail("I-7", f"{member} cuts {cut}, committed up to {member.local.commit}")
            chosen = self.chosen.get(cut)
            if chosen is not None and seen.ballot_at(cut) == chosen.ballot:
                self.fail("I-4", f"{member} cuts the chosen entry {chosen}")
            del written[cut - 1 :]
            seen.cuts.append((batch.ticket, cut))
        for entry in batch.entries:
            if entry.seq != len(written) + 1:
                self.fail("I-9", f"{member} writes {entry} behind {len(written)}")
            before = seen.ballot_at(entry.seq - 1)
            found = self.entries.setdefault((entry.seq, entry.ballot), (entry.crc, before))
            if found != (entry.crc, before):
                self.fail("I-3", f"{member} holds another {entry}: {found}, {before}")
            if entry.kind == EntryKind.CONFIG and entry.ballot.owner == member.name:
                self._on_new_configuration(member, entry)
            written.append(entry.ballot)

    def _on_new_configuration(self, member: Observed, entry: Entry) -> None:
        chosen = self.chosen.get(entry.seq)
        if entry.seq == 1 or (chosen is not None and chosen.ballot == entry.ballot):
            return
        if member.local.leads and member.local.log.last_seq >= entry.seq:
            own = [seq for ballot, seq in self.chosen_in if ballot == entry.ballot]
            if not own:
                self.fail("I-11", f"{member} appends {entry} before an own entry is chosen")
            previous = decode_configuration(entry.payload).previous_seq
            if previous not in self.chosen:
                self.fail("M2", f"{member} appends {entry}, but {previous} is not chosen")

    def on_send(self, member: Observed, message: Message) -> None:
        """A message leaves: it must not say more than is durable (the D-rules)."""
        if isinstance(message, Accept):
            if message.ballot not in self._accepting:
                self._on_first_accept(member, message)
        elif isinstance(message, Accepted):
            self._on_accepted(member, message)
        elif isinstance(message, Prepare):
            if member.durable_promise < message.ballot:
                self.fail(
                    "D1", f"{member} asks for {message.ballot}, durable {member.durable_promise}"
                )
            self._note_promise(member, message.ballot)
        elif isinstance(message, Promise) and message.refusal is Refusal.NONE:
            if member.durable_promise < message.ballot:
                self.fail(
                    "D2", f"{member} promises {message.ballot}, durable {member.durable_promise}"
                )
            self._note_promise(member, message.ballot)

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
        if message.match > member.durable_last:
            self.fail("D3", f"{member} claims {message.match}, durable {member.durable_last}")
        master = self._members.get(message.ballot.owner)
        if master is not None and master.is_up and master.local.leads and message.match:
            if master.running.master.ballot != message.ballot:
                return
            theirs = master.local.log.ballot_at(message.match)
            if theirs != member.durable_ballot(message.match):
                self.fail("I-8", f"{member} claims to match {master} at {message.match}")

    # -- what is applied

    def on_executed(self, seq: int, session: int, number: int, text: str) -> None:
        """A request has taken effect on some member."""
        if self.executed.setdefault((session, number), seq) != seq:
            self.fail("I-15", f"{text} took effect at {seq} and before")
        if (session, number) in self.never:
            self.fail("X4", f"{text} took effect at {seq}, but was told to be not applied")

    def on_applied(self, member: Observed, seq: int, checksum: int) -> None:
        """A member has applied up to a sequence."""
        if self.checksums.setdefault(seq, checksum) != checksum:
            self.fail("I-13", f"{member} has another checksum at {seq}")

    def on_acknowledged(self, seq: int) -> None:
        """A client got the outcome of what is at ``seq``, or has read it (I-17)."""
        if seq not in self.chosen:
            self.fail("I-17", f"{seq} is acknowledged and not chosen")
        self.floor = max(self.floor, seq)

    # -- turns

    def on_start(self, member: Observed) -> None:
        """A member has opened its disk and is about to take part."""
        local = member.local
        earlier = self._seen.get(member.name)
        self._seen[member.name] = Seen(member)
        promised = max(self.promises.get(member.name, ZERO), member.durable_promise)
        if local.promised < promised:
            self.fail("I-5", f"{member} forgot its promise {promised}")
        if local.commit and local.commit not in self.chosen:
            self.fail("I-6", f"{member} starts with commit {local.commit}, not chosen")
        # A cut that was written and not synced may have survived the crash.
        cut = min((seq for _, seq in earlier.cuts), default=None) if earlier else None
        for seq in range(1, member.durable_last + 1):
            ballot = member.durable_ballot(seq)
            if local.log.ballot_at(seq) != ballot:
                chosen = self.chosen.get(seq)
                if cut is None or seq < cut or (chosen is not None and chosen.ballot == ballot):
                    self.fail("I-21", f"{member} starts without {seq}, which its disk held durably")

    def on_turn(self, member: Observed, effects: Sequence[Effect]) -> None:
        """A member's turn has ended; its effects are not performed yet."""
        local = member.local
        seen = self._seen[member.name]
        for effect in effects:
            if isinstance(effect, Persist):
                seen.follow(effect)
        if local.promised is not seen.promised:
            if local.promised < seen.promised:
                self.fail("I-5", f"{member} lowers its promise to {local.promised}")
            seen.promised = local.promised
        if local.role is not seen.role:
            seen.role = local.role
            if local.leads:
                self._on_master(member)
        if seen.cuts:
            waiting = local.tickets[0].number if local.tickets else math.inf
            seen.cuts = [each for each in seen.cuts if each[0] >= waiting]
        seen.commit_before = seen.commit
        if local.commit != seen.commit:
            if local.commit < seen.commit:
                self.fail("I-6", f"{member} takes back its commit {seen.commit}")
            self._on_commit(member, seen.commit, local.commit)
            seen.commit = local.commit

    def _on_master(self, member: Observed) -> None:
        ballot = member.running.master.ballot
        if self.masters.setdefault(ballot, member.name) != member.name:
            self.fail("I-2", f"{member} and {self.masters[ballot]} lead in {ballot}")
        if ballot.owner != member.name:
            self.fail("I-2", f"{member} leads in a foreign ballot {ballot}")
        voters = self._seen[member.name].voters_in_force
        promised = [
            name
            for name in voters
            if name == member.name or self.promises.get(name, ZERO) >= ballot
        ]
        if len(promised) < majority_size(len(voters)):
            self.fail("E5", f"{member} leads in {ballot}, promised by {promised} of {voters}")
        lower = max((seq for chosen_in, seq in self.chosen_in if chosen_in < ballot), default=0)
        if lower and member.local.log.ballot_at(lower) != self.chosen[lower].ballot:
            self.fail("I-4", f"{member} leads in {ballot} without {self.chosen[lower]}")

    def _on_commit(self, member: Observed, before: int, commit: int) -> None:
        local = member.local
        log = local.log
        for seq in range(before + 1, commit + 1):
            chosen = self.chosen.get(seq)
            if chosen is None:
                entry = self._entry(member, seq)
                self.chosen[seq] = entry
                self.on_chosen(entry)
                if entry.kind == EntryKind.CONFIG:
                    self._on_configuration(entry)
            else:
                entry = log.entry(seq) if log.is_cached(seq) else chosen
                if chosen is not entry and (
                    chosen.ballot != log.ballot_at(seq) or chosen.crc != entry.crc
                ):
                    self.fail("I-1", f"{member} commits {entry}, chosen is {chosen}")
        if self.chosen_in and commit <= self.chosen_in[-1][1]:
            return
        ballot = log.ballot_at(commit)
        if not local.leads or ballot is None or ballot != member.running.master.ballot:
            self.fail("I-10", f"{member} commits {commit} by {ballot} without leading in it")
        self.chosen_in.append((ballot, commit))
        voters = self._seen[member.name].voters_in_force  # not what it says of itself (M5)
        if len(set(voters)) != len(voters):
            self.fail("I-12", f"a voter counts twice in {voters}")
        holders = self.holders(voters, commit, ballot)
        if len(holders) < majority_size(len(voters)):
            self.fail("I-10", f"{member} commits {commit}, durable only at {holders} of {voters}")

    def holders(self, voters: Sequence[Incarnation], seq: int, ballot: Ballot) -> list[Incarnation]:
        """The voters on whose disks an entry is durable."""
        members = self._members
        return [
            name
            for name in voters
            if name in members and members[name].durable_ballot(seq) == ballot
        ]

    def on_chosen(self, entry: Entry) -> None:
        """An entry is chosen, for the first time anywhere; in order of sequence. For subclasses."""

    def _entry(self, member: Observed, seq: int) -> Entry:
        log = member.local.log
        return log.entry(seq) if log.is_cached(seq) else member.durable_entry(seq)

    def _on_configuration(self, entry: Entry) -> None:
        before: set[Incarnation] = set()
        for seq in range(entry.seq - 1, 0, -1):
            if self.chosen[seq].kind == EntryKind.CONFIG:
                before = set(decode_configuration(self.chosen[seq].payload).voters)
                break
        after = set(decode_configuration(entry.payload).voters)
        if before and len(before ^ after) > 1:
            self.fail("I-11", f"{entry} changes {sorted(before)} to {sorted(after)}")

    def check_deeply(self, member: Observed) -> None:
        """The slow checks of the parts themselves."""
        running = member.running
        running.local.log.check()
        running.check()
