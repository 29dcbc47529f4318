"""The kit finds each defect of ``wrong_states``, says where and what to do, and spares the rest."""

from __future__ import annotations

import gc
import inspect
import io
import os
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clusterconsensus import Context, State
from clusterconsensus.simulation.states import (
    Finding,
    Findings,
    LoadError,
    check_state,
    load_state,
    load_workload,
    processes,
)
from clusterconsensus.simulation.states.sentinels import ForbiddenCallError, Watch, watched
from clusterconsensus.state import Readable, whole
from tests.simulation import wrong_states
from tests.simulation.wrong_states import workload

MODULE = "tests.simulation.wrong_states"
FILE = "wrong_states.py"
CONTEXT = Context(sequence=5, index=0, time=1e9, session=1)


def check_here(factory: type[State], changes: int = 80) -> Findings:
    """The checks inside this process: no fresh one can import a lambda."""
    return check_state(lambda: factory(), workload, changes=changes)


def check_everywhere(name: str, work: str = "workload", changes: int = 80) -> Findings:
    return check_state(
        f"{MODULE}:{name}", f"{MODULE}:{work}", changes=changes, hash_seeds=(0, 4242)
    )


def only(findings: Findings) -> Finding:
    assert len(findings) == 1, findings.describe()
    return findings.found[0]


def line_here(function: Callable[..., Any]) -> str:
    """The place of the line of a function that ends with ``# here``."""
    lines, first = inspect.getsourcelines(function)
    (place,) = (place for place, line in enumerate(lines) if line.rstrip().endswith("# here"))
    return f"{FILE}:{first + place}"


def line_of(function: Callable[..., Any]) -> str:
    return f"{FILE}:{function.__code__.co_firstlineno}"


# -- right ones


@pytest.mark.parametrize("name", ["Map", "Bank", "Pieces"])
def test_a_right_state_is_spared(name: str) -> None:
    findings = check_everywhere(name, changes=200)
    assert findings.ok, findings.describe()
    assert len(findings) == 0, findings.describe()
    assert findings.not_checked == ()
    assert "PYTHONHASHSEED=4242" in findings.describe()
    assert findings.describe().endswith("no errors, no warnings")


def test_what_cannot_be_checked_is_said() -> None:
    findings = check_here(wrong_states.Map)
    assert not findings.errors
    assert not findings.ok
    assert "cannot import" in findings.not_checked[0]
    assert "NOT CHECKED: determinism over processes" in findings.describe()


def test_a_class_is_found_by_fresh_processes() -> None:
    findings = check_state(wrong_states.SetOrder, workload, changes=40, hash_seeds=(0, 1))
    assert only(findings).rule == "determinism"


# -- processes


def test_order_of_a_set() -> None:
    finding = only(check_everywhere("SetOrder"))
    assert (finding.rule, finding.severity) == ("determinism", "error")
    assert finding.where.endswith(line_of(wrong_states.SetOrder.apply))
    assert "PYTHONHASHSEED=4242" in finding.seen
    assert "sort before" in finding.advice
    assert finding.change.startswith("change ")


def test_a_hash_that_decides() -> None:
    finding = only(check_everywhere("HashValue"))
    assert finding.rule == "determinism"
    assert f"hash() is called at tests/simulation/{FILE}:" in finding.advice
    assert finding.change.startswith("change 1 of seed 1: ['put', 'pear', 97]")


def test_an_address() -> None:
    findings = check_everywhere("Address")
    finding = only(findings)
    assert finding.rule == "determinism"
    assert "another time zone" in finding.seen
    assert f"id() is called at tests/simulation/{FILE}:" in finding.advice
    assert "mend that first" in findings.not_checked[0]


@pytest.mark.parametrize("name", ["LocalDay", "HiddenClock"])
def test_what_only_another_place_and_time_show(name: str) -> None:
    finding = only(check_everywhere(name))
    assert finding.rule == "determinism"
    assert "The hash seeds were equal" in finding.advice


def test_snapshots_of_another_order_are_a_warning() -> None:
    findings = check_everywhere("SetSnapshot")
    assert not findings.errors, findings.describe()
    assert findings.warnings[0].rule == "snapshot"
    assert "all answers are alike" in findings.warnings[0].seen
    assert findings.ok


def test_a_process_that_dies() -> None:
    finding = only(check_everywhere("DiesInChild"))
    assert "exit code 9" in finding.seen


def test_a_process_that_takes_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "TIMEOUT_SECONDS", 0.01)
    finding = only(check_everywhere("Map"))
    assert "is not done after 0.01 seconds" in finding.seen


