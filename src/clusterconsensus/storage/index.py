"""Where the entries of the log stand on disk: a sparse index and the reader that uses it.

The index holds one *point* for about every 64 KiB of journal: the sequence of an entry, and the
segment and offset of its record. From a point the reader walks forward, record by record, up to
the next point. Cutting the log off forgets the points behind the cut and forces a new one for the
entry that comes next, and so does a new segment; therefore the surviving entries between two
points always stand between them in one file, in order, and the walk ends before it could meet an
entry that was cut off.

When segments are removed at the log's beginning, their points are forgotten with them. A read that
has already found its way to one of them finds nothing then, and says so.
"""

from __future__ import annotations

import threading
from array import array
from bisect import bisect_left, bisect_right

from clusterconsensus.consensus.types import ZERO, Entry
from clusterconsensus.errors import DamagedError
from clusterconsensus.storage.files import Files
from clusterconsensus.storage.records import Data, Kind, Record, file_seed, parse
from clusterconsensus.storage.segments import segment_path

SPACING_BYTES = 64 * 1024
"""How far apart points are at least; 16 bytes of memory each."""
_WINDOW_BYTES = 256 * 1024


class Index:
    """A sparse map from sequences to places. Not safe for several threads by itself."""

    __slots__ = ("_forced", "_numbers", "_offsets", "_seqs", "first_seq", "last_seq")

    def __init__(self) -> None:
        self._seqs = array("Q")
        self._numbers = array("L")
        self._offsets = array("Q")
        self._forced = True
        self.first_seq = 1
        self.last_seq = 0

    def __len__(self) -> int:
        return len(self._seqs)

    def add(self, seq: int, number: int, offset: int) -> None:
        """An entry stands at an offset of a segment; it is the next one of the log."""
        self.last_seq = seq
        if (
            self._forced
            or number != self._numbers[-1]
            or offset - self._offsets[-1] >= SPACING_BYTES
        ):
            self._seqs.append(seq)
            self._numbers.append(number)
            self._offsets.append(offset)
            self._forced = False

    def truncate(self, seq: int) -> None:
        """Entries from ``seq`` on are cut off."""
        if seq > self.last_seq:
            return
        place = bisect_left(self._seqs, seq)
        del self._seqs[place:], self._numbers[place:], self._offsets[place:]
        self.last_seq = seq - 1
        self._forced = True

    def give_up(self, seq: int) -> None:
        """The log is empty and begins behind ``seq``."""
        for points in (self._seqs, self._numbers, self._offsets):
            del points[:]
        self._forced = True
        self.first_seq = seq + 1
        self.last_seq = seq

    def forget(self, seq: int) -> None:
        """Everything up to ``seq``, behind which a segment begins, is gone."""
        place = bisect_right(self._seqs, seq)
        for points in (self._seqs, self._numbers, self._offsets):
            del points[:place]
        self._forced = self._forced or not self._seqs
        self.first_seq = seq + 1

    def find(self, seq: int) -> tuple[int, int, int, int]:
        """For an entry of the log: the last point at or before it, as sequence, segment and
        offset, and the last sequence that is found by walking from there."""
        place = bisect_right(self._seqs, seq) - 1
        behind = place + 1
        limit = self._seqs[behind] - 1 if behind < len(self._seqs) else self.last_seq
        return self._seqs[place], self._numbers[place], self._offsets[place], limit


class Window:
    """Reads the records of one file through a buffer of bounded size.

    Arguments:
        end: Where reading must stop, in bytes.
        ahead_bytes: How much to read at a time.
    """

    __slots__ = ("_ahead_bytes", "_base", "_data", "_end", "_files", "_path", "_seed")

    def __init__(
        self, files: Files, path: str, seed: int, end: int, ahead_bytes: int = _WINDOW_BYTES
    ) -> None:
        self._files = files
        self._path = path
        self._seed = seed
        self._end = end
        self._ahead_bytes = ahead_bytes
        self._base = 0
        self._data: Data = b""

    def record(self, offset: int) -> Record | None:
        """The record at an offset, or None if no whole and valid one is there."""
        need = 1
        while True:
            at = offset - self._base
            if at < 0 or at + need > len(self._data):
                if offset + need > self._end:
                    return None
                size = min(max(need, self._ahead_bytes), self._end - offset)
                self._data = self._files.read(self._path, offset, size)
                self._base, at = offset, 0
                if len(self._data) < need:
                    return None
            found = parse(self._data, at, offset, self._seed)
            if isinstance(found, Record):
                return found
            if found <= need:
                return None
            need = found


class Reader:
    """Reads entries by their sequences, from any thread, while the index grows in another.

    Arguments:
        lock: Guards ``index``.
        index: Shared with whoever appends; knows only what is durable.
    """

    def __init__(
        self, files: Files, directory: str, disk_id: str, index: Index, lock: threading.Lock
    ) -> None:
        self._files = files
        self._directory = directory
        self._disk_id = disk_id
        self._index = index
        self._lock = lock

    def read(self, first: int, last: int, max_bytes: int) -> list[Entry]:
        """See ``Journal.read``."""
        entries: list[Entry] = []
        size = 0
        seq = first
        while True:
            with self._lock:
                index = self._index
                last = min(last, index.last_seq)
                if seq > last or seq < index.first_seq:
                    return entries
                point, number, offset, limit = index.find(seq)
            path = segment_path(self._directory, number)
            ahead = min(max(max_bytes - size, 4096) + SPACING_BYTES, _WINDOW_BYTES)
            try:
                end = self._files.size(path)
                window = Window(self._files, path, file_seed(self._disk_id, number), end, ahead)
                while point <= limit and seq <= last:
                    record = window.record(offset)
                    if record is None or (record.kind == Kind.ENTRY and record.seq != point):
                        if self._is_gone(seq):
                            return entries
                        raise DamagedError(
                            f"{path}: no valid record for sequence {point} at offset {offset}; "
                            f"sequences {point} to {limit} cannot be read"
                        )
                    offset = record.end
                    if record.kind != Kind.ENTRY:
                        continue
                    point += 1
                    if record.seq < seq:
                        continue
                    if entries and size + len(record.payload) > max_bytes:
                        return entries
                    entries.append(record.entry(entries[-1].ballot if entries else ZERO))
                    size += len(record.payload)
                    seq += 1
                    if size >= max_bytes:
                        return entries
            except OSError as error:
                if self._is_gone(seq):
                    return entries
                raise DamagedError(
                    f"{path}: sequences {seq} to {limit} cannot be read: {error}"
                ) from error

    def _is_gone(self, seq: int) -> bool:
        """Whether an entry was compacted away since it was looked up."""
        with self._lock:
            return seq < self._index.first_seq
