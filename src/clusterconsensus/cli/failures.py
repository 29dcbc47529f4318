"""What a person is told of a simulated run: its plan, what went wrong, and how to see it again."""

from __future__ import annotations

import shutil
import sys
import textwrap
from pathlib import Path
from typing import TextIO

from clusterconsensus.cli.writing import write_text
from clusterconsensus.simulation.running.crew import DIED
from clusterconsensus.simulation.running.runner import Options, run_seed
from clusterconsensus.simulation.running.seeds import Result, Violation
from clusterconsensus.simulation.running.shrinking import BUDGET_RUNS, shrink
from clusterconsensus.simulation.telling.explanations import explain
from clusterconsensus.simulation.telling.recording import Recorder, Recording
from clusterconsensus.simulation.telling.report import render
from clusterconsensus.simulation.trouble.plan import BY_NAME, Plan

SAFETY, LIVENESS, CRASH = 1, 3, 4
"""Exit statuses."""

STATUS = {"safety": SAFETY, "liveness": LIVENESS, "crash": CRASH}

WIDEST_COLUMNS = 100
KEPT_LINES = 200_000

NOT_EQUAL = ("I-13", "I-14")
STATE_ADVICE = (
    "Your state gives different answers to the same changes, or its snapshot forgets something. "
    "Let apply depend on the change, the context and the state alone: use context.time and no "
    "clock, put random numbers into the change, sort a set before you go through it. Let snapshot "
    "hold every field and install replace every field."
)


class NotRepeatedError(Exception):
    """A run that was repeated was another one."""


def tell(text: str, out: TextIO, indent: int = 0) -> None:
    """Print a paragraph that fits the terminal."""
    width = max(30, min(WIDEST_COLUMNS, shutil.get_terminal_size().columns))
    pad = " " * indent
    print(
        textwrap.fill(
            text,
            width,
            initial_indent=pad,
            subsequent_indent=pad,
            break_long_words=False,
            break_on_hyphens=False,
        ),
        file=out,
    )


def head(violation: Violation) -> str:
    """A violation in a few words."""
    when = f" at {violation.at:.6f} s" if violation.at else ""
    if violation.kind == "crash":
        return f"crash{when}: {violation.rule}"
    return f"{violation.rule} is violated ({violation.kind}){when}"


def tell_explanation(violation: Violation, out: TextIO) -> None:
    """What the rule means, for somebody who has never read the protocol."""
    promise, meaning, _ = explain("crash" if violation.kind == "crash" else violation.rule)
    tell(f"What should hold: {promise}", out, 2)
    tell(f"What it means: {meaning}", out, 2)


def tell_plan(plan: Plan, out: TextIO) -> None:
    """All that a seed is going to do."""
    settings = plan.settings
    spare = f", {plan.spare} to spare" if plan.spare else ""
    members = "1 member" if plan.members == 1 else f"{plan.members} members"
    print(
        f"seed {plan.seed}: {members}{spare}, workload {plan.workload} of {plan.clients} clients, "
        f"{plan.seconds:g} s of trouble",
        file=out,
    )
    print(
        f"  election timeout {settings.election_timeout_seconds:g} s, heartbeat "
        f"{settings.heartbeat_seconds:g} s, sessions expire after "
        f"{settings.session_expiry_seconds:g} s",
        file=out,
    )
    if not plan.actions:
        print("  nothing goes wrong", file=out)
        return
    print("  action   at       fault", file=out)
    for action in plan.actions:
        print(
            f"  {action.number:>6}  {action.at:>7.3f}  {action.fault:<22}  "
            f"{BY_NAME[action.fault].what}",
            file=out,
        )


def record(seed: int, options: Options, plan: Plan, expected: Result) -> Recording:
    """Run a seed once more and write everything down.

    Arguments:
        seed: Which one.
        options: Those of the run.
        plan: What was run.
        expected: What it did.

    Raises:
        NotRepeatedError: it did something else this time.
    """
    recorder = Recorder(
        title=f"seed {seed}, {expected.workload} on {plan.members} members",
        command=options.command(seed, plan),
        seed=seed,
        faults=plan.faults,
        max_others=KEPT_LINES,
    )
    result = run_seed(seed, options, plan=plan, recorder=recorder)
    if result.trace != expected.trace:
        raise NotRepeatedError(
            f"seed {seed} did something else when it was run again: its trace is {result.trace} "
            f"and was {expected.trace}"
        )
    assert result.recording is not None
    return result.recording


def write_page(path: Path, recording: Recording, out: TextIO) -> None:
    """Draw a run.

    Raises:
        OSError: the file cannot be written.
    """
    write_text(path, render(recording))
    print(f"  drawn in: {path}", file=out)


def tell_failure(
    result: Result,
    options: Options,
    out: TextIO,
    *,
    report: Path | None,
    may_shrink: bool,
) -> None:
    """Tell a failed seed, make it smaller, and draw what is left.

    Arguments:
        result: With a violation.
        options: Those of the run.
        out: Where to.
        report: Where the page goes, if one is wanted.
        may_shrink: Whether a smaller plan is looked for.

    Raises:
        NotRepeatedError: it does not fail in the same way again.
        OSError: the page cannot be written.
    """
    violation = result.violation
    assert violation is not None
    print(f"seed {result.seed}: {head(violation)}", file=out)
    tell(violation.text, out, 2)
    print(file=out)
    tell_explanation(violation, out)
    if options.state and violation.rule in NOT_EQUAL:
        tell(f"What to change: {STATE_ADVICE}", out, 2)
    print(file=out)
    print(f"  replay:   {options.command(result.seed)}", file=out, flush=True)
    if violation.rule == DIED or not result.trace:
        print("  (it ended its process, so it is neither made smaller nor drawn)", file=out)
        return
    plan = options.plan(result.seed)
    if may_shrink:
        plan, result = _shrink(plan, result, options, out)
    if report is None:
        print("  --report FILE.html behind it draws the run", file=out)
        return
    write_page(report, record(result.seed, options, plan, result), out)


def _shrink(plan: Plan, result: Result, options: Options, out: TextIO) -> tuple[Plan, Result]:
    violation = result.violation
    assert violation is not None
    seed = result.seed
    if sys.stdout.isatty():
        print(f"  (looking for less, in {BUDGET_RUNS} runs at most)", file=out, flush=True)
    try:
        smaller, found = shrink(
            plan, violation, lambda candidate: run_seed(seed, options, plan=candidate)
        )
    except ValueError as error:
        raise NotRepeatedError(str(error)) from error
    if smaller == plan:
        print("  nothing can be left out", file=out)
        return plan, result
    kinds = ", ".join(dict.fromkeys(action.fault for action in smaller.actions))
    print(f"  smaller:  {options.command(seed, smaller)}", file=out)
    tell(
        f"which takes {len(smaller.actions)} of {len(plan.actions)} actions"
        f"{f' ({kinds})' if kinds else ''} and {smaller.seconds:g} of {plan.seconds:g} s",
        out,
        12,
    )
    return smaller, found
