"""The gate: what gets through to the core, and what is counted and dropped."""

from __future__ import annotations

import logging

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterconsensus.consensus.messages import (
    Accept,
    Identify,
    Identity,
    JoinAsk,
    MembershipReply,
    Message,
    Probe,
    ReadAsk,
    Submit,
)
from clusterconsensus.consensus.types import (
    Ballot,
    Entry,
    EntryKind,
    Incarnation,
    Member,
    Position,
    incarnation,
)
from clusterconsensus.runtime.envelope import (
    MAX_KNOWN_ADDRESSES,
    MAX_KNOWN_HEADERS,
    VERSION,
    Arrival,
    Gate,
    Header,
    encode_message,
)
from tests.runtime.helpers import group, request

A = Member("a", "10.0.0.1:1")
B = Member("b", "10.0.0.2:1")
DISK_A, DISK_B = "d1", "d2"
NAME_B = incarnation("b", DISK_B)
BALLOT = Ballot(3, NAME_B)
ACCEPT = Accept(BALLOT, Position(BALLOT, 0), (), 0, 1)
PROBE = Probe(BALLOT, 0)


def gate(cluster_id: str = "c1") -> Gate:
    """The gate of member a."""
    return Gate(A, DISK_A, cluster_id)


def sent(
    message: Message,
    *,
    cluster_id: str = "c1",
    to_id: str = "a",
    to_disk: str = DISK_A,
    member: Member = B,
    disk: str = DISK_B,
) -> bytes:
    """A message as member b sends it."""
    return Gate(member, disk, cluster_id).header(to_id, to_disk) + encode_message(message)


def raw(header: object, message: Message = PROBE) -> bytes:
    packed = msgspec.msgpack.encode(header)
    return len(packed).to_bytes(2, "big") + packed + encode_message(message)


def test_a_message_gets_through_with_its_source() -> None:
    message = Submit(4, group(2, 1, request("x"), request("y", "z")))
    arrival = gate().admit(sent(message))
    assert arrival == Arrival(NAME_B, B, "c1", message)


def test_entries_come_through_intact() -> None:
    entries = tuple(
        Entry.make(seq, BALLOT, EntryKind.CHANGES, 1.25, b"\x00payload") for seq in (1, 2)
    )
    arrival = gate().admit(sent(Accept(BALLOT, Position(BALLOT, 0), entries, 0, 1)))
    assert arrival is not None
    assert isinstance(arrival.message, Accept)
    assert arrival.message.entries == entries
    assert all(entry.intact() for entry in arrival.message.entries)


@pytest.mark.parametrize("message", [ACCEPT, PROBE, ReadAsk(1)])
def test_another_cluster_on_the_same_port_is_refused(
    message: Message, caplog: pytest.LogCaptureFixture
) -> None:
    """C-45."""
    own = gate()
    foreign = sent(message, cluster_id="c2")
    with caplog.at_level(logging.WARNING, "clusterconsensus.envelope"):
        for _ in range(3):
            assert own.admit(foreign) is None
    assert own.dropped == {"cluster": 3}
    assert len(caplog.records) == 1, "it is logged once"
    assert "c2" in caplog.text


def test_a_member_without_a_cluster_is_refused_by_one_that_has_one() -> None:
    own = gate()
    assert own.admit(sent(PROBE, cluster_id="")) is None
    assert own.dropped == {"cluster": 1}


def test_an_unjoined_member_listens_only_to_a_master_that_knows_its_disk() -> None:
    """I1, I2."""
    own = gate("")
    assert own.admit(sent(PROBE)) is None
    assert own.admit(sent(ReadAsk(1))) is None
    assert own.admit(sent(ACCEPT, to_disk="")) is None
    assert own.admit(sent(ACCEPT, cluster_id="")) is None
    assert own.dropped == {"cluster": 4}
    arrival = own.admit(sent(ACCEPT))
    assert arrival is not None
    assert arrival.cluster_id == "c1"
    own.cluster_id = "c1"
    assert own.admit(sent(PROBE)) is not None
    assert own.admit(sent(ACCEPT, cluster_id="c2")) is None


def test_who_are_you_passes_between_clusters() -> None:
    for own in (gate(), gate("")):
        assert own.admit(sent(Identify(1), cluster_id="c2", to_disk="")) is not None
        assert own.admit(sent(Identity(1, "c2"), cluster_id="c2")) is not None


def test_who_are_you_is_answered_by_whoever_is_there() -> None:
    """So that the asker can say who it found instead of hearing nothing."""
    own = gate()
    assert own.admit(sent(Identify(1), to_id="z", to_disk="")) is not None
    assert own.admit(sent(Identity(1, "c1"), to_id="z", to_disk="")) is None
    assert own.dropped == {"destination": 1}


JOIN = JoinAsk(1, "b", B.address)


def test_whoever_wants_to_join_knows_only_an_address() -> None:
    own = gate()
    for to_id in ("", "a"):
        arrival = own.admit(sent(JOIN, cluster_id="", to_id=to_id, to_disk=""))
        assert arrival == Arrival(NAME_B, B, "", JOIN)
    assert own.address_of(NAME_B) == B
    assert gate("").admit(sent(JOIN, cluster_id="", to_id="", to_disk="")) is not None
    assert own.admit(sent(JOIN, to_id="", to_disk="")) is not None, "a learner of this cluster"
    assert own.admit(sent(JOIN, cluster_id="", to_id="z", to_disk="")) is None
    assert own.admit(sent(JOIN, cluster_id="", to_id="", to_disk="other")) is None
    assert own.dropped == {"destination": 2}
    assert own.admit(sent(JOIN, cluster_id="c2", to_id="", to_disk="")) is None
    assert own.dropped == {"destination": 2, "cluster": 1}


