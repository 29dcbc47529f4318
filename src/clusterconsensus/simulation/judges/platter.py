"""What a member's disk would hold after a power failure, read off the bytes themselves.

The ghost must not believe a journal about its own durability. So this reads every byte that has
become durable, with the record format and nothing else of the storage layer, and keeps the log and
the promise that they amount to. A unit counts when its trailer is there, as a reader would count
it.

A log may begin behind a base: compacted away, or given up for a snapshot. What is before it is not
the journal's to keep any more, and whether a snapshot covers it is for others to judge.
"""

from __future__ import annotations

from clusterconsensus.consensus.types import NOWHERE, ZERO, Ballot, Entry, Position
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.records import HEADER_BYTES, Kind, Record, Start, file_seed, parse
from clusterconsensus.storage.segments import segment_numbers, segment_path


class Platter:
    """The durable log and promise of one member.

    Arguments:
        directory: The member's directory on its disk.
        disk_id: Of that directory; seeds the checksums of its records.
    """

    def __init__(self, directory: str, disk_id: str) -> None:
        self._directory = directory
        self._disk_id = disk_id
        self.promised: Ballot = ZERO
        self.recovering = False
        self.base: Position = NOWHERE
        """The last entry before the log; its ballot is ZERO where that is not known."""
        self.entries: list[Entry] = []
        """From ``first_seq`` to ``last_seq``."""
        self._floating = False  # the base was cut off: the log will turn out to begin later
        self._begun = False
        self._segment = 1
        self._offset = HEADER_BYTES
        self._seed = file_seed(disk_id, 1)
        self.path = segment_path(directory, 1)
        """The file that holds the last unit."""
        self.last_write = HEADER_BYTES
        """Where in it the last write began: damage behind it looks like a torn write (W3)."""

    def read(self, disk: Disk) -> None:
        """Take what stands on a disk behind what was taken already: units that nobody synced may
        have survived a crash."""
        names = [path.rpartition("/")[2] for path in disk.paths()]
        numbers = segment_numbers(sorted(names))
        if numbers and numbers[0] <= self._segment:
            self._forget(disk, numbers[0])
        for number in numbers:
            if number < self._segment:
                continue
            content = bytes(disk.content(segment_path(self._directory, number)).durable)
            if number > self._segment:
                seed = file_seed(self._disk_id, number)
                if not isinstance(parse(content, HEADER_BYTES, HEADER_BYTES, seed), Record):
                    continue
                self._go_to(number)
            self._take(content, self._offset)

    def _go_to(self, number: int) -> None:
        self._segment = number
        self._offset = HEADER_BYTES
        self._seed = file_seed(self._disk_id, number)
        self.path = segment_path(self._directory, number)

    def _forget(self, disk: Disk, number: int) -> None:
        """The first segment that there still is tells from where on the log is still there."""
        content = bytes(disk.content(segment_path(self._directory, number)).durable)
        found = parse(content, HEADER_BYTES, HEADER_BYTES, file_seed(self._disk_id, number))
        if isinstance(found, Record) and found.kind == Kind.START:
            start = found.start()
            if start.ballot is not None and self.ballot_at(start.last_seq) == start.ballot:
                del self.entries[: start.last_seq - self.base.seq]
                self.base = Position(start.ballot, start.last_seq)

    def on_durable(self, path: str, offset: int, data: bytes) -> None:
        """A write has become durable (``Disk.on_durable``)."""
        if path == self.path:
            if offset == self._offset:
                self._take(data, 0)
        elif offset == HEADER_BYTES and data[:1] != b"\0":
            following = segment_path(self._directory, self._segment + 1)
            if path == following:
                self._go_to(self._segment + 1)
                self._take(data, 0)

    def _take(self, data: bytes, at: int) -> None:
        """Take every whole unit that begins at the present offset."""
        offset = begins = self._offset
        seed = self._seed
        unit: list[Record] = []
        while True:
            record = parse(data, at, offset, seed)
            if not isinstance(record, Record):
                break
            at += record.end - offset
            offset = record.end
            if record.kind == Kind.TRAILER:
                self._apply(unit)
                unit, begins = [], offset
                self.last_write = record.group
            else:
                unit.append(record)
        self._offset = begins

    def _apply(self, unit: list[Record]) -> None:
        for record in unit:
            if record.kind == Kind.ENTRY:
                like = self.entries[-1].ballot if self.entries else ZERO
                self.entries.append(record.entry(like))
            elif record.kind == Kind.PROMISE:
                self.promised = record.ballot(self.promised)
            elif record.kind == Kind.TRUNCATE:
                if record.seq > self.base.seq:
                    del self.entries[record.seq - self.first_seq :]
                else:
                    self._give_up(Position(ZERO, record.seq - 1))
                    self._floating = True
            elif record.kind == Kind.BASE:
                self._give_up(Position(record.ballot(ZERO), record.seq))
            elif record.kind == Kind.RECOVERY:
                self.recovering = bool(record.detail)
            elif record.kind == Kind.START:
                self._start(record.start())

    def _start(self, start: Start) -> None:
        """A segment begins: only where the log begins with it does it tell something new."""
        first = not self._begun and self._segment > 1
        self._begun = True
        if first or start.anchor:
            self.promised = start.promised
            self.recovering = start.recovering
        if first or start.anchor or (self._floating and start.ballot is not None):
            self._give_up(Position(start.ballot or ZERO, start.last_seq))
            self._floating = start.ballot is None

    def _give_up(self, base: Position) -> None:
        self.base = base
        self.entries.clear()
        self._floating = False

    @property
    def first_seq(self) -> int:
        """The first sequence that the log may hold."""
        return self.base.seq + 1

    @property
    def last_seq(self) -> int:
        """The last sequence of the log, or of its base."""
        return self.base.seq + len(self.entries)

    def ballot_at(self, seq: int) -> Ballot | None:
        """The ballot of an entry, or of the base; None where there is none."""
        if seq == self.base.seq:
            return self.base.ballot if seq else None
        return self.entries[seq - self.first_seq].ballot if self._holds(seq) else None

    def entry(self, seq: int) -> Entry:
        """An entry of the log.

        Raises:
            IndexError: the log does not hold it.
        """
        if not self._holds(seq):
            raise IndexError(f"sequence {seq} is not among {self.first_seq} to {self.last_seq}")
        return self.entries[seq - self.first_seq]

    def _holds(self, seq: int) -> bool:
        return self.first_seq <= seq <= self.last_seq
