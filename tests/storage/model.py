"""What the tests of storage have in common."""

from __future__ import annotations

from collections.abc import Callable

from clusterconsensus.simulation.journals.model import (
    DIRECTORY,
    DISK_ID,
    SEGMENT_BYTES,
    Expected,
    ballot,
    configuration,
    entries,
    entry,
    read_all,
)
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.files import Files
from clusterconsensus.storage.identity import open_directory
from clusterconsensus.storage.journal import Journal

__all__ = (
    "DISK",
    "PATH",
    "SMALL_BYTES",
    "Expected",
    "after_power_failure",
    "ballot",
    "configuration",
    "entries",
    "entry",
    "failing",
    "make_directory",
    "noting",
    "open_journal",
    "read_all",
)

DISK = DISK_ID
PATH = DIRECTORY
SMALL_BYTES = SEGMENT_BYTES


def open_journal(
    files: Files, path: str = PATH, segment_bytes: int = SMALL_BYTES, paranoid: bool = False
) -> Journal:
    """A journal whose directory nobody holds: enough where one test is alone."""
    return Journal.open(files, path, disk_id=DISK, segment_bytes=segment_bytes, paranoid=paranoid)


def make_directory(files: Files, path: str = PATH) -> None:
    """A directory with an identity."""
    open_directory(files, path, "shop", "a", DISK).close()


def after_power_failure(disk: Disk) -> Disk:
    """What a power failure leaves that keeps nothing unsynced."""
    return Disk(disk.snapshot_image())


def failing(operation: str, error: OSError) -> Callable[[str, str], None]:
    """For ``Disk.before``: every such operation fails."""

    def before(found: str, path: str) -> None:
        if found == operation:
            raise error

    return before


def noting(operations: list[str]) -> Callable[[str, str], None]:
    """For ``Disk.before``: write down what is done."""
    return lambda operation, path: operations.append(operation)
