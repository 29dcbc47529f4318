"""Checks inside this process that look at what ``apply`` answers, and at whom it asks."""

from __future__ import annotations

import contextlib
import inspect
import io
from typing import Any

import msgspec

from clusterconsensus.simulation.states.findings import Finding
from clusterconsensus.simulation.states.loading import LoadedState
from clusterconsensus.simulation.states.running import (
    Answer,
    FoundError,
    Step,
    first_difference,
    perform,
)
from clusterconsensus.simulation.states.sentinels import ADVICE, Watch, place
from clusterconsensus.state import State, whole

MAX_SENTINEL_FINDINGS = 20
MAX_RAISING_STEPS = 20

_CANNOT_CHANGE = (type(None), bool, int, float, str, bytes)


class Trial(msgspec.Struct, frozen=True):
    """What the checks work on.

    Attributes:
        loaded: The state machine.
        steps: The changes.
        foreign: Changes of another history.
    """

    loaded: LoadedState
    steps: list[Step]
    foreign: list[Step]

    def fresh(self) -> State:
        """A new, empty state."""
        return self.loaded.factory()

    def run(self, state: State, steps: list[Step]) -> list[Answer]:
        """Apply steps to a state."""
        return [perform(state, self.loaded.codec, step) for step in steps]

    def describe(self, step: Step) -> str:
        """A step in a message."""
        return step.describe(self.loaded.codec)

    def where(self, method: str) -> str:
        """``file:line`` of a method of the state, or "" where it is not written in Python."""
        function: Any = getattr(self.fresh(), method)
        code = getattr(inspect.unwrap(function), "__code__", None)
        return "" if code is None else place(code.co_filename, code.co_firstlineno)


def run_for_reference(trial: Trial) -> list[Answer]:
    """Apply all steps to a fresh state.

    Raises:
        FoundError: ``apply`` raised what stops a member.
    """
    state = trial.fresh()
    answers: list[Answer] = []
    for step in trial.steps:
        try:
            answers.append(perform(state, trial.loaded.codec, step))
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            raise FoundError(
                Finding(
                    "results",
                    f"apply raised {type(error).__name__}, which is no answer: it stops each "
                    "member that applies the change, and again at each start",
                    "Raise an Exception for the submitter to get, or let the change fit.",
                    trial.where("apply"),
                    trial.describe(step),
                )
            ) from error
    return answers


def check_results(trial: Trial, answers: list[Answer]) -> list[Finding]:
    """Every result travels, and the workload gets some."""
    found: list[Finding] = []
    troubled = [place for place, answer in enumerate(answers) if answer.trouble]
    if troubled:
        step, answer = trial.steps[troubled[0]], answers[troubled[0]]
        found.append(
            Finding(
                "results",
                f"the result {answer.shown} {answer.trouble} ({len(troubled)} of {len(answers)} "
                "results are like this). The change is applied, and its submitter gets an "
                "ApplyError",
                "Return less, or plain data: None, booleans, numbers, strings, bytes, lists, "
                "dicts, dataclasses; or give a codec that knows the type, as the attribute "
                "`codec` of the factory or of its module.",
                trial.where("apply"),
                trial.describe(step),
            )
        )
    if all(answer.raised for answer in answers):
        found.append(
            Finding(
                "workload",
                f"apply raised at each of {len(answers)} changes, at first {answers[0].shown}: "
                "nothing is tested by that",
                "Let the workload make changes that the state accepts, most of the time.",
                trial.where("apply"),
                trial.describe(trial.steps[0]),
                "warning",
            )
        )
    return found


