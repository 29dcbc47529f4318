"""The bytes that two transports exchange over a stream: preamble, frames, control messages.

A stream begins, in each direction, with eight bytes that never change their meaning: a magic and a
version. So a program that is not one of ours, or is one of another version, is told apart before
anything else of it is believed. What follows is a sequence of *frames*::

    length u32 | crc u32 | channel u32 | content (length bytes)      all numbers big-endian

``crc`` is the CRC-32 of the content, started from the channel number, so a flipped bit in either is
noticed; one in ``length`` moves the content and is noticed too. ``length`` is compared with a limit
before any memory is set aside for it.

Channel 0 carries the *control messages* below, in msgpack. Every other channel belongs to one
cluster: the dialer announces it with ``Open``, and its content is a participant's message, opaque
here. Streams are used in one direction: the dialer sends ``Hello``, ``Open``, ``Close`` and
messages; the acceptor answers with ``Welcome``, ``Refused`` and ``Accepted`` only.

``FrameParser`` turns received bytes into frames. It does no I/O, owns the buffer that the socket
is read into, and whatever the bytes are raises nothing but ``FrameError``.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from struct import Struct
from zlib import crc32

import msgspec

MAGIC = b"CLCONS"
VERSION = 1
PREAMBLE_BYTES = len(MAGIC) + 2
HEADER = Struct(">III")
HEADER_BYTES = HEADER.size
CONTROL = 0
"""The channel of the control messages."""
MAX_CHANNEL = 0xFFFF_FFFF

MAX_CONTROL_BYTES = 4096
"""The largest control message; what a stranger can make us buffer before it has said hello."""
MAX_NAME_BYTES = 255
"""The longest cluster name, member id, address or reason, so that a control message always fits."""
READ_BYTES = 256 * 1024
"""How much one read of a greeted connection may bring; the pages are only touched when used."""
_MIN_ROOM_BYTES = 4096


class Fault(StrEnum):
    """Why bytes from a peer were not believed."""

    FOREIGN = "foreign"
    """The stream does not begin as ours do."""
    VERSION = "version"
    """The other side speaks another version of this protocol."""
    OVERSIZED = "oversized"
    """A frame is longer than its limit."""
    CHECKSUM = "checksum"
    """A frame's content does not fit its checksum."""
    MALFORMED = "malformed"
    """A control message cannot be decoded, is out of place, or names a channel that is not open."""
    TRUNCATED = "truncated"
    """The stream ended inside a frame."""


Frame = tuple[int, bytes]
"""A channel and its content; a plain pair, for speed."""


class FrameError(Exception):
    """The stream cannot be read any further.

    ``fault`` is the kind, for counting; ``frames`` are the whole and intact frames that were found
    before the fault in the same piece of the stream.
    """

    def __init__(self, fault: Fault, detail: str, frames: list[Frame] | None = None):
        super().__init__(detail)
        self.fault = fault
        self.detail = detail
        self.frames = frames or []


class Hello(msgspec.Struct, frozen=True, array_like=True, tag="hello"):
    """The dialer's first message. ``address`` is where it listens, for people to read. ``run`` is
    random for each life of a transport: it tells a reconnection from a restart."""

    address: str
    run: int


class Open(msgspec.Struct, frozen=True, array_like=True, tag="open"):
    """The dialer announces a channel: messages on it are for ``cluster`` and come from the member
    ``id`` that is reached at ``address``. May be repeated after a refusal."""

    channel: int
    cluster: str
    id: str
    address: str


class Close(msgspec.Struct, frozen=True, array_like=True, tag="close"):
    """The dialer's member of this channel's cluster has left the process."""

    channel: int


class Welcome(msgspec.Struct, frozen=True, array_like=True, tag="welcome"):
    """The acceptor's answer to ``Hello``: messages may follow."""

    address: str


class Refused(msgspec.Struct, frozen=True, array_like=True, tag="refused"):
    """The acceptor does not take this channel; channel 0 means the whole connection, which it then
    closes."""

    channel: int
    reason: str


class Accepted(msgspec.Struct, frozen=True, array_like=True, tag="accepted"):
    """A channel that was refused is taken from now on: its cluster was attached meanwhile."""

    channel: int


Control = Hello | Open | Close | Welcome | Refused | Accepted

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Control] = msgspec.msgpack.Decoder(Control)


def preamble(version: int = VERSION) -> bytes:
    """The first bytes of a stream."""
    return MAGIC + version.to_bytes(2, "big")


def encode_frame(channel: int, parts: Iterable[bytes]) -> bytes:
    """One whole frame whose content is the concatenation of ``parts``."""
    content = b"".join(parts)
    return HEADER.pack(len(content), crc32(content, channel), channel) + content


