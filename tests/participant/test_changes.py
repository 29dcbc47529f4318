"""Changes: their results, their limits, and what is said where the outcome is not known."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterconsensus import (
    ApplyError,
    Context,
    InvalidChangeError,
    MsgpackCodec,
    NoMasterError,
    NotAppliedError,
    Outcome,
    OutcomeUnknownError,
    OverloadedError,
    ParticipantClosedError,
    SessionExpiredError,
    Settings,
    SettingsError,
)
from clusterconsensus.settings import KIB, MIB
from tests.participant.helpers import (
    FAST,
    STEADY,
    Book,
    FaultyFiles,
    cluster,
    error_of,
    is_once,
    run,
    until,
)


def test_every_member_takes_changes_and_gets_their_results(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            assert await held["a"].submit(["x", 1]) == 1
            assert await held["b"].submit(["x", 1]) == 2
            assert await held["c"].submit(["x", -5]) == -3
            assert await held["a"].submit_all([["x", 1], ["y", 7]]) == [-2, 7]
            assert await held["c"].submit_all([["x", 1], ["x", 1]]) == [-1, 0]
            assert await held["b"].submit_all([]) == []
            for participant in await held.settled():
                assert participant.state.items == {"x": 0, "y": 7}

    run(main())


def test_many_submitters_at_once(tmp_path: Path) -> None:
    """A-14, A-18, A-33: each change has one place and one result."""

    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            results: list[int] = []

            async def submitter(name: str, number: int) -> None:
                for step in range(25):
                    results.append(await held[name].submit(["x", 1]))
                    await held[name].submit([f"{name}{number}", step])

            async with asyncio.TaskGroup() as tasks:
                for name in "abc":
                    for number in range(8):
                        tasks.create_task(submitter(name, number))
            assert sorted(results) == list(range(1, 601))
            for participant in await held.settled():
                assert participant.state.items["x"] == 600
                assert len(participant.state.history) == 1200

    run(main())


def test_the_last_change_reaches_everybody_while_nothing_else_happens(tmp_path: Path) -> None:
    """A-17."""

    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            await held["a"].submit(["x", 1])
            await until(lambda: [held.x(name) for name in "abc"] == [1, 1, 1])

    run(main())


def test_what_apply_is_told_grows_along_the_log_and_is_the_same_everywhere(tmp_path: Path) -> None:
    """A-39, R10."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            for name in "abcab":
                await asyncio.gather(
                    held[name].submit(["x", 1]), held[name].submit_all([["y", 1], ["y", 1]])
                )
            master = await held.has_master()
            await held.stop(master.member.id)
            for participant in held.running.values():
                await participant.submit(["z", 1])
            for participant in await held.settled():
                places = [(sequence, index) for sequence, index, _ in participant.state.history]
                assert places == sorted(set(places))
                assert participant.state.times == sorted(participant.state.times)

    run(main())


# -- answers of the state machine


def test_an_exception_is_the_answer_of_the_change_on_every_member(tmp_path: Path) -> None:
    """R8, C-61."""

    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            for name in "abc":
                error = await error_of(held[name].submit("raise"))
                assert isinstance(error, ApplyError)
                assert (error.kind, error.detail) == ("ValueError", "not like this")
                assert error.outcome is Outcome.APPLIED
                error = await error_of(held[name].submit("unencodable"))
                assert isinstance(error, ApplyError)
                assert error.kind == "TypeError"
            first, second, third = await held["b"].submit_all([["x", 1], "raise", ["x", 1]])
            assert (first, third) == (1, 2)
            assert isinstance(second, ApplyError)
            await held["c"].submit(["x", 1])
            members = await held.settled()
            assert not any(participant.status().diverged for participant in members)

    run(main())


class Mute(Book):
    def apply(self, change: Any, context: Context) -> Any:
        super().apply(["n", 1], context)
        raise ValueError("a file named \udcff")


