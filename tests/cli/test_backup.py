"""``snapshot`` and ``recover`` as an operator uses them, and that what they make really runs."""

from __future__ import annotations

import errno
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from clusterconsensus.cli import backup, main
from clusterconsensus.storage.backup import Survey
from clusterconsensus.storage.files import RealFiles
from clusterconsensus.storage.identity import read_identity
from tests.participant.helpers import FAST, Cluster, Ports, cluster, run, until

MEMBER = ["--cluster", "shop2", "--member", "n", "--address", "127.0.0.1:7001"]


async def grown(base: Path, *, snapshot: bool = True, running: Any = None) -> None:
    """A member's directory ``base/a``: ten changes, a snapshot after the fifth."""
    async with cluster(base, "a", settings=FAST) as held:
        for number in range(10):
            if number == 5 and snapshot:
                await held["a"].snapshot()
            await held["a"].submit(["x", number])
        if running is not None:
            running(held)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    run(grown(tmp_path))
    return tmp_path / "a"


def cut_off(directory: Path) -> None:
    """Damage the journal in the middle of what is there."""
    path = sorted(directory.glob("journal-*.log"))[0]
    data = bytearray(path.read_bytes())
    used = len(bytes(data).rstrip(b"\0"))
    data[4096 + (used - 4096) // 2] ^= 0xFF
    path.write_bytes(data)


def names(path: Path) -> list[str]:
    return sorted(found.name for found in path.iterdir())


def content(path: Path) -> dict[str, bytes]:
    return {found.name: found.read_bytes() for found in sorted(path.iterdir())}


# -- what runs


WHOLE = sum(range(10))
ALL_BUT_THE_LAST = WHOLE - 9
"""A running member notes what is chosen with its next write, or after a while."""


async def goes_on(base: Path, arguments: list[str], *expected: int) -> None:
    """A directory ``base/made`` is made by a command; its member starts, leads, and takes in
    another one."""
    ports = Ports()
    held = Cluster(base, ports, FAST, "shop2")
    try:
        who = ["--cluster", "shop2", "--member", "n", "--address", held.member("n").address]
        assert main([*arguments, *who]) == 0
        first = await held.start("n", directory=str(base / "made"))
        await held.has_master()
        found = first.state.items["x"]
        assert found in expected
        assert await first.submit(["x", 1]) == found + 1
        await held.start("m")
        await first.add_participant(held.member("m"))
        await until(lambda: held.x("m") == found + 1)
    finally:
        await held.close()
        ports.close()


@pytest.mark.parametrize("snapshot", [True, False])
def test_a_cluster_goes_on_from_a_backup(tmp_path: Path, snapshot: bool) -> None:
    file, made = str(tmp_path / "shop.backup"), str(tmp_path / "made")

    def save(held: Cluster) -> None:
        assert main(["snapshot", "save", held.directory("a"), file]) == 0

    run(grown(tmp_path, snapshot=snapshot, running=save))
    arguments = ["snapshot", "restore", file, made]
    run(goes_on(tmp_path, arguments, WHOLE, ALL_BUT_THE_LAST))


def test_a_cluster_goes_on_from_what_is_left(directory: Path, tmp_path: Path) -> None:
    arguments = ["recover", str(directory), str(tmp_path / "made"), "--accept-loss"]
    run(goes_on(tmp_path, arguments, WHOLE))


# -- what is told


def test_saving_and_inspecting(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(directory)
    file = tmp_path / "shop.backup"
    assert main(["snapshot", "save", str(directory), str(file)]) == 0
    saved = capsys.readouterr().out
    assert content(directory) == before
    assert f"{file}: saved and verified" in saved
    assert main(["snapshot", "inspect", str(file)]) == 0
    shown = capsys.readouterr().out
    assert f"{file}: whole" in shown
    assert shown.splitlines()[1:] == saved.splitlines()[1:]
    for words in ("shop (", "written by", "bytes of state", "a (127.0.0.1:", "voter", "ago"):
        assert words in shown
    assert main(["snapshot", "inspect", "--json", str(file)]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["file"] == str(file)
    assert report["last_seq"] >= 12
    assert report["snapshot_seq"] > 0
    raw = next(directory.glob("snapshot-*.snap"))
    assert main(["snapshot", "inspect", str(raw)]) == 0
    assert "entries        none" in capsys.readouterr().out


def test_works_without_rich(
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert main(["snapshot", "save", str(directory), str(tmp_path / "file")]) == 0


def test_restoring_says_what_was_made(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, made = str(tmp_path / "file"), tmp_path / "made"
    assert main(["snapshot", "save", str(directory), file]) == 0
    capsys.readouterr()
    assert main(["snapshot", "restore", file, str(made), *MEMBER]) == 0
    shown = capsys.readouterr().out
    identity = read_identity(RealFiles(), str(made))
    assert identity is not None
    assert (identity.cluster, identity.member_id) == ("shop2", "n")
    assert identity.cluster_id in shown
    assert "n (127.0.0.1:7001)" in shown
    assert "a (127.0.0.1:" in shown
    again = tmp_path / "again"
    assert main(["snapshot", "restore", "--json", file, str(again), *MEMBER]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["directory"] == str(again)
    assert found["cluster_id"] != identity.cluster_id, "ids are never used twice"
    assert found["disk_id"] != identity.disk_id


def test_recovering_says_first_what_is_lost_and_then_needs_a_yes(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(directory)
    made = tmp_path / "made"
    arguments = ["recover", str(directory), str(made), *MEMBER]
    assert main(arguments) == 3
    output = capsys.readouterr()
    for words in ("recovered", "known to be chosen", "newest change", "given up", "voter"):
        assert words in output.out
    assert output.err.startswith("clusterconsensus: nothing was done: --accept-loss is needed")
    assert not made.exists()
    assert main([*arguments, "--json"]) == 3
    found = json.loads(capsys.readouterr().out)
    assert found["made"] is None
    assert found["survey"]["unknown"] == 0
    assert main([*arguments, "--accept-loss", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["made"]["last_seq"] == found["survey"]["last_seq"] + 1
    assert content(directory) == before


def test_recovering_tells_the_damage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(grown(tmp_path, snapshot=False))
    for snapshot in (tmp_path / "a").glob("snapshot-*.snap"):
        snapshot.unlink()
    cut_off(tmp_path / "a")
    arguments = ["recover", str(tmp_path / "a"), str(tmp_path / "made"), *MEMBER]
    assert main(arguments) == 3
    assert "journal-00000001.log" in capsys.readouterr().out
    assert main(["snapshot", "save", str(tmp_path / "a"), str(tmp_path / "file")]) == 1
    assert "journal-00000001.log" in capsys.readouterr().err
    assert main([*arguments, "--accept-loss"]) == 0
    assert main(["inspect", str(tmp_path / "made")]) == 0


def test_rows_that_are_rarely_needed() -> None:
    survey = Survey(
        directory="/d",
        cluster="shop",
        cluster_id="c",
        member_id="a",
        disk_id="d",
        snapshot_seq=0,
        last_seq=1234,
        last_instance=1,
        last_owner="a@d",
        known_seq=1230,
        unknown=4,
        missing_seq=1300,
        damage=["one", "two"],
        recovering=True,
        time=1e300,
        configuration_seq=1,
        given_up=["a (a:1) voter"],
    )
    rows = dict(backup._survey_rows(survey))
    assert rows["not known"] == "whether the 4 entries 1231 to 1234 were chosen; they are kept"
    assert rows["lost"] == "1235 to 1300, which were chosen, and more"
    assert "may be missing anywhere" in rows["doubtful"]
    assert rows["damaged"] == "two"
    assert rows["newest change"].startswith("at 1e+300 seconds")


# -- what is refused


def test_whatever_is_wrong_is_one_sentence_and_leaves_nothing(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "file")
    made = str(tmp_path / "made")
    assert main(["snapshot", "save", str(directory), file]) == 0
    text = tmp_path / "notes.txt"
    text.write_text("these are only notes of mine, nothing else\n")
    cut = tmp_path / "cut"
    cut.write_bytes(Path(file).read_bytes()[:-5])
    empty = tmp_path / "nothing"
    empty.mkdir()
    before = names(tmp_path)
    missing = str(tmp_path / "missing")
    cases = [
        (["snapshot", "save", missing, made], 2, missing),
        (["snapshot", "save", str(empty), made], 2, f"{empty} holds neither"),
        (["snapshot", "save", str(directory), file], 2, f"{file}: exists already"),
        (["snapshot", "save", str(directory), f"{missing}/file"], 2, "cannot be written"),
        (["snapshot", "inspect", missing], 2, f"{missing}: cannot be read"),
        (["snapshot", "inspect", str(empty)], 2, f"{empty}: cannot be read"),
        (["snapshot", "inspect", str(text)], 1, f"{text}: is no snapshot"),
        (["snapshot", "inspect", str(cut)], 1, f"{cut}: at offset"),
        (["snapshot", "restore", missing, made, *MEMBER], 2, f"{missing}: cannot be read"),
        (["snapshot", "restore", str(text), made, *MEMBER], 1, f"{text}: is no snapshot"),
        (["snapshot", "restore", str(cut), made, *MEMBER], 1, f"{cut}: at offset"),
        (["snapshot", "restore", file, str(directory), *MEMBER], 2, "is not empty"),
        (["snapshot", "restore", file, file, *MEMBER], 2, f"directory {file} cannot be made"),
        (["snapshot", "restore", file, f"{missing}/a", *MEMBER], 2, "cannot be made"),
        (["recover", missing, made, *MEMBER, "--accept-loss"], 2, missing),
        (["recover", str(directory), file, *MEMBER, "--accept-loss"], 2, "cannot be made"),
    ]
    capsys.readouterr()
    for arguments, status, words in cases:
        assert main(arguments) == status, arguments
        output = capsys.readouterr()
        assert words in output.err
        assert output.err.startswith("clusterconsensus: ")
        assert output.err.count("\n") == 1
        assert names(tmp_path) == before, arguments


def test_of_a_member_that_runs_nothing_is_recovered(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(held: Cluster) -> None:
        arguments = ["recover", held.directory("a"), str(tmp_path / "made"), *MEMBER]
        assert main([*arguments, "--accept-loss"]) == 2

    run(grown(tmp_path, running=refused))
    assert f"is in use by process {os.getpid()}: its member lives" in capsys.readouterr().err


def test_a_full_disk(
    directory: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file, made = tmp_path / "file", tmp_path / "made"
    assert main(["snapshot", "save", str(directory), str(file)]) == 0

    class Full(RealFiles):
        def create(self, path: str) -> Any:
            raise OSError(errno.ENOSPC, "no space left on device", path)

    monkeypatch.setattr(backup, "RealFiles", Full)
    capsys.readouterr()
    for arguments in (
        ["snapshot", "save", str(directory), str(tmp_path / "other")],
        ["snapshot", "restore", str(file), str(made), *MEMBER],
        ["recover", str(directory), str(made), *MEMBER, "--accept-loss"],
    ):
        assert main(arguments) == 4
        assert "no space left on device" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    assert names(made) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["snapshot"], "ACTION"),
        (["snapshot", "save", "a"], "FILE"),
        (["snapshot", "restore", "a", "b"], "--cluster, --member, --address"),
        (["recover", "a", "b"], "--cluster, --member, --address"),
        (
            ["snapshot", "restore", "a", "b", "--cluster", "a b", *MEMBER[2:]],
            "--cluster: must be 1 to 64 letters, digits, '.', '_' or '-', not 'a b'",
        ),
        (
            ["recover", "a", "b", *MEMBER[:4], "--address", "host"],
            "--address: the address 'host' is not host:port",
        ),
        (["recover", "a", "b", *MEMBER, "--accept"], "unrecognized arguments: --accept"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    output = capsys.readouterr()
    assert words in output.err
    assert output.err.count("\n") == 1


@pytest.mark.parametrize(
    "command", [["snapshot"], ["snapshot", "save"], ["snapshot", "restore"], ["recover"]]
)
def test_the_help_tells_every_exit_status(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([*command, "--help"])
    assert exit_info.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Exit status: 0 done; 1 the input is damaged; 2" in text
    assert "130 Ctrl-C." in text
    assert ("3 --accept-loss is missing" in text) == (command == ["recover"])