# -- the workload


def test_a_workload_with_a_hash_seed_of_its_own() -> None:
    findings = check_everywhere("Map", "set_order")
    assert [finding.rule for finding in findings.errors] == ["workload"]
    assert "sort sets" in findings.errors[0].advice


def test_a_workload_that_is_not_repeated() -> None:
    findings = check_state(lambda: wrong_states.Map(), wrong_states.noise, changes=20)
    assert only(findings).rule == "workload"
    assert "same seed" in only(findings).seen


def test_a_workload_that_the_codec_does_not_take() -> None:
    findings = check_state(lambda: wrong_states.Map(), wrong_states.unencodable, changes=20)
    assert "cannot encode a change" in only(findings).seen
    assert findings.not_checked


def test_a_workload_that_raises() -> None:
    def broken(chance: random.Random) -> Any:
        raise IndexError("nothing")

    finding = only(check_state(lambda: wrong_states.Map(), broken))
    assert finding.seen == "the workload raises: IndexError: nothing"


def test_changes_that_are_all_refused() -> None:
    finding = only(check_here(wrong_states.AlwaysRaises))
    assert (finding.rule, finding.severity) == ("workload", "warning")
    assert "ValueError: no" in finding.seen


# -- sentinels

ASKING = {
    "AsksTime": ("time.time, a clock", "context.time"),
    "AsksTimeByAnotherName": ("time.time, a clock", "context.time"),
    "AsksDatetime": ("datetime.datetime.now, a clock", "context.time"),
    "AsksToday": ("datetime.date.today, a clock", "context.time"),
    "AsksRandom": ("random.random, a source", "put what was drawn into the change"),
    "AsksChoice": ("random.choice, a source", "put what was drawn into the change"),
    "AsksUnseeded": ("random.Random() without a seed, a source", "into the change"),
    "AsksUuid": ("uuid.uuid4, a source", "into the change"),
    "AsksFile": ("open, the world", "put the answer into the change"),
    "AsksPath": ("pathlib", "put the answer into the change"),
    "AsksEnvironmentItself": ("os.environ, the world", "put the answer into the change"),
    "AsksEnvironment": ("os.getenv, the world", "put the answer into the change"),
    "Sleeps": ("time.sleep, a wait", "Do not wait"),
}


@pytest.mark.parametrize("name", ASKING)
def test_who_asks_the_world(name: str) -> None:
    factory = getattr(wrong_states, name)
    finding = only(check_here(factory, changes=10))
    called, advice = ASKING[name]
    if (
        name == "AsksPath"
    ):  # the method, not the module that it lives in, is the same in all Pythons
        assert finding.seen.startswith("apply calls pathlib")
    else:
        assert finding.seen.startswith(f"apply calls {called}")
    assert (finding.rule, finding.severity) == ("sentinels", "error")
    assert finding.where.endswith(line_here(factory.ask))
    assert finding.change == "change 1 of seed 1: ['put', 'pear', 97]"
    assert advice in finding.advice


def test_a_snapshot_is_listened_to() -> None:
    finding = only(check_here(wrong_states.AsksInSnapshot))
    assert finding.seen == "snapshot calls time.time, a clock"
    assert finding.where.endswith(line_here(wrong_states.AsksInSnapshot.snapshot))


def test_a_watched_state_raises_what_nobody_swallows() -> None:
    state = watched(wrong_states.Swallows())
    with pytest.raises(ForbiddenCallError) as caught:
        state.apply(["put", "pear", 1], CONTEXT)
    assert not isinstance(caught.value, Exception)
    assert line_here(wrong_states.Swallows.apply) in str(caught.value)
    assert "context.time" in str(caught.value)


def test_a_watched_state_that_raises_has_asked_all_the_same() -> None:
    with pytest.raises(ForbiddenCallError, match=r"apply calls time\.time"):
        watched(wrong_states.AsksAndRaises()).apply(["put", "pear", 1], CONTEXT)


def test_a_watched_state_is_the_state() -> None:
    state: Any = watched(wrong_states.Map())
    assert state.apply(["put", "pear", 1], CONTEXT) == 1
    with pytest.raises(KeyError):
        state.apply(["take", "plum"], CONTEXT)
    assert state.items == {"pear": 1}
    other = watched(wrong_states.Map())
    other.install(io.BytesIO(state.snapshot()))
    assert other.snapshot() == b'{"pear": 1}'


