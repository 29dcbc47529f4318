"""Every message between members: who sends it, when, and what must be durable first.

A message is a frozen struct that msgspec encodes as a MessagePack array headed by a small number
(its tag). Tags and the order of fields are the wire format: new fields go to the end, with a
default. ``D1`` and the like are the rules of ``docs/protocol.md``.

The envelope around each message (cluster, source, destination) is not the core's business: by the
time a message gets here, its source is known.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from clusterconsensus.consensus.types import (
    NOWHERE,
    ZERO,
    Ballot,
    Entry,
    Position,
    SnapshotId,
)


class Refusal(IntEnum):
    """Why a probe, a prepare or an accept was refused."""

    NONE = 0
    LOWER = 1
    """A ballot at least as high is promised."""
    STICKY = 2
    """A master was heard lately."""
    NOT_MEMBER = 3
    """The committed configuration, newer than the asker's, has no seat for it."""
    GAP = 4
    """The entry before the first one sent is missing here, or is another one."""
    NOT_APPENDED = 5
    """Not the master, or not serving yet: nothing was done."""
    OVERLOADED = 6
    """The master's limit on staged entries is reached: nothing was done."""
    COMPACTED = 7
    """The asker would have to adopt entries that are no longer here (E2)."""
    RECOVERING = 8
    """Something that was acknowledged here is lost: no vote until it is whole again (W4)."""
    REMOVED = 9
    """The asker was removed from the cluster, for good (M8)."""
    LOST = 10
    """A gap, at a member that has lost what it acknowledged: only ``hint`` is to be believed."""


class Action(IntEnum):
    """What is asked for in a ``ChangeMember``."""

    ADD = 0
    """Be a voter, after catching up as a learner (M4)."""
    ADD_LEARNER = 1
    """Be a learner for good."""
    REMOVE = 2
    REPLACE = 3
    """Whoever answers at the address takes the place of the disk that had this id (I2)."""
    MOVE = 4
    """Be reached at another address (I5)."""
    PROMOTE = 5
    DEMOTE = 6
    PRIORITY = 7
    TRANSFER = 8
    """Lead (E11); an empty id leaves the choice to the master."""


