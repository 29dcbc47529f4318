"""The invariants, in the words and the order of the ghost that watches stories and schedules.

What one member does is looked at once, when its step is made; what needs the rest of the cluster
becomes an ``Observation``, which is checked wherever that step is taken. The numbers are those of
the protocol's list of invariants.

The ghost remembers everything that ever happened. Here only what is in the state is known: the
entries that are chosen and under which ballots (``Truth``), what each member has said (its moment),
and all disks. So entries that exist nowhere any more are compared with nobody (I-3).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import msgspec

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Message,
    Prepare,
    Probe,
    ProbeReply,
    Promise,
    Refusal,
)
from clusterconsensus.consensus.quorum import majority_size
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.types import (
    ZERO,
    Ballot,
    Entry,
    Incarnation,
    Position,
    Role,
    member_id_of,
)
from clusterconsensus.simulation.explorer.disks import Batch, Disk, Written

if TYPE_CHECKING:
    from clusterconsensus.simulation.explorer.moments import Moment


class BrokenRuleError(Exception):
    """An invariant does not hold."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.text = text


class Truth(msgspec.Struct, frozen=True):
    """What no member knows: which entries are chosen, and since which ballot."""

    chosen: tuple[tuple[Ballot, int], ...]
    """Ballot and checksum of each chosen entry, from sequence 1 on."""
    chosen_in: tuple[tuple[Ballot, int], ...]
    """Under which ballot the commit first reached which sequence, ascending by sequence."""

    def has(self, position: Position) -> bool:
        """Whether the entry at a position is the chosen one."""
        seq = position.seq
        return seq == 0 or (seq <= len(self.chosen) and self.chosen[seq - 1][0] == position.ballot)


class View:
    """The cluster right after a step of one member. Commits move its ``truth``."""

    def __init__(
        self, truth: Truth, members: Sequence[Moment], place: int, names: Sequence[Incarnation]
    ) -> None:
        self.truth = truth
        self.members = members
        self.place = place
        self.names = names

    @property
    def name(self) -> str:
        """The member that has just acted."""
        return member_id_of(self.names[self.place])


class Observation(msgspec.Struct, frozen=True):
    """Something to check against the whole cluster."""

    def check(self, view: View) -> None:
        """Raise ``BrokenRuleError`` if it may not be."""
        raise NotImplementedError


class Broken(Observation, frozen=True):
    """Already known to be wrong."""

    rule: str
    text: str

    def check(self, view: View) -> None:
        raise BrokenRuleError(self.rule, f"{view.name} {self.text}")


class Start(Observation, frozen=True):
    """A member started with this commit."""

    commit: int

    def check(self, view: View) -> None:
        if self.commit > len(view.truth.chosen):
            raise BrokenRuleError(
                "I-6", f"{view.name} starts with commit {self.commit}, not chosen"
            )


class Leads(Observation, frozen=True):
    """A member leads in a ballot, with a log of these ballots behind its base."""

    ballot: Ballot
    base: int
    ballots: tuple[Ballot, ...]

    def check(self, view: View) -> None:
        promised = sum(
            place == view.place or member.said >= self.ballot
            for place, member in enumerate(view.members)
        )
        if promised < majority_size(len(view.members)):
            text = f"{view.name} leads in {self.ballot}, promised by {promised} members"
            raise BrokenRuleError("E5", text)
        lower = [seq for ballot, seq in view.truth.chosen_in if ballot < self.ballot]
        if lower:
            seq = max(lower)
            chosen = view.truth.chosen[seq - 1][0]
            place = seq - self.base - 1
            if place >= len(self.ballots) or (place >= 0 and self.ballots[place] != chosen):
                text = f"{view.name} leads in {self.ballot} without {seq}@{chosen}"
                raise BrokenRuleError("I-4", text)