def test_even_an_odd_exception_is_an_answer(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            await held.start("a", state=Mute())
            await held["a"].init_master()
            for _ in range(2):
                error = await error_of(held["a"].submit(1))
                assert isinstance(error, ApplyError)
                assert error.kind == "ValueError"

    run(main())


# -- changes that are refused before anything happens


def test_what_cannot_be_encoded_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            before = held["a"].status().last_sequence
            endless: list[Any] = []
            endless.append(endless)
            for change in (object(), {"k": object()}, 2**70, endless, "\udcff"):
                error = await error_of(held["a"].submit(change))
                assert isinstance(error, InvalidChangeError)
                assert not error.retryable
                error = await error_of(held["a"].submit_all([["x", 1], change]))
                assert isinstance(error, InvalidChangeError)
                assert "change 1 of the batch" in str(error)
            await asyncio.sleep(0)
            assert held["a"].status().last_sequence == before
            assert held["a"].state.history == []
            assert await held["a"].submit(["x", 1]) == 1

    run(main())


class Key(msgspec.Struct, frozen=True):
    name: str


def test_a_change_that_cannot_be_decoded_again_is_refused(tmp_path: Path) -> None:
    """In the log it would stop every member for good."""

    async def main() -> None:
        async with cluster(tmp_path, "ab") as held:
            for change in ({Key("x"): 1}, msgspec.Raw(b"\xc1")):
                error = await error_of(held["b"].submit(change))
                assert isinstance(error, InvalidChangeError)
                assert "decoded" in str(error)
            assert await held["b"].submit(["x", 1]) == 1

    run(main())


def test_with_a_typed_codec_a_change_of_another_type_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "ab", codec=MsgpackCodec(change_type=tuple[str, int])) as held:
            for name in "ab":
                for change in ("text", ["x"], ["x", "1"], None):
                    error = await error_of(held[name].submit(change))
                    assert isinstance(error, InvalidChangeError)
            assert await held["b"].submit(("x", 1)) == 1
            await held.settled()
            assert held["b"].state.changes() == ["('x', 1)"], "and arrives as what it was"

    run(main())


def test_the_largest_change_passes_and_a_larger_one_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            limit = held.settings.max_change_bytes
            largest = "x" * (limit - 5)
            assert len(msgspec.msgpack.encode(largest)) == limit
            for name in "ab":
                assert await held[name].submit(largest) == limit - 5
            assert await held["b"].submit_all([largest[:-5]]) == [limit - 10]
            for call in (
                held["b"].submit(largest + "x"),
                held["b"].submit_all([largest + "x"]),
                held["b"].submit_all([largest[:-10], "x" * 10]),
            ):
                error = await error_of(call)
                assert isinstance(error, InvalidChangeError)
                assert f"max_change_bytes is {limit}" in str(error)
                assert len(str(error)) < 1_000
            await held.settled()

    run(main())


def test_the_limit_counts_what_tells_changes_apart(tmp_path: Path) -> None:
    """Very many very small changes would make a message that is too large to send."""

    async def main() -> None:
        settings = msgspec.structs.replace(
            STEADY,
            max_change_bytes=64 * KIB,
            max_batch_bytes=64 * KIB,
            max_message_bytes=128 * KIB,
        )
        async with cluster(tmp_path, "ab", settings=settings) as held:
            many = 64 * KIB // 6
            error = await error_of(held["a"].submit_all([0] * 64 * KIB))
            assert isinstance(error, InvalidChangeError)
            error = await error_of(held["a"].submit_all([0] * (many + 1)))
            assert isinstance(error, InvalidChangeError)
            results = await held["a"].submit_all([""] * many)
            assert results == [0] * many
            await held.settled()

    run(main())


# -- codecs


@dataclasses.dataclass
class Deposit:
    account: str
    amount: int


class Bank(Book):
    def apply(self, change: Any, context: Context) -> Any:
        assert isinstance(change, Deposit)
        return super().apply([change.account, change.amount], context)


