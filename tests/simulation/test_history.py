"""What a history keeps of its operations."""

from __future__ import annotations

import math

import pytest

from clusterconsensus.simulation.judges.history import NEVER, History, describe


def test_steps_order_what_happens_in_one_instant() -> None:
    history = History()
    first = history.begin("a", ("put", "x", 1), 1.0)
    second = history.begin("b", ("get", "x"), 1.0)
    history.end(first, 1.0, "ok", None)
    third = history.begin("a", ("get", "x"), 1.0)
    history.end(third, 1.0, "ok", 1)
    history.end(second, 1.0, "ok", 1)
    assert [operation.number for operation in history.operations] == [1, 2, 3]
    assert first.returned_step < third.invoked_step
    assert not first.returned_step < second.invoked_step
    assert not second.returned_step < third.invoked_step
    assert first.returned == second.returned == 1.0


@pytest.mark.parametrize("unknown", [True, False])
def test_what_is_not_known_never_returns(unknown: bool) -> None:
    history = History()
    operation = history.begin("a", ("put", "x", 1), 1.0)
    if unknown:
        history.end(operation, 2.0, "unknown")
    later = history.begin("a", ("get", "x"), 3.0)
    assert operation.returned == math.inf
    assert operation.returned_step == NEVER > later.invoked_step
    assert list(history.relevant()) == [operation, later]


def test_what_was_not_applied_is_not_relevant() -> None:
    history = History()
    refused = history.begin("a", ("put", "x", 1), 1.0)
    history.end(refused, 2.0, "not applied")
    waiting = history.begin("a", ("get", "x"), 2.0)
    assert list(history.relevant()) == [waiting]
    assert history.operations == [refused, waiting]


def test_an_operation_ends_once() -> None:
    history = History()
    operation = history.begin("a", ("get", "x"), 1.0)
    with pytest.raises(ValueError, match="has not ended"):
        history.end(operation, 1.5, "waits")
    history.end(operation, 2.0, "ok", 5)
    with pytest.raises(ValueError, match="has ended before"):
        history.end(operation, 3.0, "unknown")
    assert (operation.outcome, operation.result, operation.returned) == ("ok", 5, 2.0)


def test_lines_for_people() -> None:
    history = History()
    put = history.begin("c1", ("put", "x", 5), 1.25)
    assert describe(put) == "#1 c1 put('x', 5) waits, since 1.250000 s"
    history.end(put, 1.5, "ok", 4)
    put.place = 17
    assert describe(put) == "#1 c1 put('x', 5) gives 4, 1.250000 s to 1.500000 s, at 17 in the log"
    pop = history.begin("c2", ("pop",), 2.0)
    history.end(pop, 2.5, "unknown")
    assert describe(pop) == "#2 c2 pop() is unknown, since 2.000000 s"
    add = history.begin("c2", ("add", 1), 3.0)
    history.end(add, 3.5, "not applied")
    assert describe(add) == "#3 c2 add(1) not applied, 3.000000 s to 3.500000 s"
