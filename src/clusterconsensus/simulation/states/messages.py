"""What the check of determinism and its child processes say to each other."""

from __future__ import annotations

import hashlib

import msgspec


class Task(msgspec.Struct, frozen=True):
    """What a child is to do.

    Attributes:
        state: The factory, as ``module:name``.
        workload: The workload, as ``module:name``; or "" where the changes need no repetition.
        seed: The seed of the changes.
        changes: The changes, encoded.
        clock_ahead_seconds: How much later ``time.time`` is to be than it is.
    """

    state: str
    workload: str
    seed: int
    changes: list[bytes]
    clock_ahead_seconds: int


class Told(msgspec.Struct, frozen=True):
    """What a child says: the answer to a change, a snapshot, or the digest of its own changes.

    Attributes:
        what: ``answer``, ``snapshot`` or ``workload``.
        step: After how many changes.
        digest: What is to be compared.
        shown: The same in a message.
        data: The last snapshot itself.
    """

    what: str
    step: int
    digest: str
    shown: str = ""
    data: bytes = b""


def digest(data: bytes) -> str:
    """What stands for bytes that are only compared."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def digest_all(changes: list[bytes]) -> str:
    """What stands for a list of changes."""
    return digest(b"".join(digest(change).encode() for change in changes))
