"""The wire format of every message: it survives the trip, and its bytes stay what they are.

A changed golden value means that two versions no longer understand each other: new fields go to the
end, with a default. ``golden/messages.txt`` holds a line for each kind, and one for each shorter
form in which programs of an earlier version send it; such a line is never changed or removed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest

from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Action,
    AddMember,
    ChangeMember,
    Group,
    Identify,
    Identity,
    JoinAsk,
    MembershipReply,
    Message,
    OpenSession,
    Prepare,
    Probe,
    ProbeReply,
    Promise,
    PromisePart,
    PromisePull,
    Quarantine,
    ReadAsk,
    ReadTell,
    RecoverAsk,
    RecoverTell,
    Refusal,
    Regressed,
    Reject,
    SessionOpened,
    SnapshotAck,
    StartParticipation,
    Submit,
    SubmitReply,
    TransferMaster,
)
from clusterconsensus.consensus.types import (
    NOWHERE,
    ZERO,
    Ballot,
    Entry,
    EntryKind,
    Incarnation,
    Position,
    SnapshotId,
)
from clusterconsensus.simulation.cores.describe import describe

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Message).decode

BALLOT = Ballot(7, Incarnation("a@d1"))
HIGHER = Ballot(8, Incarnation("b@d2"))
LAST = Position(BALLOT, 41)
ENTRY = Entry(42, BALLOT, int(EntryKind.NOOP), 1.5, b"", 0)
SNAPSHOT = SnapshotId(LAST, 70_000, 0xCAFEBABE)

EXAMPLES: list[Message] = [
    Probe(BALLOT, 3, 40, LAST),
    ProbeReply(BALLOT, Refusal.STICKY, HIGHER, LAST),
    Prepare(BALLOT, 40, LAST, HIGHER),
    Promise(BALLOT, Refusal.NONE, BALLOT, LAST, (ENTRY,), True),
    PromisePull(BALLOT, 42),
    PromisePart(BALLOT, 42, (ENTRY,), False),
    Accept(BALLOT, LAST, (ENTRY,), 41, 5, 2),
    Accepted(BALLOT, 42, 5, 41, 0xDEADBEEF, 2, True, True),
    Reject(BALLOT, Refusal.GAP, BALLOT, 41, 12, 5),
    Submit(9, Group(3, 1, 2, 1, b"\x91\xc4\x03x=1")),
    SubmitReply(9, Refusal.NONE, (b"1", None)),
    OpenSession(77),
    SessionOpened(77, 3),
    ReadAsk(4, True),
    ReadTell(4, True, 41),
    AddMember(6, "d", "d:1"),
    MembershipReply(6, "no", True),
    Identify(6),
    Identity(6, "c1"),
    Quarantine(BALLOT, 41, 1, 2),
    StartParticipation(BALLOT, SNAPSHOT, 65_536, b"piece", 0x12345678),
    SnapshotAck(BALLOT, SNAPSHOT, 65_541, 12),
    RecoverAsk(2**53 - 1),
    RecoverTell(BALLOT, 2**53 - 1, 41),
    TransferMaster(BALLOT, 41),
    ChangeMember(6, Action.PRIORITY, "d", "d:1", 3, True),
    JoinAsk(6, "d", "d:1", True, 3),
    Regressed(BALLOT, Position(BALLOT, 41)),
]

EARLIER: dict[str, Message] = {
    "Probe of 2": Probe(BALLOT, 3, 0, NOWHERE),
    "Prepare of 3": Prepare(BALLOT, 40, LAST, ZERO),
    "Accept of 5": Accept(BALLOT, LAST, (ENTRY,), 41, 5, 1),
    "Accepted of 5": Accepted(BALLOT, 42, 5, 41, 0xDEADBEEF, 1, False, False),
    "ReadAsk of 1": ReadAsk(4, False),
}
"""What version 0.1 sends, as it is understood now."""


def golden_lines() -> dict[str, str]:
    lines = (Path(__file__).parent / "golden" / "messages.txt").read_text().splitlines()
    pairs = (line.split(": ") for line in lines if line and not line.startswith("#"))
    return {name: data for name, data in pairs if name}


GOLDEN = golden_lines()


def test_every_message_has_an_example() -> None:
    kinds = {type(message) for message in EXAMPLES}
    assert kinds == set(get_args(Message))
    assert {kind.__name__ for kind in kinds} | set(EARLIER) == set(GOLDEN)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_it_survives_the_trip(message: Message) -> None:
    arrived = decode(encode(message))
    assert arrived == message
    assert type(arrived) is type(message)
    assert describe(arrived)


@pytest.mark.parametrize("message", EXAMPLES, ids=lambda message: type(message).__name__)
def test_its_bytes_stay_what_they_are(message: Message) -> None:
    golden = GOLDEN[type(message).__name__]
    assert encode(message).hex() == golden
    assert decode(bytes.fromhex(golden)) == message


def test_tags_are_distinct_and_first() -> None:
    tags = [encode(message)[1] for message in EXAMPLES]
    assert tags == list(range(1, len(EXAMPLES) + 1))


@pytest.mark.parametrize(
    "data", [b"", b"\x90", b"\x91\x63", b"\xc0", b"\x92\x01\x01", encode(EXAMPLES[0])[:-1]]
)
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode(data)


def test_the_highest_instance_travels() -> None:
    message = Probe(Ballot(2**64 - 1, Incarnation("a@d1")), 0)
    assert decode(encode(message)) == message


@pytest.mark.parametrize("name", list(EARLIER))
def test_what_an_earlier_version_sends_is_still_understood(name: str) -> None:
    arrived = decode(bytes.fromhex(GOLDEN[name]))
    assert arrived == EARLIER[name]


@pytest.mark.parametrize("name", list(EARLIER))
def test_an_earlier_version_overlooks_what_is_new(name: str) -> None:
    """It was made with fewer fields, and reads what has more."""
    kind, _, count = name.partition(" of ")
    (message,) = (each for each in EXAMPLES if type(each).__name__ == kind)
    fields = [
        (field.name, field.type) for field in msgspec.structs.fields(type(message))[: int(count)]
    ]
    earlier: Any = msgspec.defstruct(
        kind, fields, frozen=True, array_like=True, tag=encode(message)[1]
    )
    arrived = msgspec.msgpack.decode(encode(message), type=earlier)
    assert msgspec.structs.astuple(arrived) == msgspec.structs.astuple(message)[: int(count)]


def test_no_message_of_an_earlier_version_has_become_longer_unnoticed() -> None:
    """What an earlier version sends in full is all that it sends: every field behind is new, has a
    default, and is listed here."""
    grown = {name.partition(" of ")[0]: int(name.partition(" of ")[2]) for name in EARLIER}
    for message in EXAMPLES[:20]:
        kind = type(message).__name__
        old, new = msgspec.msgpack.decode(encode(message)), bytes.fromhex(GOLDEN[kind])
        assert old == msgspec.msgpack.decode(new)
        fields = msgspec.structs.fields(type(message))
        for field in fields[grown.get(kind, len(fields)) :]:
            assert not field.required


def test_refusals_and_actions_keep_their_numbers() -> None:
    assert {refusal.name: int(refusal) for refusal in Refusal} == {
        "NONE": 0,
        "LOWER": 1,
        "STICKY": 2,
        "NOT_MEMBER": 3,
        "GAP": 4,
        "NOT_APPENDED": 5,
        "OVERLOADED": 6,
        "COMPACTED": 7,
        "RECOVERING": 8,
        "REMOVED": 9,
        "LOST": 10,
    }
    assert {action.name: int(action) for action in Action} == {
        "ADD": 0,
        "ADD_LEARNER": 1,
        "REMOVE": 2,
        "REPLACE": 3,
        "MOVE": 4,
        "PROMOTE": 5,
        "DEMOTE": 6,
        "PRIORITY": 7,
        "TRANSFER": 8,
    }