def test_changes_that_are_dataclasses(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            codec = MsgpackCodec(change_type=Deposit, result_type=int)
            for name in "ab":
                await held.start(name, state=Bank(), codec=codec)
            await held["a"].init_master()
            await held["a"].add_participant(held.member("b"))
            assert await held["b"].submit(Deposit("x", 3)) == 3
            assert await held["a"].submit_all([Deposit("x", 3), Deposit("y", 1)]) == [6, 1]
            await held.settled()

    run(main())


class Words:
    """A codec of the user's own: ``["x", 3]`` is ``b"x 3"``."""

    def encode_change(self, change: Any) -> bytes:
        key, amount = change
        return f"{key} {amount}".encode()

    def decode_change(self, data: bytes) -> Any:
        key, amount = data.decode().split()
        return [key, int(amount)]

    def encode_result(self, result: Any) -> bytes:
        return str(result).encode()

    def decode_result(self, data: bytes) -> Any:
        return f"result {data.decode()}"


def test_a_codec_of_the_users_own(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "ab", codec=Words()) as held:
            assert await held["a"].submit(["x", 3]) == "result 3"
            assert await held["b"].submit_all([["x", 3], ["y", 1]]) == ["result 6", "result 1"]
            assert isinstance(await error_of(held["a"].submit("word")), InvalidChangeError)
            await held.settled()

    run(main())


# -- waiting, and not knowing


def test_cancelling_the_wait_does_not_cancel_the_change(tmp_path: Path) -> None:
    """K7."""

    async def main() -> None:
        async with cluster(tmp_path, "ab") as held:
            for name in "ab":
                submit = asyncio.ensure_future(held[name].submit([name, 1]))
                await asyncio.sleep(0)
                submit.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await submit
            await until(lambda: held.x("b", "a") == held.x("b", "b") == 1)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0):
                    await held["a"].submit(["x", 1])
            await held["a"].submit(["x", 1])
            await held.settled()
            assert held["a"].status().pending_changes == 0

    run(main())


