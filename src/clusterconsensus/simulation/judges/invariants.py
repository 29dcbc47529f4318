"""What no member knows: the whole truth about a simulated cluster, and the invariants over it.

``Ghost`` is told every durable unit, every message, every turn and everything that is applied, of
all members, and raises ``BrokenError`` at the first of them after which an invariant does not hold.
The numbers are those of section 12 of ``docs/protocol.md``; another rule is named where that one is
broken before any invariant is.

Reading order: ``observed`` (a member from outside), ``truth`` (what is remembered), ``speech``
(what may be said), and here what may be written and done.

The ghost believes no member about its own disk: what is durable is read off the simulated disk
(``Observed``), and what was written is what the core asked to be written.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from clusterconsensus.consensus.effects import Effect, Persist
from clusterconsensus.consensus.quorum import majority_size
from clusterconsensus.consensus.types import (
    MAX_REMOVED,
    ZERO,
    Ballot,
    Entry,
    EntryKind,
    Incarnation,
    Position,
)
from clusterconsensus.simulation.judges.observed import (
    BrokenError,
    Observed,
    Seen,
    decode_configuration,
    rule_of,
)
from clusterconsensus.simulation.judges.speech import Speech

__all__ = ["BrokenError", "Ghost", "Observed", "Seen", "decode_configuration", "rule_of"]


class Ghost(Speech):
    """Checks one cluster.

    Arguments:
        members: The cluster's own table of members, by incarnation; may grow.
    """

    # -- effects

    def on_persist(self, member: Observed, batch: Persist) -> None:
        """The core asks for a durable unit."""
        seen = self._seen[member.name]
        cut = batch.truncate_from
        if cut is not None:
            if cut <= seen.commit_before or cut <= seen.base.seq:
                self.fail("I-7", f"{member} cuts {cut}, committed up to {member.local.commit}")
            if cut <= seen.last_seq and self.is_chosen(Position(seen.ballot_at(cut), cut)):
                self.fail("I-4", f"{member} cuts the chosen entry {self.chosen[cut]}")
            del seen.written[cut - seen.base.seq - 1 :]
            seen.cuts.append((batch.ticket, cut))
        if batch.base is not None:
            self._on_new_base(member, seen, batch.base)
        for entry in batch.entries:
            if entry.seq != seen.last_seq + 1:
                self.fail("I-9", f"{member} writes {entry} behind {seen.last_seq}")
            before = seen.ballot_at(entry.seq - 1)
            found = self.entries.setdefault((entry.seq, entry.ballot), (entry.crc, before))
            if found != (entry.crc, before):
                self.fail("I-3", f"{member} holds another {entry}: {found}, {before}")
            if entry.kind == EntryKind.CONFIG and entry.ballot.owner == member.name:
                self._on_new_configuration(member, entry)
            seen.written.append(entry.ballot)
        if batch.recovering is False:
            seen.leaves_recovery = True
            self._on_recovered(member)

    def _on_new_base(self, member: Observed, seen: Seen, base: Position) -> None:
        """The log gives way to a snapshot (S3, S4)."""
        if base.seq <= seen.commit_before:
            self.fail("S3", f"{member} begins anew behind {base}, committed {seen.commit_before}")
        if not self.is_chosen(base):
            self.fail("S5", f"{member} begins anew behind {base}, which is not chosen")
        if member.durable_snapshot < base.seq:
            self.fail("S4", f"{member} begins anew behind {base} without a durable snapshot")
        for seq in range(base.seq + 1, seen.last_seq + 1):
            if self.is_chosen(Position(seen.ballot_at(seq), seq)):
                self.fail("I-4", f"{member} gives up the chosen entry {self.chosen[seq]}")
        seen.base = base
        seen.written.clear()

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

    def _on_recovered(self, member: Observed) -> None:
        """It wants its vote: it must hold everything chosen that it ever said it holds (W5)."""
        for last in self.acknowledged.get(member.name, {}).values():
            seq, ballot = last.seq, last.ballot
            while seq and not self.is_chosen(Position(ballot, seq)):
                found = self.entries.get((seq, ballot))
                seq, ballot = (seq - 1, found[1]) if found is not None else (0, ZERO)
            if seq and not self._holds(member, seq, ballot):
                self.fail("W5", f"{member} has its vote again, and lost {seq}@{ballot}")

    # -- turns

    def on_start(self, member: Observed) -> None:
        """A member has opened its disk and is about to take part."""
        local = member.local
        earlier = self._seen.get(member.name)
        self._seen[member.name] = Seen(member)
        self._leases.pop(member.name, None)
        promised = max(self.promises.get(member.name, ZERO), member.durable_promise)
        if local.promised < promised:
            self.fail("I-5", f"{member} forgot its promise {promised}")
        if local.commit and local.commit not in self.chosen:
            self.fail("I-6", f"{member} starts with commit {local.commit}, not chosen")
        if local.commit < member.durable_snapshot:
            self.fail("I-6", f"{member} starts before its snapshot {member.durable_snapshot}")
        base = local.log.base
        if base.seq > member.durable_snapshot or not self.is_chosen(base):
            self.fail("S6", f"{member} starts behind {base}, snapshot {member.durable_snapshot}")
        if local.recovering:
            return  # it knows that it lost something
        if member.recovering and not (earlier is not None and earlier.leaves_recovery):
            self.fail("I-19", f"{member} forgot that it is recovering")
        self._check_kept(member, earlier)

    def _check_kept(self, member: Observed, earlier: Seen | None) -> None:
        """Whatever was durable is there, or is in a snapshot (I-21)."""
        log = member.local.log
        base = log.base
        # An opening that finds a snapshot which the log does not lead to begins behind it (S4):
        # what the log held behind that belongs to another one.
        switched = base.seq > 0 and member.durable_ballot(base.seq) not in (None, base.ballot, ZERO)
        # A cut that was written and not synced may have survived the crash.
        cut = min((seq for _, seq in earlier.cuts), default=None) if earlier else None
        if switched:
            cut = base.seq + 1 if cut is None else min(cut, base.seq + 1)
        first = max(base.seq, member.durable_base.seq) + 1
        for seq in range(first, member.durable_last + 1):
            ballot = member.durable_ballot(seq)
            if log.ballot_at(seq) != ballot:
                chosen = self.chosen.get(seq)
                if cut is None or seq < cut or (chosen is not None and chosen.ballot == ballot):
                    self.fail("I-21", f"{member} starts without {seq}, which its disk held durably")

    def on_turn(self, member: Observed, effects: Sequence[Effect]) -> None:
        """A member's turn has ended; its effects are not performed yet."""
        local = member.local
        seen = self._seen[member.name]
        for effect in effects:
            if isinstance(effect, Persist):
                seen.follow(effect, self._chosen_voters)
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
        if local.snapshot is not seen.snapshot:
            self._on_snapshot(member, seen)
        if local.log.base is not seen.log_base:
            seen.log_base = local.log.base
            if seen.log_base.seq > member.durable_snapshot or not self.is_chosen(seen.log_base):
                self.fail("S6", f"{member} forgets {seen.log_base}, which no snapshot of it covers")
        seen.commit_before = seen.commit
        if local.commit != seen.commit:
            if local.commit < seen.commit:
                self.fail("I-6", f"{member} takes back its commit {seen.commit}")
            self._on_commit(member, seen.commit, local.commit)
            seen.commit = local.commit

    def _on_snapshot(self, member: Observed, seen: Seen) -> None:
        snapshot, before = member.local.snapshot, seen.snapshot
        if snapshot is None:
            return  # its file turned out to be damaged when it was read for somebody
        seen.snapshot = snapshot
        if before is not None and snapshot.seq < before.seq:
            self.fail("I-6", f"{member} goes back from the snapshot of {before} to {snapshot}")
        if not self.is_chosen(snapshot.position):
            self.fail("S5", f"{member} has a snapshot of {snapshot}, which is not chosen")
        if snapshot.seq > member.durable_snapshot:
            self.fail("D7", f"{member} counts on a snapshot of {snapshot}, which is not durable")

    def _on_master(self, member: Observed) -> None:
        ballot = member.running.master.ballot
        if self.masters.setdefault(ballot, member.name) != member.name:
            self.fail("I-2", f"{member} and {self.masters[ballot]} lead in {ballot}")
        if ballot.owner != member.name:
            self.fail("I-2", f"{member} leads in a foreign ballot {ballot}")
        if member.recovering:
            self.fail("I-19", f"{member} leads in {ballot} while it is recovering")
        voters = self._seen[member.name].voters_in_force
        granted = self.granted.get(ballot, set()) | {member.name}
        promised = [name for name in voters if name in granted and not self._is_gone(name, ballot)]
        if len(promised) < majority_size(len(voters)):
            self.fail("E5", f"{member} leads in {ballot}, promised by {promised} of {voters}")
        log = member.local.log
        lower = max((seq for chosen_in, seq in self.chosen_in if chosen_in < ballot), default=0)
        if lower > log.base.seq and log.ballot_at(lower) != self.chosen[lower].ballot:
            self.fail("I-4", f"{member} leads in {ballot} without {self.chosen[lower]}")

    def _is_gone(self, name: Incarnation, ballot: Ballot) -> bool:
        """Whether somebody was removed in a lower ballot: its promise counts for nobody (I-20)."""
        gone = self.removed.get(name)
        return gone is not None and gone[1] < ballot

    def _on_commit(self, member: Observed, before: int, commit: int) -> None:
        local = member.local
        log = local.log
        ballot = log.ballot_at(commit)
        if log.base.seq > before and not self.is_chosen(log.base):
            self.fail("S5", f"{member} installs a snapshot of {log.base}, which is not chosen")
        for seq in range(max(before, log.base.seq) + 1, commit + 1):
            chosen = self.chosen.get(seq)
            if chosen is None:
                entry = self._entry(member, seq)
                self.chosen[seq] = entry
                self.on_chosen(entry)
                if entry.kind == EntryKind.CONFIG:
                    self._on_configuration(entry, ballot or ZERO)
            else:
                entry = log.entry(seq) if log.is_cached(seq) else chosen
                if chosen is not entry and (
                    chosen.ballot != log.ballot_at(seq) or chosen.crc != entry.crc
                ):
                    self.fail("I-1", f"{member} commits {entry}, chosen is {chosen}")
        if self.chosen_in and commit <= self.chosen_in[-1][1]:
            return
        if not local.leads or ballot is None or ballot != member.running.master.ballot:
            self.fail("I-10", f"{member} commits {commit} by {ballot} without leading in it")
        self.chosen_in.append((ballot, commit))
        voters = self._seen[member.name].voters_in_force  # not what it says of itself (M5)
        if len(set(voters)) != len(voters):
            self.fail("I-12", f"a voter counts twice in {voters}")
        holders = self.holders(voters, commit, ballot)
        if len(holders) < majority_size(len(voters)):
            self.fail("I-10", f"{member} commits {commit}, durable only at {holders} of {voters}")

    def on_chosen(self, entry: Entry) -> None:
        """An entry is chosen, for the first time anywhere; in order of sequence. For subclasses."""

    def _entry(self, member: Observed, seq: int) -> Entry:
        log = member.local.log
        return log.entry(seq) if log.is_cached(seq) else member.durable_entry(seq)

    def _on_configuration(self, entry: Entry, ballot: Ballot) -> None:
        after = decode_configuration(entry.payload)
        if self.configurations:
            before = self.configurations[-1][1]
            changed = set(before.voters) ^ set(after.voters)
            if before.voters and len(changed) > 1:
                self.fail("I-11", f"{entry} changes {before.voters} to {after.voters}")
            gone = [*before.removed, *sorted(set(before.everyone) - set(after.everyone))]
            if list(after.removed) != gone[-MAX_REMOVED:]:
                self.fail("I-20", f"{entry} remembers {after.removed}, removed were {gone}")
            for name in gone:
                self.removed.setdefault(name, (entry.seq, ballot))
        back = sorted(self.removed.keys() & set(after.everyone))
        if back:
            self.fail("I-20", f"{entry} brings back {back}")
        self.configurations.append((entry.seq, after))

    def check_deeply(self, member: Observed) -> None:
        """The slow checks of the parts themselves."""
        running = member.running
        running.local.log.check()
        running.check()