def test_listening_ends() -> None:
    watch = Watch()
    with pytest.raises(ZeroDivisionError):
        watch.run(lambda: 1 // 0)
    time.time()
    os.urandom(1)
    assert watch.calls == []


def test_memory_is_no_file(tmp_path: Path) -> None:
    def in_memory() -> None:
        import csv
        import io

        text = io.TextIOWrapper(io.BytesIO())
        csv.writer(text).writerow([1, 2])
        text.write("3")
        print(end="")

    watch = Watch()
    watch.run(in_memory)
    assert watch.calls == []
    with open(tmp_path / "file", "w") as file:
        watch.run(file.write, "x")
    assert [call.called for call in watch.calls] == []  # called by C alone: nobody's line

    def write() -> None:
        file.write("x")

    with open(tmp_path / "file", "w") as file:
        watch.run(write)
    assert [call.called for call in watch.calls] == ["TextIOWrapper.write"]


# -- snapshots


def test_a_forgotten_field() -> None:
    finding = only(check_here(wrong_states.ForgetsField))
    assert (finding.rule, finding.severity) == ("install", "error")
    assert "answered 1, the one that the snapshot was taken from 21" in finding.seen
    assert "change 20 of seed 1" in finding.change
    assert "an empty state" in finding.change
    assert "every one of them" in finding.advice
    assert finding.where.endswith(line_of(wrong_states.Map.install))


def test_an_install_that_merges() -> None:
    finding = only(check_here(wrong_states.Merges))
    assert (finding.rule, finding.severity) == ("install", "error")
    assert "a state with another history" in finding.change
    assert "clear the old ones first" in finding.advice
    assert finding.where.endswith(line_of(wrong_states.Merges.install))


def test_an_install_that_raises() -> None:
    finding = only(check_here(wrong_states.InstallRaises))
    assert finding.seen == "install raised RuntimeError: not written yet"
    assert finding.where.endswith(line_of(wrong_states.InstallRaises.install))


def test_a_snapshot_of_text() -> None:
    findings = check_here(wrong_states.SnapshotOfText)
    finding = only(findings)
    assert (
        finding.seen == "snapshot returned '{}', a str, and neither bytes nor an iterable of bytes"
    )
    assert ".encode()" in finding.advice
    assert any("needs snapshot" in text for text in findings.not_checked)


def test_pieces_are_looked_at_while_apply_goes_on() -> None:
    said = "pieces of snapshots, made in another thread while apply goes on"
    assert said in check_here(wrong_states.Pieces).checked
    assert said not in check_here(wrong_states.Map).checked


@pytest.mark.parametrize("name", ["LivePieces", "LateCopy", "LiveLists"])
def test_pieces_of_what_apply_changes(name: str) -> None:
    finding = only(check_here(getattr(wrong_states, name)))
    assert (finding.rule, finding.severity) == ("snapshot", "error")
    assert "made while apply goes on" in finding.seen or "changed size" in finding.seen
    assert "no piece is made then, the others 30 changes later" in finding.change
    assert "through the copy" in finding.advice
    assert FILE in finding.where


def test_pieces_that_alter_the_state() -> None:
    finding = only(check_here(wrong_states.PiecesTakeAway))
    assert "a snapshot was made piece by piece answered" in finding.seen


def test_pieces_of_text() -> None:
    finding = only(check_here(wrong_states.PiecesOfText))
    assert finding.seen == "piece 0 of a snapshot is '{}', a str, and not bytes"


def test_pieces_are_listened_to() -> None:
    finding = only(check_here(wrong_states.AsksInPieces))
    assert finding.seen == "snapshot calls time.time, a clock"
    assert finding.where.endswith(line_here(wrong_states.AsksInPieces.pieces))
    taken = watched(wrong_states.AsksInPieces()).snapshot()
    with pytest.raises(ForbiddenCallError, match="snapshot calls time"):
        whole(taken)


def test_an_install_that_wants_bytes() -> None:
    finding = only(check_here(wrong_states.TakesBytes))
    assert finding.rule == "install"
    assert "install raised TypeError" in finding.seen
    assert "snapshot.read() gives all of it" in finding.advice


def test_a_snapshot_that_raises() -> None:
    finding = only(check_here(wrong_states.SnapshotRaises))
    assert finding.seen.startswith("snapshot raised ValueError")
    assert finding.change == "before the first change"


def test_a_snapshot_that_counts() -> None:
    finding = only(check_here(wrong_states.SnapshotCounts))
    assert finding.seen == "two snapshots in a row differ: b'1' and b'2'"


def test_a_snapshot_that_takes_away() -> None:
    finding = only(check_here(wrong_states.SnapshotTakesAway))
    assert finding.rule == "snapshot"
    assert "must not alter the state" in finding.advice
    assert finding.change.startswith("change ")


# -- results and exceptions


def test_a_live_result_is_a_warning() -> None:
    finding = only(check_here(wrong_states.ReturnsLive))
    assert (finding.rule, finding.severity) == ("results", "warning")
    assert "Return a copy" in finding.advice
    assert "its result is altered by change 2 of seed 1" in finding.change


def test_a_large_result() -> None:
    finding = only(check_here(wrong_states.ReturnsMuch))
    assert (finding.rule, finding.severity) == ("results", "error")
    assert "MAX_RESULT_BYTES is 1048576" in finding.seen
    assert "'plum'" in finding.change


def test_a_result_that_does_not_encode() -> None:
    finding = only(check_here(wrong_states.ReturnsObject))
    assert (finding.rule, finding.severity) == ("results", "error")
    assert "cannot be encoded" in finding.seen
    assert "plain data" in finding.advice


def test_half_done_is_a_warning() -> None:
    finding = only(check_here(wrong_states.HalfDone))
    assert (finding.rule, finding.severity) == ("raising", "warning")
    assert "raised KeyError" in finding.seen
    assert "Check first and alter afterwards" in finding.advice
    assert "['take', " in finding.change


def test_what_is_no_answer() -> None:
    findings = check_here(wrong_states.Leaves)
    assert "apply raised SystemExit, which is no answer" in only(findings).seen
    assert findings.not_checked


def test_what_instances_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wrong_states.Shared, "shared", [])
    finding = only(check_here(wrong_states.Shared))
    assert finding.rule == "determinism"
    assert "in one process" in finding.seen
    assert "an attribute of the class" in finding.advice


