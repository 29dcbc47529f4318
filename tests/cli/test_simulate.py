"""``clusterconsensus simulate`` and ``explore``: what they print, what they write, how they end."""

from __future__ import annotations

import dataclasses
import fcntl
import itertools
import json
import os
import pty
import shlex
import signal
import struct
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterconsensus.cli import explore, main, progress, simulate
from clusterconsensus.consensus.acceptor import Acceptor
from clusterconsensus.simulation import mutants
from clusterconsensus.simulation import states as kit
from clusterconsensus.simulation.explorer import Progress
from clusterconsensus.simulation.mutants import MUTANTS, Kill, Mutant
from clusterconsensus.simulation.mutants.table import instead
from clusterconsensus.simulation.running import runner, seeds
from clusterconsensus.simulation.running.seeds import Result, Violation
from clusterconsensus.simulation.states import Findings
from clusterconsensus.simulation.trouble.plan import FAULTS, Plan

QUICK = ["--members", "3", "--seconds", "1", "--faults", "cut,loss,kill"]
FRAGILE = [
    *("--members", "3", "--seconds", "5", "--workload", "counter"),
    *("--faults", "kill-master,kill,loss"),
]
"""Options with which the planted bug below shows at once: whoever is elected anew."""

PLANTED = "promise-only-in-memory"


def no_refusal(self: object, source: object, message: object) -> bool:
    return False


@pytest.fixture
def planted() -> Iterator[None]:
    """Promises are given and not written."""
    with mutants.apply(PLANTED):
        yield


def run(*arguments: str) -> int:
    """The exit status of ``simulate``, all in this process."""
    return main(["simulate", "--jobs", "1", *arguments])


def lines_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def pretend(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """Let every seed end like this."""

    def pretended(plan: Plan, **_: object) -> Result:
        return msgspec.structs.replace(runner.lost(plan, "", ""), violation=None, **changes)

    monkeypatch.setattr(seeds, "run", pretended)


def child(*arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "clusterconsensus", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
        start_new_session=True,
    )


# -- options


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--seeds", "0"], "--seeds: must be a whole number from 1 to"),
        (["--seed", "x"], "--seed: must be a whole number from 0 to"),
        (["--members", "8"], "--members: must be a whole number from 1 to 7, not '8'"),
        (["--minutes", "nan"], "--minutes: must be a number of minutes from 0.01"),
        (["--seconds", "0"], "--seconds: must be a number of seconds from 0.5"),
        (["--until", "-1"], "--until: must be a number of seconds from 0.01"),
        (["--jobs", "0"], "--jobs: must be a whole number from 1"),
        (["--faults", "cut,rain"], "--faults: no fault 'rain'; there are block, bridge"),
        (["--faults", ""], "--faults: no fault ''"),
        (["--workload", "chess"], "--workload: no workload 'chess'; there are map, counter"),
        (["--workload", "shop:change"], "no workload 'shop:change'"),
        (["--state", "nowhere:State", "--workload", "x:y"], "there is no module 'nowhere'"),
        (["--state", "collections:Counter"], "without the method apply"),
        (["--mutant", "no-such-bug"], "--mutant: no mutant 'no-such-bug'"),
        (["--actions", "1,2"], "--actions: only with --seed"),
        (["--until", "2"], "--until: only with --seed"),
        (["--verbose"], "--verbose: only with --seed"),
        (["--seed", "1", "--actions", "1,x"], "--actions: must be numbers such as 2,5 or none"),
        (["--seed", "1", "--actions", "9999"], "the plan of seed 1 has no action 9999"),
        (["--seed", "1", "--seeds", "2"], "--seeds: not with --seed"),
        (["--seed", "1", "--first-seed", "0"], "--first-seed: not with --seed"),
        (["--seed", "1", "--keep-going"], "--keep-going: not with --seed"),
        (["--seed", "1", "--verbose", "--json"], "--verbose: not with --json"),
        (["--seeds", "1", "--minutes", "1"], "--minutes: not with --seeds"),
        (["--story", "figure_8", "--seed", "1"], "--seed: not with --story"),
        (["--story", "figure_8", "--members", "3"], "--members: not with --story"),
        (["--story", "no_such_story"], "--story: no file 'no_such_story'"),
        (["--report", "/nowhere/at/all.html"], "--report: there is no directory /nowhere/at"),
        (["--report", "/"], "--report: / is a directory"),
        (["--dance"], "unrecognized arguments: --dance"),
    ],
)
def test_a_wrong_option_is_refused_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["simulate", *arguments])
    assert exit_info.value.code == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert words in output.err
    assert output.err.count("\n") == 1
    assert output.err.startswith("clusterconsensus")


