"""What the core may ask of the world. ``Replica.step`` returns these; it never acts itself.

Effects are performed in the order in which they are returned. None of them needs to wait for
another: whatever must be durable before it is said (the D-rules) the core holds back by itself
until ``Persisted`` tells it so.
"""

from __future__ import annotations

import msgspec

from clusterconsensus.consensus.messages import Message
from clusterconsensus.consensus.types import (
    Ballot,
    Entry,
    Incarnation,
    Member,
    Position,
    Role,
    SnapshotId,
)


class Persist(msgspec.Struct, frozen=True, gc=False):
    """Make this durable as one atomic unit, after all earlier ones, and report ``Persisted``.

    The parts take effect in this order: the promise is raised; the log is cut off from
    ``truncate_from`` on, or given up as a whole and begun anew behind ``base``, which a durable
    snapshot covers (S4); the entries (contiguous, ascending) are appended; ``recovering`` is noted
    (W4). ``commit`` is a hint for the next start: the highest sequence known to be chosen.
    """

    ticket: int
    promised: Ballot | None = None
    truncate_from: int | None = None
    entries: tuple[Entry, ...] = ()
    commit: int = 0
    base: Position | None = None
    recovering: bool | None = None


class Send(msgspec.Struct, frozen=True, gc=False):
    """Send a message to a member of which the core knows the incarnation."""

    to: tuple[Incarnation, ...]
    message: Message


class Contact(msgspec.Struct, frozen=True, gc=False):
    """Send a message to whoever answers at a member's address: its disk is not known yet (I2)."""

    to: Member
    message: Message


class Load(msgspec.Struct, frozen=True, gc=False):
    """Read entries that left the memory, from ``first`` up to at most ``last``, about ``max_bytes``
    of payload but at least one, and report ``Loaded`` with the same ``purpose``."""

    purpose: Incarnation
    first: int
    last: int
    max_bytes: int


class Apply(msgspec.Struct, frozen=True, gc=False):
    """Everything up to ``seq`` is chosen and durable here: apply it, in order, and report
    ``Applied``."""

    seq: int


class LoadChunk(msgspec.Struct, frozen=True, gc=False):
    """Read a piece of an own snapshot file for a member that is being caught up, and report
    ``ChunkLoaded``."""

    to: Incarnation
    snapshot: SnapshotId
    offset: int
    max_bytes: int


class StoreChunk(msgspec.Struct, frozen=True, gc=False):
    """Keep a piece of a snapshot that a master sends, and report ``ChunkStored`` with what is
    wanted next. When the last piece is there the whole file is checked, made durable and given its
    name (D7); then report ``SnapshotStored``. A piece of another snapshot drops what came of the
    one before."""

    snapshot: SnapshotId
    offset: int
    chunk: bytes


class Install(msgspec.Struct, frozen=True, gc=False):
    """Replace state and sessions by the snapshot that was stored, and report ``Applied`` with its
    sequence. Nothing is applied meanwhile."""

    snapshot: SnapshotId


class Compact(msgspec.Struct, frozen=True, gc=False):
    """The journal may forget the entries up to ``seq``. Snapshots other than the newest two and
    those in ``keep`` may go too (S6)."""

    seq: int
    keep: tuple[SnapshotId, ...] = ()


class ReadReady(msgspec.Struct, frozen=True, gc=False):
    """Local reads up to and including number ``nonce`` may be served once ``seq`` is applied."""

    nonce: int
    seq: int


class ReadRefused(msgspec.Struct, frozen=True, gc=False):
    """Local reads up to ``nonce`` could not be proven: this member does not lead (any more)."""

    nonce: int


class SubmitRefused(msgspec.Struct, frozen=True, gc=False):
    """A group submitted on this member was not appended; ``overloaded`` tells a full master from
    a member that does not lead."""

    attempt: int
    overloaded: bool


class MembershipDone(msgspec.Struct, frozen=True, gc=False):
    """A local membership request has ended: ``refusal`` is empty when it is achieved."""

    nonce: int
    refusal: str
    retryable: bool = False


class RoleChanged(msgspec.Struct, frozen=True, gc=False):
    """This member's role or its view of the master has changed. ``reason`` is for people."""

    role: Role
    ballot: Ballot
    master: Incarnation
    reason: str


class ConfigurationChanged(msgspec.Struct, frozen=True, gc=False):
    """The configuration in force has changed; ``committed`` tells whether for good."""

    seq: int
    committed: bool


class ElectionEnded(msgspec.Struct, frozen=True, gc=False):
    """An election that ``StartElection`` asked for has ended; ``refusal`` is empty if it won."""

    refusal: str


class FoundRegressed(msgspec.Struct, frozen=True, gc=False):
    """This member acknowledged up to ``seq``, and its disk knows nothing of it: it has no vote
    until it is whole again (W4)."""

    seq: int


class Recovered(msgspec.Struct, frozen=True, gc=False):
    """This member is whole again and has its vote back (W5)."""

    seq: int


class Diverged(msgspec.Struct, frozen=True, gc=False):
    """The master found that this member's state is not the majority's: stop serving it (R9)."""

    seq: int


class Halt(msgspec.Struct, frozen=True, gc=False):
    """Stop this participant for good, loudly. ``diverged``: its state is not the majority's."""

    reason: str
    diverged: bool = False


Effect = (
    Persist
    | Send
    | Contact
    | Load
    | Apply
    | LoadChunk
    | StoreChunk
    | Install
    | Compact
    | ReadReady
    | ReadRefused
    | SubmitRefused
    | MembershipDone
    | RoleChanged
    | ConfigurationChanged
    | ElectionEnded
    | FoundRegressed
    | Recovered
    | Diverged
    | Halt
)
