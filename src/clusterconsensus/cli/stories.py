"""``clusterconsensus simulate --story``: one story, told while it happens.

A story is a script of commands against bare cores (``simulation.cores.story`` has the commands).
What the members say is told anew; only what is expected can fail, and what must always hold.
"""

from __future__ import annotations

import argparse
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec

from clusterconsensus.cli.failures import CRASH, SAFETY, write_page
from clusterconsensus.cli.failures import tell as tell_paragraph
from clusterconsensus.simulation import stories
from clusterconsensus.simulation.cores import story as scripts
from clusterconsensus.simulation.cores.expectations import StoryError
from clusterconsensus.simulation.cores.notes import Notes
from clusterconsensus.simulation.cores.story import Story
from clusterconsensus.simulation.judges.invariants import BrokenError
from clusterconsensus.simulation.running.runner import Options
from clusterconsensus.simulation.telling.recording import FindingKind, Recorder

SHIPPED = Path(stories.__file__).parent


class UnreadableError(ValueError):
    """A story cannot be read, or has a line that makes no sense."""


class Ended(msgspec.Struct, frozen=True):
    """How a story ended that did not hold.

    Attributes:
        line: The number of the line that does not hold, and its text.
        rule: The rule that is broken; "" for an expectation.
        text: What is wrong.
        is_crash: Whether the code failed and nothing was checked.
    """

    line: str
    rule: str
    text: str
    is_crash: bool = False


def names() -> tuple[str, ...]:
    """The stories of this package."""
    return tuple(sorted(path.stem for path in SHIPPED.glob("*.txt")))


def find(name: str) -> str:
    """The text of a story.

    Arguments:
        name: A file, or the name of a story of this package.

    Raises:
        UnreadableError: there is neither.
    """
    path = Path(name)
    if not path.is_file():
        if name not in names():
            raise UnreadableError(f"no file {name!r}, and no story of that name")
        path = SHIPPED / f"{name}.txt"
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableError(f"{path} cannot be read: {error}") from error


def tell(text: str, say: Callable[[str], None], recorder: Recorder | None = None) -> Ended | None:
    """Let a story happen.

    Arguments:
        text: Of the story.
        say: Gets every line of it, with what was really said.
        recorder: Writes everything down; times are steps then.

    Returns:
        What does not hold; None if all does.

    Raises:
        UnreadableError: a command makes no sense.
    """
    story = Story()
    notes = story.cluster.notes = None if recorder is None else Notes(recorder)
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("    "):
            continue
        say(line)
        if not line.startswith("> "):
            continue
        if notes is not None and not line.startswith("> expect"):
            notes.recorder.did(notes.step(), line[2:])
        place = f"line {number}, {line[2:]}"
        try:
            said = story.command(line[2:])
        except Exception as error:
            for each in story.cluster.told:
                say(f"    {each}")
            ended = _judge(place, error)
            if notes is not None:
                kind: FindingKind = "crash" if ended.is_crash else "safety"
                rule = ended.rule or "expect"
                notes.recorder.violated(notes.step(), rule, kind, ended.text)
            return ended
        for each in said:
            say(f"    {each}")
        if notes is not None and line == "> heal":
            for member in story.cluster.by_id:
                for other in story.cluster.by_id:
                    notes.healed(member, other)
    return None


def _judge(place: str, error: Exception) -> Ended:
    text = str(error)
    if isinstance(error, BrokenError):
        return Ended(place, error.rule, error.text)
    if isinstance(error, AssertionError):
        rule, colon, rest = text.partition(": ")
        is_rule = bool(colon) and not isinstance(error, StoryError) and " " not in rule
        return Ended(place, rule if is_rule else "", rest if is_rule else text)
    frames = traceback.extract_tb(error.__traceback__)
    if frames and frames[-1].filename == scripts.__file__:
        raise UnreadableError(f"{place}: makes no sense ({type(error).__name__}: {error})")
    return Ended(place, type(error).__name__, f"{type(error).__name__}: {text}", is_crash=True)


def run(options: argparse.Namespace) -> int:
    """Tell the story of the command line, with its deliberate bug if it names one.

    Returns:
        0 if everything holds, 1 if something does not, 4 if the code fails.
    """
    try:
        text = find(options.story)
        recorder = None
        if options.report is not None:
            mutant = f" --mutant {options.mutant}" if options.mutant else ""
            recorder = make_recorder(
                options.story,
                f"clusterconsensus simulate --story {shlex.quote(options.story)}{mutant}",
            )
        with Options(mutant=options.mutant or "").bug():
            ended = tell(text, print, recorder)
    except UnreadableError as error:
        options.refuse(f"--story: {error}")
    if ended is not None:
        print()
        tell_paragraph(f"does not hold: {told(ended)}", sys.stdout)
    if recorder is not None:
        write_page(Path(options.report), recorder.recording(), sys.stdout)
    if ended is None:
        return 0
    return CRASH if ended.is_crash else SAFETY


def make_recorder(name: str, command: str) -> Recorder:
    """One for a story."""
    return Recorder(title=f"story {Path(name).stem}", command=command, axis="steps")


def told(ended: Ended) -> str:
    """What does not hold, in a sentence."""
    rule = f"{ended.rule}: " if ended.rule and not ended.is_crash else ""
    return f"{ended.line}: {rule}{ended.text}"