def test_faults_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list-faults") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [fault.name for fault in FAULTS]
    assert all(line.endswith(fault.what) for line, fault in zip(lines, FAULTS, strict=True))


def test_mutants_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--list-mutants") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(MUTANTS)
    assert all(
        line.endswith(f" {mutant.what}")
        for line, mutant in zip(lines, MUTANTS.values(), strict=True)
    )


def test_all_faults_are_those_that_a_cluster_must_survive(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch)
    assert run("--seeds", "1", "--faults", "all", "--json") == 0
    (line,) = lines_of(capsys.readouterr().out)
    assert set(line["faults"]) == {fault.name for fault in FAULTS} - set(runner.BEYOND)


# -- many seeds


def test_seeds_are_told_in_a_summary(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--seeds", "4", "--first-seed", "7", *QUICK) == 0
    output = capsys.readouterr()
    assert output.err == ""
    first, second, *rest = output.out.splitlines()
    assert first == "seeds 7 to 10, 1 process"
    assert second.startswith("4 seeds in ")
    assert second.endswith("s: no violation")
    text = " ".join(" ".join(rest).split())
    assert "a second on each core" in text
    assert "election timeouts (median)" in text
    assert "100.0% took at most 3 ballots" in text
    assert "never reached: adoption" in text


def test_json_has_a_line_per_seed_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    found: list[list[dict[str, Any]]] = []
    for jobs in ("1", "2"):
        assert main(["simulate", "--seeds", "5", "--json", "--jobs", jobs, *QUICK]) == 0
        found.append(lines_of(capsys.readouterr().out))
    for lines in found:
        assert [line["seed"] for line in lines] == [0, 1, 2, 3, 4]
        for line in lines:
            assert sorted(line) == ["events", "faults", "seconds", "seed", "trace", "violation"]
            assert line["faults"] == ["kill", "loss", "cut"]
            assert line["violation"] is None
            assert line["events"] > 100
            assert len(line["trace"]) == 32
            assert line.pop("seconds") > 0
    assert found[0] == found[1]


def test_a_seed_alone_does_what_it_does_among_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--seeds", "4", "--json", *QUICK) == 0
    lines = lines_of(capsys.readouterr().out)
    assert run("--seed", "3", "--json", *QUICK) == 0
    (alone,) = lines_of(capsys.readouterr().out)
    assert alone["trace"] == lines[3]["trace"]
    assert len({line["trace"] for line in lines}) == 4


def test_the_hash_seed_changes_nothing() -> None:
    children = [
        child("simulate", "--seeds", "3", "--json", "--jobs", "1", *QUICK, PYTHONHASHSEED=number)
        for number in ("0", "1", "2")
    ]
    outputs = [each.communicate(timeout=50) for each in children]
    assert [each.returncode for each in children] == [0, 0, 0]
    found = [
        [(line["seed"], line["trace"], line["events"]) for line in lines_of(out)]
        for out, _ in outputs
    ]
    assert found[0] == found[1] == found[2]
    assert len(found[0]) == 3


def test_minutes_choose_new_seeds_and_say_which(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("--minutes", "0.01", *QUICK) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("new seeds from ")
    assert first.endswith(" on for 0.01 minutes, 1 process")
    assert run("--minutes", "0.01", "--first-seed", "40", "--json", *QUICK) == 0
    output = capsys.readouterr()
    numbers = [line["seed"] for line in lines_of(output.out)]
    assert numbers == list(range(40, 40 + len(numbers)))
    assert "new seeds from 40 on" in output.err


# -- rare paths


def test_a_long_run_must_have_come_by_rare_paths(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    every = dict.fromkeys(runner.REQUIRED, 1)
    pretend(monkeypatch, sometimes=every | {"adoption": 0})
    assert run("--seeds", "199") == 0
    assert "never reached: adoption\n" in capsys.readouterr().out
    assert run("--seeds", "200") == 5
    assert "proves less than it should" in capsys.readouterr().out
    assert run("--seeds", "200", "--no-require-rare") == 0
    assert run("--seeds", "200", "--faults", "cut") == 0
    assert run("--seeds", "2", "--faults", "cut", "--require-rare") == 5
    monkeypatch.setattr(simulate, "RARE_NEW_SEEDS", 10**9)
    assert run("--minutes", "0.01") == 0
    monkeypatch.setattr(simulate, "RARE_NEW_SEEDS", 1)
    assert run("--minutes", "0.01") == 5
    capsys.readouterr()
    pretend(monkeypatch, sometimes=every)
    assert run("--seeds", "200") == 0
    assert "every rare path was reached" in capsys.readouterr().out


# -- failures


def first_failure(text: str) -> list[str]:
    """The commands that replay it, in full first."""
    return [
        line.split(None, 1)[1]
        for line in text.splitlines()
        if line.startswith(("  replay: ", "  smaller: "))
    ]


@pytest.mark.usefixtures("planted")
def test_a_failure_is_explained_and_can_be_replayed(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "failure.html"
    assert run("--seeds", "9", *FRAGILE, "--report", str(page)) == 1
    text = capsys.readouterr().out
    assert ": 1 failure\n" in text
    assert "is violated (safety) at " in text
    assert "What should hold: " in text
    assert "What it means: " in text
    assert "never reached" not in text
    full, smaller = first_failure(text)
    assert f"drawn in: {page}" in text
    assert "--actions " in smaller
    assert "--actions " not in full
    html = page.read_text()
    assert html.startswith("<!DOCTYPE html>")
    assert smaller in html.replace("&#x27;", "'")
    assert os.listdir(tmp_path) == ["failure.html"]

    found: list[dict[str, Any]] = []
    for command in (full, smaller):
        assert main([*shlex.split(command)[1:], "--json"]) == 1
        output = capsys.readouterr()
        (line,) = lines_of(output.out)
        found.append(line["violation"])
        assert "What should hold" in output.err
    assert [sorted(each) for each in found] == [["at", "kind", "rule", "text"]] * 2
    assert found[0]["kind"] == found[1]["kind"] == "safety"
    assert found[0]["rule"] == found[1]["rule"]


@pytest.mark.usefixtures("planted")
def test_a_run_that_fails_with_fewer_actions_is_drawn_as_it_is(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert run("--seeds", "9", *FRAGILE, "--json", "--report", str(tmp_path / "a.html")) == 1
    output = capsys.readouterr()
    failed = lines_of(output.out)[-1]
    assert failed["violation"]["kind"] == "safety"
    _, smaller = first_failure(output.err)
    page = tmp_path / "b.html"
    assert main([*shlex.split(smaller)[1:], "--report", str(page)]) == 1
    assert "smaller:" not in capsys.readouterr().out
    assert page.read_text() == (tmp_path / "a.html").read_text()


@pytest.mark.parametrize(
    ("kinds", "status"),
    [
        (("liveness", "crash", "safety"), 1),
        (("liveness", "crash", "liveness"), 4),
        (("liveness", None, "liveness"), 3),
    ],
)
def test_the_gravest_failure_decides(
    kinds: tuple[Any, ...],
    status: int,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def pretended(plan: Plan, **_: object) -> Result:
        kind = kinds[plan.seed]
        violation = None if kind is None else Violation(kind, "I-22", "so it is", 1.0)
        return msgspec.structs.replace(runner.lost(plan, "", ""), violation=violation)

    monkeypatch.setattr(seeds, "run", pretended)
    assert run("--seeds", "3", "--keep-going") == status
    text = capsys.readouterr().out
    count = sum(kind is not None for kind in kinds)
    assert f"3 seeds in 0.0 s: {count} failures" in text
    assert text.count("; replay: clusterconsensus simulate --seed ") == count
    first = kinds.index({1: "safety", 3: "liveness", 4: "crash"}[status])
    assert f"\nseed {first}: " in text.split("failures\n")[1]
    if kinds[0] == "liveness":
        assert run("--seeds", "3") == 3  # it stops at the first


def test_a_run_that_goes_another_way_when_it_is_recorded_is_no_proof(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    traces = itertools.count()

    def pretended(plan: Plan, **_: object) -> Result:
        return msgspec.structs.replace(
            runner.lost(plan, "", ""), violation=None, trace=f"{next(traces)}"
        )

    monkeypatch.setattr(seeds, "run", pretended)
    assert run("--seed", "5", "--report", str(tmp_path / "page.html")) == 4
    text = capsys.readouterr().out
    assert "not deterministic: seed 5 did something else when it was run again" in text
    assert os.listdir(tmp_path) == []


# -- one seed


def test_one_seed_is_told_in_full(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    assert run("--seed", "2", *QUICK, "--verbose", "--report", str(page)) == 0
    text = capsys.readouterr().out
    assert text.startswith("seed 2: 3 members, workload ")
    for fault in ("kill", "loss", "cut"):
        assert f"  {fault} " in text
    assert "trouble begins" in text
    assert "everything is healed" in text
    assert "no violation: " in text
    assert "  trace " in text
    assert "No violation was found" in page.read_text()
    assert run("--seed", "2", *QUICK) == 0
    assert "trouble begins" not in capsys.readouterr().out


def test_a_seed_can_be_run_with_fewer_actions(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--seed", "2", *QUICK, "--actions", "none", "--until", "0.5") == 0
    text = capsys.readouterr().out
    assert "0.5 s of trouble" in text
    assert "nothing goes wrong" in text
    assert run("--seed", "2", *QUICK, "--actions", "1") == 0
    assert "       1    0.000  loss " in capsys.readouterr().out


# -- one's own state

STATES = """
class Fine:
    def __init__(self):
        self.total = 0

    def apply(self, change, context):
        print("somebody's own words")
        self.total += change
        return self.total

    def snapshot(self):
        return str(self.total).encode()

    def install(self, snapshot):
        self.total = int(snapshot.read() or b"0")


class Killed(Fine):
    def apply(self, change, context):
        import os
        os._exit(3)


class Clock(Fine):
    def apply(self, change, context):
        import time
        return time.time_ns()


class Unequal(Fine):
    number = 0

    def apply(self, change, context):
        Unequal.number += 1
        return Unequal.number


def add(chance):
    return chance.randrange(5)
"""


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"own_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(STATES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def test_ones_own_state_is_examined_and_simulated(
    states: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--state", f"{states}:Fine", "--workload", f"{states}:add"]
    assert run("--seeds", "2", *QUICK, *own, "--json") == 0
    output = capsys.readouterr()
    assert [line["violation"] for line in lines_of(output.out)] == [None, None]
    assert f"examining {states}:Fine by itself" in output.err
    assert "no errors" in output.err


def test_a_state_that_asks_the_clock_never_gets_into_a_cluster(
    states: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--state", f"{states}:Clock", "--workload", f"{states}:add") == 1
    text = capsys.readouterr().out
    assert "error (sentinels)" in text
    assert "Use context.time" in text
    assert "seeds 0 to" not in text


def test_a_seed_that_kills_its_process_is_a_crash(
    states: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing_found = Findings((), (), ())
    monkeypatch.setattr(kit, "check_state", lambda state, workload: nothing_found)
    own = ["--state", f"{states}:Killed", "--workload", f"{states}:add"]
    assert main(["simulate", "--jobs", "2", "--first-seed", "6", *QUICK, *own]) == 4
    text = capsys.readouterr().out
    assert "seed 6: crash: process\n" in text
    assert "the process that ran it ended with exit code 3" in text
    assert "--seed 6 " in first_failure(text)[0]


def test_a_state_that_answers_differently_is_told_what_to_change(
    states: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = ["--state", f"{states}:Unequal", "--workload", f"{states}:add"]
    assert run("--seed", "1", *QUICK, *own) in (1, 4)
    text = capsys.readouterr().out
    assert "I-13 is violated (safety)" in text
    assert "What to change: Your state gives different answers" in text


# -- deliberate bugs


@pytest.fixture
def bug(monkeypatch: pytest.MonkeyPatch) -> str:
    """A bug of the table that only its seeds are known to catch."""
    monkeypatch.setitem(MUTANTS, "planted", planted_mutant())
    return "planted"


def planted_mutant(**ways: Any) -> Mutant:
    return Mutant(
        name="planted",
        what="promises are not written",
        violates=("D2", "I-5"),
        patch=MUTANTS[PLANTED].patch,
        reported="D2",
        **ways,
    )


def test_a_bug_is_caught_by_seeds(bug: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = Acceptor.on_prepare
    assert run("--seeds", "9", *FRAGILE, "--mutant", bug) == 1
    text = capsys.readouterr().out
    assert "deliberate bug planted: promises are not written" in text
    assert "no quick check is known to catch it" in text
    full, _ = first_failure(text)
    assert full.endswith("--mutant planted")
    assert Acceptor.on_prepare is before


def test_a_bug_that_nothing_catches_is_said_so(
    bug: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("--seeds", "1", "--faults", "none", "--seconds", "1", "--mutant", bug) == 0
    assert "planted was NOT caught by these seeds" in capsys.readouterr().out


def test_a_story_that_catches_a_bug_is_run_first_and_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(MUTANTS, "planted", planted_mutant(story="promise_survives_a_restart"))
    page = tmp_path / "why.html"
    assert run("--mutant", "planted", "--report", str(page)) == 1
    text = capsys.readouterr().out
    assert "caught by story promise_survives_a_restart" in text
    assert "D2 (safety): " in text
    assert "> win c with b\n" in text
    assert "seeds 0 to" not in text
    html = page.read_text()
    assert "D2 violated at step " in html
    assert "--story promise_survives_a_restart" in html
    (command,) = first_failure(text)
    assert main(shlex.split(command)[1:]) == 1
    assert "does not hold: line 7, win c with b: D2: b promises 2:c, durable 1:a" in (
        " ".join(capsys.readouterr().out.split())
    )


def test_schedules_of_bare_cores_that_catch_a_bug_are_drawn(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(MUTANTS, "planted", planted_mutant(core_seeds=range(10)))
    page = tmp_path / "why.html"
    assert run("--mutant", "planted", "--report", str(page), "--json") == 1
    (line,) = lines_of(capsys.readouterr().out)
    assert line["seed"] is None
    assert line["violation"]["rule"] == "D2"
    assert "D2 violated at step " in page.read_text()


@pytest.mark.parametrize(
    ("rule", "status"), [("I-4", 1), ("expect", 1), ("I-22", 3), ("KeyError", 4)]
)
def test_the_exit_status_tells_what_a_bug_does(
    bug: str, rule: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mutants, "kill", lambda mutant: Kill("drill gate", rule, "so", 0.1, 1))
    assert run("--mutant", bug) == status


def test_a_check_that_cannot_be_drawn_leaves_the_page_to_the_seeds(
    bug: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr(mutants, "kill", lambda mutant: Kill("drill gate", "I-4", "so", 0.1, 1))
    page = tmp_path / "why.html"
    assert run("--seeds", "9", *FRAGILE, "--mutant", bug, "--report", str(page)) == 1
    assert "cannot be drawn; looking for a seed that can" in capsys.readouterr().out
    assert "violated at" in page.read_text()


# -- stories


def test_a_story_is_told(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    page = tmp_path / "story.html"
    assert main(["simulate", "--story", "figure_8", "--report", str(page)]) == 0
    text = capsys.readouterr().out
    recorded = (Path(simulate.__file__).parents[1] / "simulation/stories/figure_8.txt").read_text()
    assert text == recorded + f"  drawn in: {page}\n"
    assert "No violation was found" in page.read_text()


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("expect master b", "line 3, expect master b: "),
        ("deliver a->b accept", "no such message on a->b"),
    ],
)
def test_a_story_of_ones_own_that_does_not_hold(
    command: str, words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "own.txt"
    path.write_text(f"> cluster a b c\n> elect a\n> {command}\n> expect nothing more\n")
    assert main(["simulate", "--story", str(path)]) == 1
    text = capsys.readouterr().out
    assert "a is master in 2:a" in text
    assert "expect nothing more" not in text
    assert words in " ".join(text.split())


def test_a_story_that_makes_no_sense_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "own.txt"
    path.write_text("> cluster a b c\n> wait long\n")
    with pytest.raises(SystemExit) as exit_info:
        main(["simulate", "--story", str(path)])
    assert exit_info.value.code == 2
    assert "--story: line 2, wait long: makes no sense" in capsys.readouterr().err


# -- being interrupted


def test_an_interrupted_run_says_how_far_it_came(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    done = itertools.count(1)

    def pretended(plan: Plan, **_: object) -> Result:
        if next(done) == 4:
            raise KeyboardInterrupt
        return msgspec.structs.replace(runner.lost(plan, "", ""), violation=None)

    monkeypatch.setattr(seeds, "run", pretended)
    assert run("--seeds", "50") == 130
    assert capsys.readouterr().err == "interrupted after 3 seeds, 0 failures\n"


def test_ctrl_c_ends_all_processes_without_a_word_too_many() -> None:
    process = child("simulate", "--minutes", "5", "--json", "--jobs", "2", *QUICK)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["violation"] is None
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=50)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted after " in errors
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_a_closed_pipe_ends_the_run() -> None:
    process = child("simulate", "--minutes", "5", "--json", "--jobs", "2", *QUICK)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    assert process.wait(timeout=50) == 141
    assert process.stderr is not None
    assert "Traceback" not in process.stderr.read()
    process.stderr.close()
    with pytest.raises(ProcessLookupError):
        os.killpg(process.pid, 0)


def test_an_interrupted_exploration_says_how_far_it_came(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(bounds: object, on_progress: Callable[[Progress], None]) -> None:
        on_progress(Progress(12_345, 20_000, 7, 1.0))
        raise KeyboardInterrupt

    monkeypatch.setattr(explore, "explore", interrupted)
    assert main(["explore"]) == 130
    assert capsys.readouterr().err == "interrupted after 12,345 states; none is wrong\n"


# -- progress


def test_without_a_terminal_progress_is_a_line_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    assert run("--seeds", "2", *QUICK) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("1 of 2 seeds, ")
    assert lines[2].startswith("2 of 2 seeds, ")
    assert lines[1].endswith(" events/s")


def test_a_terminal_shows_a_bar() -> None:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    try:
        process = subprocess.Popen(
            [sys.executable, "-m", "clusterconsensus", "simulate", "--seeds", "3", *QUICK],
            stdout=theirs,
            env={**os.environ, "TERM": "xterm", "COLUMNS": "100", "PYTHONIOENCODING": "utf-8"},
        )
        assert process.wait(timeout=50) == 0
        written = os.read(ours, 1 << 16).decode()
    finally:
        os.close(ours)
        os.close(theirs)
    assert "1 of 3 seeds, " in written
    assert "━━━" in written
    assert "3 seeds in " in written
    assert written.index("━━━") < written.index("3 seeds in ")


# -- the explorer

SMALL = ["--changes", "1", "--crashes", "0", "--hangs", "0", "--losses", "0", "--repeats", "0"]


def test_the_explorer_tells_what_it_has_seen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explore", "--members", "1", *SMALL]) == 0
    text = capsys.readouterr().out
    assert text.startswith("no state is wrong, and there are no others within the bounds\n")
    assert "states/s" in text
    assert main(["explore", "--states", "500"]) == 0
    assert "there are more\n500 states, " in capsys.readouterr().out
    assert main(["explore", "--states", "500", "--json", "--reorder", "--ballots", "1"]) == 0
    (found,) = lines_of(capsys.readouterr().out)
    assert found["states"] == 500
    assert found["exhausted"] is False
    assert found["violation"] is None
    assert found["sometimes"]["candidacies"] > 0


def test_what_the_explorer_finds_is_a_story_that_can_be_replayed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(Acceptor, "refuse_lower", no_refusal)
    path = tmp_path / "found story.txt"
    assert main(["explore", *SMALL, "--story", str(path)]) == 1
    text = capsys.readouterr().out
    assert text.startswith("I-1 is violated: ")
    story = path.read_text()
    assert story in text
    (command,) = [line[8:] for line in text.splitlines() if line.startswith("replay: ")]
    assert main(shlex.split(command)[1:]) == 1
    assert "I-1: " in capsys.readouterr().out
    assert main(["explore", *SMALL, "--json"]) == 1
    (found,) = lines_of(capsys.readouterr().out)
    assert found["violation"]["story"] == story


def test_the_explorer_takes_a_deliberate_bug(
    bug: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    lower = instead(Acceptor, "refuse_lower", no_refusal)
    monkeypatch.setitem(MUTANTS, bug, dataclasses.replace(MUTANTS[bug], patch=lower))
    path = tmp_path / "found.txt"
    assert main(["explore", *SMALL, "--mutant", bug, "--json", "--story", str(path)]) == 1
    output = capsys.readouterr()
    assert f"--story {path} --mutant planted" in output.err
    assert main(["simulate", "--story", str(path), "--mutant", bug]) == 1
    assert main(["simulate", "--story", str(path)]) == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--members", "0"], "--members: must be a whole number from 1 to 7"),
        (["--ballots", "16"], "--ballots: must be a whole number from 0 to 15"),
        (["--states", "0"], "--states: must be a whole number from 1"),
        (["--mutant", "no-such-bug"], "no mutant 'no-such-bug'"),
        (["--story", "/nowhere/x.txt"], "--story: there is no directory /nowhere"),
    ],
)
def test_a_wrong_bound_is_refused_in_one_line(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        main(["explore", *arguments])
    assert exit_info.value.code == 2
    output = capsys.readouterr()
    assert words in output.err
    assert output.err.count("\n") == 1
