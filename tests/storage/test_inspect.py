"""Looking at a directory without touching it."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import cast

import msgspec
import pytest

from clusterconsensus.cli.inspect import run
from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.types import Entry, EntryKind
from clusterconsensus.errors import DamagedError
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.files import RealFiles
from clusterconsensus.storage.identity import Directory, open_directory
from clusterconsensus.storage.inspect import (
    DAMAGED,
    FOREIGN,
    LIVE_ATTEMPTS,
    TORN,
    WHOLE,
    entries,
    inspect,
)
from clusterconsensus.storage.journal import Journal
from tests.storage import model
from tests.storage.model import DISK, PATH, ballot, configuration, open_journal


def made(path: str) -> tuple[Directory, Journal]:
    directory = open_directory(RealFiles(), path, "shop", "a", DISK)
    journal = open_journal(RealFiles(), path)
    directory.found("c1")
    journal.append([Persist(1, ballot(1), None, (configuration(1), *model.entries(2, 4)), 4)])
    journal.append([Persist(2, ballot(3), 5, model.entries(5, 6, 3, 500), 4)])
    return directory, journal


def content(path: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(file): (file.read_bytes(), file.stat().st_mtime_ns) for file in sorted(path.iterdir())
    }


def test_a_whole_directory(tmp_path: Path) -> None:
    directory, journal = made(str(tmp_path))
    journal.close(9)
    directory.close()
    before = content(tmp_path)
    report = inspect(str(tmp_path))
    assert content(tmp_path) == before
    assert report.verdict == WHOLE
    assert report.damage == []
    assert report.identity == directory.identity
    assert report.in_use_by == ""
    assert (report.first_seq, report.last_seq, report.commit_hint) == (1, 10, 9)
    assert report.closed_cleanly
    assert report.entries == {"CHANGES": 9, "CONFIG": 1}
    assert (report.promised_instance, report.promised_owner) == (3, f"a@{DISK}")
    assert [(found.first_seq, found.instance) for found in report.ballots] == [(1, 1), (5, 3)]
    assert report.configurations[0].members == ["a (127.0.0.1:1) voter"]
    assert [found.name for found in report.segments] == [
        "journal-00000001.log",
        "journal-00000002.log",
    ]
    assert [found.seq for found in entries(str(tmp_path))] == list(range(1, 11))


def test_a_directory_in_use(tmp_path: Path) -> None:
    directory, journal = made(str(tmp_path))
    report = inspect(str(tmp_path))
    assert report.in_use_by == str(os.getpid())
    assert report.verdict == WHOLE
    journal.append([Persist(3, ballot(4))])
    assert inspect(str(tmp_path)).promised_instance == 4
    journal.close(0)
    directory.close()


def test_a_torn_write_is_told_and_left(tmp_path: Path) -> None:
    directory, _ = made(str(tmp_path))
    directory.close()
    file = tmp_path / "journal-00000002.log"
    data = file.read_bytes()
    end = len(data.rstrip(b"\0"))
    file.write_bytes(data[: end - 20] + bytes(len(data) - end + 20))
    before = content(tmp_path)
    report = inspect(str(tmp_path))
    assert report.verdict == TORN
    assert "crash tore" in report.torn
    assert report.last_seq == 5
    assert content(tmp_path) == before
    assert run(str(tmp_path), False, False) == 0


def test_a_damaged_directory(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory, _ = made(str(tmp_path))
    directory.close()
    file = tmp_path / "journal-00000001.log"
    data = bytearray(file.read_bytes())
    data[4096 + 600] ^= 1
    file.write_bytes(data)
    report = inspect(str(tmp_path))
    assert report.verdict == DAMAGED
    assert "journal-00000001.log" in report.damage[0]
    with pytest.raises(DamagedError):
        list(entries(str(tmp_path)))
    assert run(str(tmp_path), False, True) == 1
    assert "damaged" in capsys.readouterr().out


def test_without_its_identity(tmp_path: Path) -> None:
    directory, journal = made(str(tmp_path))
    journal.close(0)
    directory.close()
    (tmp_path / "identity").unlink()
    report = inspect(str(tmp_path))
    assert report.verdict == DAMAGED
    assert "identity is missing" in report.damage[0]
    assert report.last_seq == 10, "what is left is shown all the same"
    assert len(list(entries(str(tmp_path)))) == 10


def test_not_ours(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert inspect(str(tmp_path)).verdict == FOREIGN
    assert inspect(str(tmp_path / "missing")).verdict == FOREIGN
    assert run(str(tmp_path), False, True) == 2
    assert run(str(tmp_path / "missing"), True, True) == 2
    assert "neither an identity nor a journal" in capsys.readouterr().out.replace("\n", " ")


def test_printed_and_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    directory, journal = made(str(tmp_path))
    journal.close(10)
    directory.close()
    assert run(str(tmp_path), False, True) == 0
    shown = capsys.readouterr().out
    for expected in ("whole", "shop (c1, founded here)", DISK, "3 of a", "journal-00000002.log"):
        assert expected in shown
    assert "10@3:a" in shown or "3:a" in shown
    assert run(str(tmp_path), True, True) == 0
    lines = capsys.readouterr().out.splitlines()
    report = json.loads(lines[0])
    assert report["verdict"] == WHOLE
    assert report["identity"]["member_id"] == "a"
    assert [json.loads(line)["seq"] for line in lines[1:]] == list(range(1, 11))


def held(files: Disk) -> Journal:
    """A journal on a simulated disk, whose directory is in use."""
    open_directory(files, PATH, "shop", "a", DISK)
    journal = open_journal(files)
    journal.append([Persist(1, ballot(1), None, (configuration(1), *model.entries(2, 4)), 4)])
    return journal


class Restless(Disk):
    """The first readings of a segment's batches meet one that is being written."""

    readings = 0

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        if path.endswith(".log") and offset == 0 and self.readings > 0:
            self.readings -= 1
            return b""
        return super().read(path, offset, size)


