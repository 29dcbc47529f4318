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
    encode_saved,
    encode_session_order,
    is_well_formed,
)
from clusterconsensus.consensus.types import incarnation
from clusterconsensus.errors import SnapshotError
from tests.core.one import A, B, C


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


# -- in a snapshot


def a_table() -> SessionTable:
    table = SessionTable()
    table.open(5, NewSession(A, 1), 1.0)
    table.open(7, NewSession(B, 2**60), 2.5)
    session = table.get(5)
    assert session is not None
    session.outcomes.update({1: b"x", 2: b"\x00", 4: b"late", 3: b""})
    session.acknowledge(2)
    session.last_time = 9.5
    return table


def test_a_restored_table_is_the_same_table() -> None:
    """X1: whatever is asked of either, the answers are alike."""
    table, restored = a_table(), SessionTable()
    restored.open(3, NewSession(C, 1), 0.0)
    restored.restore(table.export())
    assert restored.export() == table.export()
    assert (len(restored), restored.get(3)) == (2, None)
    held = restored.get(5)
    assert held is not None
    assert (held.number, held.owner, held.nonce) == (5, A, 1)
    assert (held.last_time, held.acked_below) == (9.5, 2)
    assert held.outcomes == {2: b"\x00", 4: b"late", 3: b""}
    for each in (table, restored):
        assert each.idle(5.0, 10) == CloseSessions(((7, 2.5),))
        assert each.open(9, NewSession(A, 1), 10.0) == 5
        assert each.open(10, NewSession(B, 3), 10.0) == 0
        assert each.open(11, NewSession(C, 1), 10.0) == 11
        session = each.get(5)
        assert session is not None
        session.acknowledge(4)
        session.outcomes[5] = b"new"
    assert restored.export() == table.export()


def test_what_is_saved_does_not_change_any_more() -> None:
    table = a_table()
    before = table.export()
    saved = table.save()
    session = table.get(5)
    assert session is not None
    session.outcomes[9] = b"after"
    session.acknowledge(3)
    table.close(CloseSessions(((7, 2.5),)))
    assert list(encode_saved(saved)) == before
    assert table.export() != before


def test_the_order_of_a_table_is_that_of_its_opening() -> None:
    table = SessionTable()
    for seq, owner in ((5, C), (6, A), (7, B), (8, C)):
        table.open(seq, NewSession(owner, seq), 1.0)
    restored = SessionTable()
    restored.restore(table.export())
    assert [piece.number for piece in restored.save()] == [6, 7, 8]


@pytest.mark.parametrize("piece", [b"", b"\xc1", b"\x91" * 100_000, b"\x90"])
def test_what_is_no_session_is_refused_and_changes_nothing(piece: bytes) -> None:
    table = a_table()
    before = table.export()
    with pytest.raises(SnapshotError, match="session 1 of a snapshot"):
        table.restore([before[0], piece])
    assert table.export() == before


def test_a_session_twice_is_refused() -> None:
    table = a_table()
    pieces = table.export()
    with pytest.raises(SnapshotError, match="in it twice"):
        table.restore([*pieces, pieces[0]])
    assert table.export() == pieces


def test_saving_ten_thousand_sessions_is_quick() -> None:
    table = SessionTable()
    for number in range(1, 10_001):
        table.open(number, NewSession(incarnation("m", str(number)), 1), 1.0)
        session = table.get(number)
        assert session is not None
        session.outcomes = dict.fromkeys(range(5), bytes(50))
    table.save()
    began = time.process_time()
    saved = table.save()
    assert time.process_time() - began < 0.5
    assert len(saved) == 10_000
