"""Majorities."""

from __future__ import annotations

from itertools import combinations

import pytest

from clusterconsensus.consensus.quorum import is_majority, majority_size, majority_value
from clusterconsensus.consensus.types import Incarnation
from tests.core.one import A, B, C, D


@pytest.mark.parametrize(("voters", "size"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4)])
def test_sizes(voters: int, size: int) -> None:
    assert majority_size(voters) == size


def test_majorities_of_adjacent_voter_sets_share_a_member() -> None:
    names = [Incarnation(f"{number}@1") for number in range(7)]
    for count in range(1, 7):
        smaller, larger = names[:count], names[: count + 1]
        for one in combinations(smaller, majority_size(len(smaller))):
            for other in combinations(larger, majority_size(len(larger))):
                assert set(one) & set(other)


def test_only_voters_count() -> None:
    assert not is_majority((A, B, C), {A, D})
    assert is_majority((A, B, C), {A, C, D})
    assert not is_majority((), {A})


def test_the_value_a_majority_has_reached() -> None:
    assert majority_value((A, B, C), {A: 9, B: 5, C: 2}, 0) == 5
    assert majority_value((A, B, C), {A: 9, D: 8}, 0) == 0
    assert majority_value((A, B, C, D), {A: 9, B: 8, C: 7, D: 6}, 0) == 7
    assert majority_value((A,), {A: 9}, 0) == 9
    assert majority_value((), {A: 9}, -1) == -1
