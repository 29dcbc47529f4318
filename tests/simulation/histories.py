"""Histories to check: correct ones, corrupted, by hand; and the same check by brute force."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, NamedTuple

from clusterconsensus.simulation.judges.history import History, Operation
from clusterconsensus.simulation.judges.linearizability import Verdict
from clusterconsensus.simulation.judges.models import (
    BankModel,
    BankState,
    CounterModel,
    CounterState,
    MapModel,
    MapState,
    Model,
    QueueModel,
    QueueState,
)
from clusterconsensus.state import Context

CONTEXT = Context(1, 0, 0.0, 1)


class Kind(NamedTuple):
    """What a random history is about."""

    model: Model
    new_state: Callable[[], Any]
    new_call: Callable[[Random], tuple[Any, ...]]


def map_call(random: Random, keys: int = 2, values: int = 3) -> tuple[Any, ...]:
    key = f"k{random.randrange(keys)}"
    match random.randrange(8):
        case 0 | 1 | 2:
            return ("get", key)
        case 3 | 4 | 5:
            return ("put", key, random.randrange(values))
        case 6:
            return ("cas", key, random.choice([None, *range(values)]), random.randrange(values))
        case _:
            return ("delete", key)


def counter_call(random: Random) -> tuple[Any, ...]:
    return random.choice([("get",), ("add", 1), ("add", 1), ("add", 2)])


def bank_call(random: Random) -> tuple[Any, ...]:
    if random.random() < 0.4:
        return ("balances",)
    return ("transfer", random.randrange(3), random.randrange(3), random.randrange(1, 8))


def queue_call(random: Random) -> tuple[Any, ...]:
    return ("pop",) if random.random() < 0.5 else ("push", random.randrange(3))


MAP = Kind(MapModel(), MapState, map_call)
COUNTER = Kind(CounterModel(), CounterState, counter_call)
BANK = Kind(BankModel(3, 10), lambda: BankState(3, 10), bank_call)
QUEUE = Kind(QueueModel(), QueueState, queue_call)
KINDS = {"map": MAP, "counter": COUNTER, "bank": BANK, "queue": QUEUE}


def executed(
    random: Random, kind: Kind, clients: int, count: int, unknown: float, hints: bool = False
) -> list[Operation]:
    """The history of a correct execution: one state, which each call reaches at some moment between
    its call and its return, or late, or never if its outcome is unknown or it was not applied."""
    state = kind.new_state()
    history = History()
    effects = 0
    calling: list[tuple[Operation | None, str]] = [(None, "")] * clients
    late: list[Operation] = []

    def take_effect(operation: Operation) -> Any:
        nonlocal effects
        effects += 1
        if hints:
            operation.place = float(effects)
        return state.apply(operation.call, CONTEXT)

    results: dict[int, Any] = {}
    while len(history.operations) < count or any(operation for operation, _ in calling):
        now = history.operations[-1].invoked + 0.001 if history.operations else 0.0
        if late and random.random() < 0.02:
            take_effect(late.pop(random.randrange(len(late))))
        client = random.randrange(clients)
        operation, fate = calling[client]
        if operation is None:
            if len(history.operations) < count:
                call = kind.new_call(random)
                chance = random.random()
                fate = "ok"
                if chance < unknown:
                    fate = random.choice(["known to the state", "late", "never"])
                elif chance < 1.2 * unknown:
                    fate = "not applied"
                calling[client] = (history.begin(f"c{client}", call, now), fate)
        elif fate in ("ok", "known to the state") and operation.number not in results:
            results[operation.number] = take_effect(operation)
        else:
            if fate == "late":
                late.append(operation)
            if fate == "ok":
                history.end(operation, now, "ok", results[operation.number])
            elif fate == "not applied":
                history.end(operation, now, "not applied")
            elif random.random() < 0.8:
                history.end(operation, now, "unknown")
            calling[client] = (None, "")  # or it waits for ever
    return history.operations


def corrupt(random: Random, operations: list[Operation]) -> None:
    """Tell clients something that may be wrong."""
    ended = [operation for operation in operations if operation.outcome == "ok"]
    if not ended:
        return
    victim = random.choice(ended)
    match random.randrange(4):
        case 0:
            victim.result = random.choice(
                [None, True, False, 0, 1, 2, 3, [9, 10, 11], [10, 10, 10]]
            )
        case 1:
            other = random.choice(ended)
            victim.result, other.result = other.result, victim.result
        case 2:
            victim.outcome = "not applied"
        case _:
            victim.returned_step = victim.invoked_step  # as if there had been no time for others


def explained(new_state: Callable[[], Any], operations: Iterable[Operation]) -> bool:
    """The same question by brute force: every order, with every subset of the unknown, against the
    state machines and not the models, with no keys and no shortcuts."""

    def search(snapshot: bytes, left: list[Operation]) -> bool:
        if all(operation.outcome != "ok" for operation in left):
            return True
        for operation in left:
            if any(other.returned_step < operation.invoked_step for other in left):
                continue
            state = new_state()
            state.install(io.BytesIO(snapshot))
            result = state.apply(operation.call, CONTEXT)
            if operation.outcome == "ok" and result != operation.result:
                continue
            rest = [other for other in left if other is not operation]
            if search(state.snapshot(), rest):
                return True
        return False

    matter = [operation for operation in operations if operation.outcome != "not applied"]
    return search(new_state().snapshot(), matter)


def assert_proves_itself(verdict: Verdict, operations: Iterable[Operation], model: Model) -> None:
    """The order of a good verdict is what it claims to be."""
    states: dict[Any, Any] = {}
    latest: dict[Any, int] = {}
    for operation in verdict.prefix:
        key = model.key(operation.call)
        assert latest.get(key, 0) < operation.returned_step
        latest[key] = max(latest.get(key, 0), operation.invoked_step)
        state = states.get(key, model.initial())
        states[key], result = model.step(state, operation.call)
        if isinstance(operation.result, list):
            result = list(result)
        assert operation.outcome in ("unknown", "waits") or result == operation.result
    placed = {operation.number for operation in verdict.prefix}
    assert len(placed) == len(verdict.prefix)
    for operation in operations:
        assert operation.number in placed or operation.outcome != "ok"
        assert operation.number not in placed or operation.outcome != "not applied"


Row = tuple[tuple[Any, ...], int, int | None, Any]
"""A call, when it was called, when it returned (None: its outcome is unknown), its result."""


def made(*rows: Row) -> list[Operation]:
    """A history by hand."""
    operations = []
    for number, (call, invoked, returned, result) in enumerate(rows, 1):
        operation = Operation(number, f"c{number}", call, float(invoked), invoked)
        if returned is None:
            operation.outcome = "unknown"
        else:
            operation.returned, operation.returned_step = float(returned), returned
            operation.outcome = "not applied" if result == "not applied" else "ok"
            operation.result = result
        operations.append(operation)
    return operations
