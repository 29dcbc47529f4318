"""What the clients of a simulated cluster do: a state machine, random calls, and what is right.

Each workload brings a replicated state, its sequential specification (``models``), and calls drawn
at random. A user's own state machine is a workload without a specification: what is right is then
what a fresh instance of it answers when the chosen changes are applied to it one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, Protocol

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
from clusterconsensus.state import Codec, State


class Workload(Protocol):
    """What clients do."""

    name: str
    model: Model | None
    """The sequential specification; None for a user's own state."""
    codec: Codec | None

    def make_state(self) -> State:
        """A fresh state machine."""
        ...

    def next(self, chance: Random) -> Any:
        """The next call of a client."""
        ...

    def is_read(self, call: Any) -> bool:
        """Whether a call changes nothing, so that it is read and not submitted."""
        ...

    def query(self, state: Any, call: Any) -> Any:
        """Answer a read from one member's copy."""
        ...


class _Built:
    """A workload of this package."""

    codec: Codec | None = None

    def __init__(
        self,
        name: str,
        model: Model,
        make_state: Callable[[], Any],
        draw: Callable[[Random, int], Any],
    ) -> None:
        self.name = name
        self.model: Model | None = model
        self._model = model
        self._make_state = make_state
        self._draw = draw
        self._count = 0

    def make_state(self) -> State:
        state: State = self._make_state()
        return state

    def next(self, chance: Random) -> Any:
        self._count += 1
        return self._draw(chance, self._count)

    def is_read(self, call: Any) -> bool:
        return self._model.is_read(call)

    def query(self, state: Any, call: Any) -> Any:
        return state.query(call)


def _map(chance: Random, count: int) -> Any:
    key = f"k{int(chance.random() ** 2 * 8)}"
    draw = chance.random()
    if draw < 0.35:
        return ("get", key)
    if draw < 0.75:
        return ("put", key, count)
    if draw < 0.9:
        return ("cas", key, chance.randrange(max(1, count - 10), count + 1), count)
    if draw < 0.95:
        return ("delete", key)
    if draw < 0.98:
        return ("refuse", key)
    return ("put", key, "long" * chance.choice((300, 8_000)))


def _counter(chance: Random, count: int) -> Any:
    return ("get",) if chance.random() < 0.3 else ("add", 1 + chance.randrange(3))


def _bank(chance: Random, count: int) -> Any:
    if chance.random() < 0.25:
        return ("balances",)
    source = chance.randrange(5)
    target = (source + 1 + chance.randrange(4)) % 5
    return ("transfer", source, target, 1 + chance.randrange(60))


def _queue(chance: Random, count: int) -> Any:
    return ("push", count) if chance.random() < 0.55 else ("pop",)


def built_in(name: str) -> Workload:
    """One of the workloads of this package: ``map``, ``counter``, ``bank`` or ``queue``."""
    if name == "map":
        return _Built(name, MapModel(), MapState, _map)
    if name == "counter":
        return _Built(name, CounterModel(), CounterState, _counter)
    if name == "bank":
        return _Built(name, BankModel(), BankState, _bank)
    if name == "queue":
        return _Built(name, QueueModel(), QueueState, _queue)
    raise ValueError(f"no workload {name!r}; there are {', '.join(BUILT_IN)}")


BUILT_IN = ("map", "counter", "bank", "queue")


class OwnWorkload:
    """A user's state machine and the changes that are submitted to it.

    Arguments:
        make_state: Makes a fresh state.
        draw: Called with a ``random.Random``; returns the next change.
        codec: Of the changes; MessagePack by default.
    """

    name = "own"
    model: Model | None = None

    def __init__(
        self,
        make_state: Callable[[], State],
        draw: Callable[[Random], Any],
        codec: Codec | None = None,
    ) -> None:
        self.codec = codec
        self._make_state = make_state
        self._draw = draw

    def make_state(self) -> State:
        return self._make_state()

    def next(self, chance: Random) -> Any:
        return self._draw(chance)

    def is_read(self, call: Any) -> bool:
        return False

    def query(self, state: Any, call: Any) -> Any:
        raise AssertionError("a user's workload has no reads")
