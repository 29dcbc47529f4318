"""What a caller is told: when its time is up, and when it asks again."""

from __future__ import annotations

import pytest

from clusterconsensus.consensus.messages import Refusal
from clusterconsensus.consensus.types import NOBODY, Incarnation
from clusterconsensus.errors import (
    NoMasterError,
    NotAppliedError,
    OutcomeUnknownError,
    OverloadedError,
    ParticipantClosedError,
    SessionExpiredError,
)
from clusterconsensus.runtime.submits import MAX_UNKNOWN
from tests.runtime.helpers import Bench, failure, quiet, run, unknown

B = Incarnation("b@1")
CLOSED = ParticipantClosedError("closed")


# -- when the time is up


def test_without_a_master_nothing_was_applied() -> None:
    async def main() -> None:
        bench = Bench()
        future = bench.submit(timeout=3)
        bench.later(2.9)
        assert not future.done()
        bench.later(0.2)
        error = failure(future)
        assert isinstance(error, NoMasterError)
        assert "request 1" in str(error)

    run(main())


def test_where_every_sending_was_refused_nothing_was_applied() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        future = bench.submit(timeout=0.03)
        bench.flush()
        bench.refuse()
        bench.clock.now += 0.04
        bench.submits.on_tick(bench.clock.now)
        assert isinstance(failure(future), NoMasterError)

    run(main())


def test_an_overloaded_master_is_named_with_its_limit() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        future = bench.submit(timeout=0.03)
        bench.flush()
        bench.refuse(Refusal.OVERLOADED)
        bench.clock.now += 0.04
        bench.submits.on_tick(bench.clock.now)
        error = failure(future)
        assert isinstance(error, OverloadedError)
        assert isinstance(error, NotAppliedError)
        assert "max_staged_bytes" in str(error)

    run(main())


def test_what_was_sent_and_not_answered_is_unknown() -> None:
    """X4."""

    async def main() -> None:
        bench = Bench().serve(B)
        future = bench.submit(timeout=3)
        bench.flush()
        bench.later(3.1)
        error = failure(future)
        assert isinstance(error, OutcomeUnknownError)
        assert error.request == 1

    run(main())


def test_one_refusal_does_not_make_an_earlier_sending_undone() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        future = bench.submit(timeout=1.5)
        bench.flush()
        bench.lead(NOBODY)
        bench.flush()
        bench.refuse()
        bench.lead(None)
        bench.later(1.6)
        assert isinstance(failure(future), OutcomeUnknownError)

    run(main())


def test_time_outs_are_each_ones_own() -> None:
    async def main() -> None:
        bench = Bench()
        futures = {seconds: bench.submit(timeout=seconds) for seconds in (5, 1, 3)}
        for seconds in (1, 3, 5):
            bench.later(1.5)
            assert isinstance(failure(futures[seconds]), NoMasterError)
            if seconds < 5:
                assert not futures[seconds + 2].done()
            bench.later(0.5)

    run(main())


# -- retry


def test_retry_asks_again_under_the_same_number() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        (number,) = unknown(bench)
        future = bench.submits.retry(number, None)
        (group,) = bench.flush()
        assert (group.first, group.count) == (number, 1)
        bench.submits.on_reply(bench.sent[-1][1], Refusal.NONE, [b"r"])
        assert await future == b"r"
        with pytest.raises(SessionExpiredError):
            bench.submits.retry(number, None)

    run(main())


def test_what_is_still_asked_for_is_never_acknowledged() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        first, second = unknown(bench, 2)
        waiting = [bench.submit() for _ in range(3)]
        assert bench.flush()[-1].acked_below == first
        retried = bench.submits.retry(second, None)
        assert {group.acked_below for group in bench.flush()} == {first}
        bench.submits.on_outcomes(3, [b"", b"", b""])
        again = bench.submits.retry(first, None)
        bench.submit()
        assert {group.acked_below for group in bench.flush()} == {first}
        bench.submits.on_outcomes(first, [b"1"])
        bench.submit()
        assert {group.acked_below for group in bench.flush()} == {second}
        bench.submits.on_outcomes(second, [b"2"])
        bench.submit()
        assert bench.flush()[-1].acked_below > second
        await quiet(*waiting, again, retried)

    run(main())


