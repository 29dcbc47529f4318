"""What a member's disk would hold after a power failure, read off the bytes themselves.

The ghost must not believe a journal about its own durability. So this reads every byte that has
become durable, with the record format and nothing else of the storage layer, and keeps the log and
the promise that they amount to. A unit counts when its trailer is there, as a reader would count
it.
"""

from __future__ import annotations

from clusterconsensus.consensus.types import ZERO, Ballot, Entry
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.records import HEADER_BYTES, Kind, Record, file_seed, parse
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
        self.entries: list[Entry] = []
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
        for number in segment_numbers(sorted(names)):
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
                del self.entries[record.seq - 1 :]

    def ballot_at(self, seq: int) -> Ballot | None:
        """The ballot of an entry, None where there is none."""
        return self.entries[seq - 1].ballot if 0 < seq <= len(self.entries) else None
