"""Changes and their contexts, and applying them as the library does.

A change always takes the way through the codec, as it does on every member, the submitter's own
included: what was a tuple may arrive as a list. What comes of it is judged as ``runtime.applier``
judges: an exception is an answer, and a result that does not encode is one too.
"""

from __future__ import annotations

import random
from typing import Any

import msgspec

from clusterconsensus.runtime import outcomes
from clusterconsensus.runtime.applier import MAX_RESULT_BYTES
from clusterconsensus.simulation.states.findings import Finding, shown
from clusterconsensus.simulation.states.loading import Workload
from clusterconsensus.state import Codec, Context, State

BEGIN_SECONDS = 1_700_000_000.0
"""What the replicated clock shows at the first change; seconds since 1970."""


class Step(msgspec.Struct, frozen=True):
    """One change as the log holds it."""

    data: bytes
    context: Context
    name: str

    def describe(self, codec: Codec) -> str:
        """The change in a message."""
        return f"{self.name}: {shown(codec.decode_change(self.data))}"


class Answer(msgspec.Struct, frozen=True):
    """What came of a change.

    Attributes:
        outcome: The bytes that must be equal on every member (R9).
        value: What ``apply`` returned, the object itself.
        shown: The same in a message.
        raised: Whether ``apply`` raised.
        trouble: Why the result cannot travel, or "".
    """

    outcome: bytes
    value: Any
    shown: str
    raised: bool = False
    trouble: str = ""


class FoundError(Exception):
    """Ends a check early: what follows would make no sense."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.seen)
        self.finding = finding


def draw(workload: Workload, codec: Codec, seed: int, count: int) -> list[bytes]:
    """The first changes of a seed, encoded.

    Raises:
        FoundError: the workload raises, or the codec does not take what it makes.
    """
    chance = random.Random(seed)
    changes: list[bytes] = []
    for number in range(1, count + 1):
        doing, change = "the workload raises", ""
        try:
            made = workload(chance)
            change = f"change {number} of seed {seed}: {shown(made)}"
            doing = "the codec cannot encode a change of the workload"
            data = codec.encode_change(made)
            doing = "the codec cannot decode a change that it has encoded"
            codec.decode_change(data)
        except Exception as error:
            raise FoundError(
                Finding(
                    "workload",
                    f"{doing}: {type(error).__name__}: {error}",
                    "submit would raise InvalidChangeError. Let the workload make what your "
                    "program submits, and give the codec that it uses, if it is not the default "
                    "one, as the attribute `codec` of the factory or of its module."
                    if change
                    else "The workload is called with a random.Random and returns one change.",
                    change=change or f"change {number} of seed {seed}",
                )
            ) from error
        changes.append(data)
    return changes


def place_in_log(changes: list[bytes], seed: int) -> list[Step]:
    """Give changes their contexts: entries of one to three changes, of three sessions, in turn with
    what else a log holds."""
    chance = random.Random(f"contexts of {seed}")
    steps: list[Step] = []
    sequence, index, left, time, session = 3, 0, 0, BEGIN_SECONDS, 1
    for number, data in enumerate(changes, 1):
        if left == 0:
            sequence += chance.choice((1, 1, 1, 2))
            left, index = chance.choice((1, 1, 2, 3)), 0
            time += chance.choice((0.0, 0.001, 0.25, 90.0))
            session = chance.choice((1, 2, 3))
        name = f"change {number} of seed {seed}"
        steps.append(Step(data, Context(sequence, index, time, session), name))
        index, left = index + 1, left - 1
    return steps


def perform(state: State, codec: Codec, step: Step) -> Answer:
    """Apply one change as a member does.

    Raises:
        BaseException: what is no answer and stops a member: MemoryError, SystemExit, ...
    """
    change = codec.decode_change(step.data)
    try:
        value = state.apply(change, step.context)
    except MemoryError:
        raise
    except Exception as error:
        text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return Answer(outcomes.comparable(outcomes.failure(error)), None, text, raised=True)
    try:
        data = codec.encode_result(value)
    except Exception as error:
        outcome = outcomes.comparable(outcomes.failure(error))
        trouble = f"cannot be encoded: {type(error).__name__}: {error}"
        return Answer(outcome, value, shown(value), trouble=trouble)
    trouble = ""
    if len(data) > MAX_RESULT_BYTES:
        trouble = f"has {len(data)} bytes encoded; MAX_RESULT_BYTES is {MAX_RESULT_BYTES}"
    else:
        try:
            codec.decode_result(data)
        except Exception as error:
            trouble = f"encodes and does not decode: {type(error).__name__}: {error}"
    return Answer(outcomes.RESULT + data, value, shown(value), trouble=trouble)


def first_difference(one: list[Answer], other: list[Answer]) -> int | None:
    """Where two runs of the same changes part; None where they do not."""
    for place, (left, right) in enumerate(zip(one, other, strict=True)):
        if left.outcome != right.outcome:
            return place
    return None