class Group(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Consecutive requests of one session, as the submitting member encoded them, once.

    ``body`` holds ``count`` requests numbered from ``first``. The owner of the session has the
    outcome of every request below ``acked_below`` and will never ask for it again.
    """

    session: int
    acked_below: int
    first: int
    count: int
    body: bytes


class Probe(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Would-be candidate to all voters: would you promise this ballot? (E1)

    Changes nothing durable on either side. ``configuration_seq`` is that of the sender's newest
    committed configuration, ``base`` is its commit and ``last`` the end of its log.
    """

    ballot: Ballot
    configuration_seq: int
    base: int = 0
    last: Position = NOWHERE


class ProbeReply(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Answer to a probe, a pure function of the answerer's state (E2)."""

    ballot: Ballot
    refusal: Refusal
    promised: Ballot
    last: Position


class Prepare(msgspec.Struct, frozen=True, array_like=True, tag=3, gc=False):
    """Candidate to everyone it knows: promise this ballot and show your log behind ``base`` (E3).

    Durable first at the sender: its own promise of the ballot (D1). ``transfer_from`` is the ballot
    whose master asked the candidate to take over; for whoever follows that one, it does not count
    as a master that must not be disturbed (E11).
    """

    ballot: Ballot
    base: int
    last: Position
    transfer_from: Ballot = ZERO


class Promise(msgspec.Struct, frozen=True, array_like=True, tag=4, gc=False):
    """Answer to a prepare (E4). Durable first, when granted: the promise (D2).

    ``suffix`` holds entries from ``base + 1`` on, and only if the answerer's log is better than the
    candidate's; ``more`` says that the rest, or all of it, is to be pulled.
    """

    ballot: Ballot
    refusal: Refusal
    promised: Ballot
    last: Position
    suffix: tuple[Entry, ...] = ()
    more: bool = False


class PromisePull(msgspec.Struct, frozen=True, array_like=True, tag=5, gc=False):
    """Candidate to the member whose log it adopts: entries from ``first`` on, please (E5)."""

    ballot: Ballot
    first: int


class PromisePart(msgspec.Struct, frozen=True, array_like=True, tag=6, gc=False):
    """Answer to a pull, given only while this ballot is still the highest promised."""

    ballot: Ballot
    first: int
    entries: tuple[Entry, ...]
    more: bool


class Accept(msgspec.Struct, frozen=True, array_like=True, tag=7, gc=False):
    """Master to everyone in its configuration: append these behind ``previous`` (R1).

    Without entries it is the heartbeat (R7). ``commit`` is the master's commit sequence; ``round``
    numbers the master's broadcasts, so that an answer proves when the master was still followed.
    ``level`` is the feature level of the cluster, as far as the master knows it.
    """

    ballot: Ballot
    previous: Position
    entries: tuple[Entry, ...]
    commit: int
    round: int
    level: int = 1


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag=8, gc=False):
    """Follower to its master. Durable first: the promise of the ballot, and every entry up to
    ``match`` (D3).

    ``match`` is the end of what the master's messages of this ballot verified *and* the disk
    holds; a heartbeat is answered at once with whatever that is now. ``checksum`` is the rolling
    checksum of what was applied up to ``applied`` (R9). ``level`` is the sender's feature level.
    ``leases`` says that the sender keeps the rules of leases (L2); ``recovering`` that it has no
    vote to give now (W4).
    """

    ballot: Ballot
    match: int
    round: int
    applied: int
    checksum: int
    level: int = 1
    leases: bool = False
    recovering: bool = False


class Reject(msgspec.Struct, frozen=True, array_like=True, tag=9, gc=False):
    """Answer to an accept that was not taken (R1a, R1e).

    ``previous_seq`` is that of the refused message. On a gap ``hint`` is a sequence up to which the
    logs may agree.
    """

    ballot: Ballot
    refusal: Refusal
    promised: Ballot
    previous_seq: int
    hint: int
    round: int


class Submit(msgspec.Struct, frozen=True, array_like=True, tag=10, gc=False):
    """Any member to the master: append this group (X3).

    ``attempt`` grows with every sending of one running participant, so that a repeated message is
    recognised.
    """

    attempt: int
    group: Group


class SubmitReply(msgspec.Struct, frozen=True, array_like=True, tag=11, gc=False):
    """Master to the submitting member, after applying (D10), or a refusal at once.

    ``outcomes`` holds one encoded outcome per request, in order, from request ``offset`` of the
    group on; None where the session was not known. Large outcomes travel in several messages.
    """

    attempt: int
    refusal: Refusal
    outcomes: tuple[bytes | None, ...] = ()
    offset: int = 0


class OpenSession(msgspec.Struct, frozen=True, array_like=True, tag=12, gc=False):
    """Any member to the master: open a session for me (X1). Repeating it with the same nonce opens
    no second one; a new nonce replaces the owner's earlier session."""

    nonce: int


class SessionOpened(msgspec.Struct, frozen=True, array_like=True, tag=13, gc=False):
    """Master to the asker, once the session entry is applied."""

    nonce: int
    session: int


class ReadAsk(msgspec.Struct, frozen=True, array_like=True, tag=14, gc=False):
    """Follower to the master: up to where must I have applied to read everything that was
    acknowledged before now? (L3) ``lease``: the master's lease is proof enough (L2)."""

    nonce: int
    lease: bool = False


class ReadTell(msgspec.Struct, frozen=True, array_like=True, tag=15, gc=False):
    """Master to the follower, after a majority confirmed it in a round that began later than the
    question arrived (L1). Not ``granted``: this member does not lead."""

    nonce: int
    granted: bool
    seq: int


class AddMember(msgspec.Struct, frozen=True, array_like=True, tag=16, gc=False):
    """Any member to the master: make this one a voter (M4)."""

    nonce: int
    id: str
    address: str


class MembershipReply(msgspec.Struct, frozen=True, array_like=True, tag=17, gc=False):
    """Master to the asker: achieved (``refusal`` is empty) or refused, and why."""

    nonce: int
    refusal: str
    retryable: bool


class Identify(msgspec.Struct, frozen=True, array_like=True, tag=18, gc=False):
    """Master to an address: who are you? Sent before a member is added (I2)."""

    nonce: int


class Identity(msgspec.Struct, frozen=True, array_like=True, tag=19, gc=False):
    """Answer of the member at that address; ``cluster_id`` is empty while it belongs to none.

    Durable first: the identity itself (D9).
    """

    nonce: int
    cluster_id: str


class Quarantine(msgspec.Struct, frozen=True, array_like=True, tag=20, gc=False):
    """Master to a member whose checksum differs from the majority's at ``seq``: stop serving
    (R9)."""

    ballot: Ballot
    seq: int
    expected: int
    found: int


class StartParticipation(msgspec.Struct, frozen=True, array_like=True, tag=21, gc=False):
    """Master to a member that lacks entries which are no longer in the master's log: a piece of a
    snapshot file (S1, S2).

    ``offset`` is where ``chunk`` belongs in the file, ``crc`` its crc32. Never changes who the
    receiver is.
    """

    ballot: Ballot
    snapshot: SnapshotId
    offset: int
    chunk: bytes
    crc: int


class SnapshotAck(msgspec.Struct, frozen=True, array_like=True, tag=22, gc=False):
    """Answer to a piece. Durable first, when ``installed`` covers the snapshot: its file (D7).

    ``next_offset`` is what is wanted next; ``installed`` the receiver's commit: a snapshot at or
    below it is not needed (S3).
    """

    ballot: Ballot
    snapshot: SnapshotId
    next_offset: int
    installed: int


class RecoverAsk(msgspec.Struct, frozen=True, array_like=True, tag=23, gc=False):
    """Recovering member to its master: up to where must I be whole to have a vote again? (W5)

    The nonce is fresh in each run: an old answer would end the recovery too early.
    """

    nonce: int


class RecoverTell(msgspec.Struct, frozen=True, array_like=True, tag=24, gc=False):
    """Master, after its NOOP is committed, to the asker: up to ``last_seq``, in this ballot."""

    ballot: Ballot
    nonce: int
    last_seq: int


class TransferMaster(msgspec.Struct, frozen=True, array_like=True, tag=25, gc=False):
    """Master to the member that shall lead: you hold everything up to ``last_seq``, stand for
    election at once (E11)."""

    ballot: Ballot
    last_seq: int


class ChangeMember(msgspec.Struct, frozen=True, array_like=True, tag=26, gc=False):
    """Any member to the master: change the membership, or hand over.

    ``force`` waives the refusal of what leaves too few living voters (M9).
    """

    nonce: int
    action: Action
    id: str
    address: str = ""
    priority: int = 1
    force: bool = False


class JoinAsk(msgspec.Struct, frozen=True, array_like=True, tag=27, gc=False):
    """A member of no cluster to whoever answers at an address: have me added. Answered with a
    ``MembershipReply`` by the member asked, once its master has answered it."""

    nonce: int
    id: str
    address: str
    learner: bool = False
    priority: int = 1


class Regressed(msgspec.Struct, frozen=True, array_like=True, tag=28, gc=False):
    """Master to a member that acknowledged up to ``position`` in this ballot, and now says that it
    lacks what is before that: an old image of its disk was restored, or its disk lied (W5)."""

    ballot: Ballot
    position: Position


Message = (
    Probe
    | ProbeReply
    | Prepare
    | Promise
    | PromisePull
    | PromisePart
    | Accept
    | Accepted
    | Reject
    | Submit
    | SubmitReply
    | OpenSession
    | SessionOpened
    | ReadAsk
    | ReadTell
    | AddMember
    | MembershipReply
    | Identify
    | Identity
    | Quarantine
    | StartParticipation
    | SnapshotAck
    | RecoverAsk
    | RecoverTell
    | TransferMaster
    | ChangeMember
    | JoinAsk
    | Regressed
)
"""Any message."""
