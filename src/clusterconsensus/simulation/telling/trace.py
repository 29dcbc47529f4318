"""The trace: what happened, in order, as one hash; and, if wanted, as a recording for people.

The hash covers every frame with its fate and the time of it, every start and end of a process,
every mastership, and everything that the fault injector and the clients did. Two runs with an equal
hash went the same way. It must not depend on the order of sets, on addresses of objects or on the
version of Python, so that a seed means the same everywhere.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from hashlib import blake2b

import msgspec

from clusterconsensus.consensus.messages import Accept, Message
from clusterconsensus.simulation.cores.describe import describe
from clusterconsensus.simulation.judges.witness import HEAD_BYTES, operation_of
from clusterconsensus.simulation.telling.recording import Fate, Recorder
from clusterconsensus.simulation.world.network import kind_of

_AT = struct.Struct("<dI")
_decode_message = msgspec.msgpack.Decoder(Message).decode

FATES: dict[str, Fate] = {
    "delivered": "delivered",
    "garbled": "garbled",
    "cut": "cut",
    "lost": "lost",
    "blocked": "lost",
    "filtered": "lost",
    "refused": "stale",
    "reset": "stale",
}


class Trace:
    """The trace of one run. Also the network's watcher.

    Arguments:
        recorder: Where everything is written down for people; None for the hash alone.
        clock: The true time in seconds.
    """

    def __init__(self, recorder: Recorder | None, clock: Callable[[], float]) -> None:
        self.recorder = recorder
        self._clock = clock
        self._hash = blake2b(digest_size=16)
        self._update = self._hash.update

    @property
    def digest(self) -> str:
        """The hash so far, 32 hexadecimal digits."""
        return self._hash.hexdigest()

    def note(self, now: float, text: str) -> None:
        """Something happened that is not a frame."""
        data = text.encode("utf-8", "backslashreplace")
        self._update(_AT.pack(now, len(data)) + data)

    # -- the network's watcher

    def on_sent(self, source: str, target: str, content: bytes, repeated: bool) -> int:
        """A frame leaves. Returns its number."""
        if self.recorder is None:
            return 0
        kind, text = _read(content)
        return self.recorder.sent(self._clock(), kind, source, target, text, repeated=repeated)

    def on_fate(self, number: int, source: str, target: str, fate: str, frame: bytes) -> None:
        """What became of a frame."""
        now = self._clock()
        if fate == "delivered":
            self._update(_AT.pack(now, 0) + frame)
        else:
            self.note(now, f"{fate} {source} {target}")
        if self.recorder is not None:
            self.recorder.arrived(number, now, FATES[fate])


def _read(content: bytes) -> tuple[str, Callable[[], str]]:
    """The kind of a message as the recording names it, and its text for when it is wanted."""
    kind = kind_of(content).lower()
    body = content[2 + int.from_bytes(content[:2], "big") :]
    message = _decode_message(body)
    if isinstance(message, Accept) and not message.entries:
        kind = "heartbeat"
    return kind, lambda: describe(message, show_data)


def show_data(data: bytes) -> str:
    """An encoded change, with the head of the witness, or an encoded outcome, as text."""
    for head, name in ((HEAD_BYTES, f"#{operation_of(data)} "), (1, "")):
        try:
            return f"{name}{msgspec.msgpack.decode(data[head:])!r}"
        except (msgspec.MsgspecError, UnicodeDecodeError):
            continue
    return repr(data)
