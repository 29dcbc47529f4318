"""All checks of a state machine, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from clusterconsensus.simulation.states.answers import (
    Trial,
    check_live_results,
    check_raising,
    check_results,
    check_second_instance,
    check_sentinels,
    run_for_reference,
)
from clusterconsensus.simulation.states.findings import Finding, Findings
from clusterconsensus.simulation.states.loading import (
    Workload,
    import_name,
    load_state,
    load_workload,
)
from clusterconsensus.simulation.states.processes import compare_processes
from clusterconsensus.simulation.states.running import FoundError, draw, place_in_log
from clusterconsensus.simulation.states.sentinels import Watch
from clusterconsensus.simulation.states.snapshots import check_install, check_pieces, check_snapshot
from clusterconsensus.state import State

MAX_FOREIGN_CHANGES = 100
"""Changes of another history, for states that are not empty."""

_ALL_ELSE = "whatever comes after: mend this first"


def check_state(
    factory: str | Callable[[], State],
    workload: str | Workload,
    *,
    changes: int = 500,
    seed: int = 1,
    hash_seeds: Sequence[int] = (0, 1, 2),
) -> Findings:
    """Run a state machine over made-up changes and look for what would go wrong on a cluster.

    Takes a few seconds, most of them for the fresh processes. The state's code runs in this process
    too, with whatever it does to files and the network.

    Arguments:
        factory: ``package.module:Factory``, which makes an empty state; or the factory itself.
        workload: ``package.module:function``, called with a ``random.Random`` for each change; or
            the function itself.
        changes: How many changes.
        seed: The seed of the changes.
        hash_seeds: The ``PYTHONHASHSEED`` of the processes that are compared, each from 0 to
            4294967295; one more process has the first of them.

    Returns:
        What was found, what was checked, and what could not be: a factory that a fresh process
        cannot import, such as a lambda, cannot be compared over processes.

    Raises:
        LoadError: the factory or the workload cannot be had.
        ValueError: no changes, or no hash seeds.
    """
    if changes < 2:
        raise ValueError(f"changes={changes}: at least 2 are needed")
    if not hash_seeds:
        raise ValueError("hash_seeds is empty: at least one process is needed")
    loaded = load_state(factory)
    function = load_workload(workload)
    examination = _Examination()
    try:
        drawn = draw(function, loaded.codec, seed, changes)
        examination.add(
            _check_workload(function, drawn, draw(function, loaded.codec, seed, changes))
        )
        foreign = draw(function, loaded.codec, seed + 1, min(changes, MAX_FOREIGN_CHANGES))
        trial = Trial(loaded, place_in_log(drawn, seed), place_in_log(foreign, seed + 1))
        names = (
            factory if isinstance(factory, str) else import_name(factory),
            workload if isinstance(workload, str) else import_name(workload),
        )
        examination.run(trial, names, seed, hash_seeds)
    except FoundError as error:
        examination.add([error.finding])
        examination.not_checked.append(_ALL_ELSE)
    return examination.findings()


def _check_workload(workload: Workload, one: list[bytes], other: list[bytes]) -> list[Finding]:
    if one == other:
        return []
    return [
        Finding(
            "workload",
            "the workload makes other changes when it is called again with the same seed",
            "Draw from the random.Random that it is given and from nothing else, and keep nothing "
            "between calls. Otherwise no failure can be repeated.",
        )
    ]


class _Examination:
    """Gathers what the checks say, and decides what may still be asked after a finding."""

    def __init__(self) -> None:
        self.found: list[Finding] = []
        self.checked: list[str] = []
        self.not_checked: list[str] = []

    def add(self, found: list[Finding]) -> None:
        self.found += found

    def findings(self) -> Findings:
        """All of it, errors first."""
        ordered = sorted(self.found, key=lambda finding: finding.severity)
        return Findings(tuple(ordered), tuple(self.checked), tuple(self.not_checked))

    def run(
        self,
        trial: Trial,
        names: tuple[str | None, str | None],
        seed: int,
        hash_seeds: Sequence[int],
    ) -> None:
        """All checks.

        Raises:
            FoundError: ``apply`` raised what stops a member.
        """
        answers = run_for_reference(trial)
        raised = sum(answer.raised for answer in answers)
        self.checked.append(
            f"results of {len(answers)} changes of seed {seed}; apply raised at {raised} of them"
        )
        self.add(check_results(trial, answers))
        watch = Watch()
        self.add(check_sentinels(trial, watch))
        self.checked.append("sentinels: clocks, random sources, files, network, environment")
        world = self._compare_processes(trial, names, seed, hash_seeds, watch.hints)
        alone = check_second_instance(trial, answers)
        if not world:
            self.add(alone)
        if world or alone:
            self.not_checked.append(
                "snapshot, install, raising: equal changes do not give equal answers; mend that "
                "first"
            )
            return
        self.add(check_live_results(trial, answers))
        try:
            unsteady = check_snapshot(trial, answers)
            self.add(unsteady)
            if unsteady:
                self.not_checked.append("install, raising: mend snapshot first")
                return
            self.add(check_raising(trial, answers))
            self.add(check_install(trial, answers))
            late = check_pieces(trial, answers)
        except FoundError as error:
            self.add([error.finding])
            self.not_checked.append(f"what needs {error.finding.rule}: mend it first")
            return
        self.checked.append("snapshot, install (into empty and used states), raising")
        if late is not None:
            self.add(late)
            self.checked.append("pieces of snapshots, made in another thread while apply goes on")

    def _compare_processes(
        self,
        trial: Trial,
        names: tuple[str | None, str | None],
        seed: int,
        hash_seeds: Sequence[int],
        hints: dict[str, str],
    ) -> bool:
        """Whether equal hash seeds gave different answers."""
        factory, workload = names
        if factory is None:
            self.not_checked.append(
                f"determinism over processes: a fresh process cannot import {trial.loaded.name}; "
                "define it at the top of a module, or give its name as package.module:Factory"
            )
            return False
        if workload is None:
            self.not_checked.append(
                "whether the workload makes the same changes in every process: a fresh process "
                "cannot import it; define it at the top of a module"
            )
        comparison = compare_processes(trial, (factory, workload or ""), seed, hash_seeds, hints)
        self.add(comparison.found)
        self.checked.append(f"determinism over processes: {comparison.births}")
        return comparison.world
