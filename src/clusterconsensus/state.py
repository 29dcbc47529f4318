"""What a user implements: the state, and (rarely) the codec of its changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import msgspec


class Context(msgspec.Struct, frozen=True, gc=False):
    """What ``State.apply`` is told beside the change; identical on every member.

    Arguments:
        sequence: The log entry that holds the change. Grows along the log and is never reset: a
            fencing token for whatever the change grants.
        index: The change's place in that entry, from 0. ``(sequence, index)`` is unique.
        time: The replicated clock: seconds since the Unix epoch, as the master stamped the entry.
            Never goes backwards. Use it instead of any clock.
        session: Whose change it is; each running participant has a session of its own.
    """

    sequence: int
    index: int
    time: float
    session: int


class Readable(Protocol):
    """Where ``State.install`` reads a snapshot from, however large it is."""

    def read(self, size: int = -1, /) -> bytes:
        """Up to ``size`` bytes, exactly that many unless the end comes first; all that is left
        without it; ``b""`` at the end."""
        ...


@runtime_checkable
class State(Protocol):
    """The user's state machine.

    ``apply`` and ``snapshot`` run in the event loop. Every method must be deterministic: no clock
    (``Context.time``), no random numbers, no I/O, no iteration over sets; the same changes must
    give the same results on every member.
    """

    def apply(self, change: Any, context: Context) -> Any:
        """Apply one change and return its result, which is handed to whoever submitted it.

        An exception is an answer too: the submitter gets it as ``ApplyError``, on every member it
        is the same, and the next change is applied as usual. Whatever was altered before raising
        stays altered, so check first and alter afterwards.
        """
        ...

    def snapshot(self) -> bytes | Iterable[bytes]:
        """The whole state, as bytes or as an iterable of pieces.

        This call must be quick: nothing is applied while it runs. For a state that takes long to
        serialise, make a cheap copy here (``dict.copy()``, an immutable map) and return a generator
        over it: it is run piece by piece in another thread, while ``apply`` goes on, so it must not
        read what ``apply`` changes. Pieces of some ten kilobytes are best: while one is made,
        the interpreter does nothing else.
        """
        ...

    def install(self, snapshot: Readable) -> None:
        """Replace the whole state by a snapshot; nothing of the old may remain.

        May run in another thread, but never at the same time as any other call or query.

        Arguments:
            snapshot: Gives the bytes that ``snapshot`` returned, in pieces of any size:
                ``snapshot.read()`` for all of them.
        """
        ...


def whole(snapshot: bytes | Iterable[bytes]) -> bytes:
    """What ``State.snapshot`` returned, in one piece."""
    return snapshot if isinstance(snapshot, bytes) else b"".join(snapshot)


class Codec(Protocol):
    """Turns changes and results into bytes and back.

    ``decode_change(encode_change(x))`` is what every member's ``apply`` gets, the submitter's own
    included; likewise for results. Raise any exception from an ``encode`` method for what cannot be
    encoded: the caller puts the value's name into its own error.
    """

    def encode_change(self, change: Any) -> bytes: ...

    def decode_change(self, data: bytes) -> Any: ...

    def encode_result(self, result: Any) -> bytes: ...

    def decode_result(self, data: bytes) -> Any: ...
