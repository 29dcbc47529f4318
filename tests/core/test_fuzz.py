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


RARE = {
    "cut": "cut from",
    "voters": "adding: ok",
    "read": "reads",
    "acknowledged": "gives",
    "forgotten": "forgets its log",
    "installed": "installs the snapshot",
    "damaged": "without a vote",
    "whole": "is whole again",
    "handed over": "the master hands over",
    "by lease": "ReadAsk by lease",
}
"""What some schedule must tell, under a name for it."""


def test_rare_things_do_happen() -> None:
    """The schedules reach what they are there for: fail-over, cut logs, new voters, reads,
    snapshots, damage, handing over."""
    seen = dict.fromkeys(("masters", *RARE), 0)
    for seed in range(40):
        schedule = Schedule(seed, tells=True)
        schedule.run()
        told = "\n".join(schedule.cluster.told)
        seen["masters"] += len(schedule.cluster.ghost.masters) > 2
        for name, text in RARE.items():
            seen[name] += text in told
    assert all(seen.values()), seen
