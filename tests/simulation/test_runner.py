"""Many seeds over several processes: nothing is lost, and nothing depends on how many there are."""

from __future__ import annotations

import itertools
import shlex
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from clusterconsensus.cli.main import build_parser
from clusterconsensus.simulation.running import crew, runner, seeds
from clusterconsensus.simulation.running.crew import DIED, Crew
from clusterconsensus.simulation.running.runner import (
    REQUIRED,
    Options,
    Summary,
    run_seed,
    run_seeds,
)
from clusterconsensus.simulation.running.seeds import Result, Violation
from clusterconsensus.simulation.states import LoadError
from clusterconsensus.simulation.trouble.plan import draw

QUICK = Options(members=3, seconds=1.0, faults=("cut", "loss", "kill"))

STATES = '''
"""States that end the process they live in, and one that does not."""
import os
import signal
import sys


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
        if change == 9:
            print("the last words", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().apply(change, context)


class Exits(Fine):
    def apply(self, change, context):
        sys.exit(0)


class Hangs(Fine):
    def apply(self, change, context):
        while change == 9:
            pass
        return super().apply(change, context)


def add(chance):
    return chance.randrange(5)


def nine(chance):
    return 9
'''


@pytest.fixture
def states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"states_of_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(STATES)
    monkeypatch.syspath_prepend(str(tmp_path))
    return name


def traces(results: list[Result]) -> list[tuple[int, str, int]]:
    return [(result.seed, result.trace, result.events) for result in results]


def test_results_do_not_depend_on_the_number_of_processes() -> None:
    alone: list[Result] = []
    together: list[Result] = []
    one = run_seeds(range(5, 11), QUICK, jobs=1, on_result=alone.append)
    two = run_seeds(range(5, 11), QUICK, jobs=2, on_result=together.append)
    assert traces(alone) == traces(together)
    assert [result.seed for result in alone] == [5, 6, 7, 8, 9, 10]
    assert (one.seeds, one.events, one.sometimes) == (two.seeds, two.events, two.sometimes)
    assert one.healed_timeouts == two.healed_timeouts is not None
    assert one.failures == two.failures == []


def test_equal_seeds_may_be_run_twice() -> None:
    together: list[Result] = []
    run_seeds([3, 3, 3], QUICK, jobs=2, on_result=together.append)
    assert len(together) == 3
    assert len({result.trace for result in together}) == 1


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_first_seed_that_fails_ends_the_run(jobs: int, states: str) -> None:
    options = msgspec.structs.replace(QUICK, state=f"{states}:Exits", changes=f"{states}:add")
    told: list[Result] = []
    summary = run_seeds(range(4, 100), options, jobs=jobs, on_result=told.append)
    assert [result.seed for result in told] == [4]
    assert summary.seeds == 1
    assert [failure.seed for failure in summary.failures] == [4]
    assert summary.failures[0].violation is not None
    assert summary.failures[0].violation.kind == "crash"
    assert summary.failures[0].violation.rule == "SystemExit"


def test_a_seed_that_kills_its_process_is_a_crash_of_that_seed(states: str) -> None:
    options = msgspec.structs.replace(QUICK, state=f"{states}:Killed", changes=f"{states}:nine")
    summary = run_seeds([7, 8, 9], options, jobs=2, keep_going=True)
    assert [failure.seed for failure in summary.failures] == [7, 8, 9]
    for failure in summary.failures:
        assert failure.violation is not None
        assert failure.violation.kind == "crash"
        assert failure.violation.rule == DIED
        assert "killed by signal 9" in failure.violation.text
        assert "the last words" in failure.violation.text


def test_a_seed_that_never_ends_is_a_crash(states: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crew, "MAX_SEED_SECONDS", 1.5)
    options = msgspec.structs.replace(QUICK, state=f"{states}:Hangs", changes=f"{states}:nine")
    summary = run_seeds([7], options, jobs=2)
    assert [failure.seed for failure in summary.failures] == [7]
    violation = summary.failures[0].violation
    assert violation is not None
    assert "had not ended after 1.5 s" in violation.text


def test_leaving_the_crew_ends_every_process() -> None:
    with Crew(QUICK, 2) as together:
        together.run(itertools.count(), lambda result: result.seed < 1)
        processes = [worker.process for worker in together._workers]
        assert len(processes) == 2
    assert [process.poll() for process in processes] != [None, None]
    assert all(process.returncode is not None for process in processes)


def test_a_worker_ends_when_its_orders_end(states: str) -> None:
    """In the middle of a seed too, so that nothing is left behind by who was killed."""
    options = msgspec.structs.replace(QUICK, state=f"{states}:Hangs", changes=f"{states}:nine")
    worker = crew.Worker(options)
    try:
        worker.give(0, 1)
        worker.orders.close()
        assert worker.process.wait(30) == 0
    finally:
        worker.end()
        worker.close()


