"""The command line: what it refuses, and that it says why in one line."""

from __future__ import annotations

import sys

import pytest

from clusterconsensus import __version__
from clusterconsensus.cli import demo, main


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["demo", "--members", "0"], "--members: must be a whole number from 1 to 9, not '0'"),
        (["demo", "--members", "10"], "--members: must be a whole number from 1 to 9, not '10'"),
        (["demo", "--members", "2.5"], "from 1 to 9, not '2.5'"),
        (["demo", "--seconds", "-1"], "--seconds: must be a number of seconds from 3 to 600"),
        (["demo", "--seconds", "nan"], "not 'nan'"),
        (["demo", "--seconds", "inf"], "not 'inf'"),
        (["demo", "--seconds", "soon"], "not 'soon'"),
        (["demo", "--seed", "-1"], "--seed: must be a whole number from 0"),
        (["demo", "--sec", "5"], "unrecognized arguments: --sec"),
        (["simulate", "--seed", "-1"], "--seed: must be a whole number from 0"),
        (["simulate", "--see", "5"], "unrecognized arguments: --see"),
        (["explore", "--states", "many"], "--states: must be a whole number from 1"),
        (["dance"], "invalid choice: 'dance'"),
        ([], "COMMAND"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(arguments)
    assert exit_info.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert output.err.count("\n") == 1
    assert output.err.startswith("clusterconsensus")


def test_the_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["--version"])
    assert exit_info.value.code == 0
    assert capsys.readouterr().out == f"clusterconsensus {__version__}\n"


def test_the_switch_for_tests_is_not_offered(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["demo", "--help"])
    help_text = capsys.readouterr().out
    assert "--members" in help_text
    assert "unsafe" not in help_text


def test_simulate_works_without_rich(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "rich", None)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    assert main(["simulate", "--seeds", "1", "--seconds", "1", "--jobs", "1"]) == 0
    assert "1 seed in " in capsys.readouterr().out


@pytest.mark.parametrize("command", ["simulate", "explore"])
def test_the_help_tells_every_exit_status(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main([command, "--help"])
    assert exit_info.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "Exit status: 0 no" in text
    assert "130 Ctrl-C." in text


def test_without_rich_the_way_to_get_it_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "rich"]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.delitem(sys.modules, "clusterconsensus.cli.demo.view", raising=False)
    monkeypatch.delattr(demo, "view", raising=False)
    monkeypatch.setitem(sys.modules, "rich", None)
    assert main(["demo"]) == 3
    assert "pip install 'clusterconsensus[cli]'" in capsys.readouterr().err
