"""Checks inside this process of ``snapshot`` and ``install``.

The reference is a state that took all changes and was never looked at. Others are stopped at
several points, saved, and installed into an empty state and into one with another history; from
there on all of them must answer like the reference.

As on a member, what ``snapshot`` returned may be gone through later and in another thread,
``install`` runs in another thread, and it is given a reader that can read and nothing else.
"""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable
from typing import TypeVar

from clusterconsensus.simulation.states.answers import Trial
from clusterconsensus.simulation.states.findings import Finding, shown
from clusterconsensus.simulation.states.running import (
    Answer,
    FoundError,
    Step,
    first_difference,
)
from clusterconsensus.state import Readable, State

ResultT = TypeVar("ResultT")

EXACTLY = (
    "Let install set every attribute that apply reads or writes, to what snapshot saved, and let "
    "snapshot save every one of them."
)
CLEARS = (
    "Let install replace the state and add nothing to it: assign new collections, or clear the old "
    "ones first, also those that the snapshot has nothing for."
)


OWN_COPY = (
    "Copy in snapshot what apply changes (dict.copy(), list(...)) and let the generator go through "
    "the copy; snapshot itself must not be a generator (no yield in it), for then nothing of it "
    "runs before the first piece is wanted. Or return bytes."
)


def elsewhere(function: Callable[[], ResultT]) -> ResultT:
    """What a function returns, or raises, in another thread."""
    results: list[ResultT] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="clusterconsensus-states")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class _Reader:
    """A snapshot as ``install`` gets it: can be read, once, and nothing else."""

    def __init__(self, snapshot: bytes) -> None:
        self._content = io.BytesIO(snapshot)

    def read(self, size: int = -1, /) -> bytes:
        return self._content.read(size)


def take(trial: Trial, state: State, moment: str) -> bytes:
    """A snapshot, gone through at once.

    Raises:
        FoundError: ``snapshot`` raises or returns something else than bytes or pieces of bytes.
    """
    return gather(trial, begin(trial, state, moment), moment)


def begin(trial: Trial, state: State, moment: str) -> bytes | Iterable[object]:
    """What ``snapshot`` returns.

    Raises:
        FoundError: it raises or returns something else than bytes or an iterable.
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
    if isinstance(snapshot, Iterable) and not isinstance(snapshot, str | bytearray | memoryview):
        return snapshot
    name = type(snapshot).__name__
    how = ".encode()" if isinstance(snapshot, str) else ""
    raise FoundError(
        Finding(
            "snapshot",
            f"snapshot returned {shown(snapshot)}, a {name}, and neither bytes nor an iterable of "
            "bytes",
            f"Return bytes: {f'the str with {how}' if how else 'bytes(...), or an encoding'}.",
            trial.where("snapshot"),
            moment,
        )
    )


def gather(trial: Trial, snapshot: bytes | Iterable[object], moment: str) -> bytes:
    """Go through what ``snapshot`` returned.

    Raises:
        FoundError: a piece is no bytes, or making it raises.
    """
    if isinstance(snapshot, bytes):
        return snapshot
    pieces: list[bytes] = []
    try:
        for piece in snapshot:
            if not isinstance(piece, bytes):
                raise FoundError(
                    Finding(
                        "snapshot",
                        f"piece {len(pieces)} of a snapshot is {shown(piece)}, a "
                        f"{type(piece).__name__}, and not bytes",
                        "Let each piece be bytes; they are put together without anything between.",
                        trial.where("snapshot"),
                        moment,
                    )
                )
            pieces.append(piece)
    except Exception as error:
        if isinstance(error, FoundError):
            raise
        raise FoundError(
            Finding(
                "snapshot",
                f"what snapshot returned raised {type(error).__name__}: {error}, after "
                f"{len(pieces)} pieces",
                f"It must not fail. {OWN_COPY}",
                trial.where("snapshot"),
                moment,
            )
        ) from error
    return b"".join(pieces)


def put(trial: Trial, state: State, snapshot: bytes, moment: str) -> None:
    """Install a snapshot, in another thread.

    Raises:
        FoundError: ``install`` raises.
    """
    try:
        reader: Readable = _Reader(snapshot)
        elsewhere(lambda: state.install(reader))
    except Exception as error:
        raise FoundError(
            Finding(
                "install",
                f"install raised {type(error).__name__}: {error}",
                "install must take whatever snapshot returns, that of an empty state too. It gets "
                "a reader: snapshot.read() gives all of it, snapshot.read(1000) so many bytes. It "
                "runs in another thread.",
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


def check_pieces(trial: Trial, answers: list[Answer]) -> list[Finding] | None:
    """What makes pieces is on its own: made late, in another thread, they are what the state was
    when ``snapshot`` was called, and the state goes on as if nobody made them.

    Returns:
        The findings; None where all snapshots are bytes, so that there is nothing to see.

    Raises:
        FoundError: ``snapshot`` raises.
    """
    count = len(trial.steps)
    lazy = False
    for cut in sorted({count // 4, count // 2, 3 * count // 4}):
        for early in (0, 1):
            state = trial.fresh()
            before = trial.run(state, trial.steps[:cut])
            moment = _moment(trial, cut)
            at_once = take(trial, state, moment)
            snapshot = begin(trial, state, moment)
            if isinstance(snapshot, bytes):
                break
            lazy = True
            later = (cut + count + 1) // 2
            moment += (
                f"; {early or 'no'} piece is made then, the others {later - cut} changes later"
            )
            meanwhile = trial.steps[cut:later]

            def go_on(state: State = state, steps: list[Step] = meanwhile) -> list[Answer]:
                return trial.run(state, steps)

            late, after = _gather_late(trial, snapshot, early, go_on, moment)
            told = before + after + trial.run(state, trial.steps[later:])
            place = first_difference(answers, told)
            if late != at_once:
                seen = (
                    f"made at once the pieces of a snapshot are {shown(at_once)}, and made while "
                    f"apply goes on {shown(late)}"
                )
            elif place is not None:
                seen = (
                    f"a state of which a snapshot was made piece by piece answered "
                    f"{told[place].shown}, one that was left alone {answers[place].shown}"
                )
            else:
                continue
            return [Finding("snapshot", seen, OWN_COPY, trial.where("snapshot"), moment)]
    return [] if lazy else None


def _gather_late(
    trial: Trial,
    snapshot: Iterable[object],
    early: int,
    go_on: Callable[[], list[Answer]],
    moment: str,
) -> tuple[bytes, list[Answer]]:
    """Go through a snapshot in another thread, after some pieces waiting until ``go_on`` is done
    in this one. Returns what came of both."""
    reached, may_end = threading.Event(), threading.Event()

    def halting() -> Iterable[object]:
        if not early:
            reached.set()
            may_end.wait()
        for number, piece in enumerate(snapshot, 1):
            yield piece
            if number == early:
                reached.set()
                may_end.wait()

    pieces: list[bytes] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            pieces.append(gather(trial, halting(), moment))
        except BaseException as error:
            errors.append(error)
        finally:
            reached.set()

    thread = threading.Thread(target=run, name="clusterconsensus-states")
    thread.start()
    try:
        reached.wait()
        answers = go_on()
    finally:
        may_end.set()
        thread.join()
    if errors:
        raise errors[0]
    return pieces[0], answers


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
