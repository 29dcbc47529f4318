"""The journal: everything a member must not forget, in the order in which it happened.

``append`` writes any number of ``Persist`` units with one write and one sync; each is atomic (C-56)
and takes its place after all earlier ones. ``read`` gives entries back by sequence. Opening
recovers (``recovery``); the format is told in ``records``, the files in ``segments``.

Threads: one thread appends, prepares and closes. Any thread may read meanwhile, and sees only what
is durable.

``compact`` removes whole segments at the beginning, oldest first, and makes each removal durable
before the next, so that whatever a crash leaves is a journal without a gap that holds at least what
it must. ``salvage`` begins a damaged journal anew; ``scrub`` looks for damage in what nobody reads.

Failures (W2). A write or a sync that fails *poisons* the journal: what is on disk is unknown, and
every later call, reads included, raises ``StoragePoisonedError``; no sync is ever tried again,
because a kernel may drop the pages it could not write and then report success. A full disk is
noticed before anything is written, when the next segment is made: ``DiskFullError``, nothing has
happened, and the same call may be repeated when there is space.

After a crash of the process alone, the last write may be readable without being on the disk: its
sync had not returned, or had failed. Opening therefore writes that last write once more, in place,
with the same bytes, and syncs it, before anything is believed of it.
"""

from __future__ import annotations

import logging
import struct
import threading
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from clusterconsensus.consensus.types import Entry, Position
from clusterconsensus.errors import (
    BrokenInvariantError,
    DamagedError,
    DiskFullError,
    StorageError,
    StoragePoisonedError,
)
from clusterconsensus.storage.extent import Extent
from clusterconsensus.storage.files import ZEROS, Files, WritableFile
from clusterconsensus.storage.findings import Recovered
from clusterconsensus.storage.index import Reader
from clusterconsensus.storage.planning import (
    CUT,
    GIVEN_UP,
    Tip,
    Write,
    encode,
    encode_closing,
    plan,
)
from clusterconsensus.storage.records import FORMAT_VERSION, HEADER_BYTES
from clusterconsensus.storage.recovery import Scan
from clusterconsensus.storage.salvage import begin_anew
from clusterconsensus.storage.scrubbing import Scrubbing
from clusterconsensus.storage.segments import Making, segment_path, set_aside_path

if TYPE_CHECKING:
    from clusterconsensus.consensus.effects import Persist

logger = logging.getLogger("clusterconsensus.storage")

SMALLEST_SEGMENT_BYTES = 2 * HEADER_BYTES
SLICE_BYTES = 1024 * 1024
"""How much of the next segment one ``prepare_next`` makes."""


