"""The nouns: order, names, checksums."""

from __future__ import annotations

import msgspec
import pytest

from clusterconsensus.consensus.types import (
    ZERO,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Member,
    Position,
    SnapshotId,
    Standing,
    incarnation,
    member_id_of,
)
from tests.core.one import A, B, C, D, noop, seat


def test_ballots_are_ordered_by_instance_and_then_by_owner() -> None:
    assert ZERO < Ballot(1, A) < Ballot(1, B) < Ballot(2, A)
    assert str(Ballot(2, A)) == "2:a"


def test_positions_are_ordered_by_ballot_before_length() -> None:
    assert Position(Ballot(1, A), 9) < Position(Ballot(2, A), 3) < Position(Ballot(2, A), 4)


def test_an_incarnation_is_an_id_and_a_disk() -> None:
    name = incarnation("a", "4f1c")
    assert member_id_of(name) == "a"
    assert name != incarnation("a", "77aa")


@pytest.mark.parametrize(
    "other",
    [
        Entry.make(2, Ballot(1, A), EntryKind.CHANGES, 1.0, b"x"),
        Entry.make(1, Ballot(2, A), EntryKind.CHANGES, 1.0, b"x"),
        Entry.make(1, Ballot(1, B), EntryKind.CHANGES, 1.0, b"x"),
        Entry.make(1, Ballot(1, A), EntryKind.SESSION, 1.0, b"x"),
        Entry.make(1, Ballot(1, A), EntryKind.CHANGES, 2.0, b"x"),
        Entry.make(1, Ballot(1, A), EntryKind.CHANGES, 1.0, b"y"),
    ],
)
def test_the_checksum_covers_every_field(other: Entry) -> None:
    entry = Entry.make(1, Ballot(1, A), EntryKind.CHANGES, 1.0, b"x")
    assert entry.intact()
    forged = Entry(other.seq, other.ballot, other.kind, other.time, other.payload, entry.crc)
    assert not forged.intact()


def test_a_configuration_knows_its_voters_and_seats() -> None:
    learner = seat(C, Standing.LEARNER, True)
    configuration = Configuration((seat(A), seat(B), learner))
    assert configuration.voters == (A, B)
    assert configuration.everyone == (A, B, C)
    assert configuration.seat(C) == learner
    assert configuration.seat_of_id("c") == learner
    assert configuration.seat(incarnation("c", "another")) is None
    promoted = configuration.with_seat(seat(C), 7)
    assert promoted.voters == (A, B, C)
    assert promoted.previous_seq == 7


def test_an_entry_names_itself() -> None:
    assert str(noop(3, Ballot(2, B))) == "3@2:b NOOP"


def test_a_seat_knows_the_member_as_an_operator_names_it() -> None:
    held = seat(B)
    assert held.member == Member("b", "b:1")
    assert str(held.member) == "b (b:1)"
    assert held.incarnation == B


def test_an_entry_of_an_unknown_kind_can_be_named() -> None:
    """Whoever halts because of it says which it was."""
    entry = msgspec.structs.replace(noop(3, Ballot(2, B)), kind=77)
    assert str(entry).endswith("of the unknown kind 77")


def test_a_configuration_of_an_earlier_version_is_still_read() -> None:
    """It had no priorities and no removed members; it stands in logs and snapshots."""
    seats = [["a", "1", "a:1", "voter", False], ["b", "1", "b:1", "learner", True]]
    data = msgspec.msgpack.encode([seats, 7, b"state"])
    found = msgspec.msgpack.decode(data, type=Configuration)
    assert found == Configuration(
        (seat(A), seat(B, Standing.LEARNER, True)), previous_seq=7, initial=b"state"
    )
    assert [held.priority for held in found.seats] == [1, 1]
    assert found.removed == ()


def test_who_was_removed_is_remembered_in_order_and_within_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("clusterconsensus.consensus.types.MAX_REMOVED", 2)
    first = Configuration((seat(A), seat(B), seat(C)))
    second = first.without_seat(A, 4)
    assert (second.voters, second.removed, second.previous_seq) == ((B, C), (A,), 4)
    third = second.with_seat(seat(D), 5)
    assert (third.everyone, third.removed) == ((B, C, D), (A,))
    last = third.without_seat(B, 6).without_seat(C, 7)
    assert (last.everyone, last.removed) == ((D,), (B, C))


def test_a_snapshot_is_known_by_its_end_and_its_bytes() -> None:
    snapshot = SnapshotId(Position(Ballot(2, A), 9), 100, 7)
    assert (snapshot.seq, str(snapshot)) == (9, "9@2:a (100 bytes)")