def encode_control(message: Control) -> bytes:
    """One whole frame with a control message."""
    return encode_frame(CONTROL, (_encoder.encode(message),))


def decode_control(content: bytes) -> Control:
    """Read a control message.

    Raises:
        FrameError: it is none, or holds a name or a number out of its bounds.
    """
    try:
        message = _decoder.decode(content)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise FrameError(Fault.MALFORMED, f"a control message cannot be decoded: {error}") from None
    if isinstance(message, Open | Close | Accepted) and not 0 < message.channel <= MAX_CHANNEL:
        raise FrameError(Fault.MALFORMED, f"no channel can have the number {message.channel}")
    return message


class FrameParser:
    """Cuts a byte stream into frames.

    The caller reads from its socket into ``buffer()`` and says with ``advance(count)`` how much
    came. The buffer is used again and again; it grows only for a frame that does not fit, and then
    only to a multiple of what has already arrived, so that a header that merely claims a long
    frame costs nothing, while the copying stays linear.

    Arguments:
        limit: the longest content of a frame in bytes; may be changed between two calls.
        read_bytes: the usual size of the buffer.
    """

    __slots__ = ("_buffer", "_end", "_greeted", "_need", "_start", "_view", "limit", "read_bytes")

    def __init__(self, limit: int, read_bytes: int = _MIN_ROOM_BYTES) -> None:
        self.limit = limit
        self.read_bytes = read_bytes
        self._buffer = bytearray(read_bytes)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._need = 0
        """The bytes of the frame that has begun, header included; 0 when that is not known."""
        self._greeted = False

    @property
    def partial(self) -> int:
        """How many bytes of an unfinished frame are waiting."""
        return self._end - self._start

    def buffer(self) -> memoryview:
        """Where the next bytes go; never empty."""
        start, end = self._start, self._end
        capacity = len(self._buffer)
        if start == end:
            if start:
                self._start = self._end = end = 0
            if capacity != self.read_bytes:
                self._move(self.read_bytes)
        elif start + self._need > capacity or capacity - end < _MIN_ROOM_BYTES:
            have = end - start
            wanted = max(min(self._need, 4 * have), have + _MIN_ROOM_BYTES, self.read_bytes)
            self._move(wanted if wanted > capacity else capacity)
            end = have
        return self._view[end:] if end else self._view

    def _move(self, capacity: int) -> None:
        """Bring the waiting bytes to the front of a buffer of this size."""
        have = self._end - self._start
        if capacity == len(self._buffer):
            self._view[:have] = self._view[self._start : self._end]
        else:
            buffer = bytearray(capacity)
            buffer[:have] = self._view[self._start : self._end]
            self._buffer = buffer
            self._view = memoryview(buffer)
        self._start, self._end = 0, have

    def advance(self, count: int) -> list[Frame]:
        """Take ``count`` new bytes of the buffer and return the frames that are now complete.

        Raises:
            FrameError: the stream is not to be read any further.
        """
        end = self._end = self._end + count
        frames: list[Frame] = []
        if not self._greeted and not self._read_preamble():
            return frames
        start, view, limit = self._start, self._view, self.limit
        need = 0
        while end - start >= HEADER_BYTES:
            length, crc, channel = HEADER.unpack_from(view, start)
            if length > limit:
                raise FrameError(
                    Fault.OVERSIZED, f"a frame of {length} bytes is above the limit {limit}", frames
                )
            begin = start + HEADER_BYTES
            stop = begin + length
            if stop > end:
                need = HEADER_BYTES + length
                break
            content = bytes(view[begin:stop])
            if crc32(content, channel) != crc:
                raise FrameError(
                    Fault.CHECKSUM, f"a frame of {length} bytes fails its checksum", frames
                )
            frames.append((channel, content))
            start = stop
        self._start = start
        self._need = need
        return frames

    def _read_preamble(self) -> bool:
        """Whether the preamble is complete; a wrong one is told at its first wrong byte."""
        got = bytes(self._view[: min(self._end, PREAMBLE_BYTES)])
        magic = got[: len(MAGIC)]
        if magic != MAGIC[: len(magic)]:
            raise FrameError(Fault.FOREIGN, f"the stream begins with {magic!r}, not {MAGIC!r}")
        if len(got) < PREAMBLE_BYTES:
            return False
        version = int.from_bytes(got[len(MAGIC) :], "big")
        if version != VERSION:
            raise FrameError(
                Fault.VERSION, f"the other side speaks version {version}, this side {VERSION}"
            )
        self._start = PREAMBLE_BYTES
        self._greeted = True
        return True
