"""Reading and checking a directory off line, without changing or holding anything.

What is found comes back as plain data, for a program to print or to compare. The reading is the
very scan with which a member starts (``recovery``); then every entry of the log is read once more
by its sequence, as a member would for a follower, and its own checksum compared.

A directory that is in use can be inspected too: its lock is looked at, never taken. The report is
then a picture of a moment, and a write under way looks like a torn one.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import msgspec

from clusterconsensus.consensus.types import Configuration, Entry, EntryKind
from clusterconsensus.errors import DamagedError, StorageError
from clusterconsensus.storage.files import Files, RealFiles
from clusterconsensus.storage.findings import Segment
from clusterconsensus.storage.identity import LOCK, Identity, read_identity
from clusterconsensus.storage.index import Reader
from clusterconsensus.storage.recovery import Scan
from clusterconsensus.storage.segments import segment_numbers, segment_path, set_aside_path
from clusterconsensus.storage.snapshot_files import examine, snapshot_names

WHOLE = "whole"
TORN = "torn"
"""Whole, but for a write that a crash tore before it was acknowledged: the next start cuts it
off."""
DAMAGED = "damaged"
FOREIGN = "foreign"
"""Not a directory of this library."""

READ_BYTES = 1024 * 1024
LIVE_ATTEMPTS = 3
"""A scan beside a running member may read two sides of one write; then it is repeated."""


class SegmentReport(msgspec.Struct, frozen=True):
    """One file of the journal. ``entries`` counts all that were written to it, ``first_seq`` and
    ``last_seq`` are the first and the last of them (0 for none)."""

    name: str
    size_bytes: int
    used_bytes: int
    batches: int
    entries: int
    first_seq: int
    last_seq: int
    version: int


class SnapshotReport(msgspec.Struct, frozen=True):
    """One snapshot. ``damage`` is empty for a whole one; for a damaged one the sequence is that of
    its name."""

    name: str
    seq: int
    instance: int
    owner: str
    size_bytes: int
    damage: str = ""


class BallotReport(msgspec.Struct, frozen=True):
    """Entries from ``first_seq`` on, up to the next one's, were created by this ballot."""

    first_seq: int
    instance: int
    owner: str


class ConfigurationReport(msgspec.Struct, frozen=True):
    """One CONFIG entry of the log; ``members`` read ``id (address) standing``."""

    seq: int
    members: list[str]


class Report(msgspec.Struct, kw_only=True):
    """What ``inspect`` found. ``verdict`` is WHOLE, TORN, DAMAGED or FOREIGN; ``damage`` names
    file, offset and sequences; ``in_use_by`` the process that seems to hold the directory."""

    directory: str
    verdict: str = WHOLE
    identity: Identity | None = None
    in_use_by: str = ""
    damage: list[str] = msgspec.field(default_factory=list)
    torn: str = ""
    segments: list[SegmentReport] = msgspec.field(default_factory=list)
    unfinished: list[str] = msgspec.field(default_factory=list)
    set_aside: list[str] = msgspec.field(default_factory=list)
    """Segments of a damaged journal that another one has replaced."""
    snapshots: list[SnapshotReport] = msgspec.field(default_factory=list)
    """The newest first; those that were set aside as damaged are not among them."""
    recovering: bool = False
    """Whether the member had been damaged and is not whole again: it does not vote."""
    promised_instance: int = 0
    promised_owner: str = ""
    base_seq: int = 0
    """The log begins behind it; the entries up to it must be in a snapshot."""
    base_instance: int = 0
    base_owner: str = ""
    first_seq: int = 0
    last_seq: int = 0
    commit_hint: int = 0
    closed_cleanly: bool = False
    ballots: list[BallotReport] = msgspec.field(default_factory=list)
    configurations: list[ConfigurationReport] = msgspec.field(default_factory=list)
    entries: dict[str, int] = msgspec.field(default_factory=dict)
    """How many entries of each kind the log has."""
    payload_bytes: int = 0


def inspect(directory: str, files: Files | None = None) -> Report:
    """Read and check a directory. Writes nothing and takes no lock.

    Arguments:
        directory: Its path.
        files: The file system; the real one by default.

    Returns:
        The report; also about a directory that is damaged or not one of ours.
    """
    files = files or RealFiles()
    directory = directory.rstrip("/") or "/"
    report = Report(directory=directory)
    try:
        names = files.list_directory(directory)
    except OSError as error:
        report.verdict = FOREIGN
        report.damage.append(f"{directory} cannot be read: {error}")
        return report
    numbers = segment_numbers(names)
    report.in_use_by = files.lock_holder(f"{directory}/{LOCK}")
    try:
        report.identity = read_identity(files, directory)
    except StorageError as error:
        report.damage.append(str(error))
    if report.identity is None and not numbers and not report.damage:
        report.verdict = FOREIGN
        report.damage.append(f"{directory} holds neither an identity nor a journal")
        return report
    disk_id = report.identity.disk_id if report.identity is not None else None
    attempts = LIVE_ATTEMPTS if report.in_use_by else 1
    for attempt in range(attempts):
        scan = Scan(files, directory, disk_id)
        damage = ""
        try:
            scan.run()
        except StorageError as error:
            damage = str(error)
        _fill(report, scan)
        if not damage:
            damage = _count(report, _reader(files, directory, scan), scan)
        if not damage or attempt == attempts - 1:
            if damage:
                report.damage.append(damage)
            break
    _snapshots(report, files)
    if report.damage:
        report.verdict = DAMAGED
    elif report.torn:
        report.verdict = TORN
    return report