@pytest.mark.parametrize("message", [PROBE, ACCEPT, ReadAsk(1), MembershipReply(1, "", False)])
def test_nothing_else_is_for_whoever_is_there(message: Message) -> None:
    own = gate()
    assert own.admit(sent(message, to_id="", to_disk="")) is None
    assert own.dropped == {"destination": 1}


def test_an_unjoined_member_hears_what_became_of_its_question() -> None:
    reply = MembershipReply(1, "no", False)
    own = gate("")
    assert own.admit(sent(reply)) is not None
    assert own.admit(sent(reply, cluster_id="")) is not None, "the other is in none either"
    assert own.admit(sent(reply, to_disk="")) is None
    assert own.dropped == {"cluster": 1}
    joined = gate()
    assert joined.admit(sent(reply)) is not None
    assert joined.admit(sent(reply, cluster_id="c2")) is None


@pytest.mark.parametrize(("to_id", "to_disk"), [("z", DISK_A), ("z", ""), ("a", "old")])
def test_what_is_for_another_member_or_disk_is_dropped(to_id: str, to_disk: str) -> None:
    own = gate()
    assert own.admit(sent(PROBE, to_id=to_id, to_disk=to_disk)) is None
    assert own.dropped == {"destination": 1}


def test_a_destination_without_a_disk_is_whoever_has_the_id() -> None:
    assert gate().admit(sent(PROBE, to_disk="")) is not None


def test_a_clone_of_this_member_is_not_heard() -> None:
    own = gate()
    assert own.admit(sent(PROBE, member=A, disk=DISK_A)) is None
    assert own.dropped == {"self": 1}
    assert own.admit(sent(PROBE, member=A, disk="other")) is not None


def test_another_version_is_dropped() -> None:
    own = gate()
    header = Header(VERSION + 1, "c1", "b", DISK_B, B.address, "a", DISK_A)
    assert own.admit(raw(header)) is None
    assert own.dropped == {"version": 1}


DEEP = b"\x91" * 60_000


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00",
        b"\xff\xff",
        b"\x00\x00",
        sent(PROBE)[:-1],
        sent(PROBE) + b"\x00",
        raw([VERSION, "c1", "b", DISK_B, B.address, "a"]),
        raw([str(VERSION), "c1", "b", DISK_B, B.address, "a", DISK_A]),
        gate().header("a", DISK_A) + b"\x92\x63\x01",
        gate().header("a", DISK_A) + b"\x93\x01\x92\x01\xa1\xff\x05",
        gate().header("a", DISK_A) + b"\x94\x01\x92\x01\xa1b\x05" + DEEP,
        gate().header("a", DISK_A)
        + b"\x96\x07\x92\x01\xa1b\x92\x92\x01\xa1b\x00\xdd\xff\xff\xff\xff",
        len(DEEP).to_bytes(2, "big") + DEEP,
        b"\x00\x11\x97\x01\xa1\xff\xa1b\xa1e\xa1h\xa1a\xa1d" + encode_message(PROBE),
    ],
    ids=range(14),
)
def test_what_does_not_decode_is_dropped(data: bytes) -> None:
    own = gate()
    assert own.admit(data) is None
    assert own.dropped == {"garbled": 1}


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(data: bytes) -> None:
    own = gate()
    assert own.admit(data) is None
    assert sum(own.dropped.values()) == 1


@given(st.binary(max_size=60))
def test_arbitrary_bytes_behind_a_good_header_never_raise(body: bytes) -> None:
    own = gate()
    own.admit(Gate(B, DISK_B, "c1").header("a", DISK_A) + body)


@given(st.data())
def test_a_good_message_with_one_byte_altered_never_raises(data: st.DataObject) -> None:
    entry = Entry.make(1, BALLOT, EntryKind.CHANGES, 1.0, b"payload")
    good = bytearray(sent(Accept(BALLOT, Position(BALLOT, 0), (entry,), 0, 1)))
    place = data.draw(st.integers(0, len(good) - 1))
    good[place] = data.draw(st.integers(0, 255))
    gate().admit(bytes(good))


def test_the_address_of_a_stranger_is_remembered() -> None:
    own = gate()
    assert own.address_of(NAME_B) is None
    own.admit(sent(PROBE))
    assert own.address_of(NAME_B) == B
    moved = Member("b", "10.0.0.9:1")
    own.admit(sent(PROBE, member=moved))
    assert own.address_of(NAME_B) == moved


def test_headers_follow_the_cluster_id() -> None:
    own = gate("")
    before = own.header("b", DISK_B)
    own.cluster_id = "c9"
    after = own.header("b", DISK_B)
    assert before != after
    assert own.header("b", DISK_B) is after, "and are made once"


def test_memory_is_bounded() -> None:
    own = gate()
    for number in range(3 * MAX_KNOWN_HEADERS):
        other = Member(f"m{number}", f"10.0.0.2:{number}")
        assert own.admit(sent(PROBE, member=other, disk=str(number))) is not None
        assert own.admit(sent(PROBE, cluster_id=f"c-{number}", member=other)) is None
        own.header(f"m{number}", "d")
    assert len(own._trusted) <= MAX_KNOWN_HEADERS
    assert len(own._packed) <= MAX_KNOWN_HEADERS
    assert len(own._logged) <= MAX_KNOWN_HEADERS
    assert len(own._addresses) <= MAX_KNOWN_ADDRESSES
    assert own.dropped == {"cluster": 3 * MAX_KNOWN_HEADERS}
    assert Incarnation("m0@0") not in own._addresses
