"""The proof of the journal: what a power failure leaves, and what rots.

``check_crash_states`` lives a member's life and opens every disk that a power failure could leave
at any operation (``lives``). ``check_flips`` lets every byte of a small directory rot in turn. Both
run the real identity and journal; they stop at the first thing that is wrong and tell it in their
report.

What may follow a flip (W1, W3):

* A ``StorageError``, with nothing on the disk changed. This is the rule.
* Exactly the same content: only if the byte lay in unused space, or in the closing note, which
  adds nothing.
* Everything but the last write: only if the byte lay in that write and nothing was written after
  it, for then it looks like a write that a crash tore. With ``paranoid``, never.

An open journal whose bytes rot under it may read what is right or raise, and nothing else.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

import msgspec

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.errors import StorageError
from clusterconsensus.simulation.journals.lives import DisprovedError, Life, live
from clusterconsensus.simulation.journals.model import (
    DIRECTORY,
    DISK_ID,
    SEGMENT_BYTES,
    Expected,
    ballot,
    configuration,
    entries,
    read_all,
)
from clusterconsensus.simulation.journals.power import every_cut
from clusterconsensus.simulation.world.content import Image
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.identity import IDENTITY, open_directory
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.records import HEADER_BYTES

Progress = Callable[[int], None]
"""Told now and then how much has been checked."""

PROGRESS_EVERY = 500


class Report(msgspec.Struct, frozen=True):
    """What a check has found.

    ``counts`` tells how much was checked, in the order to show it. ``failure`` is empty, or tells
    the first thing that was wrong, and where.
    """

    title: str
    counts: dict[str, int]
    failure: str = ""

    def __str__(self) -> str:
        told = ", ".join(f"{count:,} {name}" for name, count in self.counts.items())
        return f"{self.title}: {told}" + (f"\nFAILED: {self.failure}" if self.failure else "")


def check_crash_states(
    states_at_least: int = 10_000, on_progress: Progress | None = None, first_life: int = 0
) -> Report:
    """Open every disk that a power failure could leave, in one life after the other.

    Arguments:
        states_at_least: How many disks. A life has some thousand, and is always finished.
        on_progress: Told the number of disks so far.
        first_life: Where to begin. Life ``n`` is always the same.

    Returns:
        Counts: ``states`` (disks opened), ``torn writes`` (that were found), ``interrupted
        recoveries`` (disks that a power failure during a recovery left), ``deaths`` (of processes,
        whose unsynced writes the next one found), ``salvaged`` (damaged journals that began anew)
        and ``lives``.
    """
    names = ("states", "torn writes", "interrupted recoveries", "deaths", "salvaged", "lives")
    counts = dict.fromkeys(names, 0)
    number, failure = first_life, ""

    def on_state() -> None:
        if on_progress is not None and life.states % PROGRESS_EVERY == 0:
            on_progress(counts["states"] + life.states)

    with _quiet():
        while counts["states"] < states_at_least and not failure:
            life = Life(every_cut, on_state)
            try:
                live(life, number)
            except Exception as error:
                # Whatever it is: the journal did not do what it should.
                failure = f"life {number}: {type(error).__name__}: {error}"
            found = (life.states, life.torn, life.nested, life.deaths, life.salvaged, 1)
            for name, count in zip(names, found, strict=True):
                counts[name] += count
            number += 1
    return Report("power failures", counts, failure)


def check_flips(
    on_progress: Progress | None = None, all_bits_every: int = 16, padding_every: int = 1
) -> Report:
    """Flip every byte of a small directory, each by itself, and open what comes of it.

    Two directories are taken: one closed in good order, and one of a member that was killed when
    the next segment had been prepared.

    Arguments:
        on_progress: Told the number of flips so far.
        all_bits_every: Each byte has one bit flipped; every so many bytes, each of the eight.
        padding_every: Of the zeros behind the last batch of a segment, only every so many bytes.

    Returns:
        Counts: ``flips``, and what came of them: ``refused``, ``harmless``, ``taken for torn``
        (W3); and ``flips under an open journal``.
    """
    names = ("flips", "refused", "harmless", "taken for torn", "flips under an open journal")
    counts = dict.fromkeys(names, 0)
    failure = ""
    with _quiet():
        for kind in ("closed", "killed"):
            flips = _Flips(kind, counts, on_progress)
            try:
                flips.at_rest(all_bits_every, padding_every)
                flips.under_an_open_journal()
            except DisprovedError as error:
                failure = str(error)
                break
    return Report("flipped bits", counts, failure)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Each torn write is a warning, and here it is the usual thing."""
    logger = logging.getLogger("clusterconsensus.storage")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


UNITS = (
    Persist(1, ballot(1)),
    Persist(2, None, None, (configuration(1), *entries(2, 3)), 1),
    Persist(3, ballot(2), 4, entries(4, 2, 2), 3),
    Persist(4, None, None, entries(6, 3, 2, 400), 5),
    Persist(5, None, None, entries(9, 3, 2, 300), 8),
)
"""Two segments full, each unit a write of its own."""


