"""The check of client histories: against brute force, planted anomalies, and its own size."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from clusterconsensus.simulation.judges.history import Operation
from clusterconsensus.simulation.judges.linearizability import check
from tests.simulation.histories import (
    BANK,
    COUNTER,
    KINDS,
    MAP,
    QUEUE,
    Kind,
    Row,
    assert_proves_itself,
    corrupt,
    executed,
    explained,
    made,
    map_call,
)


@pytest.mark.parametrize("name", sorted(KINDS))
def test_agrees_with_brute_force(name: str) -> None:
    kind = KINDS[name]
    bad = 0
    for seed in range(5_000):
        random = Random(f"{name} {seed}")
        count = random.randrange(2, 7)
        operations = executed(random, kind, clients=3, count=count, unknown=0.2)
        for _ in range(random.randrange(7)):
            corrupt(random, operations)
        if random.random() < 0.25:
            for operation in operations:
                operation.place = random.choice([None, random.random()])
        verdict = check(operations, kind.model)
        assert verdict.decided
        assert verdict.ok == explained(kind.new_state, operations), f"{name} {seed}"
        if verdict.ok:
            assert_proves_itself(verdict, operations, kind.model)
        else:
            bad += 1
            assert verdict.unplaced
    assert 0.4 < bad / 5_000 < 0.6


def put(value: Any) -> tuple[Any, ...]:
    return ("put", "x", value)


GET = ("get", "x")
TOTAL = ("get",)
POP = ("pop",)
BALANCES = ("balances",)

ANOMALIES: dict[str, tuple[Kind, list[Operation]]] = {
    "stale read": (MAP, made((put(1), 1, 2, None), (put(2), 3, 4, 1), (GET, 5, 6, 1))),
    "lost write": (MAP, made((put(1), 1, 2, None), (GET, 3, 4, None))),
    "lost update": (COUNTER, made((("add", 1), 1, 3, 1), (("add", 1), 2, 4, 1))),
    "lost update, seen by a read": (
        COUNTER,
        made((("add", 1), 1, 2, 1), (("add", 1), 3, None, None), (("add", 2), 4, 5, 2)),
    ),
    "applied twice": (COUNTER, made((("add", 1), 1, 2, 1), (TOTAL, 3, 4, 2))),
    "unknown applied twice": (COUNTER, made((("add", 1), 1, None, None), (TOTAL, 2, 3, 2))),
    "read of what nobody wrote": (MAP, made((put(1), 1, 2, None), (GET, 3, 4, 7))),
    "read before it was written": (MAP, made((GET, 1, 2, 1), (put(1), 3, 4, None))),
    "two cas from one value": (
        MAP,
        made(
            (put(1), 1, 2, None),
            (("cas", "x", 1, 2), 3, 6, True),
            (("cas", "x", 1, 3), 4, 5, True),
        ),
    ),
    "failed cas that swaps": (MAP, made((("cas", "x", 1, 2), 1, 2, False), (GET, 3, 4, 2))),
    "reads go back": (
        MAP,
        made((put(1), 1, 2, None), (put(2), 3, 9, 1), (GET, 4, 5, 2), (GET, 6, 7, 1)),
    ),
    "reads go back after an unknown write": (
        MAP,
        made((put(1), 1, 2, None), (put(2), 3, None, None), (GET, 4, 5, 2), (GET, 6, 7, 1)),
    ),
    "not applied, but read": (MAP, made((put(1), 1, 4, "not applied"), (GET, 2, 3, 1))),
    "not applied, but counted": (
        COUNTER,
        made((("add", 5), 1, 2, "not applied"), (("add", 1), 3, 4, 6)),
    ),
    "money made": (
        BANK,
        made((("transfer", 0, 1, 5), 1, 2, True), (BALANCES, 3, 4, [10, 15, 10])),
    ),
    "half a transfer": (
        BANK,
        made((("transfer", 0, 1, 5), 1, 4, True), (BALANCES, 2, 3, [5, 10, 10])),
    ),
    "overdrawn": (
        BANK,
        made((("transfer", 0, 1, 8), 1, 4, True), (("transfer", 0, 2, 8), 2, 3, True)),
    ),
    "popped twice": (
        QUEUE,
        made((("push", 7), 1, 2, 1), (("push", 8), 3, 4, 2), (POP, 5, 7, 7), (POP, 6, 8, 7)),
    ),
    "popped in the wrong order": (
        QUEUE,
        made((("push", 7), 1, 2, 1), (("push", 8), 3, 4, 2), (POP, 5, 6, 8), (POP, 7, 8, 7)),
    ),
    "popped, but never empty": (QUEUE, made((("push", 7), 1, 2, 1), (POP, 3, 4, None))),
}

TRICKY: dict[str, tuple[Kind, list[Operation]]] = {
    "unknown write that takes effect late": (
        MAP,
        made((put(1), 1, None, None), (put(2), 2, 3, None), (GET, 4, 5, 2), (GET, 6, 7, 1)),
    ),
    "unknown write that never takes effect": (
        MAP,
        made((put(1), 1, None, None), (put(2), 2, 3, None), (GET, 4, 5, 2)),
    ),
    "unknown, seen by a concurrent read only": (
        MAP,
        made((put(1), 1, None, None), (GET, 2, 5, 1), (GET, 3, 4, None)),
    ),
    "concurrent writes, the later one first": (
        MAP,
        made((put(1), 1, 4, 2), (put(2), 2, 3, None), (GET, 5, 6, 1)),
    ),
    "concurrent writes, the earlier one first": (
        MAP,
        made((put(1), 1, 4, None), (put(2), 2, 3, 1), (GET, 5, 6, 2)),
    ),
    "two equal unknown adds, one of them applied": (
        COUNTER,
        made((("add", 1), 1, None, None), (("add", 1), 2, None, None), (TOTAL, 3, 4, 1)),
    ),
    "three unknown adds between two reads": (
        COUNTER,
        made(
            (("add", 1), 1, None, None),
            (("add", 2), 2, None, None),
            (("add", 4), 3, None, None),
            (TOTAL, 4, 5, 0),
            (TOTAL, 6, 7, 7),
        ),
    ),
    "unknown transfer that another one needs": (
        BANK,
        made((("transfer", 0, 1, 6), 1, None, None), (("transfer", 1, 2, 15), 2, 3, True)),
    ),
    "pop that overtakes": (
        QUEUE,
        made((POP, 1, 8, 7), (("push", 7), 2, 7, 1), (POP, 3, 4, None)),
    ),
    "unknown pop": (
        QUEUE,
        made((("push", 7), 1, 2, 1), (("push", 8), 3, 4, 2), (POP, 5, None, None), (POP, 6, 7, 8)),
    ),
    "not applied, and not seen": (MAP, made((put(1), 1, 2, "not applied"), (GET, 3, 4, None))),
    "nothing at all": (MAP, []),
}


@pytest.mark.parametrize("name", ANOMALIES)
def test_rejects(name: str) -> None:
    kind, operations = ANOMALIES[name]
    assert not explained(kind.new_state, operations)
    verdict = check(operations, kind.model)
    assert verdict.decided
    assert not verdict.ok
    assert verdict.unplaced


@pytest.mark.parametrize("name", TRICKY)
def test_accepts(name: str) -> None:
    kind, operations = TRICKY[name]
    assert explained(kind.new_state, operations)
    verdict = check(operations, kind.model)
    assert verdict.ok
    assert_proves_itself(verdict, operations, kind.model)


LARGE = MAP._replace(new_call=lambda random: map_call(random, keys=20, values=1_000))


@pytest.mark.parametrize("seed", range(5))
def test_two_thousand_operations(seed: int) -> None:
    operations = executed(Random(seed), LARGE, clients=10, count=2_000, unknown=0.03)
    assert 30 < sum(operation.outcome in ("unknown", "waits") for operation in operations) < 90
    verdict = check(operations, LARGE.model)
    assert verdict.ok
    assert verdict.steps < 3_000  # hardly ever a wrong way
    assert_proves_itself(verdict, operations, LARGE.model)


@pytest.mark.parametrize("seed", range(5))
def test_one_wrong_answer_among_two_thousand(seed: int) -> None:
    operations = executed(Random(seed), LARGE, clients=10, count=2_000, unknown=0.03)
    wrong = next(
        operation
        for operation in operations[1_000:]
        if operation.outcome == "ok" and operation.call[0] == "get"
    )
    wrong.result = 1_000_000
    verdict = check(operations, LARGE.model)
    assert verdict.decided
    assert not verdict.ok
    assert verdict.key == wrong.call[1]
    assert wrong in verdict.unplaced
    assert verdict.steps < 10_000


@pytest.mark.parametrize("name", sorted(KINDS))
def test_right_hints_lead_straight(name: str) -> None:
    kind = KINDS[name]
    for seed in range(5):
        operations = executed(Random(seed), kind, clients=10, count=2_000, unknown=0.03, hints=True)
        verdict = check(operations, kind.model)
        assert verdict.ok
        assert verdict.steps < 5_000
        assert_proves_itself(verdict, operations, kind.model)


def test_ten_thousand_operations_of_one_counter() -> None:
    operations = executed(Random(1), COUNTER, clients=10, count=10_000, unknown=0.0)
    verdict = check(operations, COUNTER.model)
    assert verdict.ok
    assert len(verdict.prefix) == sum(operation.outcome == "ok" for operation in operations)
    assert verdict.steps < 50_000


def test_gives_up_after_max_steps() -> None:
    adds = [(("add", 2**place), place, None, None) for place in range(1, 20)]
    impossible = made(*adds, (TOTAL, 30, 31, 5))  # an odd sum of even numbers
    verdict = check(impossible, COUNTER.model, max_steps=1_000)
    assert not verdict.decided
    assert not verdict.ok
    assert verdict.steps == 1_000
    assert verdict.explain().startswith("not decided: 1000 steps were not enough")
    possible = made(*adds, (TOTAL, 30, 31, 2**20 - 2))
    assert check(possible, COUNTER.model, max_steps=1_000).ok


def test_never_looks_twice_at_one_set_in_one_state() -> None:
    transfers: list[Row] = [
        (("transfer", 0, 1, 1), place, 20 + place, True) for place in range(1, 10)
    ]
    verdict = check(made(*transfers, (BALANCES, 40, 41, [0, 0, 0])), BANK.model, max_steps=5_000)
    assert verdict.decided  # 9 * 2**8 steps; all orders would be 9! of them
    assert not verdict.ok


def test_first_looks_for_few_unknown_in_a_row() -> None:
    adds: list[Row] = [(("add", 2**place), place, None, None) for place in range(1, 19)]
    for total, most in ((2**18, 100), (2**17 + 2**18, 1_000)):
        verdict = check(made(*adds, (TOTAL, 30, 31, total)), COUNTER.model, max_steps=4 * most)
        assert verdict.ok
        assert verdict.steps < most


def test_tells_what_was_not_tried_any_more() -> None:
    verdict = check(made((put(1), 1, 2, None), (put(2), 3, 4, 1)), MAP.model, max_steps=1)
    assert not verdict.decided
    assert verdict.explain().endswith(
        "#2 c2 put('x', 2) gives 1, 3.000000 s to 4.000000 s: it fits, but was not tried any more"
    )


def test_a_wrong_key_is_found_behind_one_that_is_too_hard() -> None:
    hard: list[Row] = [(("cas", "x", None, 0), 0, 1, True)]
    hard += [(("cas", "x", place, place + 1), place + 2, None, None) for place in range(50)]
    hard += [(("get", "x"), 100, 101, -1)]
    wrong: list[Row] = [(("get", "y"), 102, 103, 5)]
    alone = check(made(*hard), MAP.model, max_steps=10)
    assert (alone.ok, alone.decided, alone.key) == (False, False, "x")
    both = check(made(*hard, *wrong), MAP.model, max_steps=10)
    assert (both.ok, both.decided, both.key) == (False, True, "y")


def test_explains() -> None:
    operations = made(
        (put(1), 1, 2, None),
        (put(2), 3, 4, 1),
        (GET, 5, 8, 1),
        (put(3), 6, None, None),
        (("get", "y"), 7, 9, None),
    )
    verdict = check(operations, MAP.model)
    assert (verdict.ok, verdict.decided, verdict.key, verdict.state) == (False, True, "x", 2)
    assert verdict.prefix == tuple(operations[:2])
    assert verdict.unplaced == (operations[2],)
    assert verdict.maybe == (operations[3],)
    assert verdict.explain().splitlines() == [
        "not linearizable, key 'x': no order explains what the clients were told",
        "the longest order found has 2 operations; it ends with",
        "  #1 c1 put('x', 1) gives None, 1.000000 s to 2.000000 s",
        "  #2 c2 put('x', 2) gives 1, 3.000000 s to 4.000000 s",
        "and leaves the state 2. Next would have to come",
        "  #3 c3 get('x') gives 1, 5.000000 s to 8.000000 s: here it would give 2",
        "and these, of unknown outcome, might come before it:",
        "  #4 c4 put('x', 3) is unknown, since 6.000000 s",
    ]
    assert check(operations[:2], MAP.model).explain() == "linearizable: 2 operations, 2 steps"
