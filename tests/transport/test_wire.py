"""The frame parser under every split and every garbage; the control messages."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterconsensus.transport.wire import (
    HEADER,
    HEADER_BYTES,
    PREAMBLE_BYTES,
    VERSION,
    Accepted,
    Close,
    Control,
    Fault,
    Frame,
    FrameError,
    FrameParser,
    Hello,
    Open,
    Refused,
    Welcome,
    decode_control,
    encode_control,
    encode_frame,
    preamble,
)

FRAMES = st.lists(st.tuples(st.integers(0, 0xFFFF_FFFF), st.binary(max_size=9_000)), max_size=12)


def feed(parser: FrameParser, data: bytes, sizes: list[int] | None = None) -> list[Frame]:
    """Push a stream through a parser in pieces of the given sizes, then in as large as fit."""
    frames: list[Frame] = []
    position = 0
    steps = list(sizes or [])
    while position < len(data):
        room = parser.buffer()
        assert len(room) > 0
        size = min(len(room), len(data) - position, max(1, steps.pop(0) if steps else len(data)))
        room[:size] = data[position : position + size]
        position += size
        frames.extend(parser.advance(size))
    return frames


def stream(frames: list[Frame]) -> bytes:
    return preamble() + b"".join(encode_frame(channel, (body,)) for channel, body in frames)


def fault_of(data: bytes, limit: int = 1000) -> FrameError:
    with pytest.raises(FrameError) as caught:
        feed(FrameParser(limit), data)
    return caught.value


@given(frames=FRAMES, sizes=st.lists(st.integers(1, 20_000), max_size=40))
def test_any_split_gives_the_same_frames(frames: list[Frame], sizes: list[int]) -> None:
    assert feed(FrameParser(9_000), stream(frames), sizes) == frames


@given(data=st.binary(max_size=300), begun=st.booleans(), sizes=st.lists(st.integers(1, 50)))
def test_arbitrary_bytes_raise_nothing_but_the_parsers_own_error(
    data: bytes, begun: bool, sizes: list[int]
) -> None:
    parser = FrameParser(200)
    try:
        frames = feed(parser, preamble() + data if begun else data, sizes)
    except FrameError as error:
        frames = error.frames
    assert sum(len(body) for _, body in frames) <= len(data)


@given(frames=FRAMES.filter(bool), data=st.data())
@settings(max_examples=60)
def test_a_flipped_bit_is_never_believed(frames: list[Frame], data: st.DataObject) -> None:
    damaged = bytearray(stream(frames))
    bit = data.draw(st.integers(0, len(damaged) * 8 - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    parser = FrameParser(9_000)
    found: list[Frame] = []
    try:
        found = feed(parser, bytes(damaged))
    except FrameError as error:
        found = error.frames
    else:
        assert parser.partial, "a damaged stream was taken as a whole one"
    assert found == frames[: len(found)]
    assert len(found) < len(frames)


def test_one_byte_at_a_time() -> None:
    frames = [(5, b"abc"), (0, b""), (0xFFFF_FFFF, b"\0" * 5_000)]
    data = stream(frames)
    assert feed(FrameParser(5_000), data, [1] * len(data)) == frames


def test_a_large_frame_is_reassembled_and_the_buffer_shrinks_again() -> None:
    body = bytes(range(256)) * 8_192
    parser = FrameParser(len(body))
    assert feed(parser, stream([(1, body), (2, b"next")]), [999] * 30) == [(1, body), (2, b"next")]
    assert len(parser.buffer()) == parser.read_bytes


def test_a_claimed_length_sets_no_memory_aside() -> None:
    parser = FrameParser(8 * 1024 * 1024)
    feed(parser, preamble() + HEADER.pack(8 * 1024 * 1024, 0, 1))
    assert len(parser.buffer()) <= 3 * parser.read_bytes


def test_faults_are_told_apart() -> None:
    good = encode_frame(3, (b"he", b"llo"))
    assert fault_of(b"GET / HTTP/1.1\r\n\r\n").fault is Fault.FOREIGN
    assert fault_of(b"X").fault is Fault.FOREIGN
    assert fault_of(preamble(VERSION + 1) + good).fault is Fault.VERSION
    assert fault_of(preamble() + HEADER.pack(1_001, 0, 1)).fault is Fault.OVERSIZED
    damaged = fault_of(preamble() + good + good[:-1] + b"!")
    assert damaged.fault is Fault.CHECKSUM
    assert damaged.frames == [(3, b"hello")], "what was intact before the fault is kept"


def test_the_limit_is_inclusive() -> None:
    assert feed(FrameParser(1_000), stream([(1, b"x" * 1_000)])) == [(1, b"x" * 1_000)]
    assert fault_of(stream([(1, b"x" * 1_001)])).fault is Fault.OVERSIZED


def test_an_unfinished_frame_is_seen() -> None:
    parser = FrameParser(1_000)
    whole = stream([(1, b"hello")])
    assert feed(parser, whole[:-1]) == []
    assert parser.partial == HEADER_BYTES + 4
    assert feed(parser, whole[-1:]) == [(1, b"hello")]
    assert parser.partial == 0


@pytest.mark.parametrize(
    "message",
    [
        Hello("127.0.0.1:7001", 2**63 - 1),
        Open(1, "shop", "a", "127.0.0.1:7001"),
        Close(4),
        Welcome("[::1]:7001"),
        Refused(0, "no"),
        Accepted(9),
    ],
)
def test_control_messages_survive_the_wire(message: Control) -> None:
    frames = feed(FrameParser(1_000), preamble() + encode_control(message))
    assert [(channel, decode_control(body)) for channel, body in frames] == [(0, message)]


@given(st.binary(max_size=200))
def test_garbled_control_messages_raise_only_a_frame_error(content: bytes) -> None:
    with suppress(FrameError):
        decode_control(content)


@pytest.mark.parametrize("content", [b"\x91" * 3_000, b"\x92\xa4open\xc0", b"", b"\xc1"])
def test_deep_or_empty_control_messages_are_malformed(content: bytes) -> None:
    with pytest.raises(FrameError):
        decode_control(content)


@pytest.mark.parametrize("channel", [0, -1, 2**32])
def test_a_channel_out_of_range_is_malformed(channel: int) -> None:
    body = encode_control(Open(channel, "shop", "a", "h:1"))[HEADER_BYTES:]
    with pytest.raises(FrameError, match="channel"):
        decode_control(body)


def test_the_preamble_never_changes_its_size() -> None:
    assert len(preamble()) == len(preamble(65_535)) == PREAMBLE_BYTES == 8
