"""What can happen to the core. The runtime hands these to ``Replica.step``, one after another.

Everything that came in during one turn of the loop is stepped first; ``EndOfTurn`` then lets the
core act on it as a whole: one batch, one acknowledgement, one message per member.
"""

from __future__ import annotations

import msgspec

from clusterconsensus.consensus.messages import Action, Group, Message
from clusterconsensus.consensus.sessions import CloseSessions
from clusterconsensus.consensus.types import Configuration, Entry, Incarnation, Member, SnapshotId


class Received(msgspec.Struct, frozen=True, gc=False):
    """A message of a member of this cluster; the envelope was checked."""

    source: Incarnation
    message: Message


class Persisted(msgspec.Struct, frozen=True, gc=False):
    """Everything up to this ticket is durable."""

    ticket: int


class Loaded(msgspec.Struct, frozen=True, gc=False):
    """Answer to ``Load``: consecutive entries from ``first`` on, or none if they are gone."""

    purpose: Incarnation
    first: int
    entries: tuple[Entry, ...]


class Applied(msgspec.Struct, frozen=True, gc=False):
    """Everything up to ``seq`` is applied; ``checksum`` is the rolling checksum there (R9)."""

    seq: int
    checksum: int


class SnapshotTaken(msgspec.Struct, frozen=True, gc=False):
    """A snapshot of this member's own state is durable (S5). ``older_seq`` is what the newest
    snapshot before it covers, 0 if there is none: should this file be damaged, that one and the
    log behind it still hold everything. ``discard``: the log up to this snapshot is damaged and of
    no use any more (W8)."""

    snapshot: SnapshotId
    older_seq: int
    discard: bool = False


class SnapshotStored(msgspec.Struct, frozen=True, gc=False):
    """A snapshot that a master sent is durable, whole and checked (D7); what stands in its head."""

    snapshot: SnapshotId
    configuration_seq: int
    configuration: Configuration
    time: float


class ChunkStored(msgspec.Struct, frozen=True, gc=False):
    """A piece was kept, or was not the one that is wanted next: that one begins at
    ``next_offset``."""

    snapshot: SnapshotId
    next_offset: int


class ChunkLoaded(msgspec.Struct, frozen=True, gc=False):
    """Answer to ``LoadChunk``; without a ``chunk`` the file is gone or damaged."""

    to: Incarnation
    snapshot: SnapshotId
    offset: int
    chunk: bytes


class Disconnected(msgspec.Struct, frozen=True, gc=False):
    """The connection to a member broke: its process is probably gone (E13)."""

    source: Incarnation


class Tick(msgspec.Struct, frozen=True, gc=False):
    """Time has passed."""


class EndOfTurn(msgspec.Struct, frozen=True, gc=False):
    """No more events for now. ``wall_seconds`` is the wall clock, for replicated time (R10)."""

    wall_seconds: float


class SubmitLocal(msgspec.Struct, frozen=True, gc=False):
    """This member's own application submits a group."""

    attempt: int
    group: Group


class OpenSessionLocal(msgspec.Struct, frozen=True, gc=False):
    """This member's own application wants a session."""

    nonce: int


class CloseSessionsLocal(msgspec.Struct, frozen=True, gc=False):
    """The runtime found idle sessions in the table; a master proposes to close them (X2)."""

    order: CloseSessions


class ReadLocal(msgspec.Struct, frozen=True, gc=False):
    """This member's own application wants to read; one nonce may stand for many reads. ``lease``:
    the master's lease is proof enough (L2)."""

    nonce: int
    lease: bool = False


class ChangeMemberLocal(msgspec.Struct, frozen=True, gc=False):
    """This member's own application wants the membership changed, or the mastership handed over."""

    nonce: int
    action: Action
    member: Member
    priority: int = 1
    force: bool = False


class StartElection(msgspec.Struct, frozen=True, gc=False):
    """This member's own application wants it to stand for election now."""


class Bootstrap(msgspec.Struct, frozen=True, gc=False):
    """Found a new cluster of which this member is the only voter (I1)."""

    wall_seconds: float
    address: str
    initial: bytes | None


Event = (
    Received
    | Persisted
    | Loaded
    | Applied
    | SnapshotTaken
    | SnapshotStored
    | ChunkStored
    | ChunkLoaded
    | Disconnected
    | Tick
    | EndOfTurn
    | SubmitLocal
    | OpenSessionLocal
    | CloseSessionsLocal
    | ReadLocal
    | ChangeMemberLocal
    | StartElection
    | Bootstrap
)
"""Any event."""
