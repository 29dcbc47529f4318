"""Joining: the one that asks at an address, and the one that has it done."""

from __future__ import annotations

import asyncio

from clusterconsensus.consensus.changes import Change
from clusterconsensus.consensus.messages import Action, JoinAsk, MembershipReply, Message
from clusterconsensus.consensus.types import Incarnation, Member, Seat, Standing
from clusterconsensus.errors import (
    MembershipError,
    MembershipPendingError,
    NoMasterError,
    ParticipantClosedError,
)
from clusterconsensus.runtime.joining import ASK_AGAIN_SECONDS, MAX_JOINS, JoinDesk, Joins
from clusterconsensus.settings import Settings
from tests.runtime.helpers import NEVER, Still, failure, run

ME = Member("d", "10.0.0.4:1")
D = Incarnation("d@1")
VOTER = Seat("d", "1", ME.address, Standing.VOTER)
LEARNER = Seat("d", "1", ME.address, Standing.LEARNER)
THERE = "10.0.0.1:1"


class Newcomer:
    """``Joins`` with a world that the test plays."""

    def __init__(self) -> None:
        self.clock = Still()
        self.sent: list[tuple[Member, Message]] = []
        self.joins = Joins(
            ME,
            Settings(),
            self.clock,
            lambda to, message: self.sent.append((to, message)),
            lambda: None,
            100,
        )

    def later(self, seconds: float, seat: Seat | None = None) -> None:
        end = self.clock.now + seconds
        while (deadline := self.joins.deadline) <= end:
            self.clock.now = max(self.clock.now, deadline) + 0.001
            self.joins.on_tick(self.clock.now)
            self.joins.flush(seat)
        self.clock.now = max(end, self.clock.now)


def test_it_asks_at_the_address_until_it_has_its_seat() -> None:
    async def main() -> None:
        newcomer = Newcomer()
        joins = newcomer.joins
        future = joins.join(THERE, False, 3, False, None)
        joins.flush(None)
        assert newcomer.sent == [(Member("", THERE), JoinAsk(100, "d", ME.address, False, 3))]
        newcomer.later(1.5)
        assert len(newcomer.sent) == 2
        assert joins.on_reply(MembershipReply(100, "", False))
        assert not future.done(), "only what it sees itself counts"
        joins.flush(LEARNER)
        assert not future.done()
        joins.flush(VOTER)
        await future
        assert not joins
        assert joins.deadline == NEVER
        assert not joins.on_reply(MembershipReply(100, "", False))

    run(main())


def test_a_learner_has_what_it_wants_sooner() -> None:
    async def main() -> None:
        newcomer = Newcomer()
        future = newcomer.joins.join(THERE, True, 1, False, None)
        newcomer.joins.flush(LEARNER)
        await future
        assert newcomer.sent == []

    run(main())


def test_a_refusal_ends_it_and_a_passing_one_is_asked_again_soon() -> None:
    async def main() -> None:
        newcomer = Newcomer()
        future = newcomer.joins.join(THERE, False, 1, False, None)
        newcomer.joins.flush(None)
        newcomer.joins.on_reply(MembershipReply(100, "not now", True))
        newcomer.later(ASK_AGAIN_SECONDS * 1.5)
        assert len(newcomer.sent) == 2
        newcomer.joins.on_reply(MembershipReply(100, "never", False))
        error = failure(future)
        assert isinstance(error, MembershipError)
        assert str(error) == "never"

    run(main())


def test_what_is_late_says_why() -> None:
    async def main() -> None:
        newcomer = Newcomer()
        silent = newcomer.joins.join(THERE, False, 1, False, 1.0)
        told = newcomer.joins.join("10.0.0.2:1", False, 1, False, 1.0)
        newcomer.joins.flush(None)
        newcomer.joins.on_reply(MembershipReply(101, "it sleeps", True))
        newcomer.later(1.5)
        for future, why in ((silent, "nobody answered"), (told, "it sleeps")):
            error = failure(future)
            assert isinstance(error, MembershipPendingError)
            assert why in str(error)
        assert THERE in str(failure(silent))

    run(main())


def test_the_end_of_the_participant_or_of_the_waiting_ends_it() -> None:
    async def main() -> None:
        newcomer = Newcomer()
        future = newcomer.joins.join(THERE, False, 1, False, None)
        newcomer.joins.join(THERE, False, 1, False, None).cancel()
        newcomer.joins.flush(None)
        assert len(newcomer.sent) == 1
        closed = ParticipantClosedError("closed")
        newcomer.joins.close(closed)
        assert failure(future) is closed

    run(main())


class Desk:
    """``JoinDesk`` with a master that the test plays."""

    def __init__(self) -> None:
        self.asked: list[tuple[Change, asyncio.Future[None]]] = []
        self.sent: list[tuple[Incarnation, Message]] = []
        self.desk = JoinDesk(self._change, lambda to, message: self.sent.append((to, message)))

    def _change(self, change: Change) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.asked.append((change, future))
        return future


def test_the_master_is_asked_once_and_its_answer_handed_back() -> None:
    async def main() -> None:
        desk = Desk()
        for _ in range(3):
            desk.desk.on_ask(D, JoinAsk(7, "d", ME.address, False, 2))
        ((change, future),) = desk.asked
        assert change == Change(Action.ADD, ME, 2)
        future.set_result(None)
        await asyncio.sleep(0)
        assert desk.sent == [(D, MembershipReply(7, "", False))]
        desk.desk.on_ask(D, JoinAsk(7, "d", ME.address, True))
        assert desk.asked[1][0] == Change(Action.ADD_LEARNER, ME)

    run(main())


def test_refusals_are_handed_back_as_they_are() -> None:
    async def main() -> None:
        for error, retryable in ((MembershipError("never"), False), (NoMasterError("none"), True)):
            desk = Desk()
            desk.desk.on_ask(D, JoinAsk(7, "d", ME.address))
            desk.asked[0][1].set_exception(error)
            await asyncio.sleep(0)
            assert desk.sent == [(D, MembershipReply(7, str(error), retryable))]
        desk = Desk()
        desk.desk.on_ask(D, JoinAsk(7, "d", ME.address))
        desk.asked[0][1].set_exception(ParticipantClosedError("closed"))
        await asyncio.sleep(0)
        assert desk.sent == [], "another member may help"

    run(main())


def test_so_many_may_join_at_once() -> None:
    async def main() -> None:
        desk = Desk()
        for nonce in range(MAX_JOINS + 1):
            desk.desk.on_ask(D, JoinAsk(nonce, "d", ME.address))
        ((to, reply),) = desk.sent
        assert to == D
        assert isinstance(reply, MembershipReply)
        assert reply.retryable
        assert str(MAX_JOINS) in reply.refusal

    run(main())


def test_who_has_a_seat_already_must_hear_that_it_is_of_that_cluster() -> None:
    async def main() -> None:
        newcomer = Newcomer()
        future = newcomer.joins.join(THERE, False, 1, True, 5.0)
        foreign = newcomer.joins.join("10.0.0.2:1", False, 1, True, 5.0)
        newcomer.later(1.5, VOTER)
        assert not future.done()
        newcomer.joins.on_reply(MembershipReply(100, "", False))
        newcomer.joins.flush(VOTER)
        await future
        newcomer.later(5.0, VOTER)
        assert "nobody of its cluster" in str(failure(foreign))

    run(main())
