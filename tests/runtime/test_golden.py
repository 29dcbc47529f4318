"""The bytes around every message stay what they are: two versions must understand each other.

A line of ``golden/envelope.txt`` is never changed or removed; another header needs another version.
"""

from __future__ import annotations

from pathlib import Path

from clusterconsensus.consensus.messages import Identify, Message, ReadAsk
from clusterconsensus.consensus.types import Member, incarnation
from clusterconsensus.runtime.envelope import Arrival, Gate, encode_message

A = Member("a", "10.0.0.1:4000")
B = Member("b", "10.0.0.2:4000")
DISK_A, DISK_B = "a" * 32, "b" * 32

EXAMPLES: dict[str, tuple[str, str, str, Message]] = {
    "to a known disk": ("c1", "b", DISK_B, ReadAsk(4)),
    "to a member": ("c1", "b", "", ReadAsk(4)),
    "to an address": ("c1", "b", "", Identify(6)),
    "of no cluster": ("", "b", "", Identify(6)),
}
"""The sender's cluster, the destination and the message."""


def golden() -> dict[str, bytes]:
    lines = (Path(__file__).parent / "golden" / "envelope.txt").read_text().splitlines()
    pairs = (line.split(": ") for line in lines if not line.startswith("#"))
    return {name: bytes.fromhex(data) for name, data in pairs}


def pack(name: str) -> bytes:
    cluster_id, to_id, to_disk, message = EXAMPLES[name]
    return Gate(A, DISK_A, cluster_id).header(to_id, to_disk) + encode_message(message)


def test_a_header_is_packed_as_ever() -> None:
    assert {name: pack(name) for name in EXAMPLES} == golden()


def test_a_header_is_read_as_ever() -> None:
    gate = Gate(B, DISK_B, "c1")
    for name, data in golden().items():
        cluster_id, _, _, message = EXAMPLES[name]
        assert gate.admit(data) == Arrival(incarnation("a", DISK_A), A, cluster_id, message)
    assert not gate.dropped


def test_a_header_of_another_version_is_told_apart() -> None:
    data = bytearray(golden()["to a known disk"])
    assert data[3] == 1, "the version comes first"
    data[3] = 2
    gate = Gate(B, DISK_B, "c1")
    assert gate.admit(bytes(data)) is None
    assert gate.dropped == {"version": 1}
