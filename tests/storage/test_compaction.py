"""What a journal forgets on purpose, what is begun anew, and what is read again to find damage."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.types import NOWHERE, Position
from clusterconsensus.errors import BrokenInvariantError, DamagedError, StoragePoisonedError
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.segments import segment_numbers, segment_path
from tests.storage.model import (
    DISK,
    PATH,
    SMALL_BYTES,
    after_power_failure,
    ballot,
    configuration,
    entries,
    failing,
    make_directory,
    open_journal,
    read_all,
)

GOLDEN = Path(__file__).parent / "golden"


def long_journal(last_seq: int = 60) -> tuple[Disk, Journal]:
    """A journal of many small segments; entries 1 to ``last_seq`` by the ballots 1 and 2."""
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    journal.append([Persist(1, ballot(1), None, (configuration(1),), 1)])
    for seq in range(2, last_seq + 1):
        instance = 1 if seq < 20 else 2
        promised = ballot(2) if seq == 20 else None
        journal.append([Persist(seq, promised, None, entries(seq, 1, instance, 200), seq - 1)])
    return files, journal


def numbers(files: Disk) -> list[int]:
    return segment_numbers(files.list_directory(PATH))


def flipped(files: Disk, path: str, offset: int) -> Disk:
    """Another disk with one bit turned over."""
    image = after_power_failure(files)
    content = bytearray(image.read(path))
    content[offset] ^= 4
    file = image.open(path)
    file.pwrite(bytes(content), 0)
    file.datasync()
    file.close()
    return image


def salvage(files: Disk, base: Position = NOWHERE) -> Journal:
    return Journal.salvage(files, PATH, disk_id=DISK, segment_bytes=SMALL_BYTES, base=base)


# -- compaction


def test_whole_segments_are_forgotten_and_the_rest_stays() -> None:
    files, journal = long_journal()
    before = journal.statistics()
    assert len(numbers(files)) > 4
    base = journal.compact(30)
    assert 0 < base <= 30
    assert journal.base == Position(ballot(1 if base < 20 else 2), base)
    assert journal.read(base, 60, 10_000) == []
    assert [found.seq for found in journal.read(base + 1, 60, 1_000_000)] == [*range(base + 1, 61)]
    after = journal.statistics()
    assert after["segments"] < before["segments"]
    assert after["allocated_bytes"] < before["allocated_bytes"]
    assert after["base_sequence"] == base
    assert after["index_points"] < before["index_points"]
    assert journal.compact(base) == base  # nothing more to forget
    journal.append([Persist(61, None, None, entries(61, 1, 2), 60)])
    journal.close(61)
    again = open_journal(after_power_failure(files))
    assert again.recovered.base == journal.base
    assert again.recovered.last_seq == 61
    assert again.recovered.promised == ballot(2)
    assert [found.seq for found in read_all(again)] == [*range(base + 1, 62)]


def test_everything_can_be_forgotten_but_the_segment_in_use() -> None:
    files, journal = long_journal()
    journal.compact(60)
    assert len(numbers(files)) <= 2  # the one in use, and one made ahead
    assert open_journal(after_power_failure(files)).recovered.last_seq == 60


def test_a_segment_that_cannot_be_removed_stops_the_journal() -> None:
    files, journal = long_journal()
    files.before = failing("remove", OSError(errno.EIO, "broken"))
    with pytest.raises(StoragePoisonedError):
        journal.compact(30)


# -- a log that gives way to a snapshot


def test_a_base_gives_up_the_log_and_keeps_the_promise() -> None:
    files, journal = long_journal()
    base = Position(ballot(3), 100)
    journal.append([Persist(70, ballot(4), None, entries(101, 2, 4), 100, base)])
    assert journal.read(60, 60, 1_000) == []
    assert [found.seq for found in journal.read(101, 200, 1_000)] == [101, 102]
    journal.close(100)
    again = open_journal(after_power_failure(files)).recovered
    assert (again.base, again.last_seq, again.promised) == (base, 102, ballot(4))
    assert again.runs == [(101, ballot(4))]
    assert again.configurations == []


def test_a_base_below_what_is_chosen_is_refused() -> None:
    _, journal = long_journal()
    with pytest.raises(BrokenInvariantError):
        journal.append([Persist(70, None, None, (), 0, Position(ballot(1), 10))])
    assert journal.read(60, 60, 1_000)


def test_recovering_is_kept_until_it_is_taken_back() -> None:
    files, journal = long_journal(5)
    journal.append([Persist(70, recovering=True)])
    assert open_journal(after_power_failure(files)).recovered.recovering
    journal.append([Persist(71, None, None, entries(6, 1), 5)])
    assert open_journal(after_power_failure(files)).recovered.recovering
    journal.append([Persist(72, recovering=False)])
    assert not open_journal(after_power_failure(files)).recovered.recovering


# -- salvage


def test_a_damaged_journal_begins_anew_with_its_promise() -> None:
    files, _ = long_journal()
    damaged = flipped(files, segment_path(PATH, 2), 4_500)
    with pytest.raises(DamagedError, match="journal-00000002"):
        open_journal(damaged)
    base = Position(ballot(1), 9)
    journal = salvage(damaged, base)
    found = journal.recovered
    assert (found.promised, found.base, found.last_seq) == (ballot(2), base, 9)
    assert found.recovering
    set_aside = [name for name in damaged.list_directory(PATH) if name.startswith("damaged-")]
    assert len(set_aside) == len(numbers(files))
    journal.append([Persist(1, None, None, entries(10, 3, 2), 9)])
    again = open_journal(after_power_failure(damaged))
    assert (again.recovered.last_seq, again.recovered.recovering) == (12, True)
    salvaged = journal.statistics()
    assert salvaged["segments_set_aside"] == len(set_aside)
    journal.forget_damaged()
    assert not [name for name in damaged.list_directory(PATH) if name.startswith("damaged-")]


def test_a_promise_that_may_be_hidden_by_damage_is_not_guessed() -> None:
    """W6: what the last writes held is not known, and one of them may have been a promise."""
    files, journal = long_journal(3)
    path = segment_path(PATH, 1)
    start = journal.statistics()["segment_used_bytes"]
    journal.append([Persist(90, ballot(9))])
    middle = journal.statistics()["segment_used_bytes"]
    journal.append([Persist(91, None, None, entries(4, 1), 3)])
    end = journal.statistics()["segment_used_bytes"]
    damaged = flipped(files, path, start + 20)
    assert salvage(damaged).recovered.promised == ballot(9)  # the last trailer still tells it
    damaged = files
    for offset in (start + 20, middle - 10, end - 10):  # the promise, and both trailers
        damaged = flipped(damaged, path, offset)
    with pytest.raises(DamagedError, match=f"offset {start}"):
        open_journal(damaged)  # the entry behind it, of a later write, is whole
    assert damaged.read(path, middle, 4) != bytes(4)
    with pytest.raises(DamagedError, match="come back as a new one"):
        salvage(damaged)
    assert numbers(damaged) == numbers(files)  # nothing was changed


# -- scrubbing


def test_scrubbing_reads_all_but_the_last_segment_and_finds_a_flipped_bit() -> None:
    files, journal = long_journal()
    steps = list(journal.scrub(1_000))
    assert len(steps) > 10
    assert max(steps) < 20_000
    # The journal was opened when all was well.
    content = flipped(files, segment_path(PATH, 2), 4_500).read(segment_path(PATH, 2))
    file = files.open(segment_path(PATH, 2))
    file.pwrite(content, 0)
    file.datasync()
    file.close()
    with pytest.raises(DamagedError, match=r"journal-00000002.*offset"):
        list(journal.scrub(1_000))
    journal.compact(60)
    assert sum(journal.scrub(1_000)) < sum(steps)  # gone with the segment


def test_scrubbing_goes_on_beside_appends_and_compaction() -> None:
    _, journal = long_journal()
    steps = journal.scrub(500)
    for number in range(6):
        assert next(steps, None) is not None
        journal.append([Persist(80 + number, None, None, entries(61 + number, 1, 2), 60)])
    journal.compact(60)
    assert sum(1 for _ in steps) < 100


# -- versions


@pytest.mark.parametrize("version", [1, 2])
def test_golden_journals_are_read(version: int) -> None:
    data = (GOLDEN / f"journal-v{version}.log").read_bytes().ljust(8_192, b"\0")
    files = Disk()
    make_directory(files)
    file = files.create(segment_path(PATH, 1))
    file.pwrite(data, 0)
    file.datasync()
    file.close()
    files.sync_directory(PATH)
    journal = open_journal(files)
    found = journal.recovered
    assert (found.promised, found.last_seq, found.commit_hint) == (ballot(2), 5, 5)
    assert found.clean
    assert (found.base, found.recovering) == (NOWHERE, False)
    assert found.runs == [(1, ballot(1)), (4, ballot(2))]
    assert [held.seq for held in read_all(journal)] == [1, 2, 3, 4, 5]
    journal.append([Persist(1, ballot(3), None, entries(6, 40, 3, 200), 5)])
    assert open_journal(after_power_failure(files)).recovered.last_seq == 45


def test_the_golden_journal_of_this_version_is_written_byte_for_byte() -> None:
    """A change here means that programs of two versions no longer read each other's directories:
    then the format version must be another one."""
    files = Disk()
    make_directory(files)
    journal = open_journal(files, segment_bytes=8_192)
    journal.append([Persist(1, ballot(1))])
    journal.append([Persist(2, None, None, (configuration(1), *entries(2, 3)), 1)])
    journal.append([Persist(3, ballot(2), 4, entries(4, 2, 2), 3)])
    journal.close(5)
    written = files.read(segment_path(PATH, 1)).rstrip(b"\0")
    assert written == (GOLDEN / "journal-v2.log").read_bytes()
