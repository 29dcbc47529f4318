"""From a failing plan to a smaller one that fails in the same way."""

from __future__ import annotations

import msgspec
import pytest

from clusterconsensus.simulation.running.runner import Options, in_use, lost, run_seed
from clusterconsensus.simulation.running.seeds import Result, Violation
from clusterconsensus.simulation.running.shrinking import BUDGET_RUNS, shrink
from clusterconsensus.simulation.trouble.plan import Plan, draw

BROKEN = Violation("safety", "I-4", "two logs part", 9.0)
OTHER = Violation("safety", "I-1", "two logs part", 9.0)


class Pretended:
    """A cluster that fails if these actions are in the plan and it lasts long enough."""

    def __init__(self, plan: Plan, needed: set[int], seconds: float) -> None:
        self.needed = needed
        self.seconds = seconds
        self.tried: list[Plan] = []
        self.all = {action.number for action in plan.actions}

    def __call__(self, plan: Plan) -> Result:
        self.tried.append(plan)
        numbers = {action.number for action in plan.actions}
        violation = None
        if self.needed <= numbers and plan.seconds >= self.seconds:
            violation = BROKEN
        elif len(numbers) == 1:
            violation = OTHER  # it fails, but in another way
        return msgspec.structs.replace(lost(plan, "", ""), violation=violation)


@pytest.fixture
def plan() -> Plan:
    drawn = draw(0)
    assert len(drawn.actions) >= 35
    return drawn.only(frozenset(range(1, 36)))


def numbers_of(plan: Plan) -> list[int]:
    return [action.number for action in plan.actions]


def test_what_is_not_needed_is_left_out(plan: Plan) -> None:
    pretended = Pretended(plan, {5, 18}, 11.0)
    smaller, result = shrink(plan, BROKEN, pretended)
    assert numbers_of(smaller) == [5, 18]
    assert smaller.faults == tuple(
        name for name in plan.faults if name in {plan.actions[4].fault, plan.actions[17].fault}
    )
    assert 11.0 <= smaller.seconds < plan.seconds
    assert result.violation == BROKEN
    assert len(pretended.tried) <= BUDGET_RUNS


def test_it_does_the_same_again(plan: Plan) -> None:
    one, other = Pretended(plan, {2, 9, 30}, 0.0), Pretended(plan, {2, 9, 30}, 0.0)
    assert shrink(plan, BROKEN, one)[0] == shrink(plan, BROKEN, other)[0]
    assert one.tried == other.tried


def test_a_failure_that_needs_no_fault_is_left_with_none(plan: Plan) -> None:
    smaller, _ = shrink(plan, BROKEN, Pretended(plan, set(), 0.0))
    assert smaller.actions == ()
    assert smaller.faults == ()
    assert smaller.seconds < 2.0


def test_another_violation_does_not_count(plan: Plan) -> None:
    with pytest.raises(ValueError, match="does not break I-1 again"):
        shrink(plan, OTHER, Pretended(plan, {5}, 0.0))


def test_a_plan_that_does_not_fail_again_is_an_error(plan: Plan) -> None:
    with pytest.raises(ValueError, match="nothing is wrong"):
        shrink(plan, BROKEN, Pretended(plan, {99}, 0.0))


def test_the_budget_of_runs_is_kept(plan: Plan) -> None:
    pretended = Pretended(plan, {5, 18}, 11.0)
    smaller, _ = shrink(plan, BROKEN, pretended, budget_runs=7)
    assert len(pretended.tried) == 7
    assert {5, 18} <= set(numbers_of(smaller))


def test_without_time_the_plan_stays(plan: Plan) -> None:
    pretended = Pretended(plan, {5}, 0.0)
    smaller, result = shrink(plan, BROKEN, pretended, budget_seconds=0.0)
    assert smaller == in_use(plan)
    assert len(pretended.tried) == 1
    assert result.violation == BROKEN


def test_a_planted_bug_fails_with_less_too() -> None:
    """Promises are not written: whoever is elected anew shows it."""
    options = Options(
        members=3,
        seconds=5.0,
        faults=("kill-master", "loss", "pause", "delay", "slow-disk", "wall-clock"),
        workload="counter",
        mutant="promise-only-in-memory",
    )
    failed = next(
        result
        for result in (run_seed(seed, options) for seed in range(20))
        if result.violation is not None
    )
    violation = failed.violation
    assert violation is not None
    assert violation.kind == "safety"
    plan = options.plan(failed.seed)
    smaller, result = shrink(
        plan, violation, lambda each: run_seed(failed.seed, options, plan=each)
    )
    assert set(smaller.actions) < set(plan.actions)
    assert result.violation is not None
    assert (result.violation.kind, result.violation.rule) == (violation.kind, violation.rule)
    # What is printed replays exactly this.
    reduced = msgspec.structs.replace(
        options,
        actions=tuple(numbers_of(smaller)),
        until=smaller.seconds if smaller.seconds != plan.seconds else None,
    )
    assert run_seed(failed.seed, reduced).trace == result.trace
