"""The default codec: MessagePack of plain data, dataclasses and msgspec Structs. Never pickle."""

from __future__ import annotations

from typing import Any

import msgspec


class MsgpackCodec:
    """Encodes by MessagePack.

    Without types, what travels is plain data: None, booleans, numbers, strings, bytes, lists and
    dicts. Tuples arrive as lists, dataclasses and Structs as dicts. With types, they arrive as what
    they were::

        MsgpackCodec(change_type=Deposit | Withdraw, result_type=int)

    Arguments:
        change_type: The type that changes are decoded to and validated against.
        result_type: The same for what ``State.apply`` returns.

    Raises:
        TypeError: msgspec does not support one of the types.
    """

    def __init__(self, change_type: Any = Any, result_type: Any = Any) -> None:
        encode = msgspec.msgpack.Encoder().encode
        self.encode_change = encode
        self.encode_result = encode
        self.decode_change = msgspec.msgpack.Decoder(change_type).decode
        self.decode_result = msgspec.msgpack.Decoder(result_type).decode
