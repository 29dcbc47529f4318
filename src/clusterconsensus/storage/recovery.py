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

Where does the log begin? In segment 1, with nothing; or, since the segments before were removed, at
the first segment there is, where its START says; or at the last ANCHOR, whatever stands before it.
A removal that a crash interrupted may leave a first segment whose START names an entry that was cut
off later (or, in version 1, does not name its ballot). Then the log begins at the next START that
does, or behind the BASE that comes; that there is one was certain before anything was removed.
"""

from __future__ import annotations

from collections.abc import Callable

from clusterconsensus.consensus.types import NOWHERE, ZERO, Ballot, Entry, EntryKind, Position
from clusterconsensus.errors import DamagedError, StorageError
from clusterconsensus.storage.extent import Openings
from clusterconsensus.storage.files import ZEROS, Files
from clusterconsensus.storage.findings import (
    Batch,
    Recovered,
    Segment,
    Torn,
    last_anchor,
    open_segment,
)
from clusterconsensus.storage.index import Index, Window
from clusterconsensus.storage.records import (
    CLOSED,
    HEADER_BYTES,
    MAGIC,
    Kind,
    Record,
    Trailer,
    file_seed,
    link,
)
from clusterconsensus.storage.segments import (
    segment_numbers,
    segment_path,
    set_aside_segments,
    unfinished_segments,
)


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
        self.ignored: list[int] = []
        """The segments before the last ANCHOR."""
        self.set_aside: list[int] = []
        self.openings = Openings()
        self.base = NOWHERE
        self.recovering = False
        self._floating = False  # the base is not known: the log must turn out to begin later
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
            self.base,
            self.recovering,
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
            self.set_aside = set_aside_segments(names)
            numbers = segment_numbers(names)
            place = last_anchor(self._files, path, numbers, self.disk_id)
            self.ignored, numbers = numbers[:place], numbers[place:]
            if self.set_aside and not numbers:
                raise DamagedError(f"{path}: segments were set aside, but there is no journal")
            for place, number in enumerate(numbers, numbers[0] if numbers else 0):
                path = segment_path(self._directory, number)
                if number != place:
                    missing = segment_path(self._directory, place)
                    raise DamagedError(f"{missing}: is missing, though {path} exists")
                segment, self.disk_id = open_segment(self._files, path, number, self.disk_id)
                self.segments.append(segment)
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
        if self.segments and self.segments[0].number > 1 and not self.number:
            first = self.segments[0]
            self._damaged(first, HEADER_BYTES, "it is the first one there is, and not segment 1")
        if self._floating:
            missing = segment_path(self._directory, self.segments[0].number - 1)
            raise DamagedError(
                f"{missing}: is missing, and with it sequences up to {self.base.seq} of the log"
            )
        self.commit_hint = max(self.commit_hint, self.base.seq)
        if self.commit_hint > self.last_seq:  # C-7
            raise DamagedError(
                f"{self._directory}: sequences up to {self.commit_hint} are known to be chosen, "
                f"but the journal ends with sequence {self.last_seq}"
            )

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
        if not place and segment.number > 1 and at == HEADER_BYTES:
            # Whatever was written here later, the first write was durable before any segment was
            # removed, or before this one got its name.
            self._damaged(segment, at, "it is the first one there is, and not segment 1")
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
        batch = Batch(self.promised, self.last_seq, self.recovering)
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
                batch.start = record.start()
                problem = self._begin(segment, batch)
                chain = self.chain
            elif record.kind == Kind.TRAILER:
                trailer = record.trailer()
                restated = record.ballot(batch.promised) if segment.version > 1 else batch.promised
                if (trailer.number, trailer.chain, trailer.records, record.seq, restated) != (
                    self.number + 1,
                    chain,
                    count,
                    batch.last_seq,
                    batch.promised,
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

    def _begin(self, segment: Segment, batch: Batch) -> str:
        """A segment starts: believe it where the journal begins with it, else compare."""
        start = batch.start
        assert start is not None
        if segment is self.segments[0] and segment.number > 1:
            self.number, self.chain = start.number, start.chain
            self._floating = start.ballot is None
            self.base = Position(start.ballot or ZERO, start.last_seq)
            self.index.give_up(start.last_seq)
            self.promised = batch.promised = start.promised
            self.last_seq = batch.last_seq = start.last_seq
            self.recovering = batch.recovering = start.recovering
            return ""
        found = (start.promised, start.last_seq, start.number, start.chain)
        expected = (self.promised, self.last_seq, self.number, self.chain)
        last = self.runs[-1][1] if self.runs else self.base.ballot
        if segment.version == 1 or (self._floating and not self.runs):
            last = start.ballot or last  # not to be compared
        if found == expected and (start.ballot or last, start.recovering) == (
            last,
            self.recovering,
        ):
            return ""
        if self.tail:
            # What it continues from stood at the end of the segment before.
            before = self.segments[self.tail - 1]
            why = f"{segment.path} continues from {_state(found)}"
            self._damaged(before, before.used_bytes, why)
        return f"it continues from {_state(found)}, not from {_state(expected)}"

    def _change(
        self, record: Record, offset: int, batch: Batch, like: Ballot
    ) -> tuple[Ballot, str]:
        """Note what one record of a batch does."""
        if record.kind == Kind.PROMISE:
            ballot = record.ballot(batch.promised)
            if ballot < batch.promised:
                return like, f"it promises {ballot} after {batch.promised}"
            batch.promised = ballot
        elif record.kind == Kind.TRUNCATE:
            if record.seq <= self.commit_hint:
                return like, f"it cuts off sequence {self.commit_hint}, which is chosen"
            batch.last_seq = min(batch.last_seq, record.seq - 1)
            batch.changes.append((record.kind, record.seq, offset, ZERO))
        elif record.kind == Kind.BASE:
            if record.seq < self.commit_hint:
                return like, f"it gives up sequence {self.commit_hint}, which is chosen"
            batch.last_seq = record.seq
            batch.changes.append((record.kind, record.seq, offset, record.ballot(ZERO)))
        elif record.kind == Kind.RECOVERY:
            batch.recovering = bool(record.detail)
        else:
            if record.seq != batch.last_seq + 1:
                return like, f"it holds sequence {record.seq} after {batch.last_seq}"
            batch.last_seq = record.seq
            batch.first_seq = batch.first_seq or record.seq
            like = record.ballot(like)
            batch.changes.append((record.kind, record.seq, offset, like))
            if record.detail == EntryKind.CONFIG:
                batch.configurations.append(record.entry(like))
        return like, ""

    def _take(
        self, segment: Segment, record: Record, trailer: Trailer, batch: Batch, chain: int
    ) -> None:
        """A batch is whole: let it happen."""
        runs, configurations, index = self.runs, self.configurations, self.index
        start = batch.start
        if start is not None and start.ballot is not None:
            last = Position(start.ballot, start.last_seq)
            self.openings.add(segment.number, last)
            if self._floating:
                self._rebase(last)
        for kind, seq, offset, ballot in batch.changes:
            if kind == Kind.ENTRY:
                index.add(seq, segment.number, offset)
                if not runs or runs[-1][1] != ballot:
                    runs.append((seq, ballot))
                segment.entries += 1
            elif kind == Kind.BASE:
                self.openings.give_up(segment.number)
                self._rebase(Position(ballot, seq))
            else:
                self.openings.cut(seq)
                index.truncate(seq)
                while runs and runs[-1][0] >= seq:
                    runs.pop()
                while configurations and configurations[-1].seq >= seq:
                    configurations.pop()
                if seq <= self.base.seq:
                    self._rebase(Position(ZERO, seq - 1))
                    self._floating = True
        configurations += batch.configurations
        if batch.first_seq:
            segment.first_seq = segment.first_seq or batch.first_seq
            segment.last_seq = batch.last_seq
        segment.batches += 1
        self.promised = batch.promised
        self.last_seq = batch.last_seq
        self.recovering = batch.recovering
        self.commit_hint = max(self.commit_hint, trailer.commit)
        self.clean = bool(record.detail & CLOSED)
        self.number = trailer.number
        self.chain = chain
        self.group = record.group
        if self._on_trailer is not None:
            self._on_trailer(segment, record, trailer)

    def _rebase(self, base: Position) -> None:
        """The log is empty and begins behind ``base``."""
        self.base = base
        self.index.give_up(base.seq)
        self.runs.clear()
        self.configurations.clear()
        self._floating = False


def _state(found: tuple[Ballot, int, int, int]) -> str:
    promised, last_seq, number, _ = found
    return f"batch {number} (sequence {last_seq}, promise {promised})"
