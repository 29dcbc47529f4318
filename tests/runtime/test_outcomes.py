"""Outcomes as bytes: what becomes of a change is told alike to everybody."""

from __future__ import annotations

import pytest

from clusterconsensus.codec import MsgpackCodec
from clusterconsensus.errors import ApplyError, Outcome
from clusterconsensus.runtime import outcomes

codec = MsgpackCodec()


def result(value: object) -> bytes:
    return outcomes.RESULT + codec.encode_result(value)


def unpacked(outcome: bytes) -> ApplyError:
    with pytest.raises(ApplyError) as caught:
        outcomes.unpack(outcome, codec.decode_result)
    return caught.value


def test_a_result_comes_back() -> None:
    assert outcomes.unpack(result({"x": 1}), codec.decode_result) == {"x": 1}


def test_a_failure_comes_back_as_an_error_that_says_it_was_applied() -> None:
    error = unpacked(outcomes.failure(ValueError("too little")))
    assert (error.kind, error.detail) == ("ValueError", "too little")
    assert error.outcome is Outcome.APPLIED
    assert not error.retryable
    assert str(error) == "apply raised ValueError: too little"


def test_a_result_that_does_not_decode_is_an_error_that_says_it_was_applied() -> None:
    typed = MsgpackCodec(result_type=int)
    with pytest.raises(ApplyError, match="does not decode") as caught:
        outcomes.unpack(result("text"), typed.decode_result)
    assert caught.value.outcome is Outcome.APPLIED
    first, second = outcomes.unpack_batch(
        outcomes.batch([result(1), result("text")]), typed.decode_result
    )
    assert first == 1
    assert isinstance(second, ApplyError)


def test_a_long_text_is_cut() -> None:
    limit = outcomes.MAX_DETAIL_CHARACTERS
    assert unpacked(outcomes.failure(ValueError("x" * 2 * limit))).detail == "x" * limit


class SpeechlessError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "error", [ValueError("file-\udcff"), SpeechlessError(), type("\u00fcber", (Exception,), {})()]
)
def test_no_exception_is_too_odd_to_be_an_answer(error: Exception) -> None:
    assert unpacked(outcomes.failure(error)).kind == type(error).__name__


def test_a_batch_holds_a_failure_in_the_place_of_the_change() -> None:
    packed = outcomes.batch([result(1), outcomes.failure(KeyError("k")), result([2])])
    first, second, third = outcomes.unpack_batch(packed, codec.decode_result)
    assert (first, third) == (1, [2])
    assert isinstance(second, ApplyError)
    assert second.kind == "KeyError"


def test_what_is_compared_between_members_is_the_kind_of_a_failure_not_its_text() -> None:
    one, other = (outcomes.failure(ValueError(f"<object at {n}>")) for n in (1, 2))
    assert one != other
    assert outcomes.comparable(one) == outcomes.comparable(other)
    assert outcomes.comparable(one) != outcomes.comparable(outcomes.failure(KeyError("k")))
    assert outcomes.comparable(result(1)) != outcomes.comparable(result(2))
    batch = outcomes.comparable(outcomes.batch([one, result(1)]))
    assert batch == outcomes.comparable(outcomes.batch([other, result(1)]))
    assert batch != outcomes.comparable(outcomes.batch([other, result(2)]))
    assert batch != outcomes.comparable(outcomes.batch([result(1), other]))


def test_nobody_waits_for_what_is_stale() -> None:
    assert outcomes.comparable(outcomes.STALE) == outcomes.STALE
