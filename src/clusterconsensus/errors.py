"""Every error that this library raises on purpose.

::

    ConsensusError
    ├── NotAppliedError            the change did not happen and never will: safe to try again
    │   ├── NoMasterError          nobody leads within the time given
    │   ├── OverloadedError        a limit on waiting work is reached
    │   ├── ParticipantClosedError this participant is closed, or never started
    │   └── RemovedError           this member was removed from its cluster
    ├── OutcomeUnknownError        it may have happened, or may yet
    │   └── SessionExpiredError    and asking again can no longer tell
    ├── InvalidChangeError         cannot be encoded, or is larger than a limit; nothing was sent
    ├── ApplyError                 the state machine's own answer was an exception
    ├── ReadFailedError            a read could not be proven current in time; reads change nothing
    │   └── NotReadyError          this member has not heard from a master yet
    ├── ElectionError              this member did not become master
    ├── MembershipError            a membership change is refused
    │   └── MembershipPendingError it was not achieved in time, and may still be
    ├── SettingsError              settings that contradict themselves
    ├── SnapshotError              a snapshot cannot be taken, read or installed
    ├── StorageError               the directory or the disk
    │   ├── DirectoryInUseError    another process holds the directory
    │   ├── DirectoryNotEmptyError a new cluster was asked for where one exists
    │   ├── WrongDirectoryError    the directory belongs to another member or cluster
    │   ├── DiskFullError          no space was left before anything was written
    │   ├── DamagedError           acknowledged data is damaged
    │   └── StoragePoisonedError   a write or sync failed; the participant has stopped for good
    ├── TransportError             an address cannot be listened on
    └── BrokenInvariantError       a defect or a divergence: the participant has stopped
        └── DivergedError          this member's state differs from the majority's

Three attributes tell a caller what to do without looking at the class: ``code`` is a short stable
name for logs and metrics; ``retryable`` says whether trying the same call again may help; and
``outcome`` says what is known of the change.
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar


class Outcome(StrEnum):
    """What is known of a change when a call ends in an error."""

    NOT_APPLIED = "not applied"
    """It was not applied and never will be. Safe to try again."""
    UNKNOWN = "unknown"
    """It may have been applied, or may yet be."""
    APPLIED = "applied"
    """It was applied; the state machine answered with an error."""


class ConsensusError(Exception):
    """The root of the tree. ``str(error)`` is one sentence that names the input."""

    code: ClassVar[str] = "consensus"
    retryable: ClassVar[bool] = False
    outcome: ClassVar[Outcome] = Outcome.NOT_APPLIED


class NotAppliedError(ConsensusError):
    """The change did not happen and never will."""

    code = "not_applied"
    retryable = True


class NoMasterError(NotAppliedError):
    """No master was found within the time given."""

    code = "no_master"


class OverloadedError(NotAppliedError):
    """A limit on waiting work is reached; the message names the limit and its setting."""

    code = "overloaded"


class ParticipantClosedError(NotAppliedError):
    """The participant is closed or was never started. The message says why."""

    code = "closed"
    retryable = False


class RemovedError(NotAppliedError):
    """This member was removed from its cluster, for good. To come back it needs an empty directory
    and must be added again."""

    code = "removed"
    retryable = False


class OutcomeUnknownError(ConsensusError):
    """The change may have been applied, or may yet be.

    ``request`` identifies it: ``Participant.retry(error)`` asks for its outcome again inside the
    same session and cannot apply it twice.
    """

    code = "unknown"
    retryable = True
    outcome = Outcome.UNKNOWN

    def __init__(self, message: str, request: int | None = None) -> None:
        super().__init__(message)
        self.request = request


class SessionExpiredError(OutcomeUnknownError):
    """The session of the change has expired, so whether it was applied can no longer be told."""

    code = "session_expired"
    retryable = False


class InvalidChangeError(ConsensusError):
    """A change that cannot be encoded or is larger than a limit. Nothing was written or sent."""

    code = "invalid_change"


class ApplyError(ConsensusError):
    """``State.apply`` raised, or returned what cannot be encoded: the same on every member.

    ``kind`` is the name of the exception's class, ``detail`` its text.
    """

    code = "apply"
    outcome = Outcome.APPLIED

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"apply raised {kind}: {detail}")
        self.kind = kind
        self.detail = detail


class ReadFailedError(ConsensusError):
    """The read could not be proven current within the time given."""

    code = "read_failed"
    retryable = True


class NotReadyError(ReadFailedError):
    """This member has not heard from a master since it started: it has nothing to serve yet."""

    code = "not_ready"


class ElectionError(ConsensusError):
    """This member did not become master; the message says who stood against it, and why."""

    code = "election"
    retryable = True


class MembershipError(ConsensusError):
    """A membership change is refused; the message names the member and the reason."""

    code = "membership"


class MembershipPendingError(MembershipError):
    """A membership change was not achieved in time, and may still be. Asking again is harmless."""

    code = "membership_pending"
    retryable = True
    outcome = Outcome.UNKNOWN


class SettingsError(ConsensusError, ValueError):
    """Settings that contradict themselves; the message holds the offending numbers."""

    code = "settings"


class SnapshotError(ConsensusError):
    """A snapshot cannot be taken, read or installed; the message names the file or the state, and
    the reason. Nothing has changed."""

    code = "snapshot"
    retryable = True


class StorageError(ConsensusError):
    """Something about the directory or its disk."""

    code = "storage"


class DirectoryInUseError(StorageError):
    """Another process holds the directory; the message names it and the holder's pid."""

    code = "directory_in_use"
    retryable = True


class DirectoryNotEmptyError(StorageError):
    """``init_master`` on a directory that already belongs to a cluster."""

    code = "directory_not_empty"


class WrongDirectoryError(StorageError):
    """The directory belongs to another member, cluster or format version."""

    code = "wrong_directory"


class DiskFullError(StorageError):
    """No space was left, found out before anything was written: nothing is lost or half done."""

    code = "disk_full"
    retryable = True


class DamagedError(StorageError):
    """Data that was acknowledged is damaged on disk.

    The message names the file, the offset and the sequences. A member starts with such a directory
    only if others can have what is lost, and without a vote until it has it back; otherwise it is
    refused: serving what is left could lose what others rely on.
    """

    code = "damaged"


class StoragePoisonedError(StorageError):
    """A write or a sync failed. What is on the disk is not known, so the participant stops for
    good; a restart reads the disk afresh. A failed sync is never tried again (W2)."""

    code = "storage_poisoned"
    outcome = Outcome.UNKNOWN


class TransportError(ConsensusError):
    """An address cannot be parsed or listened on."""

    code = "transport"


class BrokenInvariantError(ConsensusError):
    """A defect of this library or of the state machine was noticed, and the participant stopped
    rather than go on with it."""

    code = "broken_invariant"
    outcome = Outcome.UNKNOWN


class DivergedError(BrokenInvariantError):
    """This member's state machine computed something else than the majority's (R9). What is asked
    of such a member is not done."""

    code = "diverged"
    outcome = Outcome.NOT_APPLIED
