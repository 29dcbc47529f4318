"""What became of a change, as bytes: stored in session tables and sent to whoever waits.

The first byte tells the kind: a result (the codec's bytes follow), a failure (the exception's class
name and text), or a batch (the outcomes of its changes).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from clusterconsensus.errors import ApplyError

RESULT = b"\0"
FAILURE = b"\1"
BATCH = b"\2"
STALE = b""
"""For a request that its own session acknowledged long ago: nobody waits for it."""

MAX_DETAIL_CHARACTERS = 1_000

_encode = msgspec.msgpack.Encoder().encode
_decode_failure = msgspec.msgpack.Decoder(tuple[bytes, bytes]).decode
_decode_batch = msgspec.msgpack.Decoder(list[bytes]).decode


def failure(error: Exception) -> bytes:
    """The outcome of a change whose ``apply`` raised."""
    try:
        detail = str(error)[:MAX_DETAIL_CHARACTERS]
    except Exception as unspeakable:
        detail = f"(its text cannot be had: {type(unspeakable).__name__})"
    parts = (type(error).__name__, detail)
    # An answer must never fail to travel; lone surrogates, as in undecodable file names, would.
    return FAILURE + _encode([part.encode("utf-8", "backslashreplace") for part in parts])


def batch(outcomes: list[bytes]) -> bytes:
    """The outcome of an atomic batch."""
    return BATCH + _encode(outcomes)


def unpack(outcome: bytes, decode_result: Callable[[bytes], Any]) -> Any:
    """The result of one change.

    Raises:
        ApplyError: ``apply`` raised, or the codec cannot decode what it returned.
    """
    if outcome and outcome[0] == FAILURE[0]:
        kind, detail = _decode_failure(outcome[1:])
        raise ApplyError(kind.decode(), detail.decode())
    try:
        return decode_result(outcome[1:])
    except Exception as error:
        # The change was applied, and the caller must hear that, whatever its codec makes of it.
        raise ApplyError(type(error).__name__, f"the result does not decode: {error}") from error


def unpack_batch(outcome: bytes, decode_result: Callable[[bytes], Any]) -> list[Any]:
    """The results of an atomic batch, with an ``ApplyError`` in the place of each failed change."""
    results: list[Any] = []
    for part in _decode_batch(outcome[1:]):
        try:
            results.append(unpack(part, decode_result))
        except ApplyError as error:
            results.append(error)
    return results


def comparable(outcome: bytes) -> bytes:
    """The part of an outcome that must be equal on every member (R9).

    The text of an exception is left out: it often holds addresses of objects.
    """
    if outcome[:1] == FAILURE:
        return FAILURE + _decode_failure(outcome[1:])[0]
    if outcome[:1] == BATCH:
        return BATCH + b"".join(comparable(part) for part in _decode_batch(outcome[1:]))
    return outcome
