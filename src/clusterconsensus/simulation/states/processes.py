"""Check of determinism over fresh processes.

Members are processes of different birth: each has its own hash seed, so that sets of strings have
an order of their own; its own addresses, so that ``id()`` has; its own clock and time zone. The
first process is what the others are compared with. The second has the first one's hash seed and
differs in everything else, which tells the two kinds of causes apart.
"""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from typing import IO, Literal

import msgspec

from clusterconsensus.simulation.states.answers import Trial
from clusterconsensus.simulation.states.findings import Finding
from clusterconsensus.simulation.states.messages import Task, Told, digest_all
from clusterconsensus.simulation.states.running import FoundError, first_difference

TIMEOUT_SECONDS = 60.0
"""How long all processes of a check may take together."""

CLOCK_AHEAD_SECONDS = 400 * 24 * 3600 + 12_345
"""Another day, hour, minute and second."""

_HASH_ADVICE = (
    "The order of a set of strings, or hash(), differs with PYTHONHASHSEED: sort before you go "
    "through a set, or use a dict, which keeps its order; never let hash() decide."
)
_WORLD_ADVICE = (
    "The hash seeds were equal, so it is no set of strings. Look for a clock (use context.time), a "
    "time zone (name one), a random source (put the number into the change), id() or the order of "
    "a set of objects, the process id, the environment."
)


class Birth(msgspec.Struct, frozen=True):
    """What a process is born with."""

    hash_seed: int
    elsewhere: bool = False

    def __str__(self) -> str:
        text = f"PYTHONHASHSEED={self.hash_seed}"
        return f"{text} in another time zone at another time" if self.elsewhere else text


class Comparison(msgspec.Struct, frozen=True):
    """What came of comparing processes.

    Attributes:
        found: The findings.
        births: The processes, in words.
        world: Whether equal hash seeds gave different answers.
    """

    found: list[Finding]
    births: str
    world: bool


def compare_processes(
    trial: Trial,
    names: tuple[str, str],
    seed: int,
    hash_seeds: Sequence[int],
    hints: dict[str, str],
) -> Comparison:
    """Apply the same changes in fresh processes and compare what came of them.

    Arguments:
        trial: What to apply; ``trial.foreign`` follows where two snapshots are to be compared by
            what they lead to.
        names: Where a process finds the factory and the workload; the second may be "".
        seed: The seed of the changes.
        hash_seeds: One process each, and one more with the first of them.
        hints: Where the author's code calls ``hash`` and ``id``.
    """
    born = [
        Birth(hash_seeds[0]),
        Birth(hash_seeds[0], elsewhere=True),
        *map(Birth, dict.fromkeys(hash_seeds[1:])),
    ]
    text = ", ".join(map(str, born))
    changes = [step.data for step in trial.steps]
    try:
        runs = _run(born, names, seed, changes)
    except FoundError as error:
        return Comparison([error.finding], text, False)
    found: list[Finding] = []
    for birth, lines in zip(born, runs, strict=True):
        drawn = [line.digest for line in lines if line.what == "workload"]
        if drawn and drawn[0] != digest_all(changes):
            found.append(
                Finding(
                    "workload",
                    f"the workload makes other changes of seed {seed} in a process with {birth}",
                    "Draw from the random.Random that it is given and from nothing else; sort "
                    "sets. Otherwise a seed names other changes each time, and no failure can be "
                    "repeated.",
                )
            )
            break
    # Equal hash seeds come first: a difference there explains all others.
    for birth, lines in zip(born[1:], runs[1:], strict=True):
        finding = _compare(trial, hints, (born[0], runs[0]), (birth, lines))
        if finding is not None:
            return Comparison([*found, finding], text, birth.elsewhere)
    return Comparison(found, text, False)


