"""The bytes on a stream stay what they are: two versions must understand each other.

A line of ``golden/frames.txt`` is never changed or removed; another frame needs another version.
"""

from __future__ import annotations

from pathlib import Path

from clusterconsensus.transport.wire import (
    CONTROL,
    Accepted,
    Close,
    Control,
    Frame,
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

CONTROLS: dict[str, Control] = {
    "hello": Hello("10.0.0.1:4000", 2**63),
    "open": Open(1, "bank", "a", "10.0.0.1:4000"),
    "close": Close(1),
    "welcome": Welcome("10.0.0.2:4000"),
    "refused": Refused(0, "too many connections"),
    "accepted": Accepted(1),
}
MESSAGES: dict[str, Frame] = {
    "message": (1, b"of a member"),
    "empty message": (0xFFFF_FFFF, b""),
}


def golden() -> dict[str, bytes]:
    lines = (Path(__file__).parent / "golden" / "frames.txt").read_text().splitlines()
    pairs = (line.split(": ") for line in lines if not line.startswith("#"))
    return {name: bytes.fromhex(data) for name, data in pairs}


def pack() -> dict[str, bytes]:
    made = {"preamble": preamble()}
    made |= {name: encode_control(message) for name, message in CONTROLS.items()}
    return made | {name: encode_frame(frame[0], (frame[1],)) for name, frame in MESSAGES.items()}


def read(data: bytes) -> list[Frame]:
    parser = FrameParser(1_000)
    stream = golden()["preamble"] + data
    parser.buffer()[: len(stream)] = stream
    return parser.advance(len(stream))


def test_frames_are_packed_as_ever() -> None:
    assert pack() == golden()


def test_frames_are_read_as_ever() -> None:
    lines = golden()
    for name, message in CONTROLS.items():
        ((channel, content),) = read(lines[name])
        assert (channel, decode_control(content)) == (CONTROL, message)
    for name, frame in MESSAGES.items():
        assert read(lines[name]) == [frame]
