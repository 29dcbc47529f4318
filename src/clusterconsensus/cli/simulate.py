"""``clusterconsensus simulate``: many seeds, one seed, a deliberate bug, or one's own state.

What comes out is for people, or with ``--json`` one object a line for programs; then everything for
people goes to the standard error. The exit status tells a broken promise from missing progress, and
both from a failure of the code.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import textwrap
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TextIO

import msgspec

from clusterconsensus.cli import failures
from clusterconsensus.cli.failures import CRASH, SAFETY, STATUS, NotRepeatedError
from clusterconsensus.cli.progress import progress
from clusterconsensus.cli.writing import check_place
from clusterconsensus.simulation.running.runner import (
    BEYOND,
    Options,
    Summary,
    default_jobs,
    run_seed,
    run_seeds,
)
from clusterconsensus.simulation.running.seeds import Result
from clusterconsensus.simulation.trouble.plan import BY_NAME, FAULTS
from clusterconsensus.simulation.workloads import BUILT_IN

RARE_MISSING = 5
INTERRUPTED = 130

DEFAULT_SEEDS = 100
RARE_SEEDS = 200
"""From so many seeds on rare paths are required."""

RARE_NEW_SEEDS = 1000
"""The same for seeds that nobody has chosen: the rarest path comes by in one seed of a hundred, and
a run must not fail for bad luck."""

_SEEDS = ("seeds", "first_seed", "seed", "minutes")
_ONE_SEED = ("actions", "until", "verbose")
_PLAN = ("members", "seconds", "faults", "workload", "state")
_BATCH = ("keep_going", "require_rare", "jobs")


def run(options: argparse.Namespace) -> int:
    """Do what the command line says.

    Returns:
        0 if nothing is wrong, 1 if a promise was broken, 3 if what had to happen did not, 4 if the
        code failed, 5 if a rare path was never reached.
    """
    if options.list_faults:
        for fault in FAULTS:
            print(f"{fault.name:<24}{fault.what}")
        return 0
    if options.list_mutants:
        from clusterconsensus.simulation.mutants import MUTANTS

        width = max(map(len, MUTANTS)) + 2
        for mutant in MUTANTS.values():
            print(f"{mutant.name:<{width}}{mutant.what}")
        return 0
    _check_combinations(options)
    if options.mutant is not None:
        _check_mutant(options)
    if options.story is not None:
        from clusterconsensus.cli import stories

        return stories.run(options)
    return _Run(options).run()


def _given(options: argparse.Namespace, names: Iterable[str]) -> list[str]:
    return [
        f"--{name.replace('_', '-')}"
        for name in names
        if getattr(options, name) is not None and getattr(options, name) is not False
    ]


def _check_combinations(options: argparse.Namespace) -> None:
    refuse = options.refuse
    if options.story is not None:
        for name in _given(options, (*_SEEDS, *_PLAN, *_ONE_SEED, *_BATCH, "json")):
            refuse(f"{name}: not with --story")
    if options.seed is not None:
        others = ("seeds", "first_seed", "minutes", "keep_going", "require_rare")
        for name in _given(options, others):
            refuse(f"{name}: not with --seed")
    else:
        for name in _given(options, _ONE_SEED):
            refuse(f"{name}: only with --seed")
    if options.seeds is not None and options.minutes is not None:
        refuse("--minutes: not with --seeds")
    if options.verbose and options.json:
        refuse("--verbose: not with --json")
    if options.report is not None:
        check_place(Path(options.report), "--report", refuse)


def _check_mutant(options: argparse.Namespace) -> None:
    from clusterconsensus.simulation.mutants import MUTANTS

    if options.mutant not in MUTANTS:
        options.refuse(f"--mutant: no mutant {options.mutant!r}; --list-mutants names all")


class _Run:
    """One command."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.settings = self._settings()
        self.out: TextIO = sys.stderr if options.json else sys.stdout
        self.lines: TextIO | None = sys.stdout if options.json else None
        """Where programs read."""
        self.report = None if options.report is None else Path(options.report)
        self.jobs: int = options.jobs or default_jobs()

    def _settings(self) -> Options:
        """What the seeds have in common; everything wrong is refused here."""
        options, refuse = self.options, self.options.refuse
        faults = options.faults
        if faults == ("all",):
            faults = tuple(fault.name for fault in FAULTS if fault.name not in BEYOND)
        for name in faults or ():
            if name not in BY_NAME:
                refuse(f"--faults: no fault {name!r}; there are {', '.join(sorted(BY_NAME))}")
        if options.state is None and options.workload not in (None, *BUILT_IN):
            refuse(
                f"--workload: no workload {options.workload!r}; there are "
                f"{', '.join(BUILT_IN)}, and with --state your own"
            )
        settings = Options(
            members=options.members,
            seconds=options.seconds,
            faults=faults,
            workload=options.workload if options.state is None else None,
            state=options.state or "",
            changes=(options.workload or "") if options.state is not None else "",
            actions=options.actions,
            until=options.until,
            mutant=options.mutant or "",
        )
        try:
            if options.seed is not None:
                settings.plan(options.seed)
        except ValueError as error:
            refuse(f"--actions: {error}")
        if options.state is not None:
            from clusterconsensus.simulation.states import LoadError

            try:
                settings.make_workload()
            except LoadError as error:
                refuse(f"--state: {' '.join(str(error).split())}")
        return settings

    def run(self) -> int:
        try:
            if self.options.seed is not None:
                return self._replay(self.options.seed)
            if self.settings.state and not self._examine():
                return SAFETY
            if self.settings.mutant:
                from clusterconsensus.cli import bugs

                caught = bugs.kill(self.settings.mutant, self.out, self.report, self.lines)
                if caught is None:
                    return self._batch()
                if caught.plain is None and not self.options.keep_going:
                    return caught.status
                status = self._batch()
                if not status and caught.plain is not None and self.report is not None:
                    failures.write_page(self.report, caught.plain, self.out)
                return status or caught.status
            return self._batch()
        except NotRepeatedError as error:
            print(f"not deterministic: {error}", file=self.out)
            return CRASH
        except OSError as error:
            if isinstance(error, BrokenPipeError):
                raise
            print(f"clusterconsensus simulate: {error}", file=sys.stderr)
            return CRASH

    # -- one's own state

    def _examine(self) -> bool:
        """Look at a user's state by itself; whether the cluster is worth a try."""
        from clusterconsensus.simulation.states import check_state

        settings = self.settings
        print(f"examining {settings.state} by itself", file=self.out, flush=True)
        with self._own_prints():
            findings = check_state(settings.state, settings.changes)
        print(textwrap.indent(findings.describe(), "  "), file=self.out, flush=True)
        return not findings.errors

    def _own_prints(self) -> contextlib.AbstractContextManager[object]:
        """What a user's state prints must not come between lines for programs."""
        if self.options.json:
            return contextlib.redirect_stdout(sys.stderr)
        return contextlib.nullcontext()

    # -- one seed

    def _replay(self, seed: int) -> int:
        settings, out = self.settings, self.out
        plan = settings.plan(seed)
        if not self.options.json:
            failures.tell_plan(plan, out)
            print(file=out, flush=True)
        with self._own_prints():
            result = run_seed(seed, settings)
        self._print_line(result)
        if self.options.verbose and result.trace:
            recording = failures.record(seed, settings, plan, result)
            if recording.dropped.get("log"):
                print(f"({recording.dropped['log']:,} earlier lines are left out)", file=out)
            for line in recording.log:
                print(line, file=out)
            print(file=out)
        if result.violation is not None:
            reduced = settings.actions is not None or settings.until is not None
            with self._own_prints():
                failures.tell_failure(
                    result,
                    settings,
                    out,
                    report=self.report,
                    may_shrink=not reduced and (self.report is not None or not self.options.json),
                )
            return STATUS[result.violation.kind]
        _tell_result(result, out)
        if self.report is not None:
            with self._own_prints():
                recording = failures.record(seed, settings, plan, result)
            failures.write_page(self.report, recording, out)
        return 0

    def _print_line(self, result: Result) -> None:
        """One seed for programs."""
        if self.lines is None:
            return
        line = {
            "seed": result.seed,
            "trace": result.trace,
            "events": result.events,
            "seconds": round(result.real_seconds, 6),
            "faults": result.faults,
            "violation": result.violation,
        }
        print(msgspec.json.encode(line).decode(), file=self.lines, flush=True)

    # -- many seeds

    def _batch(self) -> int:
        options, out = self.options, self.out
        numbers, total = self._numbers()
        began = time.monotonic()
        counted = Summary(self.settings)
        try:
            with progress(total, quiet=options.json) as shown, self._own_prints():

                def on_result(result: Result) -> None:
                    counted.add(result)
                    self._print_line(result)
                    if not options.json and result.violation is not None and options.keep_going:
                        print(
                            f"seed {result.seed}: {failures.head(result.violation)}; replay: "
                            f"{self.settings.command(result.seed)}",
                            flush=True,
                        )
                    seconds = time.monotonic() - began
                    shown.show(
                        counted.seeds if options.minutes is None else seconds,
                        _so_far(counted, seconds, None if options.minutes else int(total)),
                    )

                summary = run_seeds(
                    numbers,
                    self.settings,
                    jobs=min(self.jobs, len(numbers)) if isinstance(numbers, range) else self.jobs,
                    keep_going=options.keep_going,
                    seconds=None if options.minutes is None else options.minutes * 60,
                    on_result=on_result,
                )
        except KeyboardInterrupt:
            print(
                f"interrupted after {_count(counted.seeds, 'seed')}, "
                f"{_count(len(counted.failures), 'failure')}",
                file=sys.stderr,
            )
            return INTERRUPTED
        self._tell_summary(summary, time.monotonic() - began)
        gravest = summary.gravest
        if gravest is not None:
            assert gravest.violation is not None
            print(file=out)
            failures.tell_failure(
                gravest,
                self.settings,
                out,
                report=self.report,
                may_shrink=self.report is not None or not options.json,
            )
            return STATUS[gravest.violation.kind]
        if self.settings.mutant:
            failures.tell(
                f"the deliberate bug {self.settings.mutant} was NOT caught by these seeds", out
            )
            return 0
        required = options.require_rare
        if required is None:
            enough = RARE_SEEDS if options.minutes is None else RARE_NEW_SEEDS
            required = self.settings.are_default and summary.seeds >= enough
        if required and summary.missing:
            failures.tell(
                "failed: no violation, but the run proves less than it should, because rare paths "
                "were never reached",
                out,
            )
            return RARE_MISSING
        return 0

    def _numbers(self) -> tuple[Iterable[int], float]:
        """The seeds, and what progress is measured by."""
        options, out = self.options, self.out
        jobs = _count(self.jobs, "process", "processes")
        first = options.first_seed
        if options.minutes is not None:
            if first is None:
                first = time.time_ns() // 1_000_000 % 1_000_000_000
            print(
                f"new seeds from {first} on for {_count(options.minutes, 'minute')}, {jobs}",
                file=out,
                flush=True,
            )
            return itertools.count(first), options.minutes * 60
        numbers = range(first or 0, (first or 0) + (options.seeds or DEFAULT_SEEDS))
        print(f"seeds {numbers[0]} to {numbers[-1]}, {jobs}", file=out, flush=True)
        return numbers, len(numbers)

    def _tell_summary(self, summary: Summary, seconds: float) -> None:
        out = self.out
        failed = len(summary.failures)
        verdict = f"{_count(failed, 'failure')}" if failed else "no violation"
        print(f"{_count(summary.seeds, 'seed')} in {seconds:.1f} s: {verdict}", file=out)
        print(
            f"  {summary.events:,} events, {summary.events_per_second:,.0f} a second on each core",
            file=out,
        )
        healed, share = summary.healed_timeouts, summary.share_of_few_ballots
        if healed is not None and share is not None:
            failures.tell(
                f"after healing a change was applied within {healed[0]:.2f} election timeouts "
                f"(median), {healed[1]:.2f} (worst); {share:.1%} took at most 3 ballots",
                out,
                2,
            )
        if summary.failures and not self.options.keep_going:
            return  # it has ended long before it could reach everything
        if summary.missing:
            failures.tell(f"never reached: {'; '.join(summary.missing)}", out, 2)
        else:
            print("  every rare path was reached", file=out)


def _so_far(counted: Summary, seconds: float, total: int | None) -> str:
    of = "" if total is None else f" of {total:,}"
    speed = counted.events / seconds if seconds else 0.0
    failed = f", {_count(len(counted.failures), 'failure')}" if counted.failures else ""
    return f"{counted.seeds:,}{of} seeds, {speed:,.0f} events/s{failed}"


def _count(number: float, noun: str, plural: str = "") -> str:
    text = f"{number:,}" if isinstance(number, int) else f"{number:g}"
    return f"{text} {noun if number == 1 else plural or noun + 's'}"


def _tell_result(result: Result, out: TextIO) -> None:
    healed = ""
    if result.healed_seconds is not None:
        healed = f"; a change was applied {result.healed_seconds:.3f} s after healing"
    print(
        f"no violation: {result.events:,} events and {result.operations:,} calls in "
        f"{result.virtual_seconds:.1f} simulated and {result.real_seconds:.2f} real "
        f"seconds{healed}",
        file=out,
    )
    print(f"  trace {result.trace}", file=out)
