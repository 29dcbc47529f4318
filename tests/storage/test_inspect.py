"""Looking at a directory without touching it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from clusterconsensus.cli.inspect import run
from clusterconsensus.consensus.effects import Persist
from clusterconsensus.errors import DamagedError
from clusterconsensus.storage.files import RealFiles
from clusterconsensus.storage.identity import Directory, open_directory
from clusterconsensus.storage.inspect import DAMAGED, FOREIGN, TORN, WHOLE, entries, inspect
from clusterconsensus.storage.journal import Journal
from tests.storage import model
from tests.storage.model import DISK, ballot, configuration, open_journal


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