class Journal:
    """A member's durable log and promise. Made by ``open``."""

    def __init__(
        self, files: Files, directory: str, disk_id: str, segment_bytes: int, scan: Scan
    ) -> None:
        self._files = files
        self._directory = directory
        self._disk_id = disk_id
        self._segment_bytes = segment_bytes
        self._lock = threading.Lock()
        self._index = scan.index
        self._reader = Reader(files, directory, disk_id, self._index, self._lock)
        self._poison = ""
        self._closed = False
        self._file: WritableFile | None = None
        self._making: Making | None = None
        self._ready: dict[int, int] = {}
        self._sizes = {segment.number: segment.size_bytes for segment in scan.segments}
        log = Extent(scan.base)
        log.last_seq, log.runs = scan.last_seq, [*scan.runs]
        self._tip = Tip(
            1,
            FORMAT_VERSION,
            HEADER_BYTES,
            scan.number,
            scan.chain,
            scan.promised,
            log,
            scan.commit_hint,
            scan.recovering,
        )
        self._openings = scan.openings
        self._set_aside = scan.set_aside
        self._removed = 0
        self._syncs = 0
        self._written_bytes = 0
        self._appended_entries = 0
        self.recovered: Recovered = scan.recovered()
        """What opening found."""

    # -- opening

    @classmethod
    def open(
        cls,
        files: Files,
        directory: str,
        *,
        disk_id: str,
        segment_bytes: int,
        paranoid: bool = False,
    ) -> Journal:
        """Open the journal of a directory that the caller holds (``identity``), or make it.

        Everything is read and checked; a torn write at the end is cut off for good. When damage is
        found, nothing is changed. Whether the entries before ``recovered.base`` are in a snapshot
        is for the caller to check.

        Arguments:
            disk_id: The directory's own (I0); segments of another disk are refused.
            segment_bytes: The size of new segments.
            paranoid: Take a torn last write for damage (W3).

        Raises:
            DamagedError: something that was acknowledged is damaged; names file, offset and
                sequences.
            WrongDirectoryError: segments of another disk or format version.
            DiskFullError: no space for the first segment.
            StoragePoisonedError: a write or sync failed.
        """
        if segment_bytes < SMALLEST_SEGMENT_BYTES:
            raise BrokenInvariantError(
                f"segment_bytes is {segment_bytes}, below {SMALLEST_SEGMENT_BYTES}"
            )
        scan = Scan(files, directory, disk_id, paranoid=paranoid)
        scan.run()
        journal = cls(files, directory, disk_id, segment_bytes, scan)
        try:
            journal._settle(scan)
        except OSError as error:
            raise journal._poisoned(
                f"{directory}: the journal cannot be opened: {error}"
            ) from error
        return journal

    @classmethod
    def salvage(
        cls,
        files: Files,
        directory: str,
        *,
        disk_id: str,
        segment_bytes: int,
        base: Position,
        paranoid: bool = False,
    ) -> Journal:
        """Begin the damaged journal of a directory anew (W4), and open it.

        The log becomes empty and begins behind ``base``; the promise is the highest that any record
        tells; ``recovering`` is noted, so that the member does not vote before it is whole again.
        The damaged segments are set aside as ``damaged-….log`` until ``forget_damaged``. A crash
        leaves the damaged journal, or the new one.

        Arguments:
            base: What a snapshot covers that is whole; NOWHERE without one.
            paranoid: Take a torn last write for damage (W3).

        Raises:
            DamagedError: what this member promised cannot be known, because no record behind the
                damage restates it: it must come back as a new member. Nothing was changed.
            DiskFullError: no space for a segment. Nothing was changed.
            StoragePoisonedError: a write or sync failed.
        """
        begin_anew(files, directory, disk_id, segment_bytes, base, paranoid=paranoid)
        return cls.open(
            files, directory, disk_id=disk_id, segment_bytes=segment_bytes, paranoid=paranoid
        )

    def _settle(self, scan: Scan) -> None:
        """Make what was found as durable as it looks, and get ready to append."""
        files = self._files
        for name in scan.unfinished:
            files.remove(f"{self._directory}/{name}")
        if not scan.segments:
            Making(files, self._directory, self._disk_id, 1, self._segment_bytes).advance()
            self._sizes[1] = self._segment_bytes
            self._file = files.open(segment_path(self._directory, 1))
            return
        tail = scan.segments[scan.tail]
        file = files.open(tail.path)
        if scan.torn is not None:
            logger.warning("%s; it was never acknowledged and is cut off", scan.torn)
            for offset in range(scan.torn.offset, scan.torn.end, len(ZEROS)):
                count = min(len(ZEROS), scan.torn.end - offset)
                file.pwrite(memoryview(ZEROS)[:count], offset)
        if tail.used_bytes > HEADER_BYTES:
            for offset in range(scan.group, tail.used_bytes, len(ZEROS)):
                count = min(len(ZEROS), tail.used_bytes - offset)
                file.pwrite(files.read(tail.path, offset, count), offset)
        file.datasync()
        # A crash may have come between a rename and the sync of the directory (D8).
        files.sync_directory(self._directory)
        if not scan.clean:
            self._remove_blank(scan)
        place = scan.tail
        if tail.used_bytes == HEADER_BYTES and place:
            # The first write to this segment was torn: go on where the last whole batch ends.
            place -= 1
            file.close()
            file = files.open(scan.segments[place].path)
        self._file = file
        self._tip = msgspec.structs.replace(
            self._tip,
            segment=scan.segments[place].number,
            version=scan.segments[place].version,
            used_bytes=scan.segments[place].used_bytes,
        )
        self._ready = {
            found.number: found.size_bytes
            for found in scan.segments[place + 1 :]
            if found.version == FORMAT_VERSION
        }
        self._put_aside(scan.ignored)
        if not scan.recovering:
            self._remove_set_aside()

    def _remove_blank(self, scan: Scan) -> None:
        """Segments that look unused may only look so: zeros that were to erase a torn write, whose
        sync failed. The last one goes first, so that never one is missing in between."""
        while len(scan.segments) > scan.tail + 1:
            blank = scan.segments.pop()
            self._files.remove(blank.path)
            self._files.sync_directory(self._directory)
            del self._sizes[blank.number]

    def _put_aside(self, numbers: list[int]) -> None:
        """Segments before an ANCHOR, whose name is durable, are not the journal's any more."""
        for number in numbers:
            source, target = (
                segment_path(self._directory, number),
                set_aside_path(self._directory, number),
            )
            self._files.rename(source, target)
            logger.warning("%s: damaged, kept as %s", source, target)
        if numbers:
            self._files.sync_directory(self._directory)
            self._set_aside = sorted({*self._set_aside, *numbers})

    def _remove_set_aside(self) -> None:
        for number in self._set_aside:
            self._files.remove(set_aside_path(self._directory, number))
        if self._set_aside:
            self._files.sync_directory(self._directory)
        self._set_aside = []

    # -- appending

    def append(self, batches: Sequence[Persist]) -> None:
        """Make units durable, each atomically, in order. Returns when they are.

        All of them are one write and one sync; where a segment ends among them, one of each per
        segment.

        Raises:
            DiskFullError: no space for the next segment. Nothing was written; try again later.
            StoragePoisonedError: now and for ever; see the module.
            BrokenInvariantError: the units do not continue the log (I-5, I-7, I-9). Nothing was
                written.
        """
        self._check()
        if not batches:
            return
        tip = self._tip
        room = self._sizes[tip.segment] - tip.used_bytes
        groups = plan(tip, batches, room, self._segment_bytes, self._ready)
        try:
            writes = encode(tip, groups, self._disk_id)
        except (struct.error, UnicodeError) as error:
            raise BrokenInvariantError(f"an entry cannot be written: {error}") from error
        for group in groups:
            if group.size_bytes:
                self._make(group.segment, group.size_bytes)
        for write in writes:
            self._write(write)

    def _write(self, write: Write) -> None:
        """One write and one sync; then, and only then, it has happened."""
        path = segment_path(self._directory, write.segment)
        try:
            if write.segment != self._tip.segment or self._file is None:
                if self._file is not None:
                    self._file.close()
                self._file = self._files.open(path)
            self._file.pwrite(write.data, write.offset)
            self._file.datasync()
        except BaseException as error:
            # Even after an interrupt: how much was written is not known.
            poisoned = self._poisoned(
                f"{path}: writing {len(write.data)} bytes at offset {write.offset} failed: "
                f"{str(error) or type(error).__name__}"
            )
            if isinstance(error, OSError):
                raise poisoned from error
            raise
        with self._lock:
            if write.before is not None:
                self._openings.add(write.segment, write.before)
            for seq, offset in write.changes:
                if offset == CUT:
                    self._openings.cut(seq)
                    self._index.truncate(seq)
                elif offset == GIVEN_UP:
                    self._openings.give_up(write.segment)
                    self._index.give_up(seq)
                else:
                    self._index.add(seq, write.segment, offset)
                    self._appended_entries += 1
            self._ready.pop(write.segment, None)
            self._tip = write.after
            self._syncs += 1
            self._written_bytes += len(write.data)

    # -- segments

    @property
    def prepare_due(self) -> bool:
        """Whether ``prepare_next`` has something to do. Cheap, and may be asked in any thread: an
        answer that is just out of date does no harm."""
        tip = self._tip
        return tip.segment + 1 not in self._ready and tip.used_bytes * 4 >= self._sizes[tip.segment]

    def prepare_next(self) -> bool:
        """Make a part of the next segment, if the current one is getting used; True when there is
        more to make.

        Not needed for correctness: an append that needs a segment makes (the rest of) it. Called
        in the writer's thread after each append, it keeps that off the appends: it writes and
        syncs at most 1 MiB at a time.

        Raises:
            DiskFullError: no space for the next segment; appends go on while the current one lasts.
            StoragePoisonedError: a write or sync failed.
        """
        self._check()
        if not self.prepare_due:
            return False
        return not self._advance(self._tip.segment + 1, self._segment_bytes, SLICE_BYTES)

    def _make(self, number: int, size_bytes: int) -> None:
        if self._ready.get(number, 0) < size_bytes:
            self._advance(number, size_bytes, None)

    def _advance(self, number: int, size_bytes: int, slice_bytes: int | None) -> bool:
        making = self._making
        if making is not None and (making.number != number or making.size_bytes < size_bytes):
            making.abandon()
            making = None
        if making is None:
            making = Making(self._files, self._directory, self._disk_id, number, size_bytes)
        self._making = None
        try:
            done = making.advance(slice_bytes)
        except DiskFullError:
            raise
        except BaseException as error:
            self._poisoned(str(error))
            raise
        if not done:
            self._making = making
            return False
        with self._lock:
            self._ready[number] = self._sizes[number] = making.size_bytes
        if number == self._tip.segment and self._file is not None:
            self._file.close()  # it has been replaced
            self._file = None
        return True

    # -- what is not needed any more

    @property
    def base(self) -> Position:
        """The last entry that the log does not hold any more; NOWHERE if it is complete."""
        return self._tip.log.base

    def compact(self, seq: int) -> int:
        """Remove the segments at the beginning that hold nothing above ``seq``. Called in the
        thread that appends.

        Arguments:
            seq: A durable snapshot covers everything up to it (S6).

        Returns:
            The last sequence that cannot be read any more; at most ``seq``, or the base where the
            log was given up.

        Raises:
            StoragePoisonedError: a file cannot be removed, or its directory cannot be synced.
        """
        self._check()
        number, last = self._openings.find(seq)
        gone = sorted(held for held in self._sizes if held < number)
        if not gone:
            return self.base.seq
        with self._lock:
            tip = self._tip
            if last is not None and last.seq > tip.log.base.seq:
                log = tip.log.copy()
                log.forget(last)
                # What is compacted is chosen: nothing may be cut off at or before it.
                commit = max(tip.commit, last.seq)
                self._tip = msgspec.structs.replace(tip, log=log, commit=commit)
                self._index.forget(last.seq)
            self._openings.forget(number)
            for held in gone:
                del self._sizes[held]
        try:
            for held in gone:
                path = segment_path(self._directory, held)
                self._files.remove(path)
                self._files.sync_directory(self._directory)
                self._removed += 1
        except BaseException as error:
            poisoned = self._poisoned(
                f"{path}: cannot be removed: {str(error) or type(error).__name__}"
            )
            if isinstance(error, OSError):
                raise poisoned from error
            raise
        return self.base.seq

    def forget_damaged(self) -> None:
        """Remove what ``salvage`` has set aside. Called in the thread that appends, once recovering
        has ended durably; the next start does it too.

        Raises:
            StoragePoisonedError: a file cannot be removed, or its directory cannot be synced.
        """
        self._check()
        try:
            self._remove_set_aside()
        except OSError as error:
            raise self._poisoned(
                f"{self._directory}: damaged segments cannot be removed: {error}"
            ) from error

    def scrub(self, max_bytes: int) -> Iterator[int]:
        """Read every segment but the last one again, and check every record and the chain (W8).

        May be iterated in any thread, beside appends and compaction. Ends early when the journal
        is closed.

        Arguments:
            max_bytes: About how much to read until the next step.

        Yields:
            How many bytes were read since the last step.

        Raises:
            DamagedError: what was durable is damaged; names file, offset and sequences.
            StoragePoisonedError: an earlier write or sync failed.
        """
        scrubbing = Scrubbing(self._files, self._directory, self._disk_id, max_bytes)
        number = 0
        while True:
            self._check_poison()
            with self._lock:
                closed = self._closed
                last = self._tip.segment
                number = min((held for held in self._sizes if held > number), default=last)
            if closed or number >= last:
                return
            try:
                for size in scrubbing.segment(number):
                    yield size
                    self._check_poison()
                    if self._closed:
                        return
            except DamagedError:
                with self._lock:
                    if number in self._sizes:
                        raise
                # It was removed under the reading.

    # -- reading

    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """Entries from ``first`` up to at most ``last``, contiguous: at least one if the log has
        it, and more up to about ``max_bytes`` of payload.

        May be called from any thread. Only durable entries are seen; one that is cut off meanwhile
        may be among them.

        Returns:
            The entries; none where the log has no entry ``first``.

        Raises:
            DamagedError: a record is damaged or cannot be read; names file, offset and sequences.
            StoragePoisonedError: an earlier write or sync failed.
        """
        self._check()
        return self._reader.read(first, last, max_bytes)

    def statistics(self) -> dict[str, int]:
        """Counts for operators: what the journal holds, and what was done since it was opened."""
        with self._lock:
            return {
                "segments": len(self._sizes),
                "allocated_bytes": sum(self._sizes.values()),
                "segments_ready": len(self._ready),
                "segments_removed": self._removed,
                "segments_set_aside": len(self._set_aside),
                "segment_used_bytes": self._tip.used_bytes,
                "batches": self._tip.batch,
                "base_sequence": self._tip.log.base.seq,
                "last_sequence": self._tip.last_seq,
                "index_points": len(self._index),
                "syncs": self._syncs,
                "appended_entries": self._appended_entries,
                "appended_bytes": self._written_bytes,
            }

    # -- the end

    def close(self, commit: int) -> None:
        """Note that all is well, durably, and let go of the files. Closing again does nothing.

        A poisoned journal is only let go of.

        Arguments:
            commit: A hint for the next start: the highest sequence of which everything up to it
                is known to be chosen *as it is durable here*.

        Raises:
            StoragePoisonedError: the note could not be made durable; the log is not affected.
        """
        if self._closed:
            return
        try:
            if not self._poison:
                self._write(encode_closing(self._tip, commit, self._disk_id))
        finally:
            self._closed = True
            if self._making is not None:
                self._making.abandon()
                self._making = None
            if self._file is not None:
                self._file.close()
                self._file = None

    def _check_poison(self) -> None:
        if self._poison:
            raise StoragePoisonedError(self._poison)

    def _check(self) -> None:
        self._check_poison()
        if self._closed:
            raise StorageError(f"{self._directory}: the journal is closed")

    def _poisoned(self, detail: str) -> StoragePoisonedError:
        self._poison = self._poison or detail
        return StoragePoisonedError(self._poison)
