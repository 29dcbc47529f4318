"""Directories that an earlier version began: read, continued, compacted."""

from __future__ import annotations

from pathlib import Path

import pytest

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.types import NOWHERE, Position
from clusterconsensus.errors import DamagedError
from clusterconsensus.simulation.journals.power import crash_states, whole_writes
from clusterconsensus.simulation.world.content import Image
from clusterconsensus.simulation.world.disk import Disk, PowerFailure
from clusterconsensus.storage.inspect import inspect
from clusterconsensus.storage.segments import segment_path
from tests.storage.model import PATH, ballot, entries, make_directory, open_journal, read_all

GOLDEN = Path(__file__).parent / "golden"
SEGMENTS = (5_255, 6_215, 6_587)
"""Of the second golden journal, how many bytes of each segment are used."""


def upgraded() -> Disk:
    """Three segments of version 1, and one that was made ahead."""
    files = Disk()
    make_directory(files)
    image = files.snapshot_image()
    found = dict(image.files)
    data = (GOLDEN / "journals-v1.log").read_bytes()
    at = 0
    for number, size in enumerate((*SEGMENTS, 4_096), 1):
        found[segment_path(PATH, number)] = data[at : at + size].ljust(8_192, b"\0")
        at += size
    assert at == len(data)
    return Disk(Image(image.directories, found))


def versions(files: Disk) -> list[int]:
    return [found.version for found in inspect(PATH, files).segments]


def test_a_journal_of_version_1_goes_on_in_version_2() -> None:
    files = upgraded()
    journal = open_journal(files)
    assert (journal.recovered.last_seq, journal.recovered.base) == (15, NOWHERE)
    before = [files.read(segment_path(PATH, number)) for number in (1, 2, 3)]
    journal.append([Persist(1, ballot(3), None, entries(16, 3, 3), 14)])
    assert versions(files) == [1, 1, 1, 2]
    assert before == [files.read(segment_path(PATH, number)) for number in (1, 2, 3)]
    again = open_journal(Disk(files.snapshot_image()))
    assert [held.seq for held in read_all(again)] == [*range(1, 19)]
    assert again.recovered.promised == ballot(3)


def test_closing_without_a_change_leaves_version_1_readable_by_its_own_program() -> None:
    files = upgraded()
    journal = open_journal(files)
    journal.close(15)
    assert versions(files)[:3] == [1, 1, 1]
    assert open_journal(files).recovered.clean
    trailer = files.read(segment_path(PATH, 3)).rstrip(b"\0")[SEGMENTS[2] :]
    assert len(trailer) < 100
    assert b"a@" not in trailer, "a trailer of version 1 names no owner"


def test_no_journal_is_made_to_begin_at_a_segment_of_version_1() -> None:
    files = upgraded()
    journal = open_journal(files)
    assert journal.compact(15) == 0
    journal.append([Persist(1, ballot(3), None, entries(16, 20, 3, 300), 15)])
    assert journal.compact(14) == 0
    assert journal.compact(15) == 15
    assert journal.base == Position(ballot(2), 15)
    assert 1 not in versions(files)


def test_an_interrupted_removal_of_version_1_is_no_damage() -> None:
    files = upgraded()
    journal = open_journal(files)
    journal.append([Persist(1, ballot(3), None, entries(16, 20, 3, 300), 15)])
    seen: set[int] = set()

    def before(operation: str, path: str) -> None:
        for image in crash_states(files, whole_writes):
            found = open_journal(Disk(image))
            base = found.recovered.base.seq
            seen.add(base)
            assert [held.seq for held in read_all(found)] == [*range(base + 1, 36)]

    files.before = before
    journal.compact(15)
    assert seen == {0, 15}


def test_the_beginning_of_version_1_cannot_go_missing_unnoticed() -> None:
    files = upgraded()
    files.remove(segment_path(PATH, 1))
    with pytest.raises(DamagedError, match=r"journal-00000001\.log: is missing"):
        open_journal(files)


def test_a_process_that_dies_while_it_compacts_leaves_a_journal() -> None:
    """The removals that came through, in any number; the rest is done by the next call."""
    for dies_at in range(1, 7):
        files = upgraded()
        journal = open_journal(files)
        journal.append([Persist(1, ballot(3), None, entries(16, 20, 3, 300), 15)])
        left = dies_at

        def before(operation: str, path: str) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise PowerFailure

        files.before = before
        with pytest.raises(PowerFailure):
            journal.compact(15)
        files.after_process_crash()
        again = open_journal(files)
        assert again.recovered.base.seq in (0, 15)
        assert again.compact(15) == 15
        assert versions(files)[0] == 2
