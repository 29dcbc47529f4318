"""Every replicated state against its specification."""

from __future__ import annotations

import io
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from clusterconsensus.codec import MsgpackCodec
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
from clusterconsensus.state import Context, State

CONTEXT = Context(1, 0, 0.0, 1)
CODEC = MsgpackCodec()


def map_call(random: Random) -> tuple[Any, ...]:
    key = random.choice("xyz")
    value = random.choice([None, 1, 2, "word", (1, 2)])
    other = random.choice([None, 1, 2, "word"])
    return random.choice(
        [("put", key, value), ("get", key), ("cas", key, other, value), ("delete", key)]
    )


def counter_call(random: Random) -> tuple[Any, ...]:
    return random.choice([("add", random.randrange(-5, 10)), ("get",)])


def bank_call(random: Random) -> tuple[Any, ...]:
    accounts = (random.randrange(3), random.randrange(3))
    return random.choice([("transfer", *accounts, random.randrange(12)), ("balances",)])


def queue_call(random: Random) -> tuple[Any, ...]:
    return random.choice([("push", random.randrange(100)), ("pop",)])


PAIRS: dict[str, tuple[Model, Callable[[], Any], Callable[[Random], tuple[Any, ...]]]] = {
    "map": (MapModel(), MapState, map_call),
    "counter": (CounterModel(), CounterState, counter_call),
    "bank": (BankModel(3, 10), lambda: BankState(3, 10), bank_call),
    "queue": (QueueModel(), QueueState, queue_call),
}

OUTCOMES: dict[str, set[tuple[str, bool]]] = {
    "map": {(call, fails) for call in ("put", "get", "cas", "delete") for fails in (True, False)},
    "counter": {("add", False), ("get", False)},
    "bank": {("transfer", True), ("transfer", False), ("balances", False)},
    "queue": {("push", False), ("pop", True), ("pop", False)},
}
"""The calls of each, and whether they find nothing or fail: all must have been seen."""


def travelled(value: Any) -> Any:
    """What comes out of the codec."""
    return CODEC.decode_change(CODEC.encode_change(value))


@pytest.mark.parametrize("name", PAIRS)
def test_state_does_what_its_model_says(name: str) -> None:
    model, new_state, new_call = PAIRS[name]
    seen: set[tuple[str, bool]] = set()
    for seed in range(20):
        random = Random(f"{name} {seed}")
        state = new_state()
        expected: dict[Any, Any] = {}
        for _ in range(200):
            call = new_call(random)
            key = model.key(call)
            before = expected.get(key, model.initial())
            expected[key], result = model.step(before, call)
            hash(expected[key])
            if model.is_read(call):
                assert expected[key] == before
                assert travelled(state.query(travelled(call))) == travelled(result)
            assert travelled(state.apply(travelled(call), CONTEXT)) == travelled(result)
            seen.add((call[0], result is None or result is False))
    assert seen == OUTCOMES[name]


@pytest.mark.parametrize("name", PAIRS)
def test_snapshot_replaces_everything(name: str) -> None:
    _, new_state, new_call = PAIRS[name]
    for seed in range(50):
        random = Random(f"{name} {seed}")
        one, other = new_state(), new_state()
        for _ in range(random.randrange(40)):
            one.apply(travelled(new_call(random)), CONTEXT)
        for _ in range(random.randrange(40)):
            other.apply(travelled(new_call(random)), CONTEXT)
        other.install(io.BytesIO(one.snapshot()))
        assert other.snapshot() == one.snapshot()
        for _ in range(40):
            call = travelled(new_call(random))
            assert one.apply(call, CONTEXT) == other.apply(call, CONTEXT)
            assert one.snapshot() == other.snapshot()


def test_equal_maps_have_equal_snapshots() -> None:
    one, other = MapState(), MapState()
    for key in "xy":
        one.apply(["put", key, 1], CONTEXT)
    for key in "yzx":
        other.apply(["put", key, 1], CONTEXT)
    assert one.snapshot() != other.snapshot()
    other.apply(["delete", "z"], CONTEXT)
    assert one.snapshot() == other.snapshot()


def test_what_is_read_does_not_alter_the_bank() -> None:
    bank = BankState(2, 10)
    bank.query(["balances"])[0] = 1_000
    assert bank.query(["balances"]) == [10, 10]


def test_only_the_map_has_keys() -> None:
    assert MapModel().key(("put", "x", 1)) == MapModel().key(("get", "x")) == "x"
    assert CounterModel().key(("add", 1)) is None
    assert BankModel().key(("balances",)) is None
    assert QueueModel().key(("pop",)) is None


@pytest.mark.parametrize("name", PAIRS)
def test_unknown_calls_are_refused(name: str) -> None:
    model, new_state, _ = PAIRS[name]
    with pytest.raises(ValueError, match="has no"):
        model.step(model.initial(), ("dance",))
    state = new_state()
    assert isinstance(state, State)
    before = state.snapshot()
    with pytest.raises(ValueError, match="has no"):
        state.apply(["dance"], CONTEXT)
    assert state.snapshot() == before