def test_a_users_own_state_is_simulated(states: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = msgspec.structs.replace(QUICK, state=f"{states}:Fine", changes=f"{states}:add")
    alone: list[Result] = []
    together: list[Result] = []
    run_seeds([1, 2], options, jobs=1, on_result=alone.append)
    run_seeds([1, 2], options, jobs=2, on_result=together.append)
    assert traces(alone) == traces(together)
    assert all(result.violation is None and result.workload == "own" for result in alone)
    assert alone[0].operations > 5


def test_no_seed_begins_after_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = itertools.count(100)  # the clock goes on by a second whenever somebody looks
    monkeypatch.setattr(runner, "time", SimpleNamespace(monotonic=lambda: next(looks)))
    told: list[Result] = []
    run_seeds(itertools.count(), QUICK, seconds=3, on_result=told.append)
    assert [result.seed for result in told] == [0, 1]
    assert run_seeds(itertools.count(), QUICK, seconds=0).seeds == 0


def test_the_gravest_failure_comes_first() -> None:
    summary = Summary(Options())
    results = [run_seed(seed, QUICK) for seed in range(4)]
    kinds = ("liveness", "crash", "safety", "safety")
    for result, kind in zip(results, kinds, strict=True):
        violation = Violation(kind, "I-1", "", 1.0)  # type: ignore[arg-type]  # one of the kinds
        summary.add(msgspec.structs.replace(result, violation=violation))
    assert summary.gravest is not None
    assert summary.gravest.seed == 2
    assert [failure.seed for failure in summary.failures] == [0, 1, 2, 3]


def test_what_was_never_reached_is_missing() -> None:
    summary = Summary(Options())
    assert summary.missing == REQUIRED
    assert summary.gravest is None
    assert summary.healed_timeouts is None
    assert summary.share_of_few_ballots is None
    result = run_seed(1, QUICK)
    counted = dict.fromkeys(REQUIRED, 1) | {"adoption": 0}
    summary.add(msgspec.structs.replace(result, sometimes=counted))
    assert summary.missing == ("adoption",)


def test_healing_is_measured_in_election_timeouts() -> None:
    summary = Summary(QUICK)
    result = run_seed(1, QUICK)
    timeout = QUICK.plan(1).settings.election_timeout_seconds
    for seconds, ballots in ((1.0, 1), (2.0, 3), (4.0, 4)):
        summary.add(msgspec.structs.replace(result, healed_seconds=seconds, ballots=ballots))
    assert summary.healed_timeouts == (2.0 / timeout, 4.0 / timeout)
    assert summary.share_of_few_ballots == pytest.approx(2 / 3)


def test_a_violation_of_a_run_is_told_with_its_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> Result:
        raise MemoryError("none left")

    monkeypatch.setattr(seeds, "run", broken)
    summary = run_seeds([12], QUICK)
    assert summary.failures[0].seed == 12
    assert summary.failures[0].violation is not None
    assert summary.failures[0].violation.rule == "MemoryError"


# -- options


@pytest.mark.parametrize(
    "options",
    [
        Options(),
        Options(members=5, seconds=12.25, faults=("cut", "members"), workload="bank"),
        Options(faults=(), seconds=3.0),
        Options(actions=(1, 2), until=1.5),
        Options(actions=()),
        Options(state="shop:Stock", changes="shop:any_change"),
    ],
)
def test_the_command_gives_the_same_plan(options: Options) -> None:
    command = shlex.split(options.command(2))
    assert command[:4] == ["clusterconsensus", "simulate", "--seed", "2"]
    parsed = build_parser().parse_args(command[1:])
    again = Options(
        members=parsed.members,
        seconds=parsed.seconds,
        faults=parsed.faults,
        workload=None if parsed.state else parsed.workload,
        state=parsed.state or "",
        changes=parsed.workload if parsed.state else "",
        actions=parsed.actions,
        until=parsed.until,
        mutant=parsed.mutant or "",
    )
    assert again == options
    assert msgspec.json.decode(msgspec.json.encode(options), type=Options) == options


def test_the_command_names_what_a_smaller_plan_leaves() -> None:
    options = Options(seconds=8.0)
    plan = options.plan(2)
    smaller = runner.shortened(plan.only(frozenset({1, 3})), 2.5)
    assert len(smaller.actions) == 2
    command = options.command(2, smaller)
    assert command == "clusterconsensus simulate --seed 2 --seconds 8 --actions 1,3 --until 2.5"
    assert Options(seconds=8.0, actions=(1, 3), until=2.5).plan(2).actions == smaller.actions
    assert options.command(2, plan) == "clusterconsensus simulate --seed 2 --seconds 8"


def test_an_earlier_end_leaves_out_what_comes_later() -> None:
    plan = draw(0)
    until = plan.actions[9].at
    shorter = runner.shortened(plan, until)
    assert shorter.seconds == until
    assert shorter.actions == plan.actions[:9]
    assert runner.shortened(plan, plan.seconds + 1) == plan


def test_what_there_is_not_is_an_error() -> None:
    with pytest.raises(ValueError, match="no fault 'rain'"):
        run_seeds([1], Options(faults=("rain",)))
    with pytest.raises(ValueError, match="has no action 999; it has 1 to"):
        run_seed(1, Options(actions=(999,)))
    with pytest.raises(LoadError, match="there is no module 'nowhere'"):
        run_seed(1, Options(state="nowhere:State", changes="nowhere:add"))
    with pytest.raises(KeyError):
        run_seed(1, Options(mutant="no-such-bug"))


def test_default_options_are_known_as_such() -> None:
    assert Options().are_default
    assert not QUICK.are_default
    assert runner.default_jobs() >= 1
