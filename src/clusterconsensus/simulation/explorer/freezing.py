"""The state of a core as one hashable value, and back.

``freeze`` turns everything that a ``Replica`` holds into nested tuples; ``thaw`` pours such a value
into a replica, a new one or one that is at hand. So a core is cloned by ``thaw(freeze(it))``, and
two cores with equal frozen states behave the same from there on.

The walk is by type and complete: every attribute of every part is taken. Whatever it does not know
(a new class, a function, a struct that is not frozen) raises ``TypeError`` as soon as it appears,
so a change of the core cannot be copied wrongly in silence. Values that nobody can change are
shared; containers and parts are made anew.

Some parts are there as long as the replica is and know each other (``PLACES``). They keep their
identity: a reference to one is not part of the value, and ``thaw`` refills them in place, so what
the replica's tables of handlers are bound to stays right.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable
from enum import Enum
from operator import attrgetter
from typing import Any

import msgspec

from clusterconsensus.consensus.acceptor import Acceptor
from clusterconsensus.consensus.catchup import CatchUp, Receiver, Sending
from clusterconsensus.consensus.comparison import Comparison
from clusterconsensus.consensus.departures import Departure, Departures
from clusterconsensus.consensus.election import Candidacy, Election
from clusterconsensus.consensus.handover import Handover
from clusterconsensus.consensus.local import Limits, Local
from clusterconsensus.consensus.log import Log
from clusterconsensus.consensus.master import Master
from clusterconsensus.consensus.membership import Membership, Request
from clusterconsensus.consensus.progress import Progress
from clusterconsensus.consensus.promotion import CatchUpRound, Promotion
from clusterconsensus.consensus.reads import Reads
from clusterconsensus.consensus.recovery import Recovery
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.types import NOBODY

Frozen = tuple[Any, ...]
"""The state of one replica. Hashable; holds nothing that can change."""

PLACES = (
    "local",
    "local.log",
    "acceptor",
    "election",
    "master",
    "master.reads",
    "master.comparison",
    "master.catch_up",
    "membership",
    "membership.promotion",
    "membership.handover",
    "membership._departures",
    "receiver",
    "recovery",
)
"""Where the standing parts of a replica are."""

_STANDING = frozenset(
    {
        Local,
        Log,
        Acceptor,
        Election,
        Master,
        Reads,
        Comparison,
        CatchUp,
        Membership,
        Promotion,
        Handover,
        Departures,
        Receiver,
        Recovery,
    }
)
_PASSING = frozenset({Candidacy, Progress, CatchUpRound, Request, Departure, Sending})
"""Parts that come and go. They refer to no other part."""

_OWN = ("_attempts_seen", "_halted")
"""What the replica itself holds beside its parts and its tables of handlers."""
_TABLES = ("_events", "_messages")

_parts_of = attrgetter(*PLACES)
_ATOMS: frozenset[type] = frozenset({int, float, str, bytes, bool, type(None)})

# -- freezing

_shared: set[type] = set(_ATOMS)
"""Types whose values are taken as they are; frozen structs and enums join when they are met."""
_names: dict[type, tuple[str, ...]] = {}
"""The attributes of each class of parts, as its constructor makes them."""


def freeze(replica: Replica) -> Frozen:
    """Everything that a replica holds, as one hashable value.

    Raises:
        TypeError: it holds something of a kind that is not known here.
    """
    _check_own(replica)
    parts = _parts_of(replica)
    frozen = [_freeze_attributes(part, parts) for part in parts]
    held = replica.__dict__
    frozen.append(tuple(_freeze(held[name]) for name in _OWN))
    return tuple(frozen)


def _check_own(replica: Replica) -> None:
    wanted = {name for name in PLACES if "." not in name} | {*_OWN, *_TABLES}
    if replica.__dict__.keys() != wanted:
        raise TypeError(f"a replica holds {sorted(replica.__dict__.keys() ^ wanted)} beside it")


def _freeze_attributes(part: Any, standing: tuple[Any, ...] = ()) -> Frozen:
    attributes = part.__dict__
    names = _names.get(type(part))
    if names is None or len(names) != len(attributes):
        names = _learn(part)
    frozen = []
    for name in names:
        value = attributes[name]
        kind = type(value)
        if kind in _shared:
            frozen.append(value)
        elif kind not in _STANDING:
            frozen.append(_freeze(value))
        elif not any(value is known for known in standing):
            raise TypeError(f"{name} of {part!r} is a part of another replica")
    return tuple(frozen)


def _learn(part: Any) -> tuple[str, ...]:
    """Note the attributes of a class; all its objects must have the same."""
    names = tuple(part.__dict__)
    if _names.setdefault(type(part), names) != names:
        raise TypeError(f"{type(part).__name__} has attributes {names}, not {_names[type(part)]}")
    return names


def _freeze(value: Any) -> Any:
    kind = type(value)
    if kind in _shared:
        return value
    maker = _FREEZERS.get(kind)
    return _meet(value) if maker is None else maker(value)


def _meet(value: Any) -> Any:
    """A value of a type that was not met before."""
    kind = type(value)
    if isinstance(value, msgspec.Struct):
        if not kind.__struct_config__.frozen:
            _FREEZERS[kind] = _freeze_struct
            _THAWERS[kind] = _thaw_struct
            return _freeze_struct(value)
    elif not isinstance(value, Enum):
        raise TypeError(f"a core holds {value!r}; how to freeze {kind.__qualname__} is not known")
    _shared.add(kind)
    return value


def _freeze_many(value: Any) -> Frozen:
    return (type(value), *[_freeze(held) for held in value])


def _freeze_set(value: set[Any]) -> Frozen:
    return (set, *sorted(value))


def _freeze_map(value: dict[Any, Any]) -> Frozen:
    return (type(value), *[_freeze(held) for pair in value.items() for held in pair])


def _freeze_part(value: Any) -> Frozen:
    return (type(value), _freeze_attributes(value))


def _freeze_struct(value: Any) -> Frozen:
    kind = type(value)
    return (kind, *[_freeze(getattr(value, name)) for name in kind.__struct_fields__])


_FREEZERS: dict[type, Callable[[Any], Frozen]] = {
    list: _freeze_many,
    tuple: _freeze_many,
    deque: _freeze_many,
    set: _freeze_set,
    dict: _freeze_map,
    OrderedDict: _freeze_map,
    **dict.fromkeys(_PASSING, _freeze_part),
}

# -- thawing


def thaw(frozen: Frozen, into: Replica | None = None) -> Replica:
    """A replica in this state.

    Arguments:
        frozen: What ``freeze`` returned.
        into: A replica to refill; it shares nothing that can change with any other afterwards.
            None makes a new one.
    """
    replica = Replica(Local(NOBODY, Limits(), Log())) if into is None else into
    for part, values in zip(_parts_of(replica), frozen, strict=False):
        _refill(part, values)
    for name, value in zip(_OWN, frozen[-1], strict=True):
        setattr(replica, name, _thaw(value))
    return replica


def _refill(part: Any, values: Frozen) -> None:
    attributes = part.__dict__
    names = _names[type(part)]
    if len(names) == len(values):
        for name, value in zip(names, values, strict=True):
            attributes[name] = value if type(value) is not tuple else _THAWERS[value[0]](value)
        return
    # References to standing parts are not among the values.
    place = 0
    for name in names:
        if type(attributes[name]) in _STANDING:
            continue
        value = values[place]
        place += 1
        attributes[name] = value if type(value) is not tuple else _THAWERS[value[0]](value)


def _thaw(value: Any) -> Any:
    return value if type(value) is not tuple else _THAWERS[value[0]](value)


def _thaw_many(frozen: Frozen) -> Any:
    return frozen[0](_thaw(value) for value in frozen[1:])


def _thaw_map(frozen: Frozen) -> Any:
    values = [_thaw(value) for value in frozen[1:]]
    return frozen[0](zip(values[::2], values[1::2], strict=True))


def _thaw_part(frozen: Frozen) -> Any:
    part = object.__new__(frozen[0])
    for name, value in zip(_names[frozen[0]], frozen[1], strict=True):
        part.__dict__[name] = _thaw(value)
    return part


def _thaw_struct(frozen: Frozen) -> Any:
    return frozen[0](*[_thaw(value) for value in frozen[1:]])


_THAWERS: dict[type, Callable[[Frozen], Any]] = {
    list: _thaw_many,
    tuple: _thaw_many,
    deque: _thaw_many,
    set: _thaw_many,
    dict: _thaw_map,
    OrderedDict: _thaw_map,
    **dict.fromkeys(_PASSING, _thaw_part),
}
