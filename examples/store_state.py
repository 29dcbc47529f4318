"""The replicated state of ``store.py``: a map from keys to values, both text.

An example to copy, above all its snapshots, which are never in memory in one piece:

* ``snapshot`` runs in the event loop, so it only copies the map (the values themselves are shared);
  the generator that it returns is run in another thread, while ``apply`` changes the map itself.
* ``install`` reads what that generator made, piece by piece, and takes it over when all is there.

A piece is four bytes of length and so many bytes of MessagePack: a list of keys and values.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

import msgspec

from clusterconsensus import Context, Readable

PIECE_ITEMS = 256
"""Some ten kilobytes: while one piece is made, the interpreter does nothing else."""

_Items = list[tuple[str, str]]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Items).decode


class Store:
    """What every member holds. Changes are ``["set", key, value]`` and ``["delete", key]``."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}

    def apply(self, change: list[str], context: Context) -> int:
        """Apply a change, and return the sequence at which it happened.

        Raises:
            KeyError, ValueError: the same on every member, before anything is altered.
        """
        match change:
            case ["set", key, value]:
                self.values[key] = value
            case ["delete", key]:
                if key not in self.values:
                    raise KeyError(key)
                del self.values[key]
            case _:
                raise ValueError(f"no such change: {change!r}")
        return context.sequence

    def snapshot(self) -> Iterator[bytes]:
        """The whole state in pieces; quick, because the work is the caller's in another thread."""
        return _pieces(self.values.copy())

    def install(self, snapshot: Readable) -> None:
        """Replace the whole state."""
        values: dict[str, str] = {}
        while head := snapshot.read(4):
            values.update(_decode(snapshot.read(int.from_bytes(head, "big"))))
        self.values = values


def _pieces(values: dict[str, str]) -> Iterator[bytes]:
    # Not a part of ``snapshot``: a generator's body does not run before the first piece is wanted,
    # and the copy must be made at once.
    items = iter(values.items())
    while piece := list(islice(items, PIECE_ITEMS)):
        data = _encode(piece)
        yield len(data).to_bytes(4, "big") + data
