"""The journal: what goes in comes out, failures poison, a full disk does not."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.errors import (
    BrokenInvariantError,
    DiskFullError,
    StorageError,
    StoragePoisonedError,
)
from clusterconsensus.simulation.journals.power import crash_states, whole_writes
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.files import Files, RealFiles, WritableFile
from clusterconsensus.storage.index import SPACING_BYTES
from clusterconsensus.storage.journal import Journal
from tests.storage.model import (
    PATH,
    Expected,
    ballot,
    configuration,
    entries,
    entry,
    failing,
    make_directory,
    noting,
    open_journal,
    read_all,
)

KIB = 1024


@pytest.fixture(params=["memory", "real"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Files, str]:
    files: Files = Disk() if request.param == "memory" else RealFiles()
    path = PATH if request.param == "memory" else str(tmp_path / "member")
    make_directory(files, path)
    return files, path


def prepare(journal: Journal) -> None:
    while journal.prepare_next():
        pass


def fill(journal: Journal, size: int) -> None:
    """Append entry after entry to a new journal, until the disk is full."""
    for seq in range(1, 1000):
        journal.append([Persist(seq, None, None, entries(seq, 1, 1, size))])


def test_a_new_journal_is_empty(place: tuple[Files, str]) -> None:
    journal = open_journal(*place)
    assert Expected().matches(journal)
    assert journal.recovered.commit_hint == 0
    assert not journal.recovered.clean
    assert journal.read(1, 10, 100) == []
    journal.close(0)
    journal.close(0)
    assert open_journal(*place).recovered.clean


def test_everything_comes_back_after_reopening(place: tuple[Files, str]) -> None:
    units = [
        Persist(1, ballot(3, "b")),
        Persist(2, None, None, (configuration(1), *entries(2, 5, 1)), 4),
        Persist(3, ballot(4), 5, (*entries(5, 2, 4), configuration(7, 4)), 4),
        Persist(4, None, 7, (entry(7, 4, b"x" * 20_000),), 6),
        Persist(5, None, None, entries(8, 30, 4, 500), 100),
    ]
    journal = open_journal(*place)
    for unit in units[:2]:
        journal.append([unit])
    journal.append(units[2:])
    expected = Expected(units)
    assert read_all(journal) == expected.entries
    for _ in range(2):
        journal.close(30)
        journal = open_journal(*place)
        assert expected.matches(journal)
        assert journal.recovered.clean
        assert journal.recovered.commit_hint == 37
    journal.append([Persist(6, ballot(9))])
    assert not open_journal(*place).recovered.clean


def test_reading_by_sequence_respects_the_limits(place: tuple[Files, str]) -> None:
    journal = open_journal(*place, segment_bytes=256 * KIB)
    for first in range(1, 1000, 37):
        journal.append([Persist(1, None, None, entries(first, 37, 1, 700))])
    assert journal.statistics()["index_points"] > 8
    found = journal.read(500, 520, 1 << 30)
    assert [held.seq for held in found] == list(range(500, 521))
    assert found == list(entries(500, 21, 1, 700))
    assert [held.seq for held in journal.read(500, 999, 2100)] == [500, 501, 502]
    assert [held.seq for held in journal.read(500, 999, 2099)] == [500, 501]
    assert [held.seq for held in journal.read(500, 999, 1)] == [500]
    assert [held.seq for held in journal.read(998, 5000, 1 << 30)] == [998, 999]
    assert journal.read(1000, 5000, 100) == []
    assert journal.read(0, 5, 100) == []


def test_the_index_is_sparse(place: tuple[Files, str]) -> None:
    journal = open_journal(*place, segment_bytes=1024 * KIB)
    for first in range(1, 5001, 100):
        journal.append([Persist(1, None, None, entries(first, 100, 1, 100))])
    statistics = journal.statistics()
    limit = statistics["appended_bytes"] // SPACING_BYTES + statistics["segments"] + 1
    assert statistics["index_points"] <= limit


def test_a_unit_larger_than_a_segment_gets_one_of_its_own(place: tuple[Files, str]) -> None:
    files, path = place
    journal = open_journal(files, path)
    large = tuple(entry(seq, 1, os.urandom(50_000)) for seq in (2, 3))
    journal.append([Persist(1, None, None, entries(1, 1)), Persist(2, None, None, large)])
    journal.append([Persist(3, None, None, entries(4, 1))])
    assert read_all(open_journal(files, path)) == [*entries(1, 1), *large, *entries(4, 1)]
    assert max(files.size(f"{path}/{name}") for name in files.list_directory(path)) > 100_000


def test_one_append_is_one_write_and_one_sync() -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files, segment_bytes=64 * KIB)
    operations: list[str] = []
    files.before = noting(operations)
    journal.append([Persist(n, None, None, entries(n, 1)) for n in range(1, 20)])
    assert operations == ["pwrite", "datasync"]
    assert journal.statistics()["syncs"] == 1
    journal.append([])
    assert len(operations) == 2


def test_a_prepared_segment_costs_an_append_nothing() -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    assert not journal.prepare_next()
    journal.append([Persist(1, None, None, entries(1, 4, 1, 400))])
    prepare(journal)
    assert journal.statistics()["segments_ready"] == 1
    operations: list[str] = []
    files.before = noting(operations)
    journal.append([Persist(2, None, None, entries(5, 4, 1, 400))])
    assert operations == ["pwrite", "datasync"]
    assert read_all(open_journal(files)) == list(entries(1, 8, 1, 400))


def test_preparing_goes_in_slices() -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files, segment_bytes=4096 * KIB)
    journal.append([Persist(1, None, None, (entry(1, 1, bytes(1100 * KIB)),))])
    slices = 1
    while journal.prepare_next():
        slices += 1
    assert slices == 4


@pytest.mark.parametrize("prepared", [False, True])
def test_a_half_made_segment_is_finished_or_cleaned_up(prepared: bool) -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files, segment_bytes=2048 * KIB)
    journal.append([Persist(1, None, None, (entry(1, 1, bytes(1100 * KIB)),))])
    assert journal.prepare_next()
    if prepared:
        journal.append([Persist(2, None, None, (entry(2, 1, bytes(1100 * KIB)),))])
    else:
        files.after_process_crash()
    assert open_journal(files).recovered.last_seq == 1 + prepared
    assert not [name for name in files.names if name.endswith(".new")]


@pytest.mark.parametrize(
    ("unit", "rule"),
    [
        (Persist(2, ballot(1)), "I-5"),
        (Persist(2, None, 3), "I-7"),
        (Persist(2, None, None, entries(7, 1)), "I-9"),
        (Persist(2, None, 5, entries(6, 1)), "I-9"),
        (Persist(2, None, None, (*entries(6, 1), *entries(8, 1))), "I-9"),
    ],
)
def test_units_that_break_the_log_are_refused(unit: Persist, rule: str) -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    journal.append([Persist(1, ballot(2), None, entries(1, 5), 3)])
    operations = files.operations
    with pytest.raises(BrokenInvariantError, match=rule):
        journal.append([unit])
    assert files.operations == operations
    journal.append([Persist(3, ballot(2), 4, entries(4, 1))])


def test_what_cannot_be_written_down_is_refused() -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    held = entry(1)
    odd = type(held)(1, held.ballot, 300, 0.0, b"", 0)
    with pytest.raises(BrokenInvariantError, match="cannot be written"):
        journal.append([Persist(1, None, None, (odd,))])
    journal.append([Persist(1, None, None, (held,))])


@pytest.mark.parametrize("operation", ["pwrite", "datasync"])
def test_a_failed_write_or_sync_poisons_for_ever(operation: str) -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    journal.append([Persist(1, None, None, entries(1, 2))])
    files.before = failing(operation, OSError(errno.EIO, "broken"))
    with pytest.raises(StoragePoisonedError, match="broken"):
        journal.append([Persist(2, None, None, entries(3, 2))])
    files.before = None  # the next sync would succeed, and prove nothing
    operations = files.operations
    for _ in range(2):
        with pytest.raises(StoragePoisonedError, match="broken"):
            journal.append([Persist(3, None, None, entries(3, 2))])
        with pytest.raises(StoragePoisonedError):
            journal.prepare_next()
        with pytest.raises(StoragePoisonedError):
            journal.read(1, 1, 1)
    journal.close(2)
    assert files.operations == operations, "nothing is written any more"


def test_no_space_in_the_middle_of_a_write_poisons() -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    files.before = failing("pwrite", OSError(errno.ENOSPC, "full"))
    with pytest.raises(StoragePoisonedError, match="full"):
        journal.append([Persist(2, None, None, entries(1, 2))])


@pytest.mark.parametrize("operation", ["pwrite", "datasync", "rename", "sync_directory", "create"])
def test_failing_to_make_a_segment_poisons(operation: str) -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    files.before = failing(operation, OSError(errno.EIO, "broken"))
    with pytest.raises(StoragePoisonedError, match="broken"):
        journal.append([Persist(1, None, None, entries(1, 1, 1, 9000))])
    files.before = None
    with pytest.raises(StoragePoisonedError, match="broken"):
        journal.append([Persist(1, None, None, entries(1, 1))])
    files.after_process_crash()
    assert open_journal(files).recovered.last_seq == 0


@pytest.mark.parametrize("honest", [True, False])
def test_a_full_disk_is_a_refusal_and_the_journal_goes_on(honest: bool) -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    journal.append([Persist(1, None, None, entries(1, 2, 1, 1000))])
    files.capacity_bytes = files.capacity_bytes - files.free_bytes("") + 6000
    files.honest = honest
    before = {path: bytes(node.cached) for path, node in files.names.items()}
    unit = Persist(2, None, None, entries(3, 3, 1, 1000))
    for _ in range(2):
        with pytest.raises(DiskFullError, match=r"journal-00000002\.log"):
            journal.append([Persist(3, ballot(1)), unit])
        with pytest.raises(DiskFullError):
            prepare(journal)
    assert before == {path: bytes(node.cached) for path, node in files.names.items()}
    assert read_all(journal) == list(entries(1, 2, 1, 1000))
    # What fits into the segment that is there is still taken.
    journal.append([Persist(4, ballot(7))])
    files.capacity_bytes = 1 << 40
    journal.append([unit])
    journal.close(0)
    again = open_journal(files)
    assert again.recovered.promised == ballot(7)
    assert read_all(again) == list(entries(1, 5, 1, 1000))


def test_closing_needs_no_space() -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    files.capacity_bytes = 0
    with pytest.raises(DiskFullError):
        fill(journal, 100)
    last_seq = journal.statistics()["last_sequence"]
    assert last_seq > 5
    journal.close(last_seq)
    assert open_journal(files).recovered.clean


def test_opening_on_a_full_disk_is_a_refusal() -> None:
    files = Disk()
    make_directory(files)
    files.capacity_bytes = 1000
    with pytest.raises(DiskFullError):
        open_journal(files)
    files.capacity_bytes = 1 << 40
    assert open_journal(files).recovered.last_seq == 0


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        pytest.skip("mounting a tiny file system needs root")
    target = tmp_path / "tiny"
    target.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(target)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield target
    finally:
        subprocess.run(["umount", str(target)], check=True)


def test_a_really_full_disk_is_a_refusal(tiny_disk: Path) -> None:
    files, path = RealFiles(), str(tiny_disk / "member")
    make_directory(files, path)
    journal = open_journal(files, path, segment_bytes=64 * KIB)
    with pytest.raises(DiskFullError):
        fill(journal, 3000)
    appended = journal.statistics()["last_sequence"]
    assert appended > 20
    assert read_all(journal) == list(entries(1, appended, 1, 3000))
    (tiny_disk / "other").write_bytes(b"")
    journal.close(appended)
    journal = open_journal(files, path, segment_bytes=8 * KIB)
    assert journal.recovered.clean
    assert journal.recovered.last_seq == appended
    # A smaller need is met, or there is space again.
    journal.append([Persist(1, ballot(1))])
    journal.close(appended)


def test_a_closed_journal_says_so() -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    journal.close(0)
    with pytest.raises(StorageError, match="closed"):
        journal.append([Persist(1, ballot(1))])


def test_segments_must_have_a_sensible_size() -> None:
    files = Disk()
    make_directory(files)
    with pytest.raises(BrokenInvariantError, match="segment_bytes is 100"):
        open_journal(files, segment_bytes=100)


def test_reading_while_another_thread_appends(tmp_path: Path) -> None:
    files, path = RealFiles(), str(tmp_path / "member")
    make_directory(files, path)
    journal = open_journal(files, path, segment_bytes=64 * KIB)
    done = threading.Event()
    problems: list[str] = []

    def read() -> None:
        chance = random.Random(1)
        while not done.is_set() or not problems:
            last_seq = journal.statistics()["last_sequence"]
            first = chance.randint(1, last_seq + 1)
            found = journal.read(first, last_seq + 100, 5000)
            if first <= last_seq and not found:
                problems.append(f"nothing at {first}")
            if [held.seq for held in found] != list(range(first, first + len(found))):
                problems.append(f"gaps behind {first}")
            if not all(held.intact() for held in found):
                problems.append(f"damage behind {first}")
            if done.is_set() or problems:
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        seq = 1
        for step in range(300):
            if step % 10 == 9:
                seq -= 3  # cut off a little and write it anew
                journal.append([Persist(step, ballot(step), seq, entries(seq, 3, step, 900))])
                seq += 3
            else:
                journal.append([Persist(step, None, None, entries(seq, 5, step, 300))])
                seq += 5
    finally:
        done.set()
        reader.join()
    assert problems == []
    assert len(read_all(journal, 1 << 20)) == seq - 1


steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("append"),
            st.lists(
                st.tuples(
                    st.integers(0, 2),
                    st.integers(0, 3),
                    st.lists(st.integers(0, 3000), max_size=4),
                ),
                min_size=1,
                max_size=4,
            ),
        ),
        st.tuples(st.sampled_from(["reopen", "close", "prepare", "lose"]), st.just([])),
    ),
    max_size=25,
)


@settings(max_examples=80, deadline=None)
@given(steps, st.integers(0, 1 << 30))
def test_any_history_comes_back(
    history: list[tuple[str, list[tuple[int, int, list[int]]]]], seed: int
) -> None:
    """Batches of random sizes, truncations, reopening, and power failures in the middle."""
    chance = random.Random(seed)
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    expected = Expected()
    instance = 1
    for action, shapes in history:
        units: list[Persist] = []
        planned = Expected()
        planned.promised, planned.entries, planned.commit = (
            expected.promised,
            list(expected.entries),
            expected.commit,
        )
        for promise, cut, sizes in shapes:
            instance += promise
            last_seq = len(planned.entries)
            first = max(last_seq + 1 - cut, planned.commit + 1)
            made = tuple(
                entry(first + place, instance, bytes([place + 1]) * size)
                for place, size in enumerate(sizes)
            )
            truncate = first if cut and first <= last_seq else None
            if truncate is None:
                made = tuple(
                    entry(last_seq + 1 + place, instance, bytes([place + 1]) * size)
                    for place, size in enumerate(sizes)
                )
            unit = Persist(
                1, ballot(instance) if promise else None, truncate, made, max(0, last_seq - 3)
            )
            units.append(unit)
            planned.take(unit)
        if action == "append":
            journal.append(units)
            expected = planned
        elif action == "prepare":
            journal.prepare_next()
        elif action == "close":
            journal.close(expected.commit)
            journal = open_journal(files)
            assert journal.recovered.clean
        elif action == "reopen":
            files.after_process_crash()
            journal = open_journal(files)
        else:
            files = Disk(chance.choice(list(crash_states(files, whole_writes))))
            journal = open_journal(files)
        assert read_all(journal, chance.randint(1, 9000)) == expected.entries
    journal = open_journal(files)
    assert expected.matches(journal)
    assert journal.recovered.commit_hint == expected.commit


@pytest.fixture
def half_made() -> tuple[Disk, Journal]:
    """A journal that has begun to make its second segment."""
    files = Disk()
    make_directory(files)
    journal = open_journal(files, segment_bytes=2048 * KIB)
    journal.append([Persist(1, None, None, (entry(1, 1, bytes(1100 * KIB)),))])
    assert journal.prepare_next()
    assert unfinished(files)
    return files, journal


def unfinished(files: Disk) -> list[str]:
    return [name for name in files.names if name.endswith(".new")]


def test_a_segment_that_is_made_too_small_is_made_anew(half_made: tuple[Disk, Journal]) -> None:
    files, journal = half_made
    large = entry(2, 1, bytes(3000 * KIB))
    journal.append([Persist(2, None, None, (large,))])
    assert unfinished(files) == []
    assert files.size(f"{PATH}/journal-00000002.log") > 3000 * KIB
    assert open_journal(files).read(2, 2, 1) == [large]


def test_closing_leaves_nothing_half_made(half_made: tuple[Disk, Journal]) -> None:
    files, journal = half_made
    journal.close(1)
    assert unfinished(files) == []
    assert open_journal(files).recovered.clean


def test_a_poisoned_journal_that_holds_no_file_is_let_go_of() -> None:
    """The first segment was replaced by a larger one, which could not be opened."""
    files = Disk()
    make_directory(files)
    journal = open_journal(files)

    def fail(path: str) -> WritableFile:
        raise OSError(errno.EMFILE, "too many open files")

    files.open = fail  # type: ignore[method-assign]  # no descriptors are left
    with pytest.raises(StoragePoisonedError, match="too many open files"):
        journal.append([Persist(1, None, None, (entry(1, 1, bytes(20 * KIB)),))])
    journal.close(0)
    with pytest.raises(StoragePoisonedError):
        journal.read(1, 1, 1)
    again = Disk(files.snapshot_image())
    assert open_journal(again).recovered.last_seq == 0
