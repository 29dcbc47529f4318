"""``clusterconsensus explore``: every interleaving of a small cluster, and a short way to what
is wrong, as a story."""

from __future__ import annotations

import argparse
import shlex
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import msgspec

from clusterconsensus.cli.progress import progress
from clusterconsensus.cli.writing import check_place, write_text
from clusterconsensus.simulation.explorer import Bounds, Exploration, Progress, explore

FOUND = 1
INTERRUPTED = 130


def run(options: argparse.Namespace) -> int:
    """Explore and tell what was found.

    Returns:
        0 if no state is wrong, 1 if one is, 130 after Ctrl-C.
    """
    bounds = Bounds(
        members=options.members,
        ballots=options.ballots,
        changes=options.changes,
        crashes=options.crashes,
        hangs=options.hangs,
        losses=options.losses,
        repeats=options.repeats,
        ticks=options.ticks,
        reorder=options.reorder,
        states=options.states,
    )
    place = None if options.story is None else Path(options.story)
    if place is not None:
        check_place(place, "--story", options.refuse)
    bug: AbstractContextManager[None] = nullcontext()
    if options.mutant is not None:
        from clusterconsensus.simulation import mutants

        if options.mutant not in mutants.MUTANTS:
            options.refuse(f"--mutant: no mutant {options.mutant!r}; simulate --list-mutants")
        bug = mutants.apply(options.mutant)
    states = 0
    try:
        with bug, progress(bounds.states, quiet=options.json) as shown:

            def on_progress(so_far: Progress) -> None:
                nonlocal states
                states = so_far.states
                speed = so_far.states / so_far.seconds if so_far.seconds else 0.0
                shown.show(
                    so_far.states,
                    f"{so_far.states:,} states, {speed:,.0f}/s, depth {so_far.depth}",
                )

            found = explore(bounds, on_progress)
    except KeyboardInterrupt:
        print(f"interrupted after {states:,} states; none is wrong", file=sys.stderr)
        return INTERRUPTED
    story = "" if found.violation is None else found.violation.story()
    if options.json:
        sys.stdout.write(msgspec.json.encode(_for_programs(found, story)).decode() + "\n")
    else:
        _print(found, story)
    if story and place is not None:
        write_text(place, story)
        mutant = f" --mutant {options.mutant}" if options.mutant else ""
        print(
            f"replay: clusterconsensus simulate --story {shlex.quote(str(place))}{mutant}",
            file=sys.stderr if options.json else sys.stdout,
        )
    return FOUND if story else 0


def _for_programs(found: Exploration, story: str) -> dict[str, object]:
    violation = found.violation
    return {
        "states": found.states,
        "transitions": found.transitions,
        "depth": found.depth,
        "exhausted": found.exhausted,
        "seconds": round(found.seconds, 3),
        "states_per_second": round(found.states_per_second, 1),
        "sometimes": found.sometimes,
        "violation": None
        if violation is None
        else {"rule": violation.rule, "text": violation.text, "story": story},
    }


def _print(found: Exploration, story: str) -> None:
    if found.violation is not None:
        verdict = f"{found.violation.rule} is violated: {found.violation.text}"
    elif found.exhausted:
        verdict = "no state is wrong, and there are no others within the bounds"
    else:
        verdict = "no state is wrong of those that were seen; there are more"
    print(verdict)
    print(
        f"{found.states:,} states, {found.transitions:,} moves, up to {found.depth} moves from the "
        f"start; {found.seconds:.1f} s, {found.states_per_second:,.0f} states/s"
    )
    if found.sometimes:
        print("on the way:")
        width = max(len(f"{count:,}") for count in found.sometimes.values())
        for name, count in sorted(found.sometimes.items()):
            print(f"  {count:>{width},}  {name}")
    if story:
        print(f"\n{story}", end="")
