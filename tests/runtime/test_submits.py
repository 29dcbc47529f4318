"""What waits for an outcome, and how it leaves: grouping, sending again, sessions, limits."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

import pytest

from clusterconsensus.consensus.messages import Group, Refusal
from clusterconsensus.consensus.sessions import decode_requests
from clusterconsensus.consensus.types import NOBODY, Incarnation
from clusterconsensus.errors import (
    NotAppliedError,
    OutcomeUnknownError,
    OverloadedError,
    ParticipantClosedError,
    SessionExpiredError,
)
from clusterconsensus.runtime.outcomes import STALE
from clusterconsensus.runtime.submits import MAX_REQUESTS_PER_GROUP, Submits
from clusterconsensus.settings import KIB, Settings
from tests.runtime.helpers import Bench, changes, failure, quiet, request, run, session, unknown
from tests.runtime.helpers import Member as Machine

B = Incarnation("b@1")
CLOSED = ParticipantClosedError("closed")


# -- sending


def test_what_one_turn_brings_leaves_as_one_group() -> None:
    async def main() -> None:
        bench = Bench().serve()
        futures = [bench.submit(b"%d" % n) for n in range(5)]
        (group,) = bench.flush()
        assert (group.session, group.first, group.count, group.acked_below) == (7, 1, 5, 1)
        assert decode_requests(group.body) == [b"0", b"1", b"2", b"3", b"4"]
        assert bench.flush() == []
        bench.submits.on_outcomes(1, [b"%d" % n for n in range(5)])
        assert await asyncio.gather(*futures) == [b"0", b"1", b"2", b"3", b"4"]
        assert len(bench.submits) == 0
        bench.submit()
        (group,) = bench.flush()
        assert (group.first, group.acked_below) == (6, 6)

    run(main())


def test_a_group_holds_at_most_a_batch_of_bytes() -> None:
    async def main() -> None:
        bench = Bench(max_batch_bytes=1 * KIB).serve()
        for _ in range(5):
            bench.submit(b"x" * 400)
        bench.submit(b"x" * 3 * KIB)
        bench.submit(b"x")
        bench.flush()
        assert bench.groups() == [(1, 2), (3, 2), (5, 1), (6, 1), (7, 1)]

    run(main())


def test_a_group_holds_at_most_so_many_requests() -> None:
    async def main() -> None:
        bench = Bench().serve()
        for _ in range(2 * MAX_REQUESTS_PER_GROUP + 1):
            bench.submit(b"")
        sizes = [group.count for group in bench.flush()]
        assert sizes == [MAX_REQUESTS_PER_GROUP, MAX_REQUESTS_PER_GROUP, 1]

    run(main())


def test_a_group_holds_consecutive_numbers() -> None:
    async def main() -> None:
        bench = Bench().serve()
        futures = [bench.submit() for _ in range(5)]
        bench.flush()
        bench.submits.on_outcomes(2, [b""])
        bench.submits.on_outcomes(4, [b""])
        bench.sent.clear()
        bench.later(bench.settings.retry_seconds)
        assert bench.groups() == [(1, 1), (3, 1), (5, 1)]
        assert futures[1].done()

    run(main())


def test_nothing_leaves_without_a_master_or_a_session() -> None:
    async def main() -> None:
        bench = Bench()
        future = bench.submit()
        assert bench.flush() == []
        bench.lead(B)
        assert bench.flush() == []
        assert bench.asked == [(B, 1)], "a session is asked for"
        bench.flush()
        assert len(bench.asked) == 1, "once in a while"
        bench.later(bench.settings.retry_seconds)
        assert bench.asked == [(B, 1), (B, 1)]
        bench.submits.on_session(1, 9)
        (group,) = bench.flush()
        assert group.session == 9
        assert bench.sent[0][0] == B
        bench.submits.on_outcomes(1, [b"r"])
        assert await future == b"r"

    run(main())


def test_another_master_is_asked_for_the_session_at_once() -> None:
    async def main() -> None:
        bench = Bench()
        bench.submit()
        bench.lead(B)
        bench.flush()
        bench.lead(NOBODY)
        bench.flush()
        assert bench.asked == [(B, 1), (NOBODY, 1)]

    run(main())


def test_a_refused_session_is_asked_for_with_higher_nonces() -> None:
    async def main() -> None:
        bench = Bench()
        bench.submit()
        bench.lead()
        for _ in range(5):
            bench.flush()
            bench.submits.on_session(bench.asked[-1][1], 0)
        nonces = [nonce for _, nonce in bench.asked]
        assert nonces == sorted(set(nonces))
        assert nonces[-1] >= 16, "they grow ever faster"
        bench.submits.on_session(nonces[0], 5)
        assert bench.submits.session == 0, "an answer to an earlier question counts for nothing"

    run(main())


def test_silence_is_answered_by_sending_again_under_the_same_numbers() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        bench.submit(b"x")
        bench.submit(b"y")
        (first,) = bench.flush()
        assert bench.later(0.5) == []
        again = bench.later(0.6)
        assert again == [first]
        attempts = [attempt for _, attempt, _ in bench.sent]
        assert len(set(attempts)) == 2, "each sending has a number of its own"

    run(main())


def test_what_came_meanwhile_may_join_what_is_sent_again() -> None:
    """And whatever overlaps, each is sent until it has its own outcome."""

    async def main() -> None:
        bench = Bench().serve(B)
        early = [bench.submit() for _ in range(3)]
        bench.flush()
        late = [bench.submit() for _ in range(2)]
        bench.later(1.1)
        assert bench.groups()[-1] == (1, 5)
        bench.submits.on_outcomes(1, [b"1", b"2", b"3"])
        assert await asyncio.gather(*early) == [b"1", b"2", b"3"]
        bench.sent.clear()
        assert bench.later(1.1)[-1].first in (1, 4), "the rest is asked for again"
        bench.lead(None)
        bench.later(20)
        for future in late:
            assert isinstance(failure(future), OutcomeUnknownError), "it was sent once"

    run(main())


def test_another_master_is_sent_everything_at_once() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        bench.submit()
        bench.flush()
        bench.lead(None)
        bench.submit()
        assert bench.flush() == []
        bench.lead()
        bench.flush()
        assert [(to, group.first, group.count) for to, _, group in bench.sent] == [
            (B, 1, 1),
            (NOBODY, 1, 2),
        ]

    run(main())


def test_a_refused_group_waits_a_moment_and_is_sent_again() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        bench.submit()
        (group,) = bench.flush()
        bench.refuse()
        assert bench.flush() == []
        assert bench.later(0.05) == [group]

    run(main())


def test_a_reply_in_parts_is_put_together() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        futures = [bench.submit() for _ in range(3)]
        bench.flush()
        attempt = bench.sent[-1][1]
        bench.submits.on_reply(attempt, Refusal.NONE, [b"2", b"3"], 1)
        assert [future.done() for future in futures] == [False, True, True]
        bench.submits.on_reply(attempt, Refusal.NONE, [b"1"], 0)
        assert await asyncio.gather(*futures) == [b"1", b"2", b"3"]

    run(main())


@pytest.mark.parametrize("offset", [-1, 1, 3])
def test_a_reply_that_does_not_fit_is_ignored(offset: int) -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        futures = [bench.submit() for _ in range(3)]
        bench.flush()
        bench.submits.on_reply(bench.sent[-1][1], Refusal.NONE, [b"1", b"2", b"3"], offset)
        bench.submits.on_reply(99, Refusal.NONE, [b"1", b"2", b"3"], 0)
        bench.submits.on_reply(99, Refusal.NOT_APPENDED)
        assert not any(future.done() for future in futures)

    run(main())


# -- sessions


def test_an_expired_session_makes_what_was_sent_unknown_and_a_new_one_serves_the_rest() -> None:
    """X2."""

    async def main() -> None:
        bench = Bench().serve(B)
        sent = [bench.submit() for _ in range(2)]
        bench.flush()
        unsent = bench.submit()
        bench.submits.on_reply(bench.sent[-1][1], Refusal.NONE, [None, None])
        for future in sent:
            assert isinstance(failure(future), SessionExpiredError)
        assert bench.flush() == []
        assert bench.asked == [(B, bench.submits.nonce)]
        bench.submits.on_session(bench.submits.nonce, 8)
        (group,) = bench.flush()
        assert (group.session, group.first, group.count) == (8, 3, 1)
        bench.submits.on_outcomes(3, [b"r"])
        assert await unsent == b"r"

    run(main())


def test_an_idle_session_is_replaced_before_it_expires() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        future = bench.submit()
        bench.flush()
        bench.submits.on_outcomes(1, [b"r"])
        assert await future == b"r"
        bench.clock.now += bench.settings.session_expiry_seconds * 0.6
        bench.submit()
        assert bench.flush() == []
        assert bench.asked == [(B, 2)]

    run(main())


def test_a_session_is_kept_while_an_outcome_is_unknown() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        unknown(bench)
        bench.clock.now += bench.settings.session_expiry_seconds * 0.6
        bench.submit()
        assert [group.session for group in bench.flush()] == [7]

    run(main())


# -- limits


def test_so_many_changes_may_wait() -> None:
    async def main() -> None:
        bench = Bench(max_pending_changes=3)
        for _ in range(3):
            bench.submit()
        with pytest.raises(OverloadedError, match="max_pending_changes") as caught:
            bench.submit()
        assert "3" in str(caught.value)
        bench.serve().flush()
        bench.submits.on_outcomes(1, [b""])
        bench.submit()

    run(main())


def test_so_many_bytes_may_wait() -> None:
    async def main() -> None:
        bench = Bench(max_change_bytes=4 * KIB, max_pending_bytes=4 * KIB)
        bench.submit(b"x" * 3 * KIB)
        with pytest.raises(OverloadedError, match=r"3072.*1025.*max_pending_bytes \(4096\)"):
            bench.submit(b"x" * (KIB + 1))
        bench.submit(b"x" * KIB)
        bench.serve().flush()
        bench.submits.on_outcomes(1, [b"", b""])
        bench.submit(b"x" * 4 * KIB)

    run(main())


def test_one_that_waits_for_ever_does_not_make_the_table_of_outcomes_grow_for_ever() -> None:
    async def main() -> None:
        bench = Bench(max_pending_changes=10).serve(B)
        first = bench.submit(timeout=1e6)
        bench.flush()
        for number in range(2, 22):
            bench.submit()
            bench.flush()
            bench.submits.on_outcomes(number, [b""])
        with pytest.raises(OverloadedError, match="max_pending_changes"):
            bench.submit()
        assert bench.sent[-1][2].acked_below == 1
        first.cancel()

    run(main())


def test_an_old_unknown_outcome_gives_way() -> None:
    async def main() -> None:
        bench = Bench(max_pending_changes=10).serve(B)
        (old,) = unknown(bench)
        for number in range(2, 100):
            bench.submit()
            bench.flush()
            bench.submits.on_outcomes(number, [b""])
        assert bench.sent[-1][2].acked_below > old
        with pytest.raises(SessionExpiredError):
            bench.submits.retry(old, None)

    run(main())


def test_memory_is_given_back() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        for round_ in range(50):
            futures = [bench.submit(b"x" * 100) for _ in range(20)]
            bench.flush()
            if round_ % 3:
                bench.later(1.1)
            bench.submits.on_outcomes(bench.sent[-1][2].first, [b""] * 20)
            await quiet(*futures)
        bench.submits.on_tick(bench.clock.now)
        submits = bench.submits
        assert not submits._pending
        assert not submits._attempts
        assert not submits._attempt_of
        assert not submits._asked_again
        assert submits._pending_bytes == 0
        assert submits.deadline == float("inf")

    run(main())


def test_many_sendings_of_one_group_do_not_pile_up() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        future = bench.submit(timeout=1000)
        bench.flush()
        bench.later(500)
        assert len(bench.sent) <= 502
        bench.submits.on_outcomes(1, [b"r"])
        assert await future == b"r"
        bench.submits.on_tick(bench.clock.now)
        assert not bench.submits._attempts

    run(main())


# -- the end


def test_closing_tells_what_is_known() -> None:
    async def main() -> None:
        bench = Bench().serve(B)
        sent = bench.submit()
        bench.flush()
        unsent = bench.submit()
        bench.submits.close(CLOSED, "the participant closed")
        error = failure(sent)
        assert isinstance(error, OutcomeUnknownError)
        assert "the participant closed" in str(error)
        assert failure(unsent) is CLOSED
        assert len(bench.submits) == 0

    run(main())


# -- all of it together, against a real table of sessions


class World:
    """A master that appends, loses and repeats, with the real applier behind it."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.bench = Bench(retry_seconds=0.2, max_pending_changes=200)
        self.machine = Machine()
        self.seq = 0
        self.log: list[Group] = []
        self.replies: list[tuple[int, Sequence[bytes | None]]] = []
        self.taken = 0

    def append(self, attempt: int, group: Group) -> None:
        self.seq += 1
        self.machine.feed(changes(self.seq, group))
        found = self.machine.outcomes[-1]
        if self.chance.random() < 0.6:
            self.replies.append((attempt, found))

    def turn(self) -> None:
        chance, bench = self.chance, self.bench
        bench.later(chance.random() * 0.1)
        if bench.asked and not bench.submits.session:
            nonce = bench.asked[-1][1]
            self.seq += 1
            self.machine.feed(session(self.seq, nonce))
            bench.submits.on_session(nonce, self.machine.heard.sessions[-1][-1])
        arrived, self.taken = bench.sent[self.taken :], len(bench.sent)
        for _, attempt, group in arrived:
            fate = chance.random()
            if fate < 0.15:
                bench.submits.on_reply(attempt, Refusal.NOT_APPENDED)
            elif fate < 0.8:
                self.log.append(group)
                self.append(attempt, group)
        if self.log and chance.random() < 0.2:
            self.append(0, chance.choice(self.log))  # a late repetition
        chance.shuffle(self.replies)
        while self.replies and chance.random() < 0.8:
            attempt, found = self.replies.pop()
            bench.submits.on_reply(attempt, Refusal.NONE, found)
        if chance.random() < 0.05:
            bench.lead(None)
        elif chance.random() < 0.3:
            bench.lead(chance.choice([NOBODY, B]))


