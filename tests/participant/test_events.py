"""What an application is told, and what becomes of one that cannot bear it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterconsensus import (
    ApplyError,
    BecameMaster,
    BrokenInvariantError,
    Committed,
    EventHandler,
    LostMaster,
    MasterChanged,
    MembershipChanged,
    MsgpackCodec,
    Outcome,
    Participant,
    ParticipantClosedError,
    ParticipantEvent,
    Trouble,
)
from tests.participant.helpers import FAST, STEADY, Book, Told, cluster, error_of, run, until


class Reader:
    """Reads the events of a participant to the end."""

    def __init__(self, participant: Participant[Book], *, commits: bool = False) -> None:
        self.events: list[ParticipantEvent] = []
        self.task = asyncio.ensure_future(self._read(participant, commits))

    async def _read(self, participant: Participant[Book], commits: bool) -> None:
        async for event in participant.events(commits=commits):
            self.events.append(event)

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def reader_of(participant: Participant[Book], *, commits: bool = False) -> Reader:
    """A reader that reads already."""
    reader = Reader(participant, commits=commits)
    await asyncio.sleep(0)
    return reader


def test_every_member_is_told_of_every_commit(tmp_path: Path) -> None:
    """A-38: the sequence, the changes and the results, once each, on all members."""

    async def main() -> None:
        async with cluster(tmp_path) as held:
            told = {name: Told() for name in "abc"}
            for name in "abc":
                await held.start(name, handler=told[name])
            await held["a"].init_master()
            for name in "bc":
                await held["a"].add_participant(held.member(name))
            readers = [await reader_of(held[name], commits=True) for name in "abc"]
            await held["a"].submit(["x", 1])
            await held["b"].submit_all([["x", 1], ["y", 5]])
            await error_of(held["c"].submit("raise"))
            await held.settled()
            for heard in told.values():
                assert repr(heard.commits) == repr(told["a"].commits)
                assert [changes for _, changes, _ in heard.commits] == [
                    [["x", 1]],
                    [["x", 1], ["y", 5]],
                    ["raise"],
                ]
                results = [results for _, _, results in heard.commits]
                assert results[:2] == [[1], [2, 5]]
                assert isinstance(results[2][0], ApplyError)
                sequences = [sequence for sequence, _, _ in heard.commits]
                assert sequences == sorted(set(sequences))
                assert sequences[0] == held["a"].state.history[0][0]
            for reader in readers:
                await until(lambda: all(len(reader.of(Committed)) == 3 for reader in readers))
                assert [
                    (event.sequence, event.changes, event.results)
                    for event in reader.of(Committed)[:2]
                ] == told["a"].commits[:2]
            await held.close()
            await asyncio.gather(*(reader.task for reader in readers))

    run(main())


def test_a_result_of_another_type_stops_nobody(tmp_path: Path) -> None:
    """The change was applied; only its result cannot be told."""

    async def main() -> None:
        async with cluster(tmp_path) as held:
            told = Told()
            for name in "ab":
                await held.start(name, codec=MsgpackCodec(result_type=str), handler=told)
            await held["a"].init_master()
            await held["a"].add_participant(held.member("b"))
            for name in "ab":
                error = await error_of(held[name].submit(["x", 1]))
                assert isinstance(error, ApplyError)
                assert error.outcome is Outcome.APPLIED
            await held.settled()
            assert held["b"].state.items == {"x": 2}
            assert len(told.commits) == 4

    run(main())


def test_events_tell_of_masters_and_members(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, settings=FAST) as held:
            readers = {}
            for name in "abc":
                readers[name] = await reader_of(await held.start(name))
            await held["a"].init_master()
            for name in "bc":
                await held["a"].add_participant(held.member(name))
            await until(
                lambda: all(
                    reader.of(MembershipChanged)[-1].committed
                    and len(reader.of(MembershipChanged)[-1].configuration.voters) == 3
                    for reader in readers.values()
                )
            )
            for reader in readers.values():
                changed = reader.of(MembershipChanged)
                assert [seat.id for seat in changed[-1].configuration.seats] == list("abc")
                assert all(seat.is_voter for seat in changed[-1].configuration.seats)
                places = [event.configuration.previous_seq for event in changed]
                assert places == sorted(places)
            master = await held.has_master()
            name = master.member.id
            assert readers[name].of(BecameMaster)[-1].ballot == master.status().ballot
            await held.stop(name)
            assert readers[name].of(LostMaster)[-1].reason
            await readers[name].task
            new = await held.has_master()
            other = next(held[other] for other in held.running if held[other] is not new)
            await until(lambda: readers[other.member.id].of(MasterChanged)[-1].master == new.member)
            assert not any(reader.of(Committed) for reader in readers.values())
            await held.close()
            await asyncio.gather(*(reader.task for reader in readers.values()))

    run(main())


def test_a_reader_that_leaves_is_forgotten(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            a = held["a"]
            stream = a.events(commits=True)
            first = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            await a.submit(["x", 1])
            event = await first
            assert isinstance(event, Committed)
            assert (event.changes, event.results) == ([["x", 1]], [1])
            await stream.aclose()
            assert not a._publisher.wants_commits
            await a.submit(["x", 1])

    run(main())


def test_a_slow_reader_loses_the_oldest(tmp_path: Path) -> None:
    async def main() -> None:
        settings = msgspec.structs.replace(STEADY, max_events=10)
        async with cluster(tmp_path, "a", settings=settings) as held:
            stream = held["a"].events(commits=True)
            first = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            for number in range(1, 31):
                await held["a"].submit(["x", number])
            assert isinstance(await first, Committed)
            await held["a"].aclose()
            told, *rest = [event async for event in stream]
            assert isinstance(told, Trouble)
            assert told.code == "events_dropped"
            assert " events were dropped" in told.detail
            assert len(rest) == 10
            commits = [event for event in rest if isinstance(event, Committed)]
            assert commits[-1].changes == [["x", 30]]

    run(main())


class Fragile(EventHandler):
    """Cannot bear one kind of news."""

    def __init__(self, bears: str) -> None:
        self.cannot_bear = bears
        self.masterships: list[str] = []

    def _hear(self, what: str) -> None:
        self.masterships.append(what)
        if what == self.cannot_bear:
            raise RuntimeError(f"cannot {what}")

    def on_become_master(self) -> None:
        self._hear("become")

    def on_lose_master(self) -> None:
        self._hear("lose")

    def on_commit(self, sequence: int, changes: list[Any], results: list[Any]) -> None:
        if self.cannot_bear == "commit":
            raise RuntimeError("cannot commit")


def test_an_application_that_cannot_be_master_does_not_keep_it_from_others(tmp_path: Path) -> None:
    """C-66."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            await held["a"].submit(["x", 1])
            for name in "abc":
                await held.stop(name)
            eager = msgspec.structs.replace(FAST, election_timeout_seconds=0.2)
            patient = msgspec.structs.replace(FAST, election_timeout_seconds=2.0)
            handler = Fragile("become")
            await held.start("b", settings=patient)
            await held.start("c", settings=patient)
            a = await held.start("a", settings=eager, handler=handler)
            assert await held["b"].submit(["x", 1]) == 2
            if handler.masterships:
                assert handler.masterships == ["become", "lose"]
                error = await error_of(a.wait_closed())
                assert isinstance(error, BrokenInvariantError)
                assert "cannot become" in str(error)
                assert isinstance(await error_of(a.submit(["x", 1])), ParticipantClosedError)
            assert await held["c"].read(lambda book: book.items["x"]) == 2

    run(main())


