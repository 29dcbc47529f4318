"""Majorities: pure predicates over sets of distinct voters.

Two majorities of one voter set share a member, and so do majorities of two sets that differ by one
member: all of the protocol's safety rests on this, and on nothing cleverer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TypeVar

from clusterconsensus.consensus.types import Incarnation

ValueT = TypeVar("ValueT", int, float)


def majority_size(voters: int) -> int:
    """How many of this many voters are a majority: 1 of 1, 2 of 2, 2 of 3, 3 of 4."""
    return voters // 2 + 1


def is_majority(voters: Sequence[Incarnation], granted: Collection[Incarnation]) -> bool:
    """Whether ``granted`` holds a majority of ``voters``; whoever is no voter never counts."""
    if not voters:
        return False
    return sum(voter in granted for voter in voters) >= majority_size(len(voters))


def majority_value(
    voters: Sequence[Incarnation], values: Mapping[Incarnation, ValueT], missing: ValueT
) -> ValueT:
    """The highest value that a majority of the voters has reached.

    A voter that ``values`` does not name counts as ``missing``; without voters nothing is reached.
    """
    if not voters:
        return missing
    reached = sorted((values.get(voter, missing) for voter in voters), reverse=True)
    return reached[majority_size(len(voters)) - 1]
