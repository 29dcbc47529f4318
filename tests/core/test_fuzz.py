"""Random schedules against bare cores, a fixed set of seeds.

A failing seed is in the message; ``python -m clusterconsensus.simulation.cores.fuzz SEED`` tells
its schedule in full. ``FUZZ_SEEDS=10000`` runs more of them; ``0 100000`` as the module's arguments
does so without pytest.
"""

from __future__ import annotations

import os

import pytest

from clusterconsensus.simulation.cores.fuzz import Schedule

SEEDS = int(os.environ.get("FUZZ_SEEDS", "400"))
PER_TEST = 50

REGRESSIONS = (37, 102, 301, 366, 399, 440, 488, 506)
"""Seeds that found something once, in the core or in the harness."""


def run(seed: int) -> Schedule:
    schedule = Schedule(seed)
    try:
        schedule.run()
    except Exception as error:
        raise AssertionError(
            f"seed {seed} fails: {error}; python -m clusterconsensus.simulation.cores.fuzz {seed}"
        ) from error
    return schedule


@pytest.mark.parametrize("first", range(0, SEEDS, PER_TEST))
def test_random_schedules(first: int) -> None:
    for seed in range(first, min(first + PER_TEST, SEEDS)):
        run(seed)


def test_seeds_that_found_something() -> None:
    for seed in REGRESSIONS:
        run(seed)


def test_a_seed_gives_one_schedule() -> None:
    told: list[list[str]] = []
    for _ in range(2):
        schedule = Schedule(3, tells=True)
        schedule.run()
        told.append(schedule.cluster.told)
    assert told[0] == told[1]
    assert len(told[0]) > 100


def test_rare_things_do_happen() -> None:
    """The schedules reach what they are there for: fail-over, cut logs, new voters, reads."""
    seen: dict[str, int] = {"masters": 0, "cut": 0, "voters": 0, "read": 0, "acknowledged": 0}
    for seed in range(12):
        schedule = Schedule(seed, tells=True)
        schedule.run()
        told = schedule.cluster.told
        seen["masters"] += len(schedule.cluster.ghost.masters) > 2
        seen["cut"] += any("cut from" in line for line in told)
        seen["voters"] += any("adding: ok" in line for line in told)
        seen["read"] += any("reads" in line for line in told)
        seen["acknowledged"] += any("gives" in line for line in told)
    assert all(seen.values()), seen
