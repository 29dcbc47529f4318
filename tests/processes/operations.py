"""What clients of real processes did and were told, judged as the simulator judges its own (I-16).

``gathered`` merges what the clients (``clients``) of all lives of all members have written down
into one history. Which of two things in different processes was first, the clock says; at equal
times a call counts as made before the other one returned, so they are concurrent: that forbids
less, and never wrongs the library. A call without its second line is one of unknown outcome: its
process was killed, or stands still.

Every value is written by one call only, so the log can be searched for it: ``placed`` gives each
change the place that it has in the members' common history, also where no client was told.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from clusterconsensus.simulation.judges.history import NEVER, Operation, describe
from tests.processes.clients import Call, Return

_decode = msgspec.json.Decoder(Call | Return).decode


def gathered(paths: Iterable[Path]) -> list[Operation]:
    """The history that all clients together have written down so far."""
    events: list[tuple[int, bool, str, Call | Return]] = []
    for path in sorted(paths):
        for line in path.read_bytes().splitlines(keepends=True):
            if line.endswith(b"\n"):  # else the process was killed inside it
                told = _decode(line)
                events.append((told.at, isinstance(told, Return), path.stem, told))
    events.sort(key=lambda event: event[:3])
    began = events[0][0] if events else 0
    found: dict[tuple[str, int], Operation] = {}
    for step, (at, _, client, told) in enumerate(events, 1):
        seconds = (at - began) / 1e9
        if isinstance(told, Call):
            number = len(found) + 1
            found[client, told.number] = Operation(number, client, told.call, seconds, step)
            continue
        operation = found[client, told.number]
        operation.outcome = told.outcome  # type: ignore[assignment]  # as Clients._call writes it
        if told.outcome != "unknown":  # what is unknown may yet take effect
            operation.returned, operation.returned_step = seconds, step
            operation.result = told.result
    return list(found.values())


def placed(operations: Sequence[Operation], history: Sequence[tuple[Any, ...]]) -> None:
    """Give each change the place that the members' common history has for it.

    Raises:
        AssertionError: a change that was acknowledged is not in it, or one is of which a client was
            told that it was not applied (X4).
    """
    places = {change[-1]: place for place, change in enumerate(history) if len(change) > 2}
    for operation in operations:
        if operation.call[0] == "get":
            continue
        place = places.pop(operation.call[-1], None)
        operation.place = None if place is None else float(place)
        if operation.outcome == "ok":
            assert place is not None, f"it is lost: {describe(operation)}"
        elif operation.outcome == "not applied":
            assert place is None, f"it was applied all the same: {describe(operation)}"
    assert not places, f"nobody has called for {sorted(places)}"


def with_a_stale_read(operations: Sequence[Operation]) -> list[Operation] | None:
    """The same history, in which one read got a value that was overwritten before it was called;
    None as long as there is no read for which that would be true."""
    changed = list(operations)
    for index, read in enumerate(operations):
        if read.call[0] != "get" or read.outcome != "ok":
            continue
        for put in operations:
            if (
                put.call[:2] == ["put", read.call[1]]
                and put.outcome == "ok"
                and put.returned_step < read.invoked_step
                and put.result != read.result
            ):
                changed[index] = msgspec.structs.replace(read, result=put.result)
                return changed
    return None


def outcomes(operations: Iterable[Operation]) -> dict[str, int]:
    """How many operations of each kind ended in which way, for people."""
    found: dict[str, int] = {}
    for operation in operations:
        outcome = "no answer" if operation.returned_step == NEVER else operation.outcome
        kind = f"{operation.call[0]} {outcome}"
        found[kind] = found.get(kind, 0) + 1
    return dict(sorted(found.items()))
