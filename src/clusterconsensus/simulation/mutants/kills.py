"""How a mutant is killed, and which rule the killer reports.

``kill`` runs the cheapest way that is known: a story, then lives of a journal, then a drill, then
random schedules of bare cores, then whole clusters. A kill is any failure; what it reports is read
from the failure's text, which begins with the rule wherever a check knows it.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from clusterconsensus.simulation import stories
from clusterconsensus.simulation.cores.expectations import StoryError
from clusterconsensus.simulation.cores.fuzz import Schedule
from clusterconsensus.simulation.cores.member import Member
from clusterconsensus.simulation.cores.story import tell
from clusterconsensus.simulation.cores.world import Packet, World
from clusterconsensus.simulation.journals.lives import DisprovedError, Life, live
from clusterconsensus.simulation.journals.power import whole_writes
from clusterconsensus.simulation.mutants.drills import DRILLS, quiet
from clusterconsensus.simulation.mutants.outer_drills import OUTER_DRILLS
from clusterconsensus.simulation.mutants.runtime_drills import RUNTIME_DRILLS
from clusterconsensus.simulation.mutants.table import Mutant, replaced
from clusterconsensus.simulation.running import seeds
from clusterconsensus.simulation.trouble import plan

EXPECT = "expect"
"""What a story reports that expects something else, without any rule being named."""

ORDER = "K3"

_LABEL = re.compile(r"(?<![\w-])(I-?\d+|[A-Z]\d+[a-z]?): ")
_MENTION = re.compile(r"\((I-\d+|[A-Z]\d+[a-z]?)\b[^()]*\)")

UNLABELLED = (
    ("no rest after", "I-22"),
    ("does not come to rest", "I-22"),
)
"""Assertions of bare cores that do not name their rule."""


@dataclass(frozen=True)
class Kill:
    """What became of a mutant.

    Arguments:
        how: What was run: ``story NAME``, ``core seeds 0 to 9`` and the like.
        rule: What was reported, empty if the mutant has survived.
        text: The failure's first line.
        seconds: How long it took, without the clean run.
        seeds: How many seeds, or lives, were needed; 1 for a story or a drill.
    """

    how: str
    rule: str
    text: str
    seconds: float
    seeds: int

    @property
    def is_dead(self) -> bool:
        return bool(self.rule)


class ViolationError(AssertionError):
    """A seed of whole clusters has found something."""

    def __init__(self, violation: seeds.Violation) -> None:
        super().__init__(f"{violation.rule}: {violation.text}")
        self.rule = violation.rule


def rule_of(error: BaseException) -> str:
    """The rule that a failure reports."""
    if isinstance(error, ViolationError):
        return error.rule
    text = (str(error).splitlines() or [""])[0]
    found = _LABEL.search(text) or _MENTION.search(text)
    if found:
        return found[1]
    for phrase, rule in UNLABELLED:
        if phrase in text:
            return rule
    if isinstance(error, DisprovedError):
        return "I-21"
    return EXPECT if isinstance(error, StoryError) else type(error).__name__


def kill(mutant: Mutant) -> Kill:
    """Run the cheapest known kill with the mutant in place.

    Raises:
        StaleMutantError: the mutant no longer fits the source that it changes.
        ValueError: no kill is known.
    """
    return _run(mutant, mutant.patch)


def spare(mutant: Mutant) -> Kill:
    """Run the same without the mutant: nothing may die."""
    return _run(mutant, nullcontext)


def kill_by_seeds(mutant: Mutant) -> Kill:
    """Run the random schedules of bare cores that are known to kill it.

    Raises:
        ValueError: none are known.
    """
    if mutant.core_seeds is None:
        raise ValueError(f"no seeds of bare cores are known to kill {mutant.name}")
    return _first(f"core seeds {mutant.core_seeds}", mutant.core_seeds, mutant.patch, _schedule)


def _run(mutant: Mutant, context: Callable[[], AbstractContextManager[None]]) -> Kill:
    one = range(1)
    if mutant.is_order:
        return _kill_by_order("" if context is nullcontext else mutant.name)
    if mutant.story:
        text = (Path(stories.__file__).parent / f"{mutant.story}.txt").read_text()
        return _first(f"story {mutant.story}", one, context, lambda _: tell(text))
    if mutant.lives is not None:
        return _first(f"lives {mutant.lives}", mutant.lives, context, _live)
    if mutant.drill:
        drill = {**DRILLS, **RUNTIME_DRILLS, **OUTER_DRILLS}[mutant.drill]
        return _first(f"drill {mutant.drill}", one, context, lambda _: drill())
    if mutant.core_seeds is not None:
        return _first(f"core seeds {mutant.core_seeds}", mutant.core_seeds, context, _schedule)
    if mutant.cluster_seeds is not None:
        numbers = mutant.cluster_seeds
        return _first(f"cluster seeds {numbers}", numbers, context, _cluster)
    raise ValueError(f"no kill is known for {mutant.name}")


def _cluster(seed: int) -> None:
    violation = seeds.run(plan.draw(seed)).violation
    if violation is not None:
        raise ViolationError(violation)


def _schedule(seed: int) -> None:
    Schedule(seed).run()


def _live(number: int) -> None:
    live(Life(whole_writes), number)


def _first(
    how: str,
    numbers: range,
    context: Callable[[], AbstractContextManager[None]],
    attempt: Callable[[int], object],
) -> Kill:
    """Attempt one number after the other until one fails."""
    began = time.perf_counter()
    for count, number in enumerate(numbers, 1):
        try:
            with quiet(), context():
                attempt(number)
        except Exception as error:
            seconds = time.perf_counter() - began
            lines = str(error).splitlines() or [""]
            return Kill(how, rule_of(error), lines[0], seconds, count)
    return Kill(how, "", "", time.perf_counter() - began, len(numbers))


# -- the order of things

ORDER_SEEDS = range(4)


def order_digest(seeds: range = ORDER_SEEDS) -> str:
    """A checksum over everything that is said and sent, in order, in some random schedules."""
    digest = hashlib.sha256()
    send = World.send

    def noted(world: World, source: Member, target: Member, packet: Packet) -> None:
        digest.update(f"{source} {target} ".encode() + packet.data)
        send(world, source, target, packet)

    with replaced(World, "send", noted):
        for seed in seeds:
            schedule = Schedule(seed, tells=True)
            schedule.run()
            digest.update("\n".join(schedule.cluster.told).encode())
    return digest.hexdigest()


def _kill_by_order(name: str) -> Kill:
    """Compare runs under several values of ``PYTHONHASHSEED``, each in a process of its own."""
    began = time.perf_counter()
    program = "from clusterconsensus.simulation.mutants import order_under; print(order_under())"
    found: list[str] = []
    for number in range(1, 4):
        environment = {**os.environ, "PYTHONHASHSEED": str(number), "PYTHONPATH": _path()}
        command = [sys.executable, "-c", program.replace("()", f"({name!r})")]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        found.append(done.stdout.strip())
        if found[-1] != found[0]:
            text = f"{ORDER}: PYTHONHASHSEED {number} tells another story than 1"
            seconds = time.perf_counter() - began
            return Kill("runs under several hash seeds", ORDER, text, seconds, number)
    return Kill("runs under several hash seeds", "", "", time.perf_counter() - began, len(found))


def _path() -> str:
    """Where a child finds this package too."""
    return os.pathsep.join(part for part in sys.path if part)