@pytest.mark.parametrize("readings", [0, LIVE_ATTEMPTS - 1, LIVE_ATTEMPTS])
def test_beside_a_running_member_a_bad_picture_is_taken_again(readings: int) -> None:
    files = Restless()
    held(files)
    files.readings = readings
    report = inspect(PATH, files)
    assert report.in_use_by
    assert report.verdict == (WHOLE if readings < LIVE_ATTEMPTS else DAMAGED)
    assert len(report.damage) == (readings == LIVE_ATTEMPTS)


def test_of_a_directory_at_rest_one_picture_is_enough() -> None:
    files = Restless()
    held(files)
    files.locks.clear()
    files.readings = 1
    assert inspect(PATH, files).verdict == DAMAGED


class Failing(Disk):
    """Reads fail from some moment on."""

    good: float = math.inf

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        self.good -= 1
        if self.good < 0:
            raise OSError(5, "input/output error")
        return super().read(path, offset, size)


def test_wherever_reading_fails_the_report_says_so() -> None:
    files = Failing()
    held(files)
    files.locks.clear()
    good = 0
    while True:
        files.good = good
        report = inspect(PATH, files)
        if files.good >= 0:
            break
        assert report.verdict == DAMAGED
        assert all("input/output error" in damage for damage in report.damage)
        assert report.entries == {}
        good += 1
    assert report.verdict == WHOLE
    assert good > 4
    # The last reads are those of the entries; what the scan before found is shown all the same.
    files.good = good - 1
    assert inspect(PATH, files).last_seq == 5


def test_an_entry_that_was_damaged_before_it_was_written() -> None:
    files = Disk()
    journal = held(files)
    good = model.entry(6)
    journal.append([Persist(2, None, None, (msgspec.structs.replace(good, crc=good.crc ^ 1),))])
    report = inspect(PATH, files)
    assert report.verdict == DAMAGED
    assert "sequence 6 was already damaged" in report.damage[0]


def test_what_this_version_does_not_know_is_shown_as_it_is() -> None:
    files = Disk()
    journal = held(files)
    future = Entry.make(6, ballot(1), cast("EntryKind", 77), 1.0)
    unreadable = Entry.make(7, ballot(1), EntryKind.CONFIG, 1.0, b"\xc1")
    journal.append([Persist(2, None, None, (future, unreadable))])
    report = inspect(PATH, files)
    assert report.verdict == WHOLE
    assert report.entries == {"CHANGES": 4, "CONFIG": 2, "UNKNOWN 77": 1}
    assert report.configurations[0].members == ["a (127.0.0.1:1) voter"]
    assert report.configurations[1].members[0].startswith("cannot be decoded")