def _compare(
    trial: Trial,
    hints: dict[str, str],
    one: tuple[Birth, list[Told]],
    other: tuple[Birth, list[Told]],
) -> Finding | None:
    advice = _WORLD_ADVICE if other[0].elsewhere else _HASH_ADVICE
    for name in ("id",) if other[0].elsewhere else ("hash", "id"):
        if name in hints:
            advice += f" {name}() is called at {hints[name]}."
    severity: Literal["error", "warning"] = "error"
    left, right = _first_difference(one[1], other[1], "answer")
    if left is not None and right is not None:
        rule, method = "determinism", "apply"
        seen = f"with {one[0]} the answer is {left.shown}, with {other[0]} it is {right.shown}"
    else:
        left, right = _first_difference(one[1], other[1], "snapshot")
        if left is None or right is None:
            return None
        rule, method = "snapshot", "snapshot"
        seen = (
            f"all answers are alike, and with {one[0]} the snapshot is {left.shown}, with "
            f"{other[0]} it is {right.shown}"
        )
        parted = _lead_apart(trial, one[1][-1].data, other[1][-1].data)
        if parted:
            seen += f"; installed, the two lead to different answers: {parted}"
        else:
            severity = "warning"
            advice += (
                " Members compare answers, not snapshots; but snapshots that differ where states "
                "are equal hide those that differ where states are not."
            )
    step = trial.steps[left.step - 1]
    text = f"{'' if method == 'apply' else 'after '}{trial.describe(step)}"
    return Finding(rule, seen, advice, trial.where(method), text, severity)


def _first_difference(
    one: list[Told], other: list[Told], what: str
) -> tuple[Told, Told] | tuple[None, None]:
    for left, right in zip(one, other, strict=False):
        if left.what == what and right.what == what and left.digest != right.digest:
            return left, right
    return None, None


def _lead_apart(trial: Trial, one: bytes, other: bytes) -> str:
    """How two states part that are restored from two snapshots; "" where they do not."""
    if not one or not other:
        return ""
    states = trial.fresh(), trial.fresh()
    try:
        states[0].install(io.BytesIO(one))
        states[1].install(io.BytesIO(other))
    except Exception:
        return ""  # check_install tells of it
    left, right = (trial.run(state, trial.foreign) for state in states)
    place = first_difference(left, right)
    if place is None:
        return ""
    step = trial.describe(trial.foreign[place])
    return f"{left[place].shown} and {right[place].shown} for {step}"


# -- processes


def _run(
    born: list[Birth], names: tuple[str, str], seed: int, changes: list[bytes]
) -> list[list[Told]]:
    """What each process told.

    Raises:
        FoundError: one of them died, or time was up.
    """
    processes: list[subprocess.Popen[bytes]] = []
    until = time.monotonic() + TIMEOUT_SECONDS
    with contextlib.ExitStack() as files:
        outputs = [files.enter_context(tempfile.TemporaryFile()) for _ in born]
        errors = [files.enter_context(tempfile.TemporaryFile()) for _ in born]
        try:
            for birth, output, error in zip(born, outputs, errors, strict=True):
                ahead = CLOCK_AHEAD_SECONDS if birth.elsewhere else 0
                order = files.enter_context(tempfile.TemporaryFile())
                order.write(msgspec.json.encode(Task(names[0], names[1], seed, changes, ahead)))
                order.seek(0)
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "clusterconsensus.simulation.states.child"],
                        stdin=order,
                        stdout=output,
                        stderr=error,
                        env=_environment(birth),
                    )
                )
            for birth, process, error in zip(born, processes, errors, strict=True):
                _wait(birth, process, error, until)
        finally:
            for process in processes:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        return [_read(output) for output in outputs]


def _environment(birth: Birth) -> dict[str, str]:
    here = os.getcwd()
    return {
        **os.environ,
        "PYTHONHASHSEED": str(birth.hash_seed),
        "PYTHONPATH": os.pathsep.join(entry or here for entry in sys.path),
        "TZ": "XXX-13:45" if birth.elsewhere else "UTC0",
    }


def _wait(birth: Birth, process: subprocess.Popen[bytes], errors: IO[bytes], until: float) -> None:
    advice = "Fewer changes (`changes=`), or a quicker apply."
    try:
        code = process.wait(max(0.0, until - time.monotonic()))
        if code == 0:
            return
        how = f"died with signal {-code}" if code < 0 else f"ended with exit code {code}"
        advice = "Nothing that apply, snapshot or install does may end the process."
    except subprocess.TimeoutExpired:
        how = f"is not done after {TIMEOUT_SECONDS:g} seconds"
    errors.seek(0)
    last = errors.read().decode("utf-8", "replace").strip().splitlines()[-3:]
    raise FoundError(
        Finding(
            "determinism",
            f"a process with {birth}, told to apply the changes, {how}"
            + (f"; its last words: {' | '.join(last)}" if last else ""),
            advice,
        )
    )


def _read(output: IO[bytes]) -> list[Told]:
    output.seek(0)
    return [msgspec.json.decode(line, type=Told) for line in output]
