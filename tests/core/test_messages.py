"""The wire format of every message: it survives the trip, and its bytes stay what they are.

A changed golden value means that two versions no longer understand each other: new fields go to the
end, with a default.
"""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    AddMember,
    Group,
    Identify,
    Identity,
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
    Refusal,
    Reject,
    SessionOpened,
    Submit,
    SubmitReply,
)
from clusterconsensus.consensus.types import Ballot, Entry, EntryKind, Incarnation, Position
from clusterconsensus.simulation.cores.describe import describe

encode = msgspec.msgpack.Encoder().encode
decode = msgspec.msgpack.Decoder(Message).decode

BALLOT = Ballot(7, Incarnation("a@d1"))
HIGHER = Ballot(8, Incarnation("b@d2"))
LAST = Position(BALLOT, 41)
ENTRY = Entry(42, BALLOT, int(EntryKind.NOOP), 1.5, b"", 0)

EXAMPLES: list[Message] = [
    Probe(BALLOT, 3),
    ProbeReply(BALLOT, Refusal.STICKY, HIGHER, LAST),
    Prepare(BALLOT, 40, LAST),
    Promise(BALLOT, Refusal.NONE, BALLOT, LAST, (ENTRY,), True),
    PromisePull(BALLOT, 42),
    PromisePart(BALLOT, 42, (ENTRY,), False),
    Accept(BALLOT, LAST, (ENTRY,), 41, 5),
    Accepted(BALLOT, 42, 5, 41, 0xDEADBEEF),
    Reject(BALLOT, Refusal.GAP, BALLOT, 41, 12, 5),
    Submit(9, Group(3, 1, 2, 1, b"\x91\xc4\x03x=1")),
    SubmitReply(9, Refusal.NONE, (b"1", None)),
    OpenSession(77),
    SessionOpened(77, 3),
    ReadAsk(4),
    ReadTell(4, True, 41),
    AddMember(6, "d", "d:1"),
    MembershipReply(6, "no", True),
    Identify(6),
    Identity(6, "c1"),
    Quarantine(BALLOT, 41, 1, 2),
]

GOLDEN = {
    "Probe": "93019207a46140643103",
    "ProbeReply": "95029207a461406431029208a462406432929207a46140643129",
    "Prepare": "94039207a46140643128929207a46140643129",
    "Promise": (
        "97049207a461406431009207a461406431929207a4614064312991962a9207a46140643100cb3ff8"
        "000000000000c40000c3"
    ),
    "PromisePull": "93059207a4614064312a",
    "PromisePart": "95069207a4614064312a91962a9207a46140643100cb3ff8000000000000c40000c2",
    "Accept": (
        "96079207a461406431929207a4614064312991962a9207a46140643100cb3ff8000000000000c400002905"
    ),
    "Accepted": "96089207a4614064312a0529cedeadbeef",
    "Reject": "97099207a461406431049207a461406431290c05",
    "Submit": "930a099503010201c40691c403783d31",
    "SubmitReply": "950b090092c40131c000",
    "OpenSession": "920c4d",
    "SessionOpened": "930d4d03",
    "ReadAsk": "920e04",
    "ReadTell": "940f04c329",
    "AddMember": "941006a164a3643a31",
    "MembershipReply": "941106a26e6fc3",
    "Identify": "921206",
    "Identity": "931306a26331",
    "Quarantine": "95149207a461406431290102",
}


def test_every_message_has_an_example() -> None:
    kinds = {type(message) for message in EXAMPLES}
    assert kinds == set(get_args(Message))
    assert {kind.__name__ for kind in kinds} == set(GOLDEN)


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
