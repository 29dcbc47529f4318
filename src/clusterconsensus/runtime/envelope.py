"""The envelope around every message: which cluster, from whom, to whom (I4).

::

    length of the header (2 bytes, big endian) | header | message

Header and message are MessagePack. A header seldom changes, so both sides keep the ones they have
seen. ``Gate`` decides, for every transport alike, what gets through to the core: anything of
another cluster, for another member or disk, or that does not decode, is counted, logged once and
dropped (section 9).
"""

from __future__ import annotations

import logging
from collections import Counter

import msgspec

from clusterconsensus.consensus.messages import (
    Accept,
    Identify,
    Identity,
    JoinAsk,
    MembershipReply,
    Message,
)
from clusterconsensus.consensus.types import Incarnation, Member, incarnation

logger = logging.getLogger("clusterconsensus.envelope")

VERSION = 1
MAX_KNOWN_HEADERS = 1_024
MAX_KNOWN_ADDRESSES = 1_024


class Header(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Who speaks to whom. ``cluster_id`` and ``to_disk`` are empty where they are not known yet."""

    version: int
    cluster_id: str
    source_id: str
    source_disk: str
    source_address: str
    to_id: str
    to_disk: str


_encode = msgspec.msgpack.Encoder().encode
_decode_header = msgspec.msgpack.Decoder(Header).decode
_decode_message = msgspec.msgpack.Decoder(Message).decode
encode_message = _encode


class Arrival(msgspec.Struct, frozen=True, gc=False):
    """A message that got through. ``cluster_id`` is the sender's."""

    source: Incarnation
    address: Member
    cluster_id: str
    message: Message


class Gate:
    """Packs what leaves and checks what arrives, for one member.

    Arguments:
        member: This member.
        disk_id: Its disk.
        cluster_id: Its cluster, empty while it belongs to none; set ``cluster_id`` when it joins.
    """

    def __init__(self, member: Member, disk_id: str, cluster_id: str) -> None:
        self.member = member
        self.disk_id = disk_id
        self.name = incarnation(member.id, disk_id)
        self.dropped: Counter[str] = Counter()
        self._cluster_id = cluster_id
        self._packed: dict[tuple[str, str], bytes] = {}
        self._trusted: dict[bytes, tuple[Incarnation, Member]] = {}
        """Headers that were found good for any message, and whom they name."""
        self._logged: set[str] = set()
        self._addresses: dict[Incarnation, Member] = {}

    @property
    def cluster_id(self) -> str:
        return self._cluster_id

    @cluster_id.setter
    def cluster_id(self, value: str) -> None:
        self._cluster_id = value
        self._packed.clear()
        self._trusted.clear()

    def address_of(self, name: Incarnation) -> Member | None:
        """Where a member outside the configuration was last heard from."""
        return self._addresses.get(name)

    def header(self, to_id: str, to_disk: str) -> bytes:
        """The packed header for a destination; ``to_disk`` may be empty."""
        packed = self._packed.get((to_id, to_disk))
        if packed is None:
            header = Header(
                VERSION,
                self._cluster_id,
                self.member.id,
                self.disk_id,
                self.member.address,
                to_id,
                to_disk,
            )
            encoded = _encode(header)
            packed = len(encoded).to_bytes(2, "big") + encoded
            if len(self._packed) >= MAX_KNOWN_HEADERS:
                self._packed.clear()
            self._packed[to_id, to_disk] = packed
        return packed

    def admit(self, data: bytes) -> Arrival | None:
        """Decode and check one message; None if it is to be dropped."""
        size = int.from_bytes(data[:2], "big")
        packed = data[2 : 2 + size]
        trusted = self._trusted.get(packed)
        try:
            header = _decode_header(packed) if trusted is None else None
            message = _decode_message(memoryview(data)[2 + size :])
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            # Text that is none, and nesting without end, come out of msgspec as they are.
            self._drop("garbled", f"a message does not decode: {error}")
            return None
        if trusted is not None:
            return Arrival(trusted[0], trusted[1], self._cluster_id, message)
        return None if header is None else self._check(packed, header, message)

    def _check(self, packed: bytes, header: Header, message: Message) -> Arrival | None:
        """Judge a header that was not seen before, or that does not speak for every message."""
        sender = f"{header.source_id!r} at {header.source_address}"
        if header.version != VERSION:
            self._drop("version", f"{sender} speaks version {header.version}, not {VERSION}")
            return None
        asked_who = isinstance(message, Identify)  # whoever is here answers for itself (I2)
        # A member that wants to join knows an address, and not yet whose it is.
        asked_who = asked_who or (isinstance(message, JoinAsk) and not header.to_id)
        known = header.to_id == self.member.id or asked_who
        if not known or header.to_disk not in ("", self.disk_id):
            wanted = f"{header.to_id!r} (disk {header.to_disk or 'any'})"
            self._drop("destination", f"{sender} wants {wanted}, this is {self.name!r}")
            return None
        if not self._same_cluster(header, message):
            self._drop(
                "cluster", f"{sender} belongs to cluster {header.cluster_id}, not {self.cluster_id}"
            )
            return None
        source = incarnation(header.source_id, header.source_disk)
        if source == self.name:
            self._drop("self", f"{sender} claims to be this member")
            return None
        address = Member(header.source_id, header.source_address)
        if self._addresses.get(source) != address:
            if len(self._addresses) >= MAX_KNOWN_ADDRESSES:
                self._addresses.clear()
            self._addresses[source] = address
        if (
            self._cluster_id
            and header.cluster_id == self._cluster_id
            and header.to_id == self.member.id
        ):
            if len(self._trusted) >= MAX_KNOWN_HEADERS:
                self._trusted.clear()
            self._trusted[packed] = (source, address)
        return Arrival(source, address, header.cluster_id, message)

    def _same_cluster(self, header: Header, message: Message) -> bool:
        """Members of one cluster speak; others may only ask and tell who they are. A member that
        belongs to none may ask to be taken in, hear what became of that, and be taken in (I1)."""
        if isinstance(message, Identify | Identity):
            return True
        if isinstance(message, JoinAsk):
            return header.cluster_id in ("", self._cluster_id)
        if not self._cluster_id:
            taken_in = isinstance(message, Accept) and bool(header.cluster_id)
            answered = isinstance(message, MembershipReply)
            return (taken_in or answered) and header.to_disk == self.disk_id
        return header.cluster_id == self._cluster_id

    def _drop(self, reason: str, detail: str) -> None:
        self.dropped[reason] += 1
        if detail not in self._logged and len(self._logged) < MAX_KNOWN_HEADERS:
            self._logged.add(detail)
            logger.warning("%s: dropped a message: %s", self.member.id, detail)
