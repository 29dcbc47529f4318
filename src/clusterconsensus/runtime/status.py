"""What an operator asks first, and what an application is told."""

from __future__ import annotations

from typing import Any

import msgspec

from clusterconsensus.consensus.types import Ballot, Configuration, Member, Role, Seat


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """A snapshot of one participant, taken at one instant.

    ``master_seconds`` is how long ago the master was heard, None if never (0 on the master itself).
    ``dropped`` and ``transport`` count what was refused, by reason.
    """

    cluster: str
    cluster_id: str
    member: Member
    disk_id: str
    role: Role
    ballot: Ballot
    promised: Ballot
    master: Member | None
    master_seconds: float | None
    last_sequence: int
    durable_sequence: int
    commit_sequence: int
    applied_sequence: int
    checksum: int
    replicated_time: float
    members: tuple[Seat, ...]
    configuration_sequence: int
    configuration_committed: bool
    sessions: int
    pending_changes: int
    sync_seconds: float
    """How long the oldest unfinished sync has taken so far, 0 if none waits."""
    disk_full: bool
    diverged: bool
    log_cache_bytes: int
    first_sequence: int
    """The first sequence that is still in the log; what was before is in a snapshot."""
    snapshot_sequence: int
    """What the newest snapshot covers, 0 if there is none."""
    feature_level: int
    """What all members know, as far as this one can tell: see docs/operations.md."""
    recovering: bool
    """Whether this member has lost what it acknowledged, and has no vote until it is whole (W4)."""
    recovery_target_sequence: int
    """Up to where it must be whole, 0 while no master has said."""
    damage: tuple[str, ...]
    """What was found damaged since the start, and where; the oldest of many are left out."""
    holds_lease: bool
    staleness_seconds: float | None
    """Everything that was acknowledged anywhere up to this long ago is applied here; None where
    that is not known."""
    snapshots: dict[str, int]
    scrubbing: dict[str, int]
    followers: dict[str, int]
    """On a master: what each other member holds durably, by id."""
    dropped: dict[str, int]
    transport: dict[str, int]
    journal: dict[str, int]


class BecameMaster(msgspec.Struct, frozen=True):
    """This member leads, and its first own entry is committed."""

    ballot: Ballot


class LostMaster(msgspec.Struct, frozen=True):
    """This member leads no more."""

    reason: str


class MasterChanged(msgspec.Struct, frozen=True):
    """This member follows another master, or none."""

    master: Member | None


class MembershipChanged(msgspec.Struct, frozen=True):
    """Another configuration is in force; ``committed`` tells whether for good."""

    configuration: Configuration
    committed: bool


class CatchUp(msgspec.Struct, frozen=True):
    """Told on the master, at most once a second for each member that is to become a voter: how far
    that one is, and how far it would have to be now."""

    member: Member
    sequence: int
    target_sequence: int


class Removed(msgspec.Struct, frozen=True):
    """This member was removed from its cluster, for good. It changes and serves nothing any more;
    to come back it needs an empty directory."""


class SnapshotTaken(msgspec.Struct, frozen=True):
    """A snapshot of this member's state is durable."""

    sequence: int
    size_bytes: int
    path: str


class SnapshotInstalled(msgspec.Struct, frozen=True):
    """The state of this member was replaced by a snapshot of the master's, because the entries
    that it lacked are no longer in the log."""

    sequence: int


class Recovered(msgspec.Struct, frozen=True):
    """This member had lost what it had acknowledged; it is whole again and has its vote back."""

    sequence: int


class Trouble(msgspec.Struct, frozen=True):
    """Something an operator should look at. ``code`` is that of an error: ``disk_full``,
    ``damaged``, ``snapshot``, ``diverged``; or ``events_dropped``."""

    code: str
    detail: str


class Committed(msgspec.Struct, frozen=True):
    """An entry was applied here. Only for those who ask for it: ``events(commits=True)``.

    ``results`` holds an ``ApplyError`` in the place of each failed change.
    """

    sequence: int
    changes: list[Any]
    results: list[Any]


ParticipantEvent = (
    BecameMaster
    | LostMaster
    | MasterChanged
    | MembershipChanged
    | CatchUp
    | Removed
    | SnapshotTaken
    | SnapshotInstalled
    | Recovered
    | Trouble
    | Committed
)


class EventHandler:
    """What a participant calls in its event loop; override what you need. Must not block.

    An exception from ``on_become_master`` or ``on_lose_master`` closes the participant with it: an
    application that cannot take up its duties must not keep the mastership from others. One from
    ``on_commit`` does the same.
    """

    def on_become_master(self) -> None:
        """This member leads now."""

    def on_lose_master(self) -> None:
        """This member leads no more."""

    def on_commit(self, sequence: int, changes: list[Any], results: list[Any]) -> None:
        """The changes of one entry were applied here; ``results`` stand in the same order."""
