"""Many seeds, one after another or over several processes, and what they come to together.

A seed's run depends on the seed and on the options and on nothing else. So it does not matter which
process runs it: results are handed on in the order of the seeds, and the first violation is that of
the first seed that has one, whatever finished first. Nothing is lost: a seed that kills its process
is a violation like any other (``crew``).

``REQUIRED`` names the rare paths that a long run must have come by. A simulator that never gets
there would pass for ever and prove nothing.
"""

from __future__ import annotations

import os
import shlex
import statistics
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext

import msgspec

from clusterconsensus.simulation.running import seeds
from clusterconsensus.simulation.running.seeds import Result, Violation
from clusterconsensus.simulation.telling.recording import Recorder
from clusterconsensus.simulation.trouble.plan import Plan, draw
from clusterconsensus.simulation.workloads import OwnWorkload, Workload

REQUIRED: tuple[str, ...] = (
    "adoption",
    "adoption of a configuration",
    "damage refused",
    "entries read back from the journal",
    "handed over",
    "lease read served",
    "log compacted",
    "log cut off",
    "majority lost",
    "master removed",
    "member removed",
    "power failure in the middle of an operation",
    "promise pulled",
    "recovering left",
    "repeated request after a fail-over",
    "replaced",
    "request of a closed session",
    "sessions closed",
    "snapshot installed",
    "snapshot taken",
    "stepped down for a hung disk",
    "stepped down without a majority",
    "stopped by a failed write",
    "transfer resumed after a cut",
    "unknown outcome learnt by asking again",
)
"""Names in ``Result.sometimes`` that a few hundred seeds with drawn faults must have reached."""

BEYOND = ("old-image", "lying-disk", "lost-majority")
"""Faults that no cluster survives unharmed; who wants them names them."""

FEW_BALLOTS = 3

GRAVITY = ("safety", "crash", "liveness")
"""Kinds of violations, the gravest first."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What all seeds of a run have in common, in words that another process understands.

    Attributes:
        members: How many voters; drawn if None.
        seconds: How long the trouble lasts, simulated; drawn if None.
        faults: Their names; drawn if None.
        workload: One of ``workloads.BUILT_IN``; drawn if None.
        state: ``package.module:Factory`` of a user's own state, or "".
        changes: ``package.module:function`` that draws changes for it, or "".
        actions: Only these actions of the plan, by their numbers; all if None.
        until: Heal after so many simulated seconds though the plan goes on; never if None.
        mutant: The name of a deliberate bug to run with, or "".
    """

    members: int | None = None
    seconds: float | None = None
    faults: tuple[str, ...] | None = None
    workload: str | None = None
    state: str = ""
    changes: str = ""
    actions: tuple[int, ...] | None = None
    until: float | None = None
    mutant: str = ""

    @property
    def are_default(self) -> bool:
        """Whether everything is drawn, so that the rare paths can be expected."""
        return self == Options()

    def plan(self, seed: int) -> Plan:
        """The plan of a seed.

        Raises:
            ValueError: there is no such fault, or no such action in the plan.
        """
        plan = self._drawn(seed)
        if self.actions is not None:
            known = {action.number for action in plan.actions}
            for number in self.actions:
                if number not in known:
                    raise ValueError(
                        f"the plan of seed {seed} has no action {number}; it has "
                        f"{f'1 to {len(known)}' if known else 'none'}"
                    )
            plan = in_use(plan.only(frozenset(self.actions)))
        return plan if self.until is None else shortened(plan, self.until)

    def _drawn(self, seed: int) -> Plan:
        return draw(
            seed,
            members=self.members,
            seconds=self.seconds,
            faults=self.faults,
            workload="own" if self.state else self.workload,
        )

    def make_workload(self) -> Workload | None:
        """The user's own workload; None for the one that the plan names.

        Raises:
            LoadError: the state or the workload cannot be had.
        """
        if not self.state:
            return None
        from clusterconsensus.simulation.states import load_state, load_workload

        loaded = load_state(self.state)
        return OwnWorkload(loaded.factory, load_workload(self.changes), loaded.codec)

    def bug(self) -> AbstractContextManager[None]:
        """The context in which the deliberate bug is there, if one is named.

        Raises:
            KeyError: there is no such mutant.
        """
        if not self.mutant:
            return nullcontext()
        from clusterconsensus.simulation import mutants

        return mutants.apply(self.mutant)

    def command(self, seed: int, plan: Plan | None = None) -> str:
        """What repeats a seed, to be typed into a shell.

        Arguments:
            seed: Which one.
            plan: The seed's plan, of which ``shrink`` may have left less.
        """
        words = ["clusterconsensus", "simulate", "--seed", str(seed)]
        actions, until = self.actions, self.until
        if plan is not None:
            drawn = self._drawn(seed)
            if plan.actions != drawn.actions:
                actions = tuple(action.number for action in plan.actions)
            if plan.seconds != drawn.seconds:
                until = plan.seconds
        named: tuple[tuple[str, object], ...] = (
            ("--members", self.members),
            ("--seconds", self.seconds),
            ("--faults", None if self.faults is None else ",".join(self.faults) or "none"),
            ("--state", self.state or None),
            ("--workload", self.changes or self.workload),
            ("--actions", None if actions is None else ",".join(map(str, actions)) or "none"),
            ("--until", until),
            ("--mutant", self.mutant or None),
        )
        for name, value in named:
            if value is not None:
                words += [name, _short(value) if isinstance(value, float) else str(value)]
        return shlex.join(words)


