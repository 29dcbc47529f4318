"""What the simulated clusters replicate: each thing twice, as specification and as state machine.

A *model* is the sequential specification: a pure function from a state and a call to the next state
and the result. The states are immutable and hashable, because the check of histories
(``linearizability``) keeps many of them. A *state* is the real thing: a mutable ``State`` that a
participant applies changes to. The two are written separately on purpose: each is tested against
the other, so neither can hide a mistake.

A call is a tuple with a name in front. Changes travel through the default codec, so a ``State``
gets lists; a model's results hold tuples where it gets lists. ``None`` stands for "nothing there"
throughout.

==========  ==============================  ===================================================
what        call                            result
==========  ==============================  ===================================================
map         ``("put", key, value)``         the previous value
..          ``("cas", key, old, new)``      whether the value was ``old``; then it is ``new``
..          ``("delete", key)``             whether there was a value
..          ``("refuse", key)``             an exception, ``("raises", "RefusedError")``
..          ``("get", key)``                the value
counter     ``("add", number)``             the new total
..          ``("get",)``                    the total
bank        ``("transfer", a, b, amount)``  whether ``a`` had that much; if not, nothing moves
..          ``("balances",)``               all balances
queue       ``("push", item)``              the length afterwards
..          ``("pop",)``                    the oldest item, which is removed
==========  ==============================  ===================================================
"""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from typing import Any, Protocol

import msgspec

from clusterconsensus.state import Context, Readable

Call = Any
"""A sequence with a name in front: a tuple at the client, a list once it has travelled."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Model(Protocol):
    """A sequential specification."""

    def initial(self) -> Hashable:
        """The state before the first call."""
        ...

    def step(self, state: Any, call: Call) -> tuple[Any, Any]:
        """The state after a call, and the result, with tuples for lists.

        Raises:
            ValueError: there is no such call.
        """
        ...

    def key(self, call: Call) -> Hashable | None:
        """What the call is about, if calls of different keys have nothing to do with each other:
        each key then has a state of its own, and is checked by itself. None if they have."""
        ...

    def is_read(self, call: Call) -> bool:
        """Whether the call leaves every state as it is."""
        ...


class RefusedError(Exception):
    """What a map answers to ``refuse``: an exception is an answer like any other (R8)."""


class MapModel:
    """A map, key by key: the state is the value of the one key, None if there is none."""

    def initial(self) -> Hashable:
        return None

    def step(self, state: Any, call: Call) -> tuple[Any, Any]:
        match call[0]:
            case "get":
                return state, state
            case "put":
                return call[2], state
            case "cas":
                return (call[3], True) if state == call[2] else (state, False)
            case "delete":
                return None, state is not None
            case "refuse":
                return state, ("raises", RefusedError.__name__)
        raise ValueError(f"a map has no {call!r}")

    def key(self, call: Call) -> Hashable | None:
        key: Hashable = call[1]
        return key

    def is_read(self, call: Call) -> bool:
        return bool(call[0] == "get")


class MapState:
    """A replicated map. Keys are strings."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    def apply(self, change: Call, context: Context) -> Any:
        """Make a change; a read may travel as one, too."""
        match change:
            case ["put", key, value]:
                previous = self.values.get(key)
                self._set(key, value)
                return previous
            case ["cas", key, old, new]:
                swapped = self.values.get(key) == old
                if swapped:
                    self._set(key, new)
                return swapped
            case ["delete", key]:
                return self.values.pop(key, None) is not None
            case ["refuse", key]:
                raise RefusedError(f"{key} cannot be had")
        return self.query(change)

    def query(self, call: Call) -> Any:
        """Answer a read from what this member has."""
        match call:
            case ["get", key]:
                return self.values.get(key)
        raise ValueError(f"a map has no {call!r}")

    def snapshot(self) -> bytes:
        return _encode(sorted(self.values.items(), key=lambda item: item[0]))

    def install(self, snapshot: Readable) -> None:
        self.values = dict(_decode(snapshot.read()))

    def _set(self, key: str, value: Any) -> None:
        if value is None:
            self.values.pop(key, None)
        else:
            self.values[key] = value


