"""The values the protocol speaks of: small, frozen, totally ordered, safe to share and to hash.

Nothing here does anything; everything else imports it.
"""

from __future__ import annotations

from enum import IntEnum, StrEnum
from typing import NewType
from zlib import crc32

import msgspec

Incarnation = NewType("Incarnation", str)
"""One life of a member: its operator-given id together with the id of its disk, as ``"id@disk"``.

The protocol knows members only by this (I0): a replaced disk under the same id is a different
member, so no ballot is ever used twice.
"""

NOBODY = Incarnation("")


def incarnation(member_id: str, disk_id: str) -> Incarnation:
    """Join a member's id (which holds no ``@``) and its disk's id."""
    return Incarnation(f"{member_id}@{disk_id}")


def member_id_of(name: Incarnation) -> str:
    """The operator-given id inside an incarnation: ``"a@4f1c"`` gives ``"a"``."""
    return name.partition("@")[0]


class Ballot(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """A numbered claim to be master, ordered by ``instance`` first and ``owner`` second.

    There is one master per ballot, ever (I-2): an owner never uses an instance twice, because its
    promise is durable before it asks anybody (D1).
    """

    instance: int
    owner: Incarnation

    def __str__(self) -> str:
        return f"{self.instance}:{member_id_of(self.owner)}" if self.owner else "0"


ZERO = Ballot(0, NOBODY)
"""Below every real ballot: what a member has promised before it heard of any."""


class Position(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """Where a log ends: compared by ballot first, sequence second, to find the best log (E5)."""

    ballot: Ballot
    seq: int

    def __str__(self) -> str:
        return f"{self.seq}@{self.ballot}"


NOWHERE = Position(ZERO, 0)
"""Before the first entry of any log."""


class SnapshotId(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Which snapshot file: everything up to ``position`` is in it, and nothing beyond.

    ``position`` is the last entry it covers, with the ballot of that very entry (S5, C-17).
    ``size_bytes`` and ``crc`` are those of the whole file, so that chunks of two files never mix.
    """

    position: Position
    size_bytes: int
    crc: int

    @property
    def seq(self) -> int:
        return self.position.seq

    def __str__(self) -> str:
        return f"{self.position} ({self.size_bytes} bytes)"


class EntryKind(IntEnum):
    """What a log entry holds. An unknown kind halts the member; it is never skipped (K4)."""

    NOOP = 0
    CHANGES = 1
    CONFIG = 2
    SESSION = 3


class Entry(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One slot of the log. ``(seq, ballot)`` identifies the value for ever.

    ``ballot`` is that of the master that *created* the entry. ``time`` is that master's clock in
    seconds since the Unix epoch, made monotone over the log (R10). ``crc`` covers all the rest.
    """

    seq: int
    ballot: Ballot
    kind: int
    time: float
    payload: bytes
    crc: int

    @staticmethod
    def make(seq: int, ballot: Ballot, kind: EntryKind, time: float, payload: bytes = b"") -> Entry:
        """Build an entry and its checksum."""
        return Entry(seq, ballot, int(kind), time, payload, _crc(seq, ballot, kind, time, payload))

    def intact(self) -> bool:
        """Whether the checksum still fits the content."""
        expected = _crc(self.seq, self.ballot, self.kind, self.time, self.payload)
        return self.crc == expected

    def __str__(self) -> str:
        known = self.kind in tuple(EntryKind)  # a defect elsewhere must not become one here
        kind = EntryKind(self.kind).name if known else f"of the unknown kind {self.kind}"
        return f"{self.seq}@{self.ballot} {kind}"


def _crc(seq: int, ballot: Ballot, kind: int, time: float, payload: bytes) -> int:
    head = f"{seq} {ballot.instance} {ballot.owner} {int(kind)} {time!r}".encode()
    return crc32(payload, crc32(head))


class Member(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """A member as an operator names it.

    Arguments:
        id: A short name of the operator's choice, unique in the cluster: ``"a"``, a pod's name.
            1 to 64 characters from letters, digits, ``.``, ``_`` and ``-``.
        address: Where the member is reached now, ``"host:port"`` for TCP. Not who it is (I5).
    """

    id: str
    address: str

    def __str__(self) -> str:
        return f"{self.id} ({self.address})"


class Standing(StrEnum):
    """What a member counts for in a configuration."""

    VOTER = "voter"
    LEARNER = "learner"
    """Receives everything, counts for nothing (M4); a learner that is ``promoting`` becomes a
    voter as soon as it has caught up."""


class Seat(msgspec.Struct, frozen=True, order=True, array_like=True, gc=False):
    """One member's place in a configuration (I2)."""

    id: str
    disk_id: str
    address: str
    standing: Standing
    promoting: bool = False
    priority: int = 1
    """Who should lead: among members that are up to date the highest one; 0 never stands."""

    @property
    def incarnation(self) -> Incarnation:
        return incarnation(self.id, self.disk_id)

    @property
    def member(self) -> Member:
        return Member(self.id, self.address)

    @property
    def is_voter(self) -> bool:
        return self.standing is Standing.VOTER


MAX_REMOVED = 1_024
"""Removed incarnations that a configuration remembers. Whoever was removed before all of these and
still has its disk keeps its promises too, so that forgetting it is no danger to the log."""


class Configuration(msgspec.Struct, frozen=True, array_like=True):
    """The complete membership, as one CONFIG entry holds it (M1).

    ``seats`` are sorted by incarnation. ``previous_seq`` is the sequence of the configuration it
    replaces (0 for the first). ``initial`` is the application state that ``init_master`` began
    with; only the first configuration has one. ``removed`` holds the incarnations that were
    removed lately, oldest first: none of them is added again (I3).
    """

    seats: tuple[Seat, ...] = ()
    previous_seq: int = 0
    initial: bytes | None = None
    removed: tuple[Incarnation, ...] = ()

    @property
    def voters(self) -> tuple[Incarnation, ...]:
        return tuple(seat.incarnation for seat in self.seats if seat.is_voter)

    @property
    def everyone(self) -> tuple[Incarnation, ...]:
        return tuple(seat.incarnation for seat in self.seats)

    def seat(self, name: Incarnation) -> Seat | None:
        """The seat of an incarnation, or None."""
        for seat in self.seats:
            if seat.incarnation == name:
                return seat
        return None

    def seat_of_id(self, member_id: str) -> Seat | None:
        """The seat that an operator's id holds now, whatever its disk, or None."""
        for seat in self.seats:
            if seat.id == member_id:
                return seat
        return None

    def with_seat(self, seat: Seat, own_seq: int) -> Configuration:
        """A successor in which ``seat`` replaces or joins; ``own_seq`` is this one's sequence."""
        others = [held for held in self.seats if held.incarnation != seat.incarnation]
        seats = tuple(sorted([*others, seat], key=lambda held: held.incarnation))
        return Configuration(seats, own_seq, None, self.removed)

    def without_seat(self, name: Incarnation, own_seq: int) -> Configuration:
        """A successor in which an incarnation has no seat, and never gets one again (I3)."""
        seats = tuple(held for held in self.seats if held.incarnation != name)
        removed = (*self.removed, name)[-MAX_REMOVED:]
        return Configuration(seats, own_seq, None, removed)


class Role(StrEnum):
    """What a member is doing now."""

    UNJOINED = "unjoined"
    """Belongs to no cluster yet: waits for a master to add it."""
    LEARNER = "learner"
    """Follows without a vote."""
    FOLLOWER = "follower"
    CANDIDATE = "candidate"
    """Probes, prepares or adopts."""
    PENDING_MASTER = "pending master"
    """Won its ballot; its first own entry is not committed yet (E8)."""
    MASTER = "master"
    REMOVED = "removed"
    """Was a member once, and is none any more, for good (M8)."""
