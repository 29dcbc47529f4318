"""The default codec: what goes in comes out, and what cannot is said at once."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clusterconsensus.codec import MsgpackCodec
from clusterconsensus.state import Codec

plain: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(st.characters(codec="utf-8"))
    | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=12,
)


@given(plain)
def test_plain_data_comes_back_as_it_was(value: Any) -> None:
    codec: Codec = MsgpackCodec()
    assert codec.decode_change(codec.encode_change(value)) == value
    assert codec.decode_result(codec.encode_result(value)) == value


@dataclasses.dataclass
class Deposit:
    account: str
    amount: int


class Withdraw(msgspec.Struct, tag=True):
    account: str


class Audit(msgspec.Struct, tag=True):
    pass


def test_without_types_objects_arrive_as_plain_data() -> None:
    codec = MsgpackCodec()
    assert codec.decode_change(codec.encode_change((1, (2,)))) == [1, [2]]
    assert codec.decode_change(codec.encode_change(Deposit("x", 3))) == {
        "account": "x",
        "amount": 3,
    }


def test_with_types_they_arrive_as_what_they_were() -> None:
    codec = MsgpackCodec(change_type=Withdraw | Audit, result_type=tuple[int, ...])
    assert codec.decode_change(codec.encode_change(Withdraw("x"))) == Withdraw("x")
    assert codec.decode_change(codec.encode_change(Audit())) == Audit()
    assert codec.decode_result(codec.encode_result((1, 2))) == (1, 2)
    assert MsgpackCodec(Deposit).decode_change(codec.encode_change(Deposit("x", 3))) == Deposit(
        "x", 3
    )


def test_a_typed_codec_refuses_what_is_of_another_type() -> None:
    codec = MsgpackCodec(change_type=Deposit)
    with pytest.raises(msgspec.ValidationError):
        codec.decode_change(codec.encode_change("not a deposit"))


@pytest.mark.parametrize("value", [object(), 2**64, {1: object()}, "\udcff"])
def test_what_cannot_be_encoded_raises(value: object) -> None:
    with pytest.raises((TypeError, OverflowError, UnicodeEncodeError)):
        MsgpackCodec().encode_change(value)


def test_a_type_that_is_not_supported_is_said_at_once() -> None:
    with pytest.raises(TypeError):
        MsgpackCodec(change_type=Deposit | Withdraw)