class CounterModel:
    """A counter that begins at 0."""

    def initial(self) -> Hashable:
        return 0

    def step(self, state: Any, call: Call) -> tuple[Any, Any]:
        match call[0]:
            case "add":
                return state + call[1], state + call[1]
            case "get":
                return state, state
        raise ValueError(f"a counter has no {call!r}")

    def key(self, call: Call) -> Hashable | None:
        return None

    def is_read(self, call: Call) -> bool:
        return bool(call[0] == "get")


class CounterState:
    """A replicated counter that begins at 0."""

    def __init__(self) -> None:
        self.total = 0

    def apply(self, change: Call, context: Context) -> int:
        """Make a change; a read may travel as one, too."""
        match change:
            case ["add", number]:
                self.total += number
                return self.total
        return self.query(change)

    def query(self, call: Call) -> int:
        """Answer a read from what this member has."""
        match call:
            case ["get"]:
                return self.total
        raise ValueError(f"a counter has no {call!r}")

    def snapshot(self) -> bytes:
        return _encode(self.total)

    def install(self, snapshot: Readable) -> None:
        self.total = _decode(snapshot.read())


class BankModel:
    """Accounts 0, 1, … that money is moved between, and that are never overdrawn.

    Arguments:
        accounts: How many there are.
        opening_balance: What each begins with.
    """

    def __init__(self, accounts: int = 5, opening_balance: int = 100) -> None:
        self.accounts = accounts
        self.opening_balance = opening_balance

    def initial(self) -> Hashable:
        return (self.opening_balance,) * self.accounts

    def step(self, state: Any, call: Call) -> tuple[Any, Any]:
        match call[0]:
            case "balances":
                return state, state
            case "transfer":
                _, source, target, amount = call
                if state[source] < amount:
                    return state, False
                balances = list(state)
                balances[source] -= amount
                balances[target] += amount
                return tuple(balances), True
        raise ValueError(f"a bank has no {call!r}")

    def key(self, call: Call) -> Hashable | None:
        return None

    def is_read(self, call: Call) -> bool:
        return bool(call[0] == "balances")


class BankState:
    """A replicated bank; the arguments are those of ``BankModel``."""

    def __init__(self, accounts: int = 5, opening_balance: int = 100) -> None:
        self.balances = [opening_balance] * accounts

    def apply(self, change: Call, context: Context) -> Any:
        """Make a change; a read may travel as one, too."""
        match change:
            case ["transfer", source, target, amount]:
                if amount > self.balances[source]:
                    return False
                self.balances[source] -= amount
                self.balances[target] += amount
                return True
        return self.query(change)

    def query(self, call: Call) -> list[int]:
        """Answer a read from what this member has. The list stays as it is."""
        match call:
            case ["balances"]:
                return self.balances.copy()
        raise ValueError(f"a bank has no {call!r}")

    def snapshot(self) -> bytes:
        return _encode(self.balances)

    def install(self, snapshot: Readable) -> None:
        self.balances = _decode(snapshot.read())


class QueueModel:
    """A queue that begins empty. The state is its items, the oldest first."""

    def initial(self) -> Hashable:
        return ()

    def step(self, state: Any, call: Call) -> tuple[Any, Any]:
        match call[0]:
            case "push":
                return (*state, call[1]), len(state) + 1
            case "pop":
                return (state[1:], state[0]) if state else (state, None)
        raise ValueError(f"a queue has no {call!r}")

    def key(self, call: Call) -> Hashable | None:
        return None

    def is_read(self, call: Call) -> bool:
        return False


class QueueState:
    """A replicated queue that begins empty. It has no reads: to look is to pop."""

    def __init__(self) -> None:
        self.items: deque[Any] = deque()

    def apply(self, change: Call, context: Context) -> Any:
        """Make a change."""
        match change:
            case ["push", item]:
                self.items.append(item)
                return len(self.items)
            case ["pop"]:
                return self.items.popleft() if self.items else None
        raise ValueError(f"a queue has no {change!r}")

    def snapshot(self) -> bytes:
        return _encode(list(self.items))

    def install(self, snapshot: Readable) -> None:
        self.items = deque(_decode(snapshot.read()))