def test_a_handler_that_fails_at_the_founding(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            a = await held.start("a", handler=Fragile("become"))
            assert isinstance(await error_of(a.init_master()), ParticipantClosedError)
            assert isinstance(await error_of(a.wait_closed()), BrokenInvariantError)

    run(main())


@pytest.mark.parametrize("news", ["lose", "commit"])
def test_other_news_that_cannot_be_borne_closes_the_participant_too(
    tmp_path: Path, news: str
) -> None:
    async def main() -> None:
        async with cluster(tmp_path, settings=FAST) as held:
            fragile = Fragile(news)
            for name in "abc":
                await held.start(name, handler=fragile if name == "a" else None)
            a = held["a"]
            await a.init_master()
            for name in "bc":
                await a.add_participant(held.member(name))
            if news == "lose":
                held.cuts.isolate("a", "b", "c")
            await held["b"].submit(["x", 1])
            if news != "lose" or a.is_master or fragile.masterships:
                error = await error_of(a.wait_closed())
                assert isinstance(error, BrokenInvariantError)
                assert f"cannot {news}" in str(error)
            held.cuts.heal()
            assert await held["c"].submit(["x", 1]) == 2

    run(main())


def test_a_handler_that_fails_while_closing_is_only_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            a = await held.start("a", handler=Fragile("lose"))
            await a.init_master()
            await held.stop("a")
            await a.wait_closed()

    run(main())
    assert "cannot lose" in caplog.text


def test_the_trouble_of_a_participant_leaves_its_block(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:

            async def trouble() -> None:
                async with held.make("a", handler=Fragile("commit")) as a:
                    await a.init_master()
                    await asyncio.wait([asyncio.ensure_future(error_of(a.submit(["x", 1])))])

            async def own_trouble() -> None:
                async with held.make("a"):
                    raise ZeroDivisionError

            error = await error_of(trouble())
            assert isinstance(error, BrokenInvariantError)
            assert "cannot commit" in str(error)
            assert isinstance(await error_of(own_trouble()), ZeroDivisionError)
            async with held.make("a") as a:
                assert await a.submit(["x", 1]) == 2

    run(main())
