"""No damage makes a member forget what it promised: it is known for certain, or it is refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.types import NOWHERE, Position
from clusterconsensus.errors import DamagedError, DiskFullError
from clusterconsensus.simulation.journals.model import Expected, Salvaged
from clusterconsensus.simulation.judges.platter import Platter
from clusterconsensus.simulation.world.content import Image
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.inspect import WHOLE, inspect
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.records import HEADER_BYTES
from clusterconsensus.storage.segments import segment_path
from tests.storage.model import (
    DISK,
    PATH,
    SMALL_BYTES,
    after_power_failure,
    ballot,
    configuration,
    entries,
    make_directory,
    open_journal,
)

GOLDEN = Path(__file__).parent / "golden"
UNITS = (
    Persist(1, ballot(1), None, (configuration(1),)),
    Persist(2, ballot(2), None, entries(2, 5, 1, 300), 1),
    Persist(3, ballot(3)),
    Persist(4, None, 6, entries(6, 4, 3, 250), 5),
    Persist(5, ballot(4)),
    Persist(6, None, None, entries(10, 2, 3, 100), 9),
    Persist(7, ballot(5)),
    Persist(8, None, None, entries(12, 1, 5), 11),
)
BASE = Position(ballot(1), 3)


def made() -> tuple[Image, tuple[str, int, int], dict[str, int]]:
    """A disk with ``UNITS``; where its last write stands; how far each segment is used."""
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    last, used = ("", 0, 0), {}

    def on_durable(path: str, offset: int, data: bytes) -> None:
        nonlocal last
        if path.endswith(".log"):
            last = (path, offset, offset + len(data))
            used[path] = offset + len(data)

    files.on_durable = on_durable
    for unit in UNITS:
        journal.append([unit])
    return files.snapshot_image(), last, used


def salvage(files: Disk, base: Position = BASE) -> Journal:
    return Journal.salvage(files, PATH, disk_id=DISK, segment_bytes=SMALL_BYTES, base=base)


def salvaged() -> Expected:
    return Expected([*UNITS, Salvaged(BASE)])


def test_any_flip_leaves_the_promise_or_a_refusal() -> None:
    image, _, used = made()
    assert len(used) == 2
    counts = {"whole or torn": 0, "begun anew": 0, "refused": 0}
    for path in used:
        for offset in range(0, used[path], 3):
            files = Disk(image)
            files.flip(path, offset, offset % 8)
            try:
                open_journal(files)
            except DamagedError:
                pass
            else:
                counts["whole or torn"] += 1
                continue
            before = files.snapshot_image()
            try:
                journal = salvage(files)
            except DamagedError:
                assert files.snapshot_image() == before
                counts["refused"] += 1
                continue
            assert salvaged().matches(journal), (path, offset)
            counts["begun anew"] += 1
    # One flip never hides a promise: the last trailer restates it.
    assert counts["refused"] == 0
    assert counts["begun anew"] > 2_000
    assert counts["whole or torn"] > 20


def test_damage_in_many_places_leaves_the_promise_or_a_refusal() -> None:
    image, (last_path, last_start, last_end), used = made()
    chance = random.Random(1)
    counts = {"begun anew": 0, "refused": 0}
    for _ in range(600):
        files = Disk(image)
        is_last_hit = False
        for _ in range(chance.choice((2, 3, 5))):
            path = chance.choice(sorted(used))
            start = chance.randrange(HEADER_BYTES, used[path])
            length = min(chance.choice((1, 60, 600)), used[path] - start)
            files.overwrite(path, start, chance.choice((bytes(length), b"\x5a" * length)))
            is_last_hit |= path == last_path and start < last_end and start + length > last_start
        try:
            open_journal(Disk(files.snapshot_image()))
        except DamagedError:
            pass
        else:
            continue
        try:
            journal = salvage(files)
        except DamagedError:
            counts["refused"] += 1
            continue
        # A damaged last write looks torn (W3); this one holds no promise that is not told before.
        assert journal.recovered.promised == ballot(5) or is_last_hit
        assert journal.recovered.promised >= ballot(4)
        counts["begun anew"] += 1
    assert counts["begun anew"] > 300
    assert counts["refused"] > 0


def test_paranoid_does_not_take_a_damaged_last_write_for_torn() -> None:
    image, (path, _, end), _ = made()
    files = Disk(image)
    files.flip(path, end - 10, 1)  # in its trailer, which would tell the promise
    files.flip(segment_path(PATH, 1), HEADER_BYTES + 300, 1)
    with pytest.raises(DamagedError, match="paranoid"):
        Journal.salvage(
            files, PATH, disk_id=DISK, segment_bytes=SMALL_BYTES, base=BASE, paranoid=True
        )
    assert salvage(files).recovered.promised == ballot(5)


def test_a_missing_segment_is_no_secret_if_the_next_one_is_whole() -> None:
    image, _, used = made()
    first, second = sorted(used)
    for gone, is_refused in ((first, False), (second, True)):
        files = Disk(image)
        files.remove(gone)
        kept = second if gone == first else first
        files.flip(kept, used[kept] - 20 if is_refused else HEADER_BYTES + 500, 1)
        if is_refused:
            # Nothing tells that there was a second segment; the torn end is cut off, as ever.
            assert open_journal(files).recovered.torn is not None
        else:
            assert salvaged().matches(salvage(files))


def test_a_shortened_or_unreadable_end_is_refused() -> None:
    image, (path, _, end), _ = made()
    shortened = {**image.files, path: image.files[path][: end - 400]}
    files = Disk(Image(image.directories, shortened))
    with pytest.raises(DamagedError, match="come back as a new one"):
        salvage(files)
    emptied = {**image.files, path: bytes(len(image.files[path]))}
    files = Disk(Image(image.directories, emptied))
    with pytest.raises(DamagedError, match=r"journal-00000002\.log is damaged at offset 0"):
        salvage(files)


def test_version_1_restates_a_promise_only_where_a_segment_starts() -> None:
    data = (GOLDEN / "journal-v1.log").read_bytes().ljust(SMALL_BYTES, b"\0")
    refused = begun = 0
    for offset in range(HEADER_BYTES, len(data.rstrip(b"\0")), 5):
        files = Disk()
        make_directory(files)
        directories = files.snapshot_image().directories
        files = Disk(Image(directories, {segment_path(PATH, 1): data}))
        files.flip(segment_path(PATH, 1), offset, offset % 8)
        try:
            open_journal(files)
        except DamagedError:
            pass
        else:
            continue
        try:
            assert salvage(files, NOWHERE).recovered.promised == ballot(2)
            begun += 1
        except DamagedError:
            refused += 1
    assert refused > 100
    assert begun < refused


def test_a_full_disk_changes_nothing() -> None:
    image, _, _ = made()
    files = Disk(image)
    files.flip(segment_path(PATH, 1), HEADER_BYTES + 300, 1)
    before = files.snapshot_image()
    files.capacity_bytes = files.capacity_bytes - files.free_bytes("") + 100
    with pytest.raises(DiskFullError):
        salvage(files)
    assert files.snapshot_image() == before
    files.capacity_bytes = 1 << 40
    assert salvaged().matches(salvage(files))


def test_salvaged_again_it_still_knows_the_promise() -> None:
    image, _, _ = made()
    files = Disk(image)
    files.flip(segment_path(PATH, 1), HEADER_BYTES + 300, 1)
    journal = salvage(files)
    journal.append([Persist(1, ballot(9), None, entries(4, 2, 9), 3)])
    journal.append([Persist(2, None, None, entries(6, 1, 9), 5)])
    anchor = segment_path(PATH, 3)
    for offset in (HEADER_BYTES + 20, HEADER_BYTES + 300, HEADER_BYTES + 500):
        again = after_power_failure(files)
        again.flip(anchor, offset, 1)
        with pytest.raises(DamagedError):
            open_journal(again)
        found = salvage(again).recovered
        assert (found.promised, found.base, found.recovering) == (ballot(9), BASE, True)
        assert [name for name in again.list_directory(PATH) if "journal-" in name] == [
            "journal-00000004.log"
        ]


def test_what_was_set_aside_is_removed_by_the_next_start_too() -> None:
    image, _, _ = made()
    files = Disk(image)
    files.flip(segment_path(PATH, 1), HEADER_BYTES + 300, 1)
    journal = salvage(files, NOWHERE)
    report = inspect(PATH, after_power_failure(files))
    assert report.verdict == WHOLE
    assert report.recovering
    assert report.set_aside == ["damaged-00000001.log", "damaged-00000002.log"]
    assert (report.base_seq, report.first_seq, report.last_seq) == (0, 0, 0)
    journal.append([Persist(1, None, None, entries(1, 2, 5), 1, None, False)])
    journal.close(2)
    again = open_journal(files)
    assert again.statistics()["segments_set_aside"] == 0
    report = inspect(PATH, files)
    assert (report.set_aside, report.recovering) == ([], False)
    assert (report.first_seq, report.last_seq) == (1, 2)


def test_a_journal_of_which_only_what_was_set_aside_is_left_is_damaged() -> None:
    image, _, _ = made()
    files = Disk(image)
    files.flip(segment_path(PATH, 1), HEADER_BYTES + 300, 1)
    salvage(files)
    files.remove(segment_path(PATH, 3))
    with pytest.raises(DamagedError, match="there is no journal"):
        open_journal(files)


def test_the_judge_reads_the_same_from_the_platter() -> None:
    image, _, _ = made()
    files = Disk(image)
    platter = Platter(PATH, DISK)
    platter.read(files)
    assert (platter.promised, platter.first_seq, platter.last_seq) == (ballot(5), 1, 12)
    assert platter.entry(12).payload == entries(12, 1)[0].payload
    files.flip(segment_path(PATH, 1), HEADER_BYTES + 300, 1)
    journal = salvage(files)
    for found in (platter, Platter(PATH, DISK)):
        found.read(files)
        assert (found.promised, found.base, found.recovering) == (ballot(5), BASE, True)
        assert (found.first_seq, found.last_seq) == (4, 3)
        assert found.ballot_at(3) == ballot(1)
        assert found.ballot_at(4) is None
        with pytest.raises(IndexError, match="4 to 3"):
            found.entry(4)
    files.on_durable = platter.on_durable
    base = Position(ballot(5), 30)
    journal.append([Persist(1, None, None, entries(4, 20, 5, 400), 4, None, False)])
    journal.append([Persist(2, None, None, entries(31, 20, 5, 400), 30, base)])
    journal.append([Persist(3, None, None, entries(51, 20, 5, 400), 50)])
    assert (platter.recovering, platter.base, platter.last_seq) == (False, base, 70)
    compacted = journal.compact(60)
    assert compacted == 50
    again = Platter(PATH, DISK)
    again.read(files)
    platter.read(files)
    for found in (platter, again):
        assert (found.base, found.last_seq, found.recovering) == (journal.base, 70, False)
        assert [held.seq for held in found.entries] == [*range(51, 71)]
