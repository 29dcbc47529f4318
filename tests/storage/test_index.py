"""Finding entries by their sequences: points, walks, and what a reader's window shows."""

from __future__ import annotations

import pytest

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.types import NOWHERE, Position
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.extent import Extent, Openings
from clusterconsensus.storage.index import SPACING_BYTES, Index, Window
from clusterconsensus.storage.records import HEADER_BYTES, Record, file_seed
from clusterconsensus.storage.segments import segment_path
from tests.storage.model import DISK, PATH, ballot, entries, make_directory, open_journal

FIRST = segment_path(PATH, 1)
SEED = file_seed(DISK, 1)


def points(index: Index) -> list[tuple[int, int, int, int]]:
    return sorted({index.find(seq) for seq in range(1, index.last_seq + 1)})


def test_points_stand_far_apart_and_in_every_segment() -> None:
    index = Index()
    index.add(1, 1, 4096)
    index.add(2, 1, 4096 + SPACING_BYTES - 1)
    index.add(3, 1, 4096 + SPACING_BYTES)
    index.add(4, 2, 4096)
    index.add(5, 2, 5000)
    assert points(index) == [
        (1, 1, 4096, 2),
        (3, 1, 4096 + SPACING_BYTES, 3),
        (4, 2, 4096, 5),
    ]


def test_what_comes_behind_a_cut_gets_a_point_of_its_own() -> None:
    index = Index()
    for seq in range(1, 6):
        index.add(seq, 1, 4096 + 100 * seq)
    index.truncate(3)
    assert index.last_seq == 2
    index.add(3, 1, 4700)
    index.add(4, 1, 4800)
    assert points(index) == [(1, 1, 4196, 2), (3, 1, 4700, 4)]
    index.truncate(1)
    assert (len(index), index.last_seq) == (0, 0)


def test_a_cut_behind_the_end_changes_nothing() -> None:
    index = Index()
    index.add(1, 1, 4096)
    index.truncate(2)
    index.add(2, 1, 4200)
    assert points(index) == [(1, 1, 4096, 2)]


def walk(files: Disk, end: int, ahead_bytes: int) -> list[tuple[int, int, bytes]]:
    """Kind, sequence and payload of each record of the first segment."""
    window = Window(files, FIRST, SEED, end, ahead_bytes)
    found: list[Record] = []
    offset = HEADER_BYTES
    while (record := window.record(offset)) is not None:
        found.append(record)
        offset = record.end
    return [(record.kind, record.seq, bytes(record.payload)) for record in found]


def test_a_window_of_any_size_shows_the_same_records() -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    journal.append([Persist(1, ballot(1), None, entries(1, 5, 1, 30))])
    journal.append([Persist(2, None, 4, entries(4, 3, 2, 300))])
    size = files.size(FIRST)
    expected = walk(files, size, size)
    assert [seq for _, seq, _ in expected] == [0, 0, 1, 2, 3, 4, 5, 5, 4, 4, 5, 6, 6]
    for ahead_bytes in range(1, 400, 7):
        assert walk(files, size, ahead_bytes) == expected
    # Records beyond the given end are not seen, nor is one that the end cuts.
    assert walk(files, HEADER_BYTES, 100) == []
    used = len(files.read(FIRST).rstrip(b"\0"))
    assert walk(files, used - 1, 100) == expected[:-1]


@pytest.mark.parametrize("left", [0, 1, 50, 90])
def test_a_file_may_end_before_it_was_said_to(left: int) -> None:
    files = Disk()
    make_directory(files)
    journal = open_journal(files)
    journal.append([Persist(1, None, None, entries(1, 1, 1, 500))])
    size = files.size(FIRST)
    second = walk(files, size, size)[1]
    assert second[1] == 1
    del files.content(FIRST).cached[HEADER_BYTES + 150 + left :]
    found = walk(files, size, 4096)
    assert second not in found
    assert len(found) <= 1


def test_what_is_forgotten_leaves_no_points() -> None:
    index = Index()
    for seq, number in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 3)):
        index.add(seq, number, 4096 + 100 * seq)
    index.forget(2)
    assert (index.first_seq, index.last_seq, len(index)) == (3, 5, 2)
    assert index.find(4) == (3, 2, 4396, 4)
    index.give_up(9)
    assert (index.first_seq, index.last_seq, len(index)) == (10, 9, 0)
    index.add(10, 3, 5000)
    index.forget(10)
    assert len(index) == 0
    index.add(11, 3, 5100)
    assert index.find(11) == (11, 3, 5100, 11)


def test_a_log_knows_the_ballots_of_what_it_holds_and_of_its_base() -> None:
    log = Extent()
    for seq, instance in ((1, 1), (2, 1), (3, 2), (4, 2), (5, 3)):
        log.add(seq, ballot(instance))
    other = log.copy()
    log.forget(Position(ballot(2), 3))
    assert log.runs == [(4, ballot(2)), (5, ballot(3))]
    assert [log.ballot_at(seq) for seq in range(2, 7)] == [
        None,
        ballot(2),
        ballot(2),
        ballot(3),
        None,
    ]
    log.cut(4)
    assert log.last == Position(ballot(2), 3)
    log.give_up(Position(ballot(4), 9))
    assert (log.last, log.runs, log.ballot_at(3)) == (Position(ballot(4), 9), [], None)
    assert (other.base, other.last_seq, len(other.runs)) == (NOWHERE, 5, 3)
    other.forget(Position(ballot(3), 5))
    assert (other.runs, other.last) == ([], Position(ballot(3), 5))


def test_a_log_begins_at_the_last_segment_that_restates_what_is_still_its_own() -> None:
    openings = Openings()
    assert openings.find(100) == (0, None)
    for number, seq in ((1, 0), (2, 10), (3, 20), (4, 30)):
        openings.add(number, Position(ballot(1), seq))
    assert openings.find(29) == (3, Position(ballot(1), 20))
    openings.cut(20)  # what the third and the fourth restate is no part of the log any more
    assert openings.find(40) == (2, Position(ballot(1), 10))
    openings.give_up(4)
    assert openings.find(0) == (4, None)
    openings.add(5, Position(ballot(2), 60))
    assert openings.find(59) == (4, None)
    assert openings.find(60) == (5, Position(ballot(2), 60))
    openings.forget(5)
    assert openings.find(100) == (0, None)
