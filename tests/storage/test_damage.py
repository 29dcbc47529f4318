"""Damage is detected and named, never believed; what a crash tears is no damage (W3)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.types import NOWHERE, ZERO, Position
from clusterconsensus.errors import DamagedError, StorageError, WrongDirectoryError
from clusterconsensus.simulation.world.content import Image
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.identity import IDENTITY, open_directory
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.records import (
    HEADER_BYTES,
    MAGIC,
    Encoder,
    encode_header,
    file_seed,
)
from clusterconsensus.storage.recovery import Scan
from clusterconsensus.storage.segments import segment_path
from tests.storage.model import (
    DISK,
    PATH,
    Expected,
    ballot,
    configuration,
    entries,
    entry,
    make_directory,
    open_journal,
    read_all,
)

UNITS = (
    Persist(1, ballot(1)),
    Persist(2, None, None, (configuration(1), *entries(2, 3)), 1),
    Persist(3, ballot(2), 4, entries(4, 2, 2), 3),
    Persist(4, None, None, entries(6, 4, 2, 400), 5),
    Persist(5, None, None, entries(10, 3, 2, 150), 9),
)
FIRST = segment_path(PATH, 1)
SECOND = segment_path(PATH, 2)


def made(*, close: bool = True) -> Disk:
    """A disk with two segments that hold ``UNITS``, each written by itself."""
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    for unit in UNITS:
        journal.append([unit])
    if close:
        journal.close(12)
    assert sorted(name for name in files.names if "journal" in name) == [FIRST, SECOND]
    return copy(files)


def copy(files: Disk, change: Callable[[str, bytearray], None] | None = None) -> Disk:
    """Another disk with what readers see on this one."""
    found = {}
    for path in files.paths():
        content = bytearray(files.read(path))
        if change is not None:
            change(path, content)
        found[path] = bytes(content)
    return Disk(Image(tuple(sorted(files.directories)), found))


def contents(files: Disk) -> dict[str, bytes]:
    return {
        path: bytes(node.cached) for path, node in files.names.items() if not path.endswith("lock")
    }


def changed(files: Disk, path: str, offset: int, data: bytes) -> Disk:
    def change(at: str, content: bytearray) -> None:
        if at == path:
            content[offset : offset + len(data)] = data

    return copy(files, change)


def used(files: Disk, path: str) -> int:
    """Where the last batch of a segment ends."""
    if path not in (FIRST, SECOND):
        return files.size(path)
    scan = Scan(copy(files), PATH, DISK)
    scan.run()
    return next(segment.used_bytes for segment in scan.segments if segment.path == path)


def test_a_flip_in_the_last_write_looks_torn_unless_paranoid() -> None:
    files = made(close=False)
    end = used(files, SECOND)
    for offset in range(end - 700, end, 7):
        flipped = changed(files, SECOND, offset, bytes([files.read(SECOND, offset, 1)[0] ^ 4]))
        before = contents(flipped)
        with pytest.raises(DamagedError, match=r"paranoid"):
            open_journal(flipped, paranoid=True)
        assert contents(flipped) == before
        journal = open_journal(flipped)
        assert journal.recovered.torn is not None
        assert Expected(UNITS[:-1]).matches(journal)


def test_damage_names_file_offset_and_sequence() -> None:
    files = made()
    data = files.read(FIRST)
    third = data.index(MAGIC, data.index(MAGIC, HEADER_BYTES + 300) + 1)
    flipped = changed(files, FIRST, third + 20, b"\xff")
    with pytest.raises(DamagedError) as raised:
        open_journal(flipped)
    text = str(raised.value)
    assert FIRST in text
    assert "offset " in text
    assert "sequence " in text


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_lost_write_is_noticed(lost: int) -> None:
    # The disk said that it was durable, and kept the zeros.
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    before = after = b""
    for number, unit in enumerate(UNITS[:4], 1):
        if number == lost:
            before = files.read(FIRST)
        journal.append([unit])
        if number == lost:
            after = files.read(FIRST)
    journal.close(9)
    start = next(place for place in range(len(before)) if before[place] != after[place])
    end = len(after.rstrip(b"\0"))
    damaged = changed(files, FIRST, start, before[start:end])
    with pytest.raises(DamagedError):
        open_journal(damaged)


def test_a_misdirected_write_is_noticed() -> None:
    # A good block arrives at another place, over an old one or over the padding between.
    files = made()
    data = files.read(FIRST)
    for source in range(HEADER_BYTES, HEADER_BYTES + 1024, 128):
        for target in range(HEADER_BYTES, HEADER_BYTES + 1024, 128):
            block = data[source : source + 128]
            if block == data[target : target + 128]:
                continue
            with pytest.raises(DamagedError):
                open_journal(changed(files, FIRST, target, block))
    with pytest.raises(DamagedError):
        open_journal(changed(files, SECOND, 0, data))
    same = changed(files, SECOND, HEADER_BYTES, data[HEADER_BYTES:])
    with pytest.raises(StorageError):
        read_all(open_journal(same, paranoid=True))


def test_a_stale_record_at_its_own_place_does_not_continue_the_chain() -> None:
    # Two histories that differ only in one early entry: the later record of the one, at its own
    # offset in the other, has a good checksum of its own.
    disks = []
    for payload in (b"x", b"y"):
        files = Disk()
        make_directory(files)
        journal = open_journal(files)
        journal.append([Persist(1, ballot(1), None, entries(1, 1))])
        first = used(files, FIRST)
        journal.append([Persist(2, None, None, (entry(2, 1, payload),))])
        second = used(files, FIRST)
        journal.append([Persist(3, None, None, entries(3, 1))])
        third = used(files, FIRST)
        journal.append([Persist(4, None, None, entries(4, 1))])
        disks.append(files)
        assert first < second < third
    stale = disks[1].read(FIRST, second, third - second)
    assert stale != disks[0].read(FIRST, second, third - second)
    with pytest.raises(DamagedError, match="does not belong there"):
        open_journal(changed(disks[0], FIRST, second, stale))


def test_a_torn_write_may_leave_its_end_but_not_its_beginning() -> None:
    # Three batches of one write: the first is lost, the last is whole. Nobody was told (W3).
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    journal.append([Persist(1, ballot(1), None, entries(1, 8))])
    start = used(files, FIRST)
    journal.append(
        [
            Persist(2, ballot(2), 5, entries(5, 1, 2)),
            Persist(3, None, None, entries(6, 2, 2), 4),
            Persist(4, ballot(3)),
        ]
    )
    torn = changed(files, FIRST, start, bytes(60))
    again = open_journal(torn)
    assert again.recovered.torn is not None
    assert again.recovered.promised == ballot(1)
    assert read_all(again) == list(entries(1, 8))
    # Cut off for good: nothing of it is left to come back.
    assert used(torn, FIRST) == start
    again.append([Persist(5, ballot(4))])
    assert open_journal(copy(torn)).recovered.promised == ballot(4)


def test_a_torn_write_still_proves_what_was_durable_before_it() -> None:
    # The last write lost its trailer, yet its first record is whole and says where it began.
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    journal.append([Persist(1, ballot(1), None, entries(1, 3))])
    start = used(files, FIRST)
    journal.append([Persist(2, None, None, entries(4, 2))])
    journal.append([Persist(3, None, None, entries(6, 2))])
    end = used(files, FIRST)
    torn = changed(files, FIRST, end - 30, bytes(30))
    assert open_journal(copy(torn)).recovered.last_seq == 5
    with pytest.raises(DamagedError, match="follows sequence 3"):
        open_journal(changed(torn, FIRST, start + 20, b"\xff"))


def test_a_commit_hint_beyond_the_log_is_damage() -> None:
    # C-7: the journal writes no such thing, so it is put together by hand.
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    journal.append([Persist(1, ballot(1), None, entries(1, 3), 99)])
    assert open_journal(copy(files)).recovered.commit_hint == 3
    encoder = Encoder(
        file_seed(DISK, 1), used(files, FIRST), journal._tip.batch, journal._tip.chain, 3
    )
    encoder.trailer(3, 7, ballot(1))
    damaged = changed(files, FIRST, used(files, FIRST), b"".join(encoder.pieces))
    with pytest.raises(DamagedError, match=r"up to 7 .* ends with sequence 3"):
        open_journal(damaged)


def test_a_missing_segment_is_damage() -> None:
    files = made()
    third = copy(files)
    journal = open_journal(third)
    while journal.statistics()["segments"] < 3:
        last = journal.statistics()["last_sequence"]
        journal.append([Persist(1, None, None, entries(last + 1, 1))])
    missing = copy(third)
    del missing.names[SECOND]
    with pytest.raises(DamagedError, match=r"journal-00000002\.log: is missing"):
        open_journal(missing)
    # The first one may have been removed because a snapshot covers it: whoever knows the snapshots
    # compares.
    del files.names[FIRST]
    assert open_journal(files).recovered.base.seq > 0


def test_a_shortened_segment_is_damage() -> None:
    files = made()
    del files.names[FIRST].cached[-100:]
    with pytest.raises(DamagedError, match="by its header"):
        open_journal(files)


def test_segments_of_another_disk_are_refused() -> None:
    files = made()
    with pytest.raises(WrongDirectoryError, match=rf"{DISK}.*other"):
        Journal.open(files, PATH, disk_id="other", segment_bytes=8192)


def test_segments_of_another_version_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    files = made()
    monkeypatch.setattr("clusterconsensus.storage.records.FORMAT_VERSION", 99)
    page = encode_header(1, 8192, DISK)
    with pytest.raises(WrongDirectoryError, match=r"version 99.*versions 1 and 2"):
        open_journal(changed(files, FIRST, 0, page))


def test_damage_is_noticed_when_reading() -> None:
    files = made()
    journal = open_journal(files)
    sixth = files.read(SECOND).index(Expected(UNITS).entries[5].payload)
    files.names[SECOND].cached[sixth] ^= 1
    with pytest.raises(
        DamagedError, match=r"00000002\.log: no valid record for sequence 6 at offset"
    ):
        read_all(journal)


def test_a_read_error_is_damage() -> None:
    files = made()
    journal = open_journal(files)

    def fail(path: str, offset: int = 0, size: int | None = None) -> bytes:
        raise OSError(5, "input/output error")

    files.read = fail  # type: ignore[method-assign]  # a failing disk
    with pytest.raises(DamagedError, match="cannot be read"):
        journal.read(1, 5, 100)
    with pytest.raises(DamagedError, match="input/output error"):
        open_journal(files)


def test_a_damaged_identity_is_refused() -> None:
    files = made()
    files.names[f"{PATH}/{IDENTITY}"].cached[12] ^= 1
    with pytest.raises(DamagedError, match="identity is damaged"):
        open_directory(files, PATH, "shop", "a", DISK)


def test_damage_before_a_segment_whose_first_write_was_torn() -> None:
    """The torn write came after all before it was durable; so what is missing there was."""
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    for unit in UNITS[:4]:
        journal.append([unit])
    end = used(files, FIRST)
    assert used(files, SECOND) > HEADER_BYTES
    # The first write to the second segment is torn in its first record ...
    torn = changed(files, SECOND, HEADER_BYTES + 20, b"\xff")
    assert open_journal(copy(torn)).recovered.torn is not None
    # ... and the last batch of the first segment is damaged too.
    damaged = changed(torn, FIRST, end - 20, b"\xff\xff\xff\xff")
    before = contents(damaged)
    with pytest.raises(DamagedError, match=r"00000001\.log: no valid batch .*00000002\.log is in"):
        open_journal(damaged)
    assert contents(damaged) == before


def began(encoder: Encoder, offset: int) -> None:
    """What comes now says that its write began at an offset."""
    encoder._group = offset


FORGED: dict[str, tuple[str, Callable[[Encoder], None]]] = {
    "a lower promise": ("promises 1:a after 2:a", lambda e: e.promise(ballot(1))),
    "a gap": ("holds sequence 5 after 3", lambda e: e.entry(entry(5))),
    "an entry twice": ("holds sequence 3 after 3", lambda e: e.entry(entry(3))),
    "a beginning in the middle": (
        "a segment starts here",
        lambda e: e.start(ballot(2), Position(ballot(1), 3)),
    ),
    "a write that began before": ("began elsewhere", lambda e: began(e, HEADER_BYTES)),
    "a write that begins behind": ("began elsewhere", lambda e: began(e, e.offset + 8)),
    "another batch": ("closes batch 9", lambda e: setattr(e, "number", 8)),
    "another history": ("with other content", lambda e: setattr(e, "chain", e.chain ^ 1)),
}


@pytest.mark.parametrize("what", FORGED)
def test_a_whole_record_that_belongs_elsewhere_is_damage(what: str) -> None:
    """Each has a good checksum; the journal writes no such thing, so it is put together by hand."""
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    journal.append([Persist(1, ballot(2), None, entries(1, 3))])
    at = used(files, FIRST)

    def behind(forge: Callable[[Encoder], None] | None) -> Disk:
        tip = journal._tip
        encoder = Encoder(file_seed(DISK, 1), at, tip.batch, tip.chain, 3)
        if what == "a write that began before":
            encoder.entry(entry(4))
        if forge is not None:
            forge(encoder)
        if what == "a write that began before":
            encoder.entry(entry(5))
        encoder.trailer(5 if what == "a write that began before" else 3, 3, ballot(2))
        return changed(files, FIRST, at, b"".join(encoder.pieces))

    problem, forge = FORGED[what]
    assert open_journal(behind(None)).recovered.last_seq >= 3, "without the forgery all is well"
    with pytest.raises(DamagedError, match=f"does not belong there: .*{problem}"):
        open_journal(behind(forge))


@pytest.mark.parametrize(
    ("number", "with_start", "problem"),
    [(0, True, ""), (5, True, "continues from batch 5"), (0, False, "a segment starts here")],
)
def test_the_first_segment_begins_with_nothing(number: int, with_start: bool, problem: str) -> None:
    files = Disk()
    make_directory(files)
    open_journal(files)
    encoder = Encoder(file_seed(DISK, 1), HEADER_BYTES, number, 0, 0)
    if with_start:
        encoder.start(ZERO, NOWHERE)
    encoder.promise(ballot(1))
    encoder.trailer(0, 0, ballot(1))
    forged = changed(files, FIRST, HEADER_BYTES, b"".join(encoder.pieces))
    if problem:
        with pytest.raises(DamagedError, match=f"does not belong there: .*{problem}"):
            open_journal(forged)
    else:
        assert open_journal(forged).recovered.promised == ballot(1)


def test_a_scan_tells_each_whole_batch() -> None:
    told: list[tuple[str, int, int, int]] = []
    files = made()
    Scan(
        files,
        PATH,
        DISK,
        on_trailer=lambda segment, record, trailer: told.append(
            (segment.path, trailer.number, record.seq, trailer.commit)
        ),
    ).run()
    assert told == [
        (FIRST, 1, 0, 0),
        (FIRST, 2, 4, 1),
        (FIRST, 3, 5, 3),
        (SECOND, 4, 9, 5),
        (SECOND, 5, 12, 9),
        (SECOND, 6, 12, 12),
    ]


def test_a_flip_in_a_journal_that_begins_later_is_never_believed() -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    journal.append([Persist(1, ballot(1), None, entries(1, 6, 1, 400), 6)])
    journal.append([Persist(2, ballot(2), None, entries(7, 6, 2, 330), 6)])
    assert journal.compact(6) == 6
    journal.append([Persist(3, None, None, entries(13, 1, 2), 12)])
    image = files.snapshot_image()
    last = used(files, SECOND) - 300
    found = {"refused": 0, "torn": 0}
    for offset in range(used(files, SECOND)):
        flipped = Disk(image)
        flipped.flip(SECOND, offset, offset % 8)
        try:
            again = open_journal(flipped)
        except DamagedError:
            found["refused"] += 1
        else:
            found["torn"] += 1
            assert offset > last, "only the last write looks torn"
            assert (again.recovered.base.seq, again.recovered.last_seq) == (6, 12)
    assert found["torn"] > 100
    assert found["refused"] > 6_000
    # Nor is the first write to the first segment that there is taken for torn, if it is the last.
    torn = changed(files, SECOND, HEADER_BYTES, bytes(4096))
    with pytest.raises(DamagedError, match="not segment 1"):
        open_journal(torn)