class _Flips:
    """One small directory and what flipping its bytes has come to."""

    def __init__(self, kind: str, counts: dict[str, int], on_progress: Progress | None) -> None:
        self.kind = kind
        self.counts = counts
        self.on_progress = on_progress
        self.complete = Expected(UNITS)
        self.shortened = self.complete if kind == "closed" else Expected(UNITS[:-1])
        self.last_write = ("", 0, 0)
        self.used: dict[str, int] = {}
        self.changes = 0
        self.image = self._make()
        self.disk = Disk(self.image)
        self.disk.before = self._before

    def _make(self) -> Image:
        disk = Disk()

        def on_durable(path: str, offset: int, data: bytes) -> None:
            # A segment that is being filled still has another name.
            if path.endswith(".log"):
                self.last_write = (path, offset, offset + len(data))
                self.used[path] = offset + len(data)

        directory = open_directory(disk, DIRECTORY, "shop", "a", DISK_ID)
        journal = Journal.open(disk, DIRECTORY, disk_id=DISK_ID, segment_bytes=SEGMENT_BYTES)
        directory.join("c" * 32)
        disk.on_durable = on_durable
        for unit in UNITS:
            journal.append([unit])
        if self.kind == "closed":
            journal.close(len(self.complete.entries))
        else:
            while journal.prepare_next():
                pass
        image = disk.snapshot_image()
        for path, data in image.files.items():
            self.used.setdefault(path, HEADER_BYTES if path.endswith(".log") else len(data))
        return image

    def at_rest(self, all_bits_every: int, padding_every: int) -> None:
        """Flip, and open."""
        number = 0
        for path, data in self.image.files.items():
            used = self.used[path]
            for offset in (*range(used), *range(used, len(data), padding_every)):
                number += 1
                is_thorough = number % all_bits_every == 0
                for bit in range(8) if is_thorough else (offset % 8,):
                    self._flip(path, offset, bit, is_thorough)

    def _flip(self, path: str, offset: int, bit: int, is_thorough: bool) -> None:
        where = f"{self.kind} directory, {path}, offset {offset}, bit {bit}"
        disk, counts = self.disk, self.counts
        disk.flip(path, offset, bit)
        journal = self._open(path, where, paranoid=False)
        if journal is None:
            counts["refused"] += 1
        elif self._is_harmless(journal, path, offset, where):
            counts["harmless"] += 1
        else:
            counts["taken for torn"] += 1
        # The same question again costs too much where it is sure to be answered in the same way.
        if is_thorough or (journal is not None and offset < self.used[path]):
            if journal is not None:
                again = self._open(path, where, paranoid=True)
                if again is None or not self._same(journal, again):
                    raise DisprovedError(f"{where}: opened again, it is something else")
            if self.changes:
                self._restore()
                disk.flip(path, offset, bit)
            paranoid = self._open(path, where, paranoid=True)
            if paranoid is not None and (
                journal is None
                or paranoid.recovered.torn is not None
                or not self.complete.matches(paranoid)
            ):
                raise DisprovedError(f"{where}: paranoid, and yet {paranoid.recovered}")
        if self.changes:
            self._restore()
        else:
            disk.flip(path, offset, bit)
        counts["flips"] += 1
        if self.on_progress is not None and counts["flips"] % PROGRESS_EVERY == 0:
            self.on_progress(counts["flips"])

    def _is_harmless(self, journal: Journal, path: str, offset: int, where: str) -> bool:
        """Whether everything is still there; if not, it must have been the last write."""
        written, start, end = self.last_write
        is_last = path == written and start <= offset < end
        if self.complete.matches(journal) and (is_last or offset >= self.used[path]):
            return True
        if is_last and journal.recovered.torn and self.shortened.matches(journal):
            return False
        raise DisprovedError(f"{where}: nobody has noticed; {journal.recovered}")

    def _same(self, journal: Journal, again: Journal) -> bool:
        """Whether what was opened before is still there, and what was torn is gone for good."""
        one, other = journal.recovered, again.recovered
        return (one.promised, one.last_seq, one.runs) == (
            other.promised,
            other.last_seq,
            other.runs,
        ) and other.torn is None

    def _restore(self) -> None:
        self.disk.restore_image(self.image)
        self.changes = 0

    def _open(self, path: str, where: str, *, paranoid: bool) -> Journal | None:
        """The journal, None if it was refused."""
        changes = self.changes
        try:
            disk_id = DISK_ID
            if path.endswith(IDENTITY):  # a segment's content is nothing to the identity
                directory = open_directory(self.disk, DIRECTORY, "shop", "a", "another")
                disk_id = directory.identity.disk_id
                directory.close()
            return Journal.open(
                self.disk,
                DIRECTORY,
                disk_id=disk_id,
                segment_bytes=SEGMENT_BYTES,
                paranoid=paranoid,
            )
        except StorageError as error:
            if self.changes != changes:
                raise DisprovedError(f"{where}: changed, and then refused: {error}") from error
            return None
        except Exception as error:
            raise DisprovedError(f"{where}: {type(error).__name__}: {error}") from error

    def _before(self, operation: str, path: str) -> None:
        if operation not in ("lock", "datasync", "sync_directory"):
            self.changes += 1

    def under_an_open_journal(self) -> None:
        """Open, flip, and read."""
        self._restore()
        disk = self.disk
        journal = Journal.open(disk, DIRECTORY, disk_id=DISK_ID, segment_bytes=SEGMENT_BYTES)
        for path, used in sorted(self.used.items()):
            for offset in range(HEADER_BYTES, used):
                disk.flip(path, offset, offset % 8)
                with contextlib.suppress(StorageError):
                    if read_all(journal) != self.complete.entries:
                        raise DisprovedError(
                            f"{self.kind} directory, {path}, offset {offset} flipped under an open "
                            "journal: it reads something else"
                        )
                disk.flip(path, offset, offset % 8)
                self.counts["flips under an open journal"] += 1