# -- loading


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nothing", "write package.module:Factory"),
        ("no.such.module:Factory", "there is no module 'no'"),
        (f"{MODULE}s:Map", f"there is no module '{MODULE}s'"),
        (f"{MODULE}:Mapp", "has no attribute 'Mapp'"),
        (f"{MODULE}:NOT_CALLABLE", "is of type int, which cannot be called"),
        (f"{MODULE}:NoInstall", "without the method install"),
        (f"{MODULE}:Waits", "is async"),
        (f"{MODULE}:NeedsArgument", "called without arguments"),
        (f"{MODULE}:BadCodec", "has no encode_change"),
    ],
)
def test_what_is_no_state(name: str, says: str) -> None:
    with pytest.raises(LoadError) as caught:
        load_state(name)
    assert says in str(caught.value)


def test_what_is_no_workload() -> None:
    with pytest.raises(LoadError, match="there is no default one"):
        load_workload("")
    with pytest.raises(LoadError, match="cannot be called"):
        load_workload(f"{MODULE}:NOT_CALLABLE")
    assert load_workload(f"{MODULE}:workload") is workload


def test_the_current_directory_is_looked_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_here.py").write_text("import no_such_thing_at_all\n")
    (tmp_path / "raises_here.py").write_text("raise ValueError('at import')\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", [entry for entry in __import__("sys").path if entry])
    with pytest.raises(LoadError, match="fails: No module named 'no_such_thing_at_all'"):
        load_state("broken_here:X")
    with pytest.raises(LoadError, match="raises ValueError: at import"):
        load_state("raises_here:X")


def test_the_codec_is_an_attribute() -> None:
    assert load_state(f"{MODULE}:Bank").codec is wrong_states.Bank.codec


def test_nothing_to_check() -> None:
    with pytest.raises(ValueError, match="at least 2"):
        check_state(wrong_states.Map, workload, changes=1)
    with pytest.raises(ValueError, match="hash_seeds"):
        check_state(wrong_states.Map, workload, hash_seeds=())


class Littering:
    """A right state machine that leaves garbage in circles behind."""

    def __init__(self) -> None:
        self.total = 0

    def apply(self, change: object, context: Context) -> int:
        for _ in range(2_000):
            circle: list[object] = []
            circle.append(circle)
        self.total += 1
        return self.total

    def snapshot(self) -> bytes:
        return str(self.total).encode()

    def install(self, snapshot: Readable) -> None:
        self.total = int(snapshot.read())


def test_what_the_collector_calls_is_not_the_states_doing() -> None:
    def on_collection(phase: str, info: dict[str, int]) -> None:
        time.perf_counter()

    gc.callbacks.append(on_collection)
    try:
        state = watched(Littering())
        assert state.apply(1, Context(1, 0, 0.0, 1)) == 1
        assert gc.isenabled()
    finally:
        gc.callbacks.remove(on_collection)
