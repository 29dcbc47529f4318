"""Deliberate bugs of this library, and the proof that each is caught.

``MUTANTS`` is the table; ``apply`` puts one of them into the running program for a while; ``kill``
runs the cheapest check that is known to catch it, ``spare`` the same check without it. Reading
order: ``table`` (what a mutant is), the areas (``promises``, ``logs``, ``elections``, ``masters``,
``memberships``, ``reading``, ``sessions``, ``disks``, ``runtimes``, ``outer``), ``drills``,
``runtime_drills`` and ``outer_drills`` (small checks of single parts), ``kills``.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

from clusterconsensus.simulation.mutants import (
    disks,
    elections,
    lasting,
    logs,
    masters,
    memberships,
    outer,
    promises,
    reading,
    runtimes,
    sessions,
)
from clusterconsensus.simulation.mutants.kills import (
    Kill,
    kill,
    kill_by_seeds,
    order_digest,
    spare,
)
from clusterconsensus.simulation.mutants.table import Mutant, StaleMutantError, table

__all__ = [
    "MUTANTS",
    "Kill",
    "Mutant",
    "StaleMutantError",
    "apply",
    "kill",
    "kill_by_seeds",
    "order_under",
    "spare",
]

AREAS = (
    disks,
    elections,
    lasting,
    logs,
    masters,
    memberships,
    outer,
    promises,
    reading,
    runtimes,
    sessions,
)

MUTANTS = table(*(mutant for area in AREAS for mutant in area.MUTANTS.values()))
"""All mutants by name."""


def apply(name: str) -> AbstractContextManager[None]:
    """The context in which the library has a bug of this name.

    Raises:
        KeyError: there is no such mutant.
        StaleMutantError: on entering: it no longer fits the source that it changes.
    """
    return MUTANTS[name].patch()


def order_under(name: str = "") -> str:
    """A checksum over some random schedules, with a mutant in place or with none."""
    with apply(name) if name else nullcontext():
        return order_digest()
