"""From a plan that fails to a smaller one that fails in the same way.

Actions draw from sources of chance of their own, so a plan can be repeated with fewer of them.
First whole kinds of faults are left out, then actions, by halves and then one by one (Zeller and
Hildebrandt, *Simplifying and Isolating Failure-Inducing Input*, 2002), then the end comes earlier.
A candidate counts if it breaks the same rule in the same way; what it breaks it by may differ.

Each try is a whole run, so there is a limit to them. Within it the outcome depends on the plan
alone; only the limit of real seconds, which is there for slow machines, may end it earlier.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from clusterconsensus.simulation.running import seeds
from clusterconsensus.simulation.running.runner import in_use, shortened
from clusterconsensus.simulation.running.seeds import Result, Violation
from clusterconsensus.simulation.trouble.plan import Plan

Run = Callable[[Plan], Result]

BUDGET_RUNS = 60
BUDGET_SECONDS = 60.0
"""Real seconds."""

SHORTEST_SECONDS = 0.5
"""A plan is not cut further than to this, simulated."""


def shrink(
    plan: Plan,
    violation: Violation,
    run: Run = seeds.run,
    *,
    budget_runs: int = BUDGET_RUNS,
    budget_seconds: float = BUDGET_SECONDS,
) -> tuple[Plan, Result]:
    """Make a failing plan smaller.

    Arguments:
        plan: It fails.
        violation: How.
        run: Runs a plan.
        budget_runs: How many runs it may take at most, the last one included.
        budget_seconds: Real seconds after which no further run begins.

    Returns:
        The smallest failing plan that was found, with actions left out and perhaps an earlier end,
        and the result of its run. It is the given one if nothing smaller fails in the same way.

    Raises:
        ValueError: the plan itself does not fail in this way, so there is nothing to go by.
    """
    search = _Search(plan, violation, run, budget_runs, budget_seconds)
    search.leave_out_kinds()
    search.leave_out_actions()
    search.end_earlier()
    return search.plan, search.result


class _Search:
    def __init__(
        self, plan: Plan, violation: Violation, run: Run, budget_runs: int, budget_seconds: float
    ) -> None:
        self.violation = violation
        self.run = run
        self.runs_left = max(1, budget_runs)
        self.ends = time.monotonic() + budget_seconds
        self.plan = plan
        self.runs_left -= 1
        self.result = run(plan)
        if not self._is_same(self.result):
            raise ValueError(
                f"seed {plan.seed} does not break {violation.rule} again ({violation.kind}): "
                f"{self.result.violation or 'nothing is wrong'}"
            )

    def _is_same(self, result: Result) -> bool:
        found = result.violation
        return found is not None and (found.kind, found.rule) == (
            self.violation.kind,
            self.violation.rule,
        )

    def _try(self, plan: Plan) -> bool:
        """Whether a smaller plan fails too. It is the one to go on with then."""
        if self.runs_left <= 0 or time.monotonic() >= self.ends:
            return False
        self.runs_left -= 1
        result = self.run(plan)
        if not self._is_same(result):
            return False
        self.plan, self.result = plan, result
        return True

    def leave_out_kinds(self) -> None:
        """First all of them, then half, then single ones."""
        numbers = tuple(action.number for action in self.plan.actions)
        if not numbers or self._try(self.plan.only(frozenset())):
            return
        kinds = _kinds(self.plan)
        half = len(kinds) // 2
        for some in (kinds[:half], kinds[half:]):
            if some and len(kinds) > 2 and self._try(self.plan.without(frozenset(some))):
                break
        for kind in _kinds(self.plan):
            if len(_kinds(self.plan)) > 1:
                self._try(self.plan.without(frozenset((kind,))))

    def leave_out_actions(self) -> None:
        """Halves, quarters and so on, down to single ones."""
        size = len(self.plan.actions) // 2
        while size >= 1:
            start = 0
            while start < len(self.plan.actions):
                numbers = [action.number for action in self.plan.actions]
                kept = numbers[:start] + numbers[start + size :]
                if not kept or not self._try(self.plan.only(frozenset(kept))):
                    start += size
            size //= 2
        self.plan = in_use(self.plan)

    def end_earlier(self) -> None:
        """Soon after the last action, or else somewhere between there and the end."""
        last = max((action.at for action in self.plan.actions), default=0.0)
        for seconds in (1.0, 3.0):
            end = _rounded(last + seconds)
            if end < self.plan.seconds and self._try(shortened(self.plan, end)):
                return
        too_short = last
        while True:
            end = _rounded((self.plan.seconds + too_short) / 2)
            if not SHORTEST_SECONDS <= end < self.plan.seconds * 0.9:
                return
            if not self._try(shortened(self.plan, end)):
                too_short = end


def _kinds(plan: Plan) -> tuple[str, ...]:
    """The kinds of faults that strike, in the order of their first time."""
    return tuple(dict.fromkeys(action.fault for action in plan.actions))


def _rounded(seconds: float) -> float:
    """To hundredths, upwards, so that a command is short and nothing that was meant is cut off."""
    return int(seconds * 100 + 1) / 100