@pytest.mark.parametrize("seed", range(25))
def test_each_change_has_one_effect_at_most_and_what_is_said_of_it_is_true(seed: int) -> None:
    async def main() -> None:
        world = World(seed)
        bench, chance = world.bench, world.chance
        waiting: dict[int, asyncio.Future[bytes]] = {}
        ended: dict[int, BaseException | None] = {}
        value = 0
        for _ in range(300):
            for _ in range(chance.randrange(4)):
                value += 1
                data = request(value)
                assert isinstance(data, bytes)
                timeout = chance.choice([0.1, 0.5, 2.0])
                waiting[value] = bench.submits.submit(data, len(data), timeout)
            world.turn()
            for number, future in tuple(waiting.items()):
                if not future.done():
                    continue
                del waiting[number]
                error = ended[number] = future.exception()
                if isinstance(error, OutcomeUnknownError) and chance.random() < 0.7:
                    assert error.request is not None
                    waiting[number] = bench.submits.retry(error.request, 0.5)
                elif error is None:
                    assert future.result() != STALE
        applied = world.machine.recorder.applied
        assert len(applied) == len(set(applied)), "nothing was applied twice"
        assert len(applied) > 50
        # Whatever still lingers on the way arrives after all.
        for group in world.log:
            world.append(0, group)
        late = set(world.machine.recorder.applied)
        for number, error in ended.items():
            if number in waiting:
                continue
            if error is None:
                assert number in applied
            elif isinstance(error, NotAppliedError):
                assert number not in late
        bench.submits.close(CLOSED, "the end")
        await quiet(*waiting.values())

    run(main())


def test_a_shorter_time_out_asks_for_a_turn_although_others_wait() -> None:
    """Without a master nothing leaves the queue; the timer must hear of an earlier deadline."""

    async def main() -> None:
        woken: list[int] = []
        settings = Settings()
        submits = Submits(
            settings,
            asyncio.get_running_loop().time,
            lambda to, attempt, group: None,
            lambda to, nonce: None,
            lambda: woken.append(1),
            nonce=1,
        )
        first = submits.submit(b"x", 1, 10.0)
        assert len(woken) == 1
        second = submits.submit(b"x", 1, 20.0)
        assert len(woken) == 1
        third = submits.submit(b"x", 1, 0.5)
        assert len(woken) == 2
        assert submits.deadline <= asyncio.get_running_loop().time() + 0.5
        submits.close(ParticipantClosedError("closed"), "closed")
        for future in (first, second, third):
            assert isinstance(future.exception(), ParticipantClosedError)

    asyncio.run(main())