def entries(directory: str, files: Files | None = None) -> Iterator[Entry]:
    """The entries of a directory's log, in order, however long it is.

    Raises:
        DamagedError: after what stands before the damage.
        StorageError: it is not a directory of ours.
    """
    files = files or RealFiles()
    directory = directory.rstrip("/") or "/"
    try:
        identity = read_identity(files, directory)
    except StorageError:
        identity = None  # the journal says whose it is
    scan = Scan(files, directory, identity.disk_id if identity is not None else None)
    damage: DamagedError | None = None
    try:
        scan.run()
    except DamagedError as error:
        damage = error
    yield from _all(_reader(files, directory, scan), scan)
    if damage is not None:
        raise damage


def _reader(files: Files, directory: str, scan: Scan) -> Reader:
    return Reader(files, directory, scan.disk_id or "", scan.index, threading.Lock())


def _all(reader: Reader, scan: Scan) -> Iterator[Entry]:
    seq = scan.index.first_seq
    while found := reader.read(seq, scan.last_seq, READ_BYTES):
        yield from found
        seq = found[-1].seq + 1


def _count(report: Report, reader: Reader, scan: Scan) -> str:
    """Read every entry; the damage, if one is found."""
    kinds: Counter[str] = Counter()
    payload_bytes = 0
    last = scan.base.seq
    try:
        for entry in _all(reader, scan):
            last = entry.seq
            if not entry.intact():
                return (
                    f"{report.directory}: the entry of sequence {entry.seq} was already damaged "
                    "when it was written (its own checksum does not fit)"
                )
            kinds[kind_name(entry.kind)] += 1
            payload_bytes += len(entry.payload)
    except StorageError as error:
        return str(error)
    if last != scan.last_seq:
        return f"{report.directory}: the log ends with sequence {last}, not with {scan.last_seq}"
    report.entries = dict(sorted(kinds.items()))
    report.payload_bytes = payload_bytes
    return ""


def _snapshots(report: Report, files: Files) -> None:
    """Read and check every snapshot, and whether the log continues from one of them."""
    try:
        names = snapshot_names(files.list_directory(report.directory))
    except OSError as error:
        report.damage.append(f"{report.directory} cannot be read: {error}")
        return
    covered = 0
    for name in names:
        path = f"{report.directory}/{name}"
        size_bytes = 0
        try:
            size_bytes = files.size(path)
            found, _, _ = examine(files, path)
        except FileNotFoundError:
            continue  # a running member has removed it
        except (StorageError, OSError) as error:
            damage = str(error) if isinstance(error, StorageError) else f"{path}: {error}"
            seq = int(name.partition("-")[2].partition(".")[0])
            report.snapshots.append(SnapshotReport(name, seq, 0, "", size_bytes, damage))
            report.damage.append(damage)
            continue
        ballot = found.position.ballot
        covered = max(covered, found.seq)
        report.snapshots.append(
            SnapshotReport(name, found.seq, ballot.instance, ballot.owner, size_bytes)
        )
    if report.base_seq > covered:
        report.damage.append(
            f"{report.directory}: the log begins behind sequence {report.base_seq}, and there is "
            "no whole snapshot up to there"
        )


def kind_name(kind: int) -> str:
    """The name of an entry's kind, also of one that this version does not know."""
    try:
        return EntryKind(kind).name
    except ValueError:
        return f"UNKNOWN {kind}"


def _fill(report: Report, scan: Scan) -> None:
    report.segments = [_segment(segment) for segment in scan.segments]
    report.unfinished = list(scan.unfinished)
    names = [set_aside_path("", number) for number in scan.set_aside]
    names += [segment_path("", number) for number in scan.ignored]
    report.set_aside = [name.lstrip("/") for name in names]
    report.recovering = scan.recovering
    report.base_seq = scan.base.seq
    report.base_instance = scan.base.ballot.instance
    report.base_owner = scan.base.ballot.owner
    report.torn = str(scan.torn) if scan.torn is not None else ""
    report.promised_instance = scan.promised.instance
    report.promised_owner = scan.promised.owner
    report.first_seq = scan.index.first_seq if scan.last_seq > scan.base.seq else 0
    report.last_seq = scan.last_seq
    report.commit_hint = scan.commit_hint
    report.closed_cleanly = scan.clean and scan.torn is None
    report.ballots = [
        BallotReport(first, ballot.instance, ballot.owner) for first, ballot in scan.runs
    ]
    report.configurations = [
        ConfigurationReport(entry.seq, _members(entry.payload)) for entry in scan.configurations
    ]


def _segment(segment: Segment) -> SegmentReport:
    return SegmentReport(
        segment.path.rpartition("/")[2],
        segment.size_bytes,
        segment.used_bytes,
        segment.batches,
        segment.entries,
        segment.first_seq,
        segment.last_seq,
        segment.version,
    )


def _members(payload: bytes) -> list[str]:
    try:
        found = msgspec.msgpack.decode(payload, type=Configuration)
    except msgspec.DecodeError as error:
        return [f"cannot be decoded: {error}"]
    return [f"{seat.id} ({seat.address}) {seat.standing}" for seat in found.seats]
