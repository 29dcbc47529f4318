"""What clients did and were told: the raw material of the linearizability check (I-16).

Each call of a client is one operation: when it was called, when its outcome came, and what that
was. Under virtual time many things happen in one instant, so time alone does not tell what was
before what. Calls and returns therefore also draw numbers, their *steps*, from one counter:
operation A was before B exactly if ``A.returned_step < B.invoked_step``; otherwise they were
concurrent, and may have taken effect in either order.

An outcome that never came is no failure. A call that still waits, or whose outcome the client was
told is unknown, may have taken effect at any time after it was made, may do so later, or never. One
that was told to be *not applied* must never have had an effect (X4).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Literal

import msgspec

Outcome = Literal["waits", "ok", "unknown", "not applied"]
"""``waits``: nothing has come yet. ``ok``: there is a result. ``unknown``: none will come."""

NEVER = 1 << 62
"""The ``returned_step`` of what has not returned: later than every step."""


class Operation(msgspec.Struct, eq=False, gc=False):
    """One call of one client.

    Arguments:
        number: Unique, ascending by invocation, from 1.
        client: Who called.
        call: What: a tuple of plain data with a name in front, such as ``("put", "x", 5)``.
        invoked: When it was called, in virtual seconds.
        invoked_step: The same as a step of the history.
        returned: When its result came, or that it was not applied; infinite if that is not known.
        returned_step: The same as a step of the history; ``NEVER`` if that is not known.
        outcome: What the client knows of it.
        result: What it gave, if the outcome is ``"ok"``.
        place: A hint: where the log has it, as far as somebody knows. The check tries this order
            first, and believes nothing of it.
    """

    number: int
    client: str
    call: Any
    invoked: float
    invoked_step: int
    returned: float = math.inf
    returned_step: int = NEVER
    outcome: Outcome = "waits"
    result: Any = None
    place: float | None = None

    @property
    def matters(self) -> bool:
        """Whether it may have had an effect. What was not applied must not have had one."""
        return self.outcome != "not applied"


class History:
    """Every operation of every client of one run, in the order in which they were called."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self._step = 0

    def begin(self, client: str, call: Any, now: float) -> Operation:
        """A client calls.

        Arguments:
            client: Its name.
            call: What it calls; see ``Operation``.
            now: The virtual time, in seconds.
        """
        self._step += 1
        operation = Operation(len(self.operations) + 1, client, call, now, self._step)
        self.operations.append(operation)
        return operation

    def end(self, operation: Operation, now: float, outcome: Outcome, result: Any = None) -> None:
        """A client learns what became of its call, or that it will never learn it.

        Arguments:
            operation: What ``begin`` returned.
            now: The virtual time, in seconds.
            outcome: Anything but ``"waits"``.
            result: What the call gave, if the outcome is ``"ok"``.

        Raises:
            ValueError: the operation has ended before, or ``outcome`` is not an end.
        """
        if operation.outcome != "waits":
            raise ValueError(f"it has ended before: {describe(operation)}")
        if outcome == "waits":
            raise ValueError("an operation that waits has not ended")
        operation.outcome = outcome
        if outcome == "unknown":
            return  # it may yet take effect, so no later call is after it
        self._step += 1
        operation.returned = now
        operation.returned_step = self._step
        operation.result = result

    def relevant(self) -> Iterator[Operation]:
        """The operations to be checked: all but those that were not applied."""
        return (operation for operation in self.operations if operation.matters)


def describe(operation: Operation) -> str:
    """One line for people, such as ``#7 c1 put('x', 5) gives 4, 1.250000 s to 1.262500 s``."""
    name, *arguments = operation.call
    call = f"{name}({', '.join(repr(argument) for argument in arguments)})"
    begin = f"#{operation.number} {operation.client} {call}"
    if operation.outcome == "ok":
        outcome = f"gives {operation.result!r}"
    else:
        outcome = {"waits": "waits", "unknown": "is unknown"}.get(operation.outcome, "not applied")
    if operation.returned_step == NEVER:
        times = f"since {operation.invoked:.6f} s"
    else:
        times = f"{operation.invoked:.6f} s to {operation.returned:.6f} s"
    place = "" if operation.place is None else f", at {operation.place:g} in the log"
    return f"{begin} {outcome}, {times}{place}"
