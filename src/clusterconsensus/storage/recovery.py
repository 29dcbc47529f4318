"""Reading a journal back: what was acknowledged, what a crash tore, and what is damaged (W3).

The scan reads every record of every segment once, in order, and keeps only what is small: the
promise, the index, where ballots begin, the configurations. It changes nothing on disk.

What can stand at the first place X that is not a whole, valid batch?

* Zeros to the end: the log ends there.
* The rest of a write that a crash tore. Nobody was told that it was durable, so it is cut off.
  Disks write the blocks of one unsynced write in any order, so valid records of that same write
  may well stand behind X; even its last batch may be whole.
* Damage of something that had been durable. Then, unless it hit the last write of all, a valid
  record of a *later* write stands behind X, in this segment or in a later one, and says so: its
  ``group`` offset, up to which everything had been synced when it was written, lies behind X.

So the question is decided by evidence in the file and not by where X is. A sequence cannot replace
the offset as evidence: inside one torn write a batch may cut the log off below what was synced, and
a batch may know of commits above what this member has synced.

What remains is damage of exactly the last write, without anything behind it: it looks like a torn
write and is taken for one, because the opposite mistake would make every crash need an operator;
``paranoid`` chooses the opposite.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from clusterconsensus.consensus.types import ZERO, Ballot, Entry, EntryKind
from clusterconsensus.errors import DamagedError, StorageError, WrongDirectoryError
from clusterconsensus.storage.files import ZEROS, Files
from clusterconsensus.storage.index import Index, Window
from clusterconsensus.storage.records import (
    CLOSED,
    FORMAT_VERSION,
    HEADER_BYTES,
    MAGIC,
    Kind,
    Record,
    Trailer,
    decode_header,
    file_seed,
    link,
)
from clusterconsensus.storage.segments import (
    segment_numbers,
    segment_path,
    unfinished_segments,
)


class Segment(msgspec.Struct):
    """What the scan learnt of one file. ``used_bytes`` is the offset behind its last batch."""

    number: int
    path: str
    size_bytes: int
    used_bytes: int = HEADER_BYTES
    batches: int = 0
    entries: int = 0
    first_seq: int = 0
    last_seq: int = 0


class Torn(msgspec.Struct, frozen=True):
    """An unacknowledged write that a crash tore: from ``offset`` to ``end`` in a segment."""

    path: str
    offset: int
    end: int

    def __str__(self) -> str:
        return f"{self.path}: bytes {self.offset} to {self.end} are a write that a crash tore"


class Recovered(msgspec.Struct, frozen=True):
    """What a journal holds.

    ``commit_hint`` is the highest sequence that it knows to be chosen (W7). ``runs`` holds
    ``(first sequence, ballot)`` wherever the ballot changes along the log; ``configurations`` the
    CONFIG entries of the log. ``clean`` tells that it was closed in good order and not used since.
    """

    promised: Ballot
    last_seq: int
    commit_hint: int
    clean: bool
    runs: list[tuple[int, Ballot]]
    configurations: list[Entry]
    torn: Torn | None


class _Batch:
    """What a batch will do to the scan once its trailer is there."""

    __slots__ = ("changes", "configurations", "first_seq", "last_seq", "promised")

    def __init__(self, promised: Ballot, last_seq: int) -> None:
        self.promised = promised
        self.last_seq = last_seq
        self.first_seq = 0
        # (sequence, offset, ballot); without a ballot, the log is cut off from the sequence on
        self.changes: list[tuple[int, int, Ballot | None]] = []
        self.configurations: list[Entry] = []


class Scan:
    """One reading of a journal from beginning to end.

    Arguments:
        disk_id: Whose journal it must be; None to take whatever the first segment says.
        paranoid: Take a torn last write for damage.
        on_trailer: Called with the segment, the record and its content for each whole batch.

    After ``run``, or after the ``DamagedError`` it raised, the attributes tell what was found so
    far.
    """

    def __init__(
        self,
        files: Files,
        directory: str,
        disk_id: str | None,
        *,
        paranoid: bool = False,
        on_trailer: Callable[[Segment, Record, Trailer], None] | None = None,
    ) -> None:
        self._files = files
        self._directory = directory
        self._paranoid = paranoid
        self._on_trailer = on_trailer
        self.disk_id = disk_id
        self.segments: list[Segment] = []
        self.unfinished: list[str] = []
        self.index = Index()
        self.promised = ZERO
        self.last_seq = 0
        self.commit_hint = 0
        self.clean = False
        self.number = 0
        """Of the last batch."""
        self.chain = 0
        self.group = 0
        """Where the last write began, in the segment of the last batch."""
        self.tail = 0
        """Which of ``segments`` holds the last batch, or its remains."""
        self.runs: list[tuple[int, Ballot]] = []
        self.configurations: list[Entry] = []
        self.torn: Torn | None = None

    def recovered(self) -> Recovered:
        """What was found, once ``run`` has returned."""
        return Recovered(
            self.promised,
            self.last_seq,
            self.commit_hint,
            self.clean and self.torn is None,
            self.runs,
            self.configurations,
            self.torn,
        )

    def run(self) -> None:
        """Read everything.

        Raises:
            DamagedError: naming file, offset and sequences.
            WrongDirectoryError: segments of another directory, or of another format version.
        """
        path = self._directory
        try:
            names = self._files.list_directory(path)
            self.unfinished = unfinished_segments(names)
            for place, number in enumerate(segment_numbers(names)):
                path = segment_path(self._directory, number)
                self._open(place + 1, number, path)
            used = [self._last_byte(segment, HEADER_BYTES) for segment in self.segments]
            last_used = max((i for i, end in enumerate(used) if end > HEADER_BYTES), default=-1)
            for place in range(last_used + 1):
                path = self.segments[place].path
                self._segment(place, used[place], place == last_used)
        except OSError as error:
            if isinstance(error, PermissionError | FileNotFoundError):
                raise StorageError(f"{path}: cannot be read: {error}") from error
            raise DamagedError(
                f"{path}: cannot be read behind sequence {self.last_seq}: {error}"
            ) from error
        if self.commit_hint > self.last_seq:  # C-7
            raise DamagedError(
                f"{self._directory}: sequences up to {self.commit_hint} are known to be chosen, "
                f"but the journal ends with sequence {self.last_seq}"
            )

    def _open(self, expected: int, number: int, path: str) -> None:
        if number != expected:
            missing = segment_path(self._directory, expected)
            raise DamagedError(f"{missing}: is missing, though {path} exists")
        header = decode_header(self._files.read(path, 0, HEADER_BYTES))
        if header is None:
            raise DamagedError(f"{path}: the header, at offset 0, is damaged")
        if header.version != FORMAT_VERSION:
            raise WrongDirectoryError(
                f"{path}: has format version {header.version}; this program reads version "
                f"{FORMAT_VERSION}"
            )
        if self.disk_id is None:
            self.disk_id = header.disk_id
        if header.disk_id != self.disk_id:
            raise WrongDirectoryError(
                f"{path}: belongs to disk {header.disk_id}; this directory is disk {self.disk_id}"
            )
        size = self._files.size(path)
        if header.number != number or header.size_bytes != size:
            raise DamagedError(
                f"{path}: is segment {header.number} of {header.size_bytes} bytes by its header, "
                f"but segment {number} of {size} bytes by its name and size"
            )
        self.segments.append(Segment(number, path, size))

    def _last_byte(self, segment: Segment, start: int) -> int:
        """The offset behind the last byte that is not zero, or ``start``."""
        end = start
        for offset in range(start, segment.size_bytes, len(ZEROS)):
            data = self._files.read(segment.path, offset, len(ZEROS))
            if data != ZEROS and (rest := data.rstrip(b"\0")):
                end = offset + len(rest)
        return end

    def _segment(self, place: int, used: int, is_last: bool) -> None:
        segment = self.segments[place]
        before = (self.number, self.chain)
        if place and self.segments[place - 1].used_bytes == HEADER_BYTES:
            self._damaged(self.segments[place - 1], HEADER_BYTES, f"{segment.path} is in use")
        self.tail = place
        assert self.disk_id is not None
        seed = file_seed(self.disk_id, segment.number)
        window = Window(self._files, segment.path, seed, segment.size_bytes)
        while (end := self._batch(segment, window)) > segment.used_bytes:
            segment.used_bytes = end
        if not is_last:
            # Bytes behind the last batch are padding if, and only if, the next segment continues
            # from that batch; its START will tell.
            return
        at = segment.used_bytes
        if used <= at:
            return
        if place and before == (self.number, self.chain):
            # Not one whole batch here. The first write here came after the last segment was
            # synced; that nothing is missing at its end is certain only if nothing else is there.
            self._expect_zeros_behind(self.segments[place - 1], segment)
        witness = self._witness(segment, window, seed, at, used)
        if witness:
            self._damaged(segment, at, witness)
        if self._paranoid:
            self._damaged(segment, at, "and paranoid takes what looks like a torn write for damage")
        self.torn = Torn(segment.path, at, used)

    def _expect_zeros_behind(self, segment: Segment, following: Segment) -> None:
        if self._last_byte(segment, segment.used_bytes) > segment.used_bytes:
            self._damaged(segment, segment.used_bytes, f"{following.path} is in use")

    def _damaged(self, segment: Segment, offset: int, why: str) -> None:
        raise DamagedError(
            f"{segment.path}: no valid batch at offset {offset}, where what follows sequence "
            f"{self.last_seq} (batch {self.number + 1}) had been durable: {why}"
        )

    def _witness(self, segment: Segment, window: Window, seed: int, at: int, used: int) -> str:
        """A valid record behind ``at`` of a later write than the one that was torn there (W3)."""
        size = 1024 * 1024
        for base in range(at, used, size):
            # Magics may lie across the border of two reads.
            data = self._files.read(segment.path, base, size + len(MAGIC) - 1)
            found = data.find(MAGIC)
            while found >= 0:
                record = window.record(base + found)
                if record is not None and record.group > at:
                    return f"the record at offset {base + found} was written later"
                found = data.find(MAGIC, found + 1)
        return ""

    def _batch(self, segment: Segment, window: Window) -> int:
        """Take the batch at the end of what was read, if it is whole; the offset behind it."""
        offset = segment.used_bytes
        batch = _Batch(self.promised, self.last_seq)
        chain, count, group = self.chain, 0, -1
        like = self.runs[-1][1] if self.runs else ZERO
        while True:
            record = window.record(offset)
            if record is None:
                return segment.used_bytes
            if group < 0:
                group = record.group
            problem = ""
            if record.group != group or group > segment.used_bytes:
                problem = "its write began elsewhere"
            elif (record.kind == Kind.START) != (offset == HEADER_BYTES):
                problem = "a segment starts here, or does not"
            elif record.kind == Kind.START:
                found = (record.ballot(ZERO), record.seq, *record.start())
                expected = (self.promised, self.last_seq, self.number, self.chain)
                if found != expected:
                    problem = f"it continues from {_state(found)}, not from {_state(expected)}"
                    if self.tail:
                        # What it continues from stood at the end of the segment before.
                        before = self.segments[self.tail - 1]
                        why = f"{segment.path} continues from {_state(found)}"
                        self._damaged(before, before.used_bytes, why)
            elif record.kind == Kind.TRAILER:
                trailer = record.trailer()
                if (trailer.number, trailer.chain, trailer.records, record.seq) != (
                    self.number + 1,
                    chain,
                    count,
                    batch.last_seq,
                ):
                    problem = f"it closes batch {trailer.number} with other content"
                else:
                    self._take(segment, record, trailer, batch, link(chain, record.crc))
                    return record.end
            else:
                like, problem = self._change(record, offset, batch, like)
            if problem:
                raise DamagedError(
                    f"{segment.path}: the record at offset {offset}, behind sequence "
                    f"{batch.last_seq} (batch {self.number + 1}), is whole but does not belong "
                    f"there: {problem}"
                )
            chain = link(chain, record.crc)
            count += 1
            offset = record.end

    def _change(
        self, record: Record, offset: int, batch: _Batch, like: Ballot
    ) -> tuple[Ballot, str]:
        """Note what one record of a batch does."""
        if record.kind == Kind.PROMISE:
            ballot = record.ballot(batch.promised)
            if ballot < batch.promised:
                return like, f"it promises {ballot} after {batch.promised}"
            batch.promised = ballot
        elif record.kind == Kind.TRUNCATE:
            batch.last_seq = min(batch.last_seq, record.seq - 1)
            batch.changes.append((record.seq, offset, None))
        else:
            if record.seq != batch.last_seq + 1:
                return like, f"it holds sequence {record.seq} after {batch.last_seq}"
            batch.last_seq = record.seq
            batch.first_seq = batch.first_seq or record.seq
            like = record.ballot(like)
            batch.changes.append((record.seq, offset, like))
            if record.detail == EntryKind.CONFIG:
                batch.configurations.append(record.entry(like))
        return like, ""

    def _take(
        self, segment: Segment, record: Record, trailer: Trailer, batch: _Batch, chain: int
    ) -> None:
        """A batch is whole: let it happen."""
        runs, configurations, index = self.runs, self.configurations, self.index
        for seq, offset, ballot in batch.changes:
            if ballot is None:
                index.truncate(seq)
                while runs and runs[-1][0] >= seq:
                    runs.pop()
                while configurations and configurations[-1].seq >= seq:
                    configurations.pop()
                continue
            index.add(seq, segment.number, offset)
            if not runs or runs[-1][1] != ballot:
                runs.append((seq, ballot))
            segment.entries += 1
        configurations += batch.configurations
        if batch.first_seq:
            segment.first_seq = segment.first_seq or batch.first_seq
            segment.last_seq = batch.last_seq
        segment.batches += 1
        self.promised = batch.promised
        self.last_seq = batch.last_seq
        self.commit_hint = max(self.commit_hint, trailer.commit)
        self.clean = bool(record.detail & CLOSED)
        self.number = trailer.number
        self.chain = chain
        self.group = record.group
        if self._on_trailer is not None:
            self._on_trailer(segment, record, trailer)


def _state(found: tuple[Ballot, int, int, int]) -> str:
    promised, last_seq, number, _ = found
    return f"batch {number} (sequence {last_seq}, promise {promised})"