def _short(value: float) -> str:
    """The shortest text that is read as the same number."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)


def shortened(plan: Plan, seconds: float) -> Plan:
    """The same, healed after so many seconds at the latest."""
    if seconds >= plan.seconds:
        return plan
    kept = tuple(action for action in plan.actions if action.at < seconds)
    return in_use(msgspec.structs.replace(plan, seconds=seconds, actions=kept))


def in_use(plan: Plan) -> Plan:
    """The same, with the faults that strike and no others."""
    strike = {action.fault for action in plan.actions}
    return plan.without(frozenset(name for name in plan.faults if name not in strike))


def run_seed(
    seed: int,
    options: Options,
    *,
    plan: Plan | None = None,
    recorder: Recorder | None = None,
) -> Result:
    """Run one seed here and now. Whatever it does to this program's code is a result.

    Arguments:
        seed: Which one.
        options: Those of the run.
        plan: Another plan than the options give, such as a shrunk one.
        recorder: Writes everything down.

    Raises:
        LoadError, ValueError, KeyError: the options name what there is not.
    """
    chosen = options.plan(seed) if plan is None else plan
    workload = options.make_workload()
    with options.bug():
        try:
            return seeds.run(chosen, workload=workload, recorder=recorder)
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException as error:
            # SystemExit from a user's state, say. What was simulated is gone.
            return lost(chosen, type(error).__name__, f"{type(error).__name__}: {error}")


def lost(plan: Plan, rule: str, text: str) -> Result:
    """The result of a seed of which nothing but its end is known."""
    return Result(
        seed=plan.seed,
        trace="",
        events=0,
        real_seconds=0.0,
        virtual_seconds=0.0,
        faults=plan.faults,
        actions=len(plan.actions),
        members=plan.members,
        workload=plan.workload,
        operations=0,
        violation=Violation("crash", rule, text, 0.0),
        sometimes={},
        healed_seconds=None,
        ballots=None,
    )


class Summary:
    """What many seeds came to.

    Attributes:
        seeds: How many were run.
        events: Simulated events in all.
        busy_seconds: Real seconds, those of all processes added.
        failures: Results with a violation, in the order of their seeds.
        sometimes: How often each rare path was taken.
    """

    def __init__(self, options: Options) -> None:
        self.options = options
        self.seeds = 0
        self.events = 0
        self.busy_seconds = 0.0
        self.failures: list[Result] = []
        self.sometimes: Counter[str] = Counter()
        self._timeouts: list[float] = []
        self._ballots: list[int] = []

    def add(self, result: Result) -> None:
        """Count one more."""
        self.seeds += 1
        self.events += result.events
        self.busy_seconds += result.real_seconds
        self.sometimes.update(result.sometimes)
        if result.violation is not None:
            self.failures.append(result)
        if result.healed_seconds is not None and result.ballots is not None:
            settings = self.options.plan(result.seed).settings
            self._timeouts.append(result.healed_seconds / settings.election_timeout_seconds)
            self._ballots.append(result.ballots)

    @property
    def events_per_second(self) -> float:
        """Simulated events in one real second of one core."""
        return self.events / self.busy_seconds if self.busy_seconds else 0.0

    @property
    def healed_timeouts(self) -> tuple[float, float] | None:
        """How many election timeouts after healing a change was applied: median and worst."""
        if not self._timeouts:
            return None
        return statistics.median(self._timeouts), max(self._timeouts)

    @property
    def share_of_few_ballots(self) -> float | None:
        """In which share of the seeds three ballots or fewer were led in meanwhile."""
        if not self._ballots:
            return None
        return sum(number <= FEW_BALLOTS for number in self._ballots) / len(self._ballots)

    @property
    def missing(self) -> tuple[str, ...]:
        """The required rare paths that no seed has taken."""
        return tuple(name for name in REQUIRED if not self.sometimes[name])

    @property
    def gravest(self) -> Result | None:
        """The failure to look at first: safety before crash before liveness, then by seed."""
        return min(self.failures, key=_gravity, default=None)


def _gravity(result: Result) -> int:
    assert result.violation is not None
    return GRAVITY.index(result.violation.kind)


def run_seeds(
    numbers: Iterable[int],
    options: Options,
    *,
    jobs: int = 1,
    keep_going: bool = False,
    seconds: float | None = None,
    on_result: Callable[[Result], None] | None = None,
) -> Summary:
    """Run seeds until one fails.

    Arguments:
        numbers: The seeds; may be endless if ``seconds`` is given.
        options: For all of them.
        jobs: How many processes; 1 runs everything in this one.
        keep_going: Go on after a violation.
        seconds: Begin no further seed after so many real seconds.
        on_result: Told each result, in the order of the seeds.

    Returns:
        The summary. But for real seconds it does not depend on ``jobs``.

    Raises:
        LoadError, ValueError, KeyError: the options name what there is not.
    """
    summary = Summary(options)
    ends = None if seconds is None else time.monotonic() + seconds
    chosen = numbers if ends is None else _in_time(numbers, ends)

    def take(result: Result) -> bool:
        summary.add(result)
        if on_result is not None:
            on_result(result)
        return keep_going or result.violation is None

    if jobs == 1:
        for seed in chosen:
            if not take(run_seed(seed, options)):
                break
    else:
        from clusterconsensus.simulation.running.crew import Crew

        with Crew(options, jobs) as crew:
            crew.run(chosen, take)
    return summary


def _in_time(numbers: Iterable[int], ends: float) -> Iterator[int]:
    for number in numbers:
        if time.monotonic() >= ends:
            return
        yield number


def default_jobs() -> int:
    """As many processes as this one may use cores."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)