class Commits(Observation, frozen=True):
    """A member moved its commit over these entries."""

    before: int
    entries: tuple[tuple[Ballot, int], ...]
    own: bool
    """Whether it leads in the ballot of the last one."""

    def check(self, view: View) -> None:
        truth = view.truth
        known = len(truth.chosen)
        for seq, entry in enumerate(self.entries, self.before + 1):
            if seq <= known and truth.chosen[seq - 1] != entry:
                text = f"{view.name} commits {seq}@{entry[0]}, chosen is {truth.chosen[seq - 1][0]}"
                raise BrokenRuleError("I-1", text)
        commit = self.before + len(self.entries)
        if commit <= known:
            return
        ballot = self.entries[-1][0]
        if not self.own:
            text = f"{view.name} commits {commit} by {ballot} without leading in it"
            raise BrokenRuleError("I-10", text)
        holders = sum(member.disk.holds(commit, ballot) for member in view.members)
        if holders < majority_size(len(view.members)):
            text = f"{view.name} commits {commit}, durable only at {holders} members"
            raise BrokenRuleError("I-10", text)
        view.truth = Truth(
            truth.chosen + self.entries[known - self.before :],
            (*truth.chosen_in, (ballot, commit)),
        )


class Begins(Observation, frozen=True):
    """A member's log begins behind this entry from now on; ``rule`` if it is not chosen."""

    rule: str
    base: Position

    def check(self, view: View) -> None:
        if not view.truth.has(self.base):
            text = f"{view.name} begins its log behind {self.base}, which is not chosen"
            raise BrokenRuleError(self.rule, text)


class Recovers(Observation, frozen=True):
    """A member that had this log wants its vote back, and has that one (W5)."""

    lost: Written
    has: Written

    def check(self, view: View) -> None:
        for seq in range(self.has.base.seq + 1, self.lost.last_seq + 1):
            ballot = self.lost.ballot_at(seq)
            if ballot is None or not view.truth.has(Position(ballot, seq)):
                continue
            if self.has.ballot_at(seq) != ballot:
                text = f"{view.name} has its vote again, and lost {seq}@{ballot}"
                raise BrokenRuleError("W5", text)


class Cuts(Observation, frozen=True):
    """A member cuts its log off from this entry on."""

    seq: int
    ballot: Ballot

    def check(self, view: View) -> None:
        chosen = view.truth.chosen
        if self.seq <= len(chosen) and chosen[self.seq - 1][0] == self.ballot:
            text = f"{view.name} cuts the chosen entry {self.seq}@{self.ballot}"
            raise BrokenRuleError("I-4", text)


class Writes(Observation, frozen=True):
    """A member writes an entry behind another one of this ballot."""

    entry: Entry
    before: Ballot

    def check(self, view: View) -> None:
        entry = self.entry
        for place, member in enumerate(view.members):
            theirs = member.log.entry(entry.seq)
            if place == view.place or theirs is None:
                continue
            if theirs.ballot == entry.ballot and (
                theirs.crc != entry.crc or member.log.ballot_at(entry.seq - 1) != self.before
            ):
                other = member_id_of(view.names[place])
                raise BrokenRuleError("I-3", f"{view.name} holds another {entry} than {other}")


class Claims(Observation, frozen=True):
    """A member tells its master that their logs are equal up to ``match``."""

    ballot: Ballot
    match: int
    held: Ballot | None

    def check(self, view: View) -> None:
        for master, name in zip(view.members, view.names, strict=True):
            if name != self.ballot.owner or not master.leads or master.ballot != self.ballot:
                continue
            if self.match < master.log.base.seq:
                continue  # chosen, and its ballot is not known any more
            if master.log.ballot_at(self.match) != self.held:
                other = member_id_of(name)
                text = f"{view.name} claims to match {other} at {self.match}"
                raise BrokenRuleError("I-8", text)


def broken(rule: str, text: str) -> Observation:
    """An observation that never holds."""
    return Broken(rule, text)


def start(commit: int, promised: Ballot, said: Ballot) -> Observation:
    """A member starts; ``said`` is the highest ballot that it acted in before."""
    if promised < said:
        return Broken("I-5", f"forgot its promise {said}")
    return Start(commit)


def turn(replica: Replica, promised: Ballot, commit: int, role: Role) -> list[Observation]:
    """What a turn changed, given what was before it."""
    local = replica.local
    log = local.log
    found: list[Observation] = []
    if local.promised < promised:
        found.append(Broken("I-5", f"lowers its promise to {local.promised}"))
    if local.role is not role and local.leads:
        ballot = replica.master.ballot
        if ballot.owner != local.name:
            found.append(Broken("I-2", f"leads in a foreign ballot {ballot}"))
        first = log.base.seq + 1
        ballots = tuple(log.position(seq).ballot for seq in range(first, log.last_seq + 1))
        found.append(Leads(ballot, log.base.seq, ballots))
    if local.commit < commit:
        found.append(Broken("I-6", f"takes back its commit {commit}"))
    if log.base.seq > commit:
        found.append(Begins("S5", log.base))  # a snapshot was installed
        commit = log.base.seq
    if local.commit > commit:
        entries = tuple(log.entry(seq) for seq in range(commit + 1, local.commit + 1))
        own = local.leads and entries[-1].ballot == replica.master.ballot
        pairs = tuple((entry.ballot, entry.crc) for entry in entries)
        found.append(Commits(commit, pairs, own))
    return found


