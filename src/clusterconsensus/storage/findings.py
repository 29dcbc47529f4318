"""What a scan of the journal finds, and how it opens the files: headers, and where the journal
begins.
"""

from __future__ import annotations

import msgspec

from clusterconsensus.consensus.types import Ballot, Entry, Position
from clusterconsensus.errors import DamagedError, WrongDirectoryError
from clusterconsensus.storage.files import Files
from clusterconsensus.storage.index import Window
from clusterconsensus.storage.records import (
    FORMAT_VERSION,
    HEADER_BYTES,
    READABLE_VERSIONS,
    Kind,
    Start,
    decode_header,
    file_seed,
)
from clusterconsensus.storage.segments import segment_path

_START_AHEAD_BYTES = 1024


class Segment(msgspec.Struct):
    """What the scan learnt of one file. ``used_bytes`` is the offset behind its last batch."""

    number: int
    path: str
    size_bytes: int
    version: int = FORMAT_VERSION
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

    The log holds ``base.seq + 1`` to ``last_seq``; a snapshot must cover what is before.
    ``commit_hint`` is the highest sequence that it knows to be chosen (W7). ``runs`` holds
    ``(first sequence, ballot)`` wherever the ballot changes along the log; ``configurations`` the
    CONFIG entries of the log. ``clean`` tells that it was closed in good order and not used since;
    ``recovering`` that the member had been damaged and is not whole again (W4).
    """

    promised: Ballot
    last_seq: int
    commit_hint: int
    clean: bool
    runs: list[tuple[int, Ballot]]
    configurations: list[Entry]
    torn: Torn | None
    base: Position
    recovering: bool


class Batch:
    """What a batch will do to the scan once its trailer is there."""

    __slots__ = (
        "changes",
        "configurations",
        "first_seq",
        "last_seq",
        "promised",
        "recovering",
        "start",
    )

    def __init__(self, promised: Ballot, last_seq: int, recovering: bool) -> None:
        self.promised = promised
        self.last_seq = last_seq
        self.recovering = recovering
        self.first_seq = 0
        self.start: Start | None = None
        # What happens to the log: (kind of the record, sequence, offset, ballot)
        self.changes: list[tuple[int, int, int, Ballot]] = []
        self.configurations: list[Entry] = []


def open_segment(files: Files, path: str, number: int, disk_id: str | None) -> tuple[Segment, str]:
    """Check a segment's header.

    Arguments:
        disk_id: Whose it must be; None to take whatever the header says.

    Returns:
        The segment, of which nothing is read yet, and whose it is.

    Raises:
        DamagedError: the header is damaged, or of another segment.
        WrongDirectoryError: it belongs to another disk, or has another format version.
        OSError: it cannot be read.
    """
    header = decode_header(files.read(path, 0, HEADER_BYTES))
    if header is None:
        raise DamagedError(f"{path}: the header, at offset 0, is damaged")
    if header.version not in READABLE_VERSIONS:
        raise WrongDirectoryError(
            f"{path}: has format version {header.version}; this program reads versions "
            f"{' and '.join(map(str, READABLE_VERSIONS))}"
        )
    if disk_id is None:
        disk_id = header.disk_id
    if header.disk_id != disk_id:
        raise WrongDirectoryError(
            f"{path}: belongs to disk {header.disk_id}; this directory is disk {disk_id}"
        )
    size = files.size(path)
    if header.number != number or header.size_bytes != size:
        raise DamagedError(
            f"{path}: is segment {header.number} of {header.size_bytes} bytes by its header, "
            f"but segment {number} of {size} bytes by its name and size"
        )
    return Segment(number, path, size, header.version), disk_id


def last_anchor(files: Files, directory: str, numbers: list[int], disk_id: str | None) -> int:
    """At which place among the segments the journal begins: at the last ANCHOR, or the first."""
    for place in range(len(numbers) - 1, 0, -1):
        start = read_start(files, segment_path(directory, numbers[place]), numbers[place], disk_id)
        if start is not None and start.anchor:
            return place
    return 0


def read_start(files: Files, path: str, number: int, disk_id: str | None) -> Start | None:
    """What a segment's START tells, None if there is none that can be read."""
    try:
        if disk_id is None:
            header = decode_header(files.read(path, 0, HEADER_BYTES))
            disk_id = header.disk_id if header is not None else ""
        seed = file_seed(disk_id, number)
        window = Window(files, path, seed, files.size(path), _START_AHEAD_BYTES)
        record = window.record(HEADER_BYTES)
    except OSError:
        return None  # whoever reads on will tell
    return record.start() if record is not None and record.kind == Kind.START else None
