"""Reads and membership requests that wait: shared, repeated, and ended in time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clusterconsensus.consensus.changes import Change
from clusterconsensus.consensus.messages import Action
from clusterconsensus.consensus.types import NOBODY, Incarnation, Member
from clusterconsensus.errors import (
    MembershipError,
    NoMasterError,
    OverloadedError,
    ParticipantClosedError,
    ReadFailedError,
    RemovedError,
)
from clusterconsensus.runtime.questions import (
    ASK_AGAIN_SECONDS,
    MembershipQuestions,
    ReadQuestions,
)
from clusterconsensus.settings import Settings
from tests.runtime.helpers import NEVER, Still, failure, run

B = Incarnation("b@1")
M = Change(Action.ADD, Member("m", "10.0.0.1:1"))
N = Change(Action.REMOVE, Member("n", ""))
ANYBODY = Change(Action.TRANSFER, Member("", ""))
CLOSED = ParticipantClosedError("closed")


class Ticking(Still):
    """A clock that has moved at every look, as a real one has."""

    def __call__(self) -> float:
        self.now += 1e-6
        return self.now


class Readers:
    """``ReadQuestions`` with a master that the test plays."""

    def __init__(self, leader: Incarnation | None = NOBODY, **settings: Any) -> None:
        self.clock = Ticking()
        self.asked: list[tuple[Incarnation, int]] = []
        self.wakes = 0
        self.reads = ReadQuestions(
            Settings(**settings).validate(),
            self.clock,
            lambda to, nonce, lease: self.asked.append((to, nonce)),
            self._woken,
        )
        self.reads.on_leader(leader)

    def _woken(self) -> None:
        self.wakes += 1

    def later(self, seconds: float, applied: int = 0) -> None:
        end = self.clock.now + seconds
        while (deadline := self.reads.deadline) <= end:
            self.clock.now = max(self.clock.now, deadline) + 0.001
            self.reads.on_tick(self.clock.now)
            self.reads.flush(applied)
        self.clock.now = max(end, self.clock.now)


def test_reads_of_one_turn_share_one_question() -> None:
    async def main() -> None:
        readers = Readers()
        futures = [readers.reads.read(None) for _ in range(100)]
        readers.reads.flush(0)
        assert readers.asked == [(NOBODY, 1)]
        readers.reads.on_ready(1, 5, applied=5)
        await asyncio.gather(*futures)
        readers.reads.flush(5)
        assert len(readers.asked) == 1

    run(main())


def test_reads_with_other_time_outs_do_not_share_a_question() -> None:
    async def main() -> None:
        readers = Readers()
        short, long = readers.reads.read(1), readers.reads.read(5)
        readers.reads.flush(0)
        assert len(readers.asked) == 2
        readers.later(2)
        assert isinstance(failure(short), ReadFailedError)
        assert not long.done()

    run(main())


def test_a_read_waits_until_what_was_confirmed_is_applied() -> None:
    """L3."""

    async def main() -> None:
        readers = Readers(B)
        future = readers.reads.read(None)
        readers.reads.flush(3)
        readers.reads.on_ready(1, 5, applied=3)
        assert not future.done()
        readers.reads.on_applied(4)
        assert not future.done()
        readers.reads.on_applied(5)
        await future

    run(main())


def test_a_confirmed_read_that_is_never_applied_ends_in_time() -> None:
    async def main() -> None:
        readers = Readers(B)
        future = readers.reads.read(2)
        readers.reads.flush(3)
        readers.reads.on_ready(1, 5, applied=3)
        readers.later(1)
        assert not future.done()
        readers.later(2)
        error = failure(future)
        assert isinstance(error, ReadFailedError)
        assert "5" in str(error)
        assert readers.reads.deadline == NEVER

    run(main())


@pytest.mark.parametrize("count", [1, 2])
def test_without_a_master_a_read_ends_in_time(count: int) -> None:
    async def main() -> None:
        readers = Readers(None)
        futures = [readers.reads.read(2) for _ in range(count)]
        readers.later(3)
        assert readers.asked == []
        for future in futures:
            error = failure(future)
            assert isinstance(error, ReadFailedError)
            assert "nobody leads" in str(error)

    run(main())


def test_silence_is_answered_by_asking_again() -> None:
    async def main() -> None:
        readers = Readers(B)
        future = readers.reads.read(None)
        readers.reads.flush(0)
        readers.later(2.5)
        assert readers.asked == [(B, 1)] * 3
        readers.reads.on_ready(1, 0, applied=0)
        await future

    run(main())


def test_a_refusal_is_answered_by_asking_again_soon() -> None:
    async def main() -> None:
        readers = Readers(B)
        readers.reads.read(None)
        readers.reads.flush(0)
        readers.reads.on_refused(1)
        readers.reads.flush(0)
        assert len(readers.asked) == 1
        readers.later(ASK_AGAIN_SECONDS * 2)
        assert len(readers.asked) == 2
        readers.reads.on_refused(99)

    run(main())


def test_another_master_is_asked_at_once() -> None:
    async def main() -> None:
        readers = Readers(B)
        readers.reads.read(None)
        readers.reads.flush(0)
        readers.reads.on_leader(None)
        readers.reads.flush(0)
        readers.reads.on_leader(NOBODY)
        readers.reads.flush(0)
        assert readers.asked == [(B, 1), (NOBODY, 1)]

    run(main())


def test_so_many_reads_may_wait() -> None:
    async def main() -> None:
        readers = Readers(max_pending_reads=3)
        futures = [readers.reads.read(None) for _ in range(3)]
        with pytest.raises(OverloadedError, match="max_pending_reads"):
            readers.reads.read(None)
        futures[0].cancel()
        await asyncio.sleep(0)
        readers.reads.read(None)

    run(main())


def test_closing_ends_every_read() -> None:
    async def main() -> None:
        readers = Readers()
        confirmed = readers.reads.read(None)
        readers.reads.flush(0)
        readers.reads.on_ready(1, 9, applied=0)
        asked = readers.reads.read(None)
        readers.reads.flush(0)
        new = readers.reads.read(None)
        readers.reads.close(CLOSED)
        assert failure(confirmed) is failure(asked) is failure(new) is CLOSED

    run(main())


class Asker:
    """``MembershipQuestions`` with a master that the test plays."""

    def __init__(self, leader: Incarnation | None = NOBODY) -> None:
        self.clock = Still()
        self.asked: list[tuple[Incarnation, int, Change]] = []
        self.questions = MembershipQuestions(
            Settings(),
            self.clock,
            lambda to, nonce, change: self.asked.append((to, nonce, change)),
            lambda: None,
        )
        self.questions.on_leader(leader)

    def later(self, seconds: float) -> None:
        end = self.clock.now + seconds
        while (deadline := self.questions.deadline) <= end:
            self.clock.now = max(self.clock.now, deadline) + 0.001
            self.questions.on_tick(self.clock.now)
            self.questions.flush()
        self.clock.now = max(end, self.clock.now)


def test_a_membership_request_is_asked_until_it_is_answered() -> None:
    async def main() -> None:
        asker = Asker(B)
        future = asker.questions.change(M, None)
        asker.questions.flush()
        asker.later(1.5)
        assert asker.asked == [(B, 1, M)] * 2
        asker.questions.on_reply(1, "", False)
        await future
        asker.questions.on_reply(1, "", False)
        assert asker.questions.deadline == NEVER

    run(main())


def test_a_final_refusal_ends_it_and_a_passing_one_does_not() -> None:
    async def main() -> None:
        asker = Asker(B)
        future = asker.questions.change(M, None)
        asker.questions.flush()
        asker.questions.on_reply(1, "not now", True)
        assert not future.done()
        asker.later(ASK_AGAIN_SECONDS * 2)
        assert len(asker.asked) == 2
        asker.questions.on_reply(1, "never", False)
        error = failure(future)
        assert isinstance(error, MembershipError)
        assert str(error) == "never"

    run(main())


def test_a_membership_request_that_is_late_says_why() -> None:
    async def main() -> None:
        asker = Asker(B)
        silent = asker.questions.change(M, 1.0)
        told = asker.questions.change(N, 1.0)
        asker.questions.flush()
        asker.questions.on_reply(2, "it sleeps", True)
        asker.later(1.5)
        first, second = failure(silent), failure(told)
        assert isinstance(first, MembershipError)
        assert "did not answer" in str(first)
        assert "add member m (10.0.0.1:1)" in str(first)
        assert isinstance(second, MembershipError)
        assert "it sleeps" in str(second)
        assert "remove member 'n'" in str(second)

    run(main())


def test_a_membership_request_without_a_master() -> None:
    async def main() -> None:
        asker = Asker(None)
        future = asker.questions.change(M, 1.0)
        asker.questions.flush()
        assert asker.asked == []
        asker.later(1.5)
        assert isinstance(failure(future), NoMasterError)

    run(main())


def test_closing_ends_every_membership_request() -> None:
    async def main() -> None:
        asker = Asker()
        future = asker.questions.change(M, None)
        cancelled = asker.questions.change(M, None)
        cancelled.cancel()
        asker.questions.close(CLOSED)
        assert failure(future) is CLOSED

    run(main())


def test_a_request_that_nobody_waits_for_is_not_asked_any_more() -> None:
    async def main() -> None:
        asker = Asker(B)
        future = asker.questions.change(N, None)
        asker.questions.flush()
        future.cancel()
        asker.later(5)
        assert len(asker.asked) == 1
        assert asker.questions.deadline == NEVER

    run(main())


def test_the_next_master_is_asked_at_once_for_what_the_last_one_did_not_do() -> None:
    async def main() -> None:
        asker = Asker(B)
        to_c = asker.questions.change(Change(Action.TRANSFER, Member("c", "")), None)
        removal = asker.questions.change(N, None)
        asker.questions.flush()
        asker.questions.on_leader(None)
        asker.questions.on_leader(Incarnation("c@1"))
        asker.questions.flush()
        assert [to for to, _, _ in asker.asked] == [B, B, "c@1", "c@1"]
        assert not to_c.done()
        assert not removal.done()

    run(main())


def test_whoever_wants_another_master_has_it_when_there_is_one() -> None:
    """The next master must not be asked to hand over once more."""

    async def main() -> None:
        asker = Asker(B)
        future = asker.questions.change(ANYBODY, None)
        asker.questions.flush()
        asker.questions.on_leader(None)
        assert not future.done()
        asker.questions.on_leader(B)
        assert not future.done(), "it leads again"
        asker.questions.flush()
        asker.questions.on_leader(NOBODY)
        await future
        asker.questions.flush()
        assert {to for to, _, _ in asker.asked} == {B}

    run(main())


def test_another_master_that_came_before_the_question_is_asked() -> None:
    async def main() -> None:
        asker = Asker(None)
        future = asker.questions.change(ANYBODY, None)
        asker.questions.flush()
        asker.questions.on_leader(B)
        asker.questions.flush()
        assert asker.asked == [(B, 1, ANYBODY)]
        assert not future.done()

    run(main())


def test_a_removed_member_has_what_it_asked_for_and_nothing_else() -> None:
    async def main() -> None:
        asker = Asker(B)
        itself = asker.questions.change(Change(Action.REMOVE, Member("a", "")), None)
        other = asker.questions.change(N, None)
        gone = RemovedError("gone")
        asker.questions.on_removed("a", gone)
        await itself
        assert failure(other) is gone

    run(main())