def forgets(replica: Replica, disk: Disk) -> list[Observation]:
    """Where a member's log begins after a turn (S6), and on which snapshot it counts (D7)."""
    local = replica.local
    base = local.log.base
    found: list[Observation] = []
    if base.seq > disk.snapshot_seq:
        found.append(Broken("S6", f"forgets {base}, which no snapshot of it covers"))
    if local.snapshot is not None and local.snapshot.seq > disk.snapshot_seq:
        found.append(Broken("D7", f"counts on {local.snapshot}, which is not durable"))
    if base.seq > disk.log.base.seq:
        found.append(Begins("S6", base))
    return found


def persist(batch: Persist, log: Written, commit: int, disk: Disk) -> list[Observation]:
    """What a batch does to a log; ``commit`` is that of before the turn."""
    found: list[Observation] = []
    cut = batch.truncate_from
    if cut is not None:
        if cut <= commit:
            found.append(Broken("I-7", f"cuts {cut}, committed up to {commit}"))
        ballot = log.ballot_at(cut)
        if ballot is not None:
            found.append(Cuts(cut, ballot))
    base = batch.base
    if base is not None:
        if base.seq <= commit:
            found.append(Broken("S3", f"begins anew behind {base}, committed {commit}"))
        if base.seq > disk.snapshot_seq:
            found.append(Broken("S4", f"begins anew behind {base} without a snapshot"))
        for entry in log.entries[max(0, base.seq - log.base.seq) :]:
            found.append(Cuts(entry.seq, entry.ballot))
    after = log.with_batch(Batch.of(batch))
    seq = after.last_seq - len(batch.entries)
    before = after.ballot_at(seq) or ZERO
    for entry in batch.entries:
        seq += 1
        if entry.seq != seq:
            found.append(Broken("I-9", f"writes {entry} behind {seq - 1}"))
            break
        found.append(Writes(entry, before))
        before = entry.ballot
    if batch.recovering is False and disk.lost is not None:
        found.append(Recovers(disk.lost, after))
    return found


def acts_in(message: Message) -> Ballot:
    """The ballot whose promise the sender of a message shows to have given, ``ZERO`` for none."""
    if isinstance(message, Prepare | Accepted):
        return message.ballot
    if isinstance(message, Promise) and message.refusal is Refusal.NONE:
        return message.ballot
    return ZERO


def _votes(message: Message) -> bool:
    """Whether the sender of a message stands, or lets somebody else lead."""
    if isinstance(message, ProbeReply | Promise):
        return message.refusal is Refusal.NONE
    return isinstance(message, Probe | Prepare)


def send(message: Message, disk: Disk, said: Ballot) -> list[Observation]:
    """What is said, given what is durable and what was said before."""
    promised, log = disk.promised, disk.log
    if disk.lost is not None and _votes(message):
        kind = type(message).__name__
        return [Broken("I-19", f"sends a {kind} while it is recovering")]
    if isinstance(message, Accept):
        if log.ballot_at(log.last_seq) != message.ballot:
            return [Broken("D6", f"sends accepts in {message.ballot}, its NOOP is not durable")]
        return []
    ballot = acts_in(message)
    if ballot == ZERO:
        return []
    if promised < ballot:
        rule = {Prepare: "D1", Promise: "D2"}.get(type(message), "D3")
        return [Broken(rule, f"acts in {ballot}, durable is {promised}")]
    if ballot < said:
        return [Broken("I-5", f"acts in {ballot} after {said}")]
    if not isinstance(message, Accepted) or not message.match:
        return []
    match = message.match
    if match <= disk.snapshot_seq and match > log.last_seq:
        return []  # all of it is in the snapshot, which is chosen
    if match > log.last_seq:
        return [Broken("D3", f"claims {match}, durable are {log.last_seq}")]
    held = log.ballot_at(match)
    return [] if held is None else [Claims(ballot, match, held)]
