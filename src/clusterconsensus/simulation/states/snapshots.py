"""Checks inside this process of ``snapshot`` and ``install``.

The reference is a state that took all changes and was never looked at. Others are stopped at
several points, saved, and installed into an empty state and into one with another history; from
there on all of them must answer like the reference.
"""

from __future__ import annotations

from clusterconsensus.simulation.states.answers import Trial
from clusterconsensus.simulation.states.findings import Finding, shown
from clusterconsensus.simulation.states.running import Answer, FoundError, first_difference
from clusterconsensus.state import State

EXACTLY = (
    "Let install set every attribute that apply reads or writes, to what snapshot saved, and let "
    "snapshot save every one of them."
)
CLEARS = (
    "Let install replace the state and add nothing to it: assign new collections, or clear the old "
    "ones first, also those that the snapshot has nothing for."
)


def take(trial: Trial, state: State, moment: str) -> bytes:
    """A snapshot.

    Raises:
        FoundError: ``snapshot`` raises or returns something else than bytes.
    """
    try:
        snapshot: object = state.snapshot()
    except Exception as error:
        raise FoundError(
            Finding(
                "snapshot",
                f"snapshot raised {type(error).__name__}: {error}",
                "snapshot is called at any time, on an empty state too, and must not fail.",
                trial.where("snapshot"),
                moment,
            )
        ) from error
    if isinstance(snapshot, bytes):
        return snapshot
    name = type(snapshot).__name__
    how = ".encode()" if isinstance(snapshot, str) else ""
    raise FoundError(
        Finding(
            "snapshot",
            f"snapshot returned {shown(snapshot)}, a {name}, and not bytes",
            f"Return bytes: {f'the str with {how}' if how else 'bytes(...), or an encoding'}.",
            trial.where("snapshot"),
            moment,
        )
    )


def put(trial: Trial, state: State, snapshot: bytes, moment: str) -> None:
    """Install a snapshot.

    Raises:
        FoundError: ``install`` raises.
    """
    try:
        state.install(snapshot)
    except Exception as error:
        raise FoundError(
            Finding(
                "install",
                f"install raised {type(error).__name__}: {error}",
                "install must take whatever snapshot returns, that of an empty state too.",
                trial.where("install"),
                moment,
            )
        ) from error


def check_snapshot(trial: Trial, answers: list[Answer]) -> list[Finding]:
    """Taking snapshots changes nothing.

    Raises:
        FoundError: no snapshot can be had.
    """
    state = trial.fresh()
    every = max(1, len(trial.steps) // 10)
    after: list[Answer] = []
    for begin in range(0, len(trial.steps) + 1, every):
        moment = _moment(trial, begin)
        first, second = take(trial, state, moment), take(trial, state, moment)
        if first != second:
            return [
                Finding(
                    "snapshot",
                    f"two snapshots in a row differ: {shown(first)} and {shown(second)}",
                    "snapshot only looks: no counter, no clock, nothing taken out of a collection.",
                    trial.where("snapshot"),
                    moment,
                )
            ]
        after += trial.run(state, trial.steps[begin : begin + every])
    place = first_difference(answers, after)
    if place is None:
        return []
    return [
        Finding(
            "snapshot",
            "a state of which snapshots were taken answered "
            f"{after[place].shown}, one that was left alone {answers[place].shown}",
            "snapshot must not alter the state: look for pop, clear, sort in place, or an iterator "
            "that it uses up.",
            trial.where("snapshot"),
            trial.describe(trial.steps[place]),
        )
    ]


def check_install(trial: Trial, answers: list[Answer]) -> list[Finding]:
    """A snapshot restores exactly what it was taken from, wherever it is installed.

    Raises:
        FoundError: ``snapshot`` or ``install`` raises.
    """
    count = len(trial.steps)
    cuts = sorted({0, count // 4, count // 2, 3 * count // 4})
    source, done = trial.fresh(), 0
    into_empty: list[Finding] = []
    into_used: list[Finding] = []
    for cut in cuts:
        trial.run(source, trial.steps[done:cut])
        done = cut
        snapshot = take(trial, source, _moment(trial, cut))
        empty, used = trial.fresh(), trial.fresh()
        trial.run(used, trial.foreign)
        if not into_empty:
            into_empty = _compare(trial, answers, snapshot, cut, empty, "an empty state")
        if not into_used:
            other = f"a state with another history ({len(trial.foreign)} other changes)"
            into_used = _compare(trial, answers, snapshot, cut, used, other)
    # What an empty state cannot take is told once; a used one has the same trouble.
    return into_empty or into_used


def _compare(
    trial: Trial, answers: list[Answer], snapshot: bytes, cut: int, state: State, into: str
) -> list[Finding]:
    advice = EXACTLY if into == "an empty state" else CLEARS
    moment = f"{_moment(trial, cut)}, the snapshot is installed into {into}"
    put(trial, state, snapshot, moment)
    again = take(trial, state, moment)
    after = trial.run(state, trial.steps[cut:])
    place = first_difference(answers[cut:], after)
    if place is not None:
        return [
            Finding(
                "install",
                f"after an install the state answered {after[place].shown}, the one that the "
                f"snapshot was taken from {answers[cut + place].shown}",
                advice,
                trial.where("install"),
                f"{moment}; then {trial.describe(trial.steps[cut + place])}",
            )
        ]
    if again == snapshot:
        return []
    only_order = sorted(again) == sorted(snapshot)
    return [
        Finding(
            "install",
            f"the snapshot was {shown(snapshot)}, and after it is installed {shown(again)}"
            + (": the same bytes in another order; all answers were alike" if only_order else ""),
            "Sort what snapshot goes through, so that equal states give equal bytes."
            if only_order
            else advice,
            trial.where("snapshot" if only_order else "install"),
            moment,
            "warning" if only_order else "error",
        )
    ]


def _moment(trial: Trial, cut: int) -> str:
    if cut == 0:
        return "before the first change"
    return f"after {trial.describe(trial.steps[cut - 1])}"
