"""What the ghost remembers of a cluster: every entry, every promise, what is chosen, who was told.

It also judges what is seen outside of the cores: what state machines do, what clients are told, and
who believes to have a lease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NoReturn

from clusterconsensus.consensus.types import (
    ZERO,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    Position,
    Role,
)
from clusterconsensus.simulation.judges.observed import (
    BrokenError,
    Observed,
    Seen,
    Voters,
    decode_configuration,
)


class Truth:
    """Everything that has happened to one cluster.

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
        self.configurations: list[tuple[int, Configuration]] = []
        """Every chosen configuration, ascending by sequence."""
        self.removed: dict[Incarnation, tuple[int, Ballot]] = {}
        """Who was removed, by which entry, and the ballot in which that was chosen."""
        self.checksums: dict[int, int] = {}
        self.executed: dict[tuple[int, int], int] = {}
        """Where each request of a session took effect."""
        self.never: set[tuple[int, int]] = set()
        """Requests that a client was told are not applied and never will be."""
        self.floor = 0
        """Everything up to here was acknowledged to some client, or read by one."""
        self.promises: dict[Incarnation, Ballot] = {}
        """The highest ballot that each member has acted in."""
        self.granted: dict[Ballot, set[Incarnation]] = {}
        """Who promised a ballot to its candidate."""
        self.acknowledged: dict[Incarnation, dict[Ballot, Position]] = {}
        """The furthest that each member ever acknowledged in each ballot (W5)."""
        self._accepting: set[Ballot] = set()
        """Ballots in which an accept has left."""
        self._leases: dict[Incarnation, float] = {}

    def found(self, entry: Entry) -> None:
        """A cluster begins with this entry, chosen."""
        self.chosen[entry.seq] = entry
        before = ZERO if entry.seq == 1 else self.chosen[entry.seq - 1].ballot
        self.entries[(entry.seq, entry.ballot)] = (entry.crc, before)
        self.chosen_in.append((entry.ballot, entry.seq))
        if entry.kind == EntryKind.CONFIG:
            self.configurations.append((entry.seq, decode_configuration(entry.payload)))

    def fail(self, rule: str, text: str) -> NoReturn:
        """A rule does not hold.

        Raises:
            BrokenError: always.
        """
        raise BrokenError(rule, text)

    def is_chosen(self, position: Position) -> bool:
        """Whether the entry at a position is the chosen one; the beginning of all logs is."""
        if not position.seq:
            return True
        chosen = self.chosen.get(position.seq)
        return chosen is not None and chosen.ballot == position.ballot

    def _chosen_voters(self, seq: int) -> Voters:
        for at, configuration in reversed(self.configurations):
            if at <= seq:
                return at, configuration.voters
        return 0, ()

    def holders(self, voters: Sequence[Incarnation], seq: int, ballot: Ballot) -> list[Incarnation]:
        """The voters on whose disks an entry is durable, in the log or in a snapshot; and those
        that had it and lost it: they have no vote until they have it again (W4)."""
        members = self._members
        return [
            name
            for name in voters
            if name in members
            and (self._holds(members[name], seq, ballot) or self._had(members[name], seq, ballot))
        ]

    def _had(self, member: Observed, seq: int, ballot: Ballot) -> bool:
        said = self.acknowledged.get(member.name, {}).get(ballot)
        return member.recovering and said is not None and said.seq >= seq

    def _holds(self, member: Observed, seq: int, ballot: Ballot) -> bool:
        if seq <= member.durable_snapshot and self.is_chosen(Position(ballot, seq)):
            return True
        return member.durable_ballot(seq) == ballot

    # -- what is applied

    def on_executed(self, seq: int, session: int, number: int, text: str) -> None:
        """A request has taken effect on some member."""
        if self.executed.setdefault((session, number), seq) != seq:
            self.fail("I-15", f"{text} took effect at {seq} and before")
        if (session, number) in self.never:
            self.fail("X4", f"{text} took effect at {seq}, but was told to be not applied")

    def on_applied(self, member: Observed, seq: int, checksum: int) -> None:
        """A member has applied up to a sequence, or has installed a snapshot of it (I-14)."""
        if self.checksums.setdefault(seq, checksum) != checksum:
            self.fail("I-13", f"{member} has another checksum at {seq}")

    def on_acknowledged(self, seq: int) -> None:
        """A client got the outcome of what is at ``seq``, or has read it (I-17)."""
        if seq not in self.chosen:
            self.fail("I-17", f"{seq} is acknowledged and not chosen")
        self.floor = max(self.floor, seq)

    def on_lease(self, member: Observed, now: float, until: float) -> None:
        """What a member that runs believes of its lease, after a turn of it and whenever its clock
        is moved.

        Arguments:
            now: True time, in seconds.
            until: True time at which the lease ends, as the member's clock runs at present; not
                above ``now`` if it has none.
        """
        if until <= now:
            self._leases.pop(member.name, None)
            if member.local.role is not Role.MASTER:
                return
        for name, end in self._leases.items():
            other = self._members[name]
            if name == member.name or end <= now or not other.is_up:
                continue
            if until <= now and member.running.master.ballot < other.running.master.ballot:
                continue  # deposed and without a lease: it asks first, and gets no answer
            self.fail("I-18", f"{member} serves while {other} has a lease")
        if until > now:
            self._leases[member.name] = until
