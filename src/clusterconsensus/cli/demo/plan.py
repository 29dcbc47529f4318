"""What is asked of a run, and which faults it will meet: decided before anything starts."""

from __future__ import annotations

import random
from enum import StrEnum

import msgspec

SECONDS_PER_FAULT = 4.0
"""Room for a fault, the fail-over, the restart of its victim, and some undisturbed writing."""

FIRST_FAULT_SECONDS = 1.0


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """The command line, validated."""

    members: int = 3
    seconds: float = 24.0
    seed: int | None = None
    keep: bool = False
    as_json: bool = False
    unsafe_acknowledge_early: bool = False


class FaultKind(StrEnum):
    """What happens to whoever is master."""

    KILL = "SIGKILL"
    """It dies without a word and is started again on the same directory."""
    STOP = "SIGSTOP"
    """It stands still, believing itself master, and is woken when another one leads."""


class Fault(msgspec.Struct, frozen=True):
    """One fault: when (seconds after the writers began), and what."""

    at_seconds: float
    kind: FaultKind


def plan_faults(seconds: float, seed: int) -> tuple[Fault, ...]:
    """The faults of a run, in order; at least one, and the first is a kill.

    The more of them the longer the run; of any four, one is a stop. The same seed gives the same
    faults.
    """
    chance = random.Random(f"faults {seed}")
    count = max(1, round(seconds / SECONDS_PER_FAULT))
    room = (seconds - FIRST_FAULT_SECONDS) / count
    faults = []
    for index in range(count):
        at_seconds = FIRST_FAULT_SECONDS + room * (index + 0.4 * chance.random())
        kind = FaultKind.STOP if index % 4 == 2 else FaultKind.KILL
        faults.append(Fault(at_seconds, kind))
    return tuple(faults)