def test_without_a_master_nothing_is_applied(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            participant = await held.start("a")
            error = await error_of(participant.submit(["x", 1], timeout=0.05))
            assert isinstance(error, NoMasterError)
            assert error.outcome is Outcome.NOT_APPLIED
            assert error.retryable
            await participant.init_master()
            assert await participant.submit(["x", 1]) == 1

    run(main())


def test_a_change_waits_for_a_master(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            participant = await held.start("a")
            submit = asyncio.ensure_future(participant.submit(["x", 1]))
            read = asyncio.ensure_future(participant.read(lambda book: book.items))
            await asyncio.sleep(0.01)
            await participant.init_master()
            assert await submit == 1
            assert await read in ({}, {"x": 1})

    run(main())


@pytest.mark.parametrize("batch", [False, True])
def test_an_unknown_outcome_is_learned_by_retry(tmp_path: Path, batch: bool) -> None:
    """C-59, A-37: the answer is lost; asking again does not apply it again."""

    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            a, b = held["a"], held["b"]
            await b.submit(["x", 1])
            held.cuts.cut("a", "b")
            if batch:
                error = await error_of(b.submit_all([["x", 1], ["x", 1]], timeout=0.5))
            else:
                error = await error_of(b.submit(["x", 1], timeout=0.5))
            assert isinstance(error, OutcomeUnknownError)
            assert error.outcome is Outcome.UNKNOWN
            assert error.request is not None
            await until(lambda: a.state.items["x"] > 1)
            again = await error_of(b.retry(error, timeout=0.3))
            assert isinstance(again, OutcomeUnknownError)
            assert again.request == error.request
            held.cuts.heal()
            assert await b.retry(again) == ([2, 3] if batch else 2)
            assert isinstance(await error_of(b.retry(again)), SessionExpiredError)
            await b.submit(["y", 1])
            await held.settled()
            assert a.state.items == {"x": 3 if batch else 2, "y": 1}

    run(main())


def test_a_retry_applies_what_was_not_applied_before(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            b = held["b"]
            await b.submit(["x", 1])
            held.cuts.cut("b", "a")
            error = await error_of(b.submit(["x", 1], timeout=0.5))
            assert isinstance(error, OutcomeUnknownError)
            held.cuts.heal()
            assert await b.retry(error) == 2
            assert held["a"].state.items == {"x": 2}

    run(main())


def test_a_retry_finds_the_outcome_at_another_master(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            master = await held.has_master()
            others = [held[name] for name in "abc" if held[name] is not master]
            asker = others[0]
            await asker.submit(["x", 1])
            held.cuts.cut(master.member.id, asker.member.id)
            error = await error_of(asker.submit(["x", 1], timeout=0.2))
            held.cuts.heal()
            await held.stop(master.member.id)
            if isinstance(error, OutcomeUnknownError):
                assert await asker.retry(error) == 2
            else:
                assert isinstance(error, NotAppliedError)
                assert await asker.submit(["x", 1]) == 2
            await held.settled()
            assert others[1].state.items == {"x": 2}

    run(main())


def test_a_retry_at_a_closed_participant_is_no_refusal(tmp_path: Path) -> None:
    """What was sent before may have been applied: that it is not sent again says nothing (X4)."""

    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            b = held["b"]
            await b.submit(["x", 1])
            held.cuts.cut("b", "a")
            error = await error_of(b.submit(["x", 1], timeout=0.5))
            assert isinstance(error, OutcomeUnknownError)
            await b.aclose()
            again = await error_of(b.retry(error))
            assert isinstance(again, OutcomeUnknownError)
            assert again.outcome is Outcome.UNKNOWN
            assert isinstance(again.__cause__, ParticipantClosedError)
            assert "closed" in str(again)
            assert await error_of(b.retry(again)) is again  # nobody can be asked any more

    run(main())


def test_an_error_of_another_call_cannot_be_retried(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            for error in (OutcomeUnknownError("x", 77), OutcomeUnknownError("x")):
                assert isinstance(await error_of(held["a"].retry(error)), OutcomeUnknownError)

    run(main())


def test_a_change_whose_submitter_gave_up_is_applied_by_the_master_too(tmp_path: Path) -> None:
    """C-60, A-15."""

    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            a = held["a"]
            await a.submit(["x", 1])
            held.cuts.isolate("a", "b", "c")
            error = await error_of(a.submit(["x", 1], timeout=0.1))
            assert isinstance(error, OutcomeUnknownError)
            held.cuts.heal()
            assert await a.retry(error) == 2
            await held.settled()
            assert a.state.items == {"x": 2}

    run(main())


def test_closing_tells_those_who_wait(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "ab") as held:
            a = held["a"]
            await a.submit(["x", 1])
            held.cuts.isolate("a", "b")
            sent = asyncio.ensure_future(a.submit(["x", 1]))
            read = asyncio.ensure_future(a.read(lambda book: book.items))
            adding = asyncio.ensure_future(a.add_participant(held.member("z")))
            await asyncio.sleep(0.05)
            await a.aclose()
            assert isinstance(await error_of(sent), OutcomeUnknownError)
            assert isinstance(await error_of(read), ParticipantClosedError)
            assert isinstance(await error_of(adding), ParticipantClosedError)

    run(main())


# -- limits on what waits


def test_so_many_changes_wait_at_one_participant(tmp_path: Path) -> None:
    async def main() -> None:
        settings = msgspec.structs.replace(STEADY, max_pending_changes=10)
        async with cluster(tmp_path, "a", settings=settings) as held:
            calls = [held["a"].submit(["x", 1]) for _ in range(15)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            refused = [result for result in results if isinstance(result, OverloadedError)]
            assert len(refused) == 5
            assert "max_pending_changes" in str(refused[0])
            assert refused[0].outcome is Outcome.NOT_APPLIED
            assert held["a"].state.items == {"x": 10}
            assert await held["a"].submit(["x", 1]) == 11

    run(main())


def test_so_much_may_be_staged_at_the_master(tmp_path: Path) -> None:
    """X5: while its disk hangs."""

    async def main() -> None:
        settings = msgspec.structs.replace(
            STEADY,
            max_change_bytes=64 * KIB,
            max_batch_bytes=64 * KIB,
            max_staged_bytes=256 * KIB,
            disk_timeout_seconds=1000.0,
        )
        async with cluster(tmp_path, settings=settings) as held:
            files = FaultyFiles()
            a = await held.start("a", files=files)
            await a.init_master()
            await a.submit("warm")
            files.go.clear()
            changes = ["x" * 60 * KIB + str(number) for number in range(12)]
            waiting = [asyncio.ensure_future(a.submit(change)) for change in changes]
            await asyncio.sleep(0.05)
            late = await error_of(a.submit("late", timeout=0.2))
            assert isinstance(late, NotAppliedError | OutcomeUnknownError)
            refused = await error_of(a.submit("x" * 63 * KIB, timeout=0.2))
            assert isinstance(refused, OverloadedError)
            assert "max_staged_bytes" in str(refused)
            files.go.set()
            await asyncio.gather(*waiting)
            assert is_once(a.state.changes())
            assert repr("x" * 63 * KIB) not in a.state.changes()

    run(main())


def test_settings_that_contradict_themselves_are_refused_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            with pytest.raises(SettingsError):
                held.make("a", settings=Settings(max_message_bytes=MIB))

    run(main())
