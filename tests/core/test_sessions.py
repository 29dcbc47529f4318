"""The session table: the same on every member, whatever arrives how often."""

from __future__ import annotations

import time

import pytest

from clusterconsensus.consensus.messages import Group
from clusterconsensus.consensus.sessions import (
    CloseSessions,
    NewSession,
    SessionTable,
    decode_session_order,
    encode_requests,
    encode_session_order,
    is_well_formed,
)
from tests.core.one import A, B


def test_a_session_is_opened_once_per_nonce() -> None:
    table = SessionTable()
    assert table.open(5, NewSession(A, 1), 1.0) == 5
    assert table.open(6, NewSession(A, 1), 2.0) == 5
    assert len(table) == 1
    session = table.get(5)
    assert session is not None
    assert session.last_time == 2.0


def test_a_later_start_replaces_the_earlier_session() -> None:
    table = SessionTable()
    table.open(5, NewSession(A, 1), 1.0)
    assert table.open(7, NewSession(A, 2), 2.0) == 7
    assert table.get(5) is None
    assert table.open(8, NewSession(A, 1), 3.0) == 0
    assert len(table) == 1


def test_owners_have_sessions_of_their_own() -> None:
    table = SessionTable()
    assert table.open(5, NewSession(A, 1), 1.0) != table.open(6, NewSession(B, 1), 1.0)
    assert len(table) == 2


def test_outcomes_are_kept_until_they_are_acknowledged() -> None:
    table = SessionTable()
    table.open(5, NewSession(A, 1), 1.0)
    session = table.get(5)
    assert session is not None
    session.outcomes.update(dict.fromkeys(range(1, 6), b"x"))
    session.acknowledge(4)
    assert sorted(session.outcomes) == [4, 5]
    session.acknowledge(2)
    assert session.acked_below == 4
    session.acknowledge(100)
    assert not session.outcomes
    assert session.acked_below == 100


def test_acknowledging_far_ahead_is_quick() -> None:
    table = SessionTable()
    table.open(5, NewSession(A, 1), 1.0)
    session = table.get(5)
    assert session is not None
    session.outcomes[2**60 + 1] = b"x"
    began = time.process_time()
    session.acknowledge(2**60)
    assert time.process_time() - began < 1.0
    assert list(session.outcomes) == [2**60 + 1]


def test_idle_sessions_are_closed_only_if_still_idle() -> None:
    table = SessionTable()
    table.open(5, NewSession(A, 1), 1.0)
    table.open(6, NewSession(B, 1), 9.0)
    order = table.idle(5.0, 10)
    assert order == CloseSessions(((5, 1.0),))
    session = table.get(5)
    assert session is not None
    session.last_time = 6.0
    table.close(order)
    assert table.get(5) is not None
    table.close(CloseSessions(((5, 6.0), (99, 1.0))))
    assert table.get(5) is None
    assert table.idle(5.0, 10) is None
    assert table.open(10, NewSession(A, 1), 9.0) == 10


def test_beyond_the_limit_the_longest_idle_goes() -> None:
    table = SessionTable()
    table.open(5, NewSession(A, 1), 3.0)
    table.open(6, NewSession(B, 1), 2.0)
    assert table.idle(0.0, 1) == CloseSessions(((6, 2.0),))


def test_orders_survive_their_encoding() -> None:
    for order in (NewSession(A, 7), CloseSessions(((5, 1.5), (6, 2.5)))):
        assert decode_session_order(encode_session_order(order)) == order


@pytest.mark.parametrize(
    ("first", "acked_below", "count", "fine"),
    [
        (5, 0, 2, True),
        (5, 5, 2, True),
        (5, 6, 2, False),
        (5, -1, 2, False),
        (5, 1, 1, False),
        (5, 1, 3, False),
        (-5, -5, 2, False),
    ],
)
def test_a_group_holds_what_it_says(first: int, acked_below: int, count: int, fine: bool) -> None:
    body = encode_requests([b"x", b"y"])
    group = Group(session=1, acked_below=acked_below, first=first, count=count, body=body)
    assert is_well_formed(group) is fine


@pytest.mark.parametrize("body", [encode_requests([]), b"", b"\xc1", b"\x91" * 100_000])
def test_a_group_of_nothing_is_none(body: bytes) -> None:
    assert not is_well_formed(Group(session=1, acked_below=0, first=1, count=0, body=body))