def check_live_results(trial: Trial, answers: list[Answer]) -> list[Finding]:
    """No result is changed by later changes."""
    encode = trial.loaded.codec.encode_result

    def is_altered(answer: Answer) -> bool:
        try:
            return answer.outcome[1:] != encode(answer.value)
        except Exception:
            return True  # it did encode once

    for number, answer in enumerate(answers):
        if answer.raised or answer.trouble or isinstance(answer.value, _CANNOT_CHANGE):
            continue
        if not is_altered(answer):
            continue
        # Once more, to see by which change.
        state, shown_by = trial.fresh(), trial.describe(trial.steps[number])
        again = trial.run(state, trial.steps[: number + 1])[-1]
        for step in trial.steps[number + 1 :]:
            if again.trouble or is_altered(again):
                break
            perform(state, trial.loaded.codec, step)
            if is_altered(again):
                shown_by += f"; its result is altered by {trial.describe(step)}"
                break
        return [
            Finding(
                "results",
                f"apply returned a live part of the state: the result, then {answer.shown}, was "
                "altered later. A submitter never notices, for results are encoded at once; code "
                "of yours that calls apply does",
                "Return a copy: list(...), dict(...).",
                trial.where("apply"),
                shown_by,
                "warning",
            )
        ]
    return []


def check_raising(trial: Trial, answers: list[Answer]) -> list[Finding]:
    """A change whose ``apply`` raises has changed nothing."""
    raising = [place for place, answer in enumerate(answers) if answer.raised]
    state, done = trial.fresh(), 0
    for number in raising[:MAX_RAISING_STEPS]:
        trial.run(state, trial.steps[done:number])
        before = whole(state.snapshot())
        answer = perform(state, trial.loaded.codec, trial.steps[number])
        done = number + 1
        if whole(state.snapshot()) != before:
            return [
                Finding(
                    "raising",
                    f"apply altered the state and then raised {answer.shown}",
                    "Check first and alter afterwards: whatever was altered before raising stays "
                    "altered, on every member.",
                    trial.where("apply"),
                    trial.describe(trial.steps[number]),
                    "warning",
                )
            ]
    return []


def check_second_instance(trial: Trial, answers: list[Answer]) -> list[Finding]:
    """A second instance in the same process answers like the first."""
    again = trial.run(trial.fresh(), trial.steps)
    place = first_difference(answers, again)
    if place is None:
        return []
    return [
        Finding(
            "determinism",
            "two fresh instances in one process, given the same changes, answered "
            f"{answers[place].shown} and {again[place].shown}",
            "Nothing may be shared by instances: look for a list or dict that is an attribute of "
            "the class, a global of the module or the default of an argument, and make it in "
            "__init__. If there is none: a clock, a random source or id().",
            trial.where("apply"),
            trial.describe(trial.steps[place]),
        )
    ]


def check_sentinels(trial: Trial, watch: Watch) -> list[Finding]:
    """No method asks the world. What ``watch`` hears is left in it, for hints."""
    state, codec = trial.fresh(), trial.loaded.codec
    first_seen: list[Step] = []
    for step in trial.steps:
        perform(_Listened(state, watch), codec, step)
        first_seen += [step] * (len(watch.calls) - len(first_seen))
    with contextlib.suppress(Exception):  # the checks of snapshot and install tell of it

        def snapshot() -> bytes:
            return whole(
                state.snapshot()
            )  # what is lazy asks the world only when it is gone through

        watch.run(state.install, io.BytesIO(watch.run(snapshot)))
    found: list[Finding] = []
    for number, call in enumerate(watch.calls[:MAX_SENTINEL_FINDINGS]):
        step_text = trial.describe(first_seen[number]) if number < len(first_seen) else ""
        found.append(
            Finding(
                "sentinels",
                f"{call.method} calls {call.called}, {call.kind}",
                ADVICE[call.kind],
                call.where,
                step_text,
            )
        )
    return found


class _Listened:
    """A state for ``perform`` whose ``apply`` is heard by a watch that goes on."""

    def __init__(self, state: State, watch: Watch) -> None:
        self._state, self._watch = state, watch
        self.snapshot, self.install = state.snapshot, state.install

    def apply(self, change: Any, context: Any) -> Any:
        return self._watch.run(self._state.apply, change, context)