def test_unknown_outcomes_hold_the_acknowledgement_in_whatever_order_they_end() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        long, short = bench.submit(timeout=2), bench.submit(timeout=1.9)
        bench.flush()
        bench.later(3)
        assert isinstance(failure(long), OutcomeUnknownError)
        assert isinstance(failure(short), OutcomeUnknownError)
        bench.submit()
        assert bench.flush()[-1].acked_below == 1

    run(main())


def test_a_retry_without_an_answer_may_be_retried() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        first, second = unknown(bench, 2)
        for _ in range(3):
            future = bench.submits.retry(first, 0.5)
            bench.flush()
            bench.later(0.6)
            assert isinstance(failure(future), OutcomeUnknownError)
        bench.submit()
        assert bench.flush()[-1].acked_below == first
        assert second == first + 1

    run(main())


@pytest.mark.parametrize("end", ["nobody leads", "refused", "closed"])
def test_a_retry_that_goes_nowhere_leaves_the_outcome_unknown(end: str) -> None:
    """The first sending may have come through, whatever becomes of the second."""

    async def main() -> None:
        bench = Bench().serve(B)
        (number,) = unknown(bench)
        if end == "nobody leads":
            bench.lead(None)
        future = bench.submits.retry(number, 0.5)
        if end == "refused":
            bench.flush()
            bench.refuse()
            bench.clock.now += 0.51
            bench.submits.on_tick(bench.clock.now)
        elif end == "closed":
            bench.submits.close(CLOSED, "closed")
        else:
            bench.later(0.6)
        assert isinstance(failure(future), OutcomeUnknownError)

    run(main())


def test_a_retried_change_is_never_sent_in_another_session() -> None:
    """There it would be applied a second time."""

    async def main() -> None:
        bench = Bench().serve(B)
        (number,) = unknown(bench)
        bench.clock.now += bench.settings.session_expiry_seconds * 0.9
        bench.submits.on_tick(bench.clock.now)
        future = bench.submits.retry(number, None)
        (group,) = bench.flush()
        assert (group.session, group.first) == (7, number)
        future.cancel()

    run(main())


def test_a_retry_that_meets_the_end_of_its_session_is_told_so() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        (number,) = unknown(bench)
        other = bench.submit()
        bench.flush()
        future = bench.submits.retry(number, None)
        bench.submits.on_outcomes(2, [None])
        assert isinstance(failure(future), SessionExpiredError)
        assert isinstance(failure(other), SessionExpiredError)
        bench.submits.on_session(bench.submits.nonce, 8)
        assert bench.flush() == []

    run(main())


def test_only_so_many_unknown_outcomes_are_remembered() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        numbers = unknown(bench, MAX_UNKNOWN + 1)
        with pytest.raises(SessionExpiredError, match=str(MAX_UNKNOWN)):
            bench.submits.retry(numbers[0], None)
        bench.submits.retry(numbers[1], None).cancel()

    run(main())


def test_nobody_retries_what_was_cancelled() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        for _ in range(3):
            bench.submit(timeout=0.5).cancel()
        bench.flush()
        bench.later(0.6)
        assert len(bench.submits) == 0
        bench.submit()
        assert bench.flush()[-1].acked_below == 4, "so nothing has to be remembered for it"

    run(main())


def test_cancelling_does_not_cancel_the_change() -> None:
    """K7."""

    async def main() -> None:
        bench = Bench().serve(B)
        bench.submit().cancel()
        kept = bench.submit()
        (group,) = bench.flush()
        assert (group.first, group.count) == (1, 2)
        bench.submits.on_outcomes(1, [b"1", b"2"])
        assert await kept == b"2"

    run(main())
