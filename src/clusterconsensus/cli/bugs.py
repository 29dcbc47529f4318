"""``clusterconsensus simulate --mutant``: the cheapest check that catches a deliberate bug.

Random seeds catch the gross bugs and need luck for the fine ones. So each bug of the table names
what catches it at once: a story, lives of a journal, a drill, schedules of bare cores. That is run
first; seeds of whole clusters come afterwards, if they are still wanted.
"""

from __future__ import annotations

from pathlib import Path
from typing import TextIO

import msgspec

from clusterconsensus.cli import stories
from clusterconsensus.cli.failures import (
    CRASH,
    STATUS,
    tell,
    tell_explanation,
    write_page,
)
from clusterconsensus.simulation import mutants
from clusterconsensus.simulation.cores.fuzz import Schedule
from clusterconsensus.simulation.cores.notes import Notes
from clusterconsensus.simulation.mutants import Kill, Mutant, StaleMutantError
from clusterconsensus.simulation.mutants.kills import EXPECT
from clusterconsensus.simulation.running.seeds import Violation
from clusterconsensus.simulation.telling.explanations import RULES
from clusterconsensus.simulation.telling.recording import FindingKind, Recorder, Recording

SHOWN_LINES = 12
"""How much of a story's end is shown."""


class Caught(msgspec.Struct, frozen=True):
    """A deliberate bug was caught. ``plain`` is a page in words, where a picture was wanted and
    this check has none; None otherwise."""

    status: int
    plain: Recording | None


def kill(name: str, out: TextIO, report: Path | None, lines: TextIO | None) -> Caught | None:
    """Run the cheapest check that is known to catch a deliberate bug.

    Arguments:
        name: Of the bug.
        out: Where people read.
        report: Where a page goes that draws how it was caught, if that can be drawn.
        lines: Where programs read.

    Returns:
        None if there is no such check, or it did not catch the bug.
    """
    mutant = mutants.MUTANTS[name]
    print(f"deliberate bug {name}: {mutant.what}", file=out)
    print(f"  it breaks {', '.join(mutant.violates)}", file=out, flush=True)
    try:
        found = mutants.kill(mutant)
    except ValueError:
        print("  no quick check is known to catch it", file=out)
        return None
    except StaleMutantError as error:
        print(f"  it no longer fits the source: {error}", file=out)
        return Caught(CRASH, None)
    if not found.is_dead:
        print(f"  NOT caught by {found.how}", file=out)
        return None
    violation = Violation(_kind(mutant, found), found.rule, found.text, 0.0)
    if lines is not None:
        line = {"seed": None, "caught_by": found.how, "violation": violation}
        print(msgspec.json.encode(line).decode(), file=lines, flush=True)
    print(f"  caught by {found.how} in {found.seconds:.2f} s", file=out)
    rule = "a story expects something else" if found.rule == EXPECT else found.rule
    text = found.text.removeprefix(f"{found.rule}: ")
    tell(f"{rule} ({violation.kind}): {text}", out, 2)
    print(file=out)
    if mutant.story:
        _tell_end(mutant, out)
    tell_explanation(msgspec.structs.replace(violation, rule=_best_known(mutant, found)), out)
    if mutant.story:
        print(
            f"\n  replay:   clusterconsensus simulate --story {mutant.story} --mutant {name}",
            file=out,
        )
    if report is not None:
        recording = _record(mutant, found)
        if recording is None:
            print("  this check cannot be drawn; looking for a seed that can", file=out)
            return Caught(STATUS[violation.kind], _in_words(mutant, found, violation))
        write_page(report, recording, out)
    return Caught(STATUS[violation.kind], None)


def _in_words(mutant: Mutant, found: Kill, violation: Violation) -> Recording:
    """A page without a diagram: what the bug is, what caught it, and what that said."""
    command = f"clusterconsensus simulate --mutant {mutant.name}"
    recorder = Recorder(title=f"{mutant.name}, caught by {found.how}", command=command)
    recorder.axis = "steps"
    recorder.say(f"the bug: {mutant.what}")
    recorder.say(f"it breaks {', '.join(mutant.violates)}")
    recorder.say(f"caught by {found.how}: {found.text}")
    recorder.violated(0.0, _best_known(mutant, found), violation.kind, found.text)
    return recorder.recording()


def _kind(mutant: Mutant, found: Kill) -> FindingKind:
    """Whether a promise was broken or nothing went on."""
    if found.rule.endswith(("Error", "Exception")):
        return "crash"
    if found.rule == "I-22":
        return "liveness"
    # A story that expects something else says so without a rule; the bug knows its own.
    invariants = {rule for rule in mutant.violates if rule.startswith("I-")}
    return "liveness" if found.rule == EXPECT and invariants == {"I-22"} else "safety"


def _best_known(mutant: Mutant, found: Kill) -> str:
    """Of the rules that are broken, one that is explained in words of its own."""
    known = (found.rule, *mutant.violates)
    return next((rule for rule in known if rule in RULES or rule.startswith("I-")), known[1])


def _tell_end(mutant: Mutant, out: TextIO) -> None:
    told: list[str] = []
    with mutant.patch():
        stories.tell(stories.find(mutant.story), told.append)
    if len(told) > SHOWN_LINES:
        print(f"  ({len(told) - SHOWN_LINES} earlier lines)", file=out)
    for line in told[-SHOWN_LINES:]:
        print(f"  {line}", file=out)
    print(file=out)


def _record(mutant: Mutant, found: Kill) -> Recording | None:
    """Run the check once more and write everything down; None where there is nothing to draw."""
    command = f"clusterconsensus simulate --mutant {mutant.name}"
    if mutant.story:
        recorder = stories.make_recorder(mutant.story, f"{command} --story {mutant.story}")
        with mutant.patch():
            stories.tell(stories.find(mutant.story), lambda line: None, recorder)
        return recorder.recording()
    if mutant.core_seeds is None or not found.how.startswith("core seeds"):
        return None
    seed = mutant.core_seeds[found.seeds - 1]
    recorder = Recorder(title=f"bare cores, seed {seed}", command=command, seed=seed, axis="steps")
    with mutant.patch():
        schedule = Schedule(seed)
        notes = schedule.cluster.notes = Notes(recorder)
        try:
            schedule.run()
        except Exception:
            kind = _kind(mutant, found)
            recorder.violated(notes.step(), found.rule, kind, found.text)
    return recorder.recording()
