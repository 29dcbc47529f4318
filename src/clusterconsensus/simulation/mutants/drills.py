"""Small, exact checks of single parts, for bugs that no random schedule of bare cores can meet.

Bare cores have no journal, no applier and no envelope, and nobody there belongs to another cluster.
Each drill puts one real part through the few steps in which its bug would show, and raises
``DrillError`` with the rule that does not hold. ``runtime_drills`` has those of the runtime.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from clusterconsensus.consensus import events
from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.messages import Action
from clusterconsensus.consensus.sessions import NewSession, SessionTable
from clusterconsensus.consensus.types import Incarnation
from clusterconsensus.consensus.types import Member as Peer
from clusterconsensus.errors import StorageError, StoragePoisonedError
from clusterconsensus.simulation.cores.story import Story
from clusterconsensus.simulation.journals.model import (
    DIRECTORY,
    DISK_ID,
    SEGMENT_BYTES,
    ballot,
    entries,
    read_all,
)
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.identity import open_directory
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.records import HEADER_BYTES


class DrillError(AssertionError):
    """A part has broken a rule, which stands at the beginning of the text."""


def expect(holds: bool, rule: str, text: str) -> None:
    """Raise unless it holds."""
    if not holds:
        raise DrillError(f"{rule}: {text}")


@contextmanager
def quiet() -> Iterator[None]:
    """What is provoked here on purpose is nobody's trouble."""
    loggers = [logging.getLogger(name) for name in ("clusterconsensus", "asyncio")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def open_journal(disk: Disk) -> Journal:
    return Journal.open(disk, DIRECTORY, disk_id=DISK_ID, segment_bytes=SEGMENT_BYTES)


def flips() -> None:
    """A byte of a write that others followed rots: it is noticed, and nothing is cut off (W3)."""
    disk = Disk()
    open_directory(disk, DIRECTORY, "shop", "a", DISK_ID)
    journal = open_journal(disk)
    journal.append([Persist(1, ballot(1), None, entries(1, 2))])
    end = journal.statistics()["segment_used_bytes"]
    journal.append([Persist(2, None, None, entries(3, 2), 1)])
    journal.append([Persist(3, None, None, entries(5, 1), 3)])
    image = disk.snapshot_image()
    path = next(path for path in sorted(image.files) if path.endswith(".log"))
    for offset in range(HEADER_BYTES, end, 3):
        rotten = Disk(image)
        rotten.flip(path, offset, offset % 8)
        try:
            found = open_journal(rotten)
        except StorageError:
            continue
        recovered = found.recovered
        expect(
            recovered.last_seq == 5, "W3", f"a flip at {offset} leaves {recovered.last_seq} of 5"
        )
        intact = read_all(found) == list(entries(1, 5)) and recovered.promised == ballot(1)
        expect(intact, "W1", f"a flip at {offset} is believed")


def failing_sync() -> None:
    """A sync fails: it is not tried again, and nothing is written afterwards (W2)."""
    disk = Disk()
    open_directory(disk, DIRECTORY, "shop", "a", DISK_ID)
    journal = open_journal(disk)
    journal.append([Persist(1, ballot(1), None, entries(1, 2))])
    disk.fail_next("datasync", OSError(errno.EIO, "input/output error"))
    for batch in (Persist(2, None, None, entries(3, 1)), Persist(3, None, None, entries(3, 1))):
        try:
            journal.append([batch])
        except StoragePoisonedError:
            continue
        raise DrillError(f"W2: batch {batch.ticket} is written after a sync that failed")


def session_table() -> None:
    """Sessions are opened once, by the latest start, and stay while they are used (X1, X2)."""
    table = SessionTable()
    owner = Incarnation("a@d1")
    first = table.open(3, NewSession(owner, 7), 10.0)
    again = table.open(4, NewSession(owner, 7), 11.0)
    expect(first == again == 3, "X1", f"opened twice, as {first} and {again}")
    later = table.open(5, NewSession(owner, 8), 12.0)
    late = table.open(6, NewSession(owner, 7), 13.0)
    expect(late == 0 and table.get(later) is not None, "X1", "an earlier start took the session")
    order = table.idle(100.0, 10)
    session = table.get(later)
    assert order is not None
    assert session is not None
    session.last_time = 20.0
    table.close(order)
    expect(table.get(later) is not None, "X2", "a session was closed though it was used")


def strangers() -> None:
    """Who belongs to another cluster, or is another member, is not added (I1, I2)."""
    story = Story()
    for line in ("cluster a b c", "elect a", "machine d e"):
        story.command(line)
    cluster, master = story.cluster, story.member("a")
    story.member("d").store.cluster_id = "c2"
    story.command("add d via a")
    story.command("run 1")
    seat = master.local.log.configuration.seat_of_id("d")
    expect(seat is None, "I1", "a member of another cluster is added")
    cluster.turn(master, [events.ChangeMemberLocal(99, Action.ADD, Peer("f", "e"))])
    story.command("run 1")
    found = [held.id for held in master.local.log.configuration.seats]
    expect(found == ["a", "b", "c"], "I2", f"e is added in the place of f: {found}")


DRILLS: dict[str, Callable[[], None]] = {
    "failing sync": failing_sync,
    "flips": flips,
    "session table": session_table,
    "strangers": strangers,
}
