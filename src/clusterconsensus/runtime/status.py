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


class Trouble(msgspec.Struct, frozen=True):
    """Something an operator should look at: a full disk, a diverged state machine."""

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
    BecameMaster | LostMaster | MasterChanged | MembershipChanged | Trouble | Committed
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
