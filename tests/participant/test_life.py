"""Beginning and ending: names, directories, founding, restarts."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from clusterconsensus import (
    DirectoryInUseError,
    DirectoryNotEmptyError,
    InvalidChangeError,
    Member,
    NoMasterError,
    Outcome,
    Participant,
    ParticipantClosedError,
    Role,
    Settings,
    SettingsError,
    TcpTransport,
    TransportError,
    WrongDirectoryError,
)
from clusterconsensus.settings import MIB
from clusterconsensus.storage.files import FileLock, RealFiles
from clusterconsensus.storage.identity import open_directory
from clusterconsensus.storage.journal import Journal
from tests.participant.helpers import FAST, Book, Ports, cluster, error_of, run, until


def made(**changed: Any) -> Participant[Book]:
    parts: dict[str, Any] = {
        "cluster": "shop",
        "member": Member("a", "127.0.0.1:7001"),
        "state": Book(),
        "directory": "/nowhere",
        "transport": TcpTransport("127.0.0.1:7001"),
    }
    return Participant(**(parts | changed))


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a/b", "a@b", "\u00e4", "a\n"])
def test_names_are_checked(name: str) -> None:
    with pytest.raises(SettingsError, match="is not 1 to 64"):
        made(cluster=name)
    with pytest.raises(SettingsError, match="is not 1 to 64"):
        made(member=Member(name, "127.0.0.1:7001"))


def test_good_names_pass() -> None:
    assert made(cluster="A.b_c-9" + "x" * 57, member=Member("0", "127.0.0.1:1")).member.id == "0"


@pytest.mark.parametrize("method", ["apply", "snapshot", "install"])
def test_a_state_has_its_three_methods(method: str) -> None:
    class Odd:
        pass

    state = Odd()
    for name in {"apply", "snapshot", "install"} - {method}:
        setattr(state, name, print)
    with pytest.raises(SettingsError, match=f"Odd has no method '{method}'"):
        made(state=state)


def test_settings_are_checked() -> None:
    with pytest.raises(SettingsError, match="heartbeat_seconds"):
        made(settings=Settings(heartbeat_seconds=9))


def test_a_transport_that_carries_less_is_refused_at_once() -> None:
    settings = Settings(max_message_bytes=8 * MIB + 1, peer_queue_bytes=64 * MIB)
    with pytest.raises(
        SettingsError, match=rf"{8 * MIB} bytes; max_message_bytes is {8 * MIB + 1}"
    ):
        made(settings=settings)
    made(settings=settings, transport=TcpTransport("127.0.0.1:7001", settings=settings))


def test_nothing_happens_before_the_start(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            participant = held.make("a")
            for call in (
                participant.submit(1),
                participant.submit_all([1]),
                participant.read(len),  # type: ignore[arg-type]  # it never gets there
                participant.init_master(),
                participant.add_participant(held.member("b")),
                participant.ping_master(),
                participant.start_election(),
                participant.wait_for_master(),
                participant.wait_closed(),
            ):
                error = await error_of(call)
                assert isinstance(error, ParticipantClosedError)
                assert error.outcome is Outcome.NOT_APPLIED
                assert "started" in str(error)
            with pytest.raises(ParticipantClosedError):
                participant.events()
            with pytest.raises(ParticipantClosedError):
                participant.status()
            assert not participant.is_master
            assert not participant.has_master
            assert not held.is_on_disk("a")
            await participant.aclose()
            await participant.aclose()
            assert isinstance(await error_of(participant.start()), ParticipantClosedError)

    run(main())


def test_nothing_happens_after_the_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            participant = held["a"]
            await participant.submit(["x", 1])
            await participant.aclose()
            await participant.aclose()
            for call in (participant.submit(["x", 1]), participant.read(lambda book: book.items)):
                error = await error_of(call)
                assert isinstance(error, ParticipantClosedError)
                assert not error.retryable
            await participant.wait_closed()
            assert participant.current_master is None
            assert not participant.is_master
            assert participant.status().applied_sequence > 0, "what it was can still be asked"
            assert participant.state.items == {"x": 1}
            assert isinstance(await error_of(participant.start()), ParticipantClosedError)

    run(main())


def test_a_participant_is_started_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            error = await error_of(held["a"].start())
            assert isinstance(error, ParticipantClosedError)
            assert "once" in str(error)
            await held["a"].submit(["x", 1])

    run(main())


def test_starting_twice_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            participant = held.running["a"] = held.make("a")
            results = await asyncio.gather(
                participant.start(), participant.start(), return_exceptions=True
            )
            assert [type(result) for result in results] == [type(None), ParticipantClosedError]
            await participant.init_master()

    run(main())


def test_async_with_starts_and_stops(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            async with held.make("a") as participant:
                await participant.init_master()
                assert await participant.submit(["x", 1]) == 1
            assert isinstance(await error_of(participant.submit(1)), ParticipantClosedError)

    run(main())


def test_founding_makes_a_master_of_one(tmp_path: Path) -> None:
    """A-47: alone, it commits as quickly as it can sync."""

    async def main() -> None:
        async with cluster(tmp_path) as held:
            participant = await held.start("a")
            assert participant.status().role is Role.UNJOINED
            error = await error_of(participant.wait_for_master(0.01))
            assert isinstance(error, NoMasterError)
            await participant.init_master()
            assert participant.is_master
            assert participant.current_master == participant.member
            assert await participant.wait_for_master() == participant.member
            assert [await participant.submit(["x", 1]) for _ in range(20)] == list(range(1, 21))
            status = participant.status()
            assert [seat.id for seat in status.members] == ["a"]
            assert status.role is Role.MASTER
            assert status.cluster_id
            assert status.configuration_committed

    run(main())


def test_founding_on_a_directory_that_belongs_to_a_cluster_is_refused(tmp_path: Path) -> None:
    """A-29, I1."""

    async def main() -> None:
        async with cluster(tmp_path, "ab", settings=FAST) as held:
            for _ in range(2):
                for participant in held.running.values():
                    error = await error_of(participant.init_master())
                    assert isinstance(error, DirectoryNotEmptyError)
                    assert "shop" in str(error)
                for name in "ab":
                    await held.stop(name)
                for name in "ab":
                    await held.start(name)
            await held["a"].submit(["x", 1])
            ids = {participant.status().cluster_id for participant in held.running.values()}
            assert len(ids) == 1

    run(main())


def test_founding_twice_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            participant = await held.start("a")
            calls = [participant.init_master() for _ in range(3)]
            results = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(result) for result in results] == [
                type(None),
                DirectoryNotEmptyError,
                DirectoryNotEmptyError,
            ]
            assert await participant.submit(["x", 1]) == 1

    run(main())


def test_founding_that_was_cut_short_can_be_finished(tmp_path: Path) -> None:
    """The identity says founder, the journal is empty: a crash came in between."""

    async def main() -> None:
        async with cluster(tmp_path) as held:
            files = RealFiles()
            directory = open_directory(files, held.directory("a"), "shop", "a", "disk")
            journal = Journal.open(files, directory.path, disk_id="disk", segment_bytes=1 << 18)
            directory.found("the-id")
            journal.close(0)
            directory.close()
            participant = await held.start("a")
            assert participant.status().role is Role.UNJOINED
            await participant.init_master()
            assert await participant.submit(["x", 1]) == 1
            assert participant.status().cluster_id == "the-id"

    run(main())


def test_the_state_to_begin_with_reaches_everybody_also_after_a_restart(tmp_path: Path) -> None:
    async def main() -> None:
        begun = msgspec.msgpack.encode({"x": 40})
        async with cluster(tmp_path, settings=FAST) as held:
            for name in "abc":
                await held.start(name)
            await held["a"].init_master(begun)
            assert await held["a"].submit(["x", 2]) == 42
            await held["a"].add_participant(held.member("b"))
            await held["b"].add_participant(held.member("c"))
            for _ in range(2):
                for participant in await held.settled():
                    assert participant.state.items == {"x": 42}
                for name in "abc":
                    await held.stop(name)
                for name in "abc":
                    await held.start(name)
            assert await held["c"].submit(["x", 1]) == 43

    run(main())


def test_a_state_to_begin_with_that_is_too_large(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            participant = await held.start("a")
            size = held.settings.max_change_bytes + 1
            error = await error_of(participant.init_master(bytes(size)))
            assert isinstance(error, InvalidChangeError)
            assert str(size) in str(error)
            await participant.init_master()

    run(main())


def test_a_second_participant_on_a_directory_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            second = held.make("b", directory=held.directory("a"))
            error = await error_of(second.start())
            assert isinstance(error, DirectoryInUseError)
            assert held.directory("a") in str(error)
            assert str(os.getpid()) in str(error)
            assert isinstance(await error_of(second.wait_closed()), ParticipantClosedError)
            third = held.make("a")
            assert isinstance(await error_of(third.start()), DirectoryInUseError)
            await held["a"].submit(["x", 1])
            await held.stop("a")
            await third.start()  # it had touched nothing, so it may try again
            held.running["a"] = third
            assert await third.submit(["x", 1]) == 2

    run(main())


def test_a_directory_of_another_member_or_cluster_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            await held.stop("a")
            for _ in range(2):
                error = await error_of(held.make("b", directory=held.directory("a")).start())
                assert isinstance(error, WrongDirectoryError)
                assert "'a'" in str(error)
            held.name = "other"
            error = await error_of(held.make("a").start())
            assert isinstance(error, WrongDirectoryError)
            held.name = "shop"
            await held.start("a")

    run(main())


def test_a_start_that_failed_leaves_nothing_behind_and_is_not_repeated(tmp_path: Path) -> None:
    """The state may hold a part of the log; the log again on top of it would be wrong."""

    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            await held["a"].submit(["x", 1])
            await held.stop("a")
            host, port = held.member("a").address.split(":")
            squatter = await asyncio.start_server(lambda r, w: None, host, int(port))
            participant = held.make("a")
            assert isinstance(await error_of(participant.start()), TransportError)
            assert isinstance(await error_of(participant.wait_closed()), ParticipantClosedError)
            squatter.close()
            await squatter.wait_closed()
            assert isinstance(await error_of(participant.start()), ParticipantClosedError)
            await participant.aclose()
            await held.start("a")
            assert await held["a"].submit(["x", 1]) == 2

    run(main())


class SlowLock(RealFiles):
    """Takes its time with the lock."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.go = threading.Event()

    def lock(self, path: str) -> FileLock:
        self.asked.set()
        self.go.wait(30)
        return super().lock(path)


def test_a_start_that_was_cancelled_gives_the_directory_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            files = SlowLock()
            starting = asyncio.ensure_future(held.make("a", files=files).start())
            await until(files.asked.is_set)
            starting.cancel()
            await asyncio.sleep(0)
            files.go.set()
            with pytest.raises(asyncio.CancelledError):
                await starting
            await held.start("a")

    run(main())


def test_closing_while_it_starts(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            files = SlowLock()
            participant = held.make("a", files=files)
            starting = asyncio.ensure_future(participant.start())
            await until(files.asked.is_set)
            await participant.aclose()
            files.go.set()
            assert isinstance(await error_of(starting), ParticipantClosedError)
            await held.start("a")

    run(main())


def test_cancelling_the_close_does_not_stop_it(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            participant = held.running.pop("a")
            closing = asyncio.ensure_future(participant.aclose())
            await asyncio.sleep(0)
            closing.cancel()
            with pytest.raises(asyncio.CancelledError):
                await closing
            await participant.wait_closed()
            await held.start("a")

    run(main())


def test_each_member_comes_back_with_what_it_had(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            expected = 0
            for name in "abcabc":
                await held.stop(name)
                for participant in held.running.values():
                    expected += 1
                    assert await participant.submit(["x", 1]) == expected
                await held.start(name)
                expected += 1
                assert await held[name].submit(["x", 1]) == expected
            for participant in await held.settled():
                assert participant.state.items == {"x": expected}
                assert len(participant.state.history) == expected

    run(main())


def test_all_members_come_back_with_what_they_had(tmp_path: Path) -> None:
    """A-27."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            for number in range(1, 4):
                await held["b"].submit_all([["x", 1], ["y", number]])
                before = [participant.state.history for participant in await held.settled()]
                ballots = [held[name].status().promised for name in "abc"]
                for name in "abc":
                    await held.stop(name)
                for name in "cab":
                    await held.start(name)
                assert await held["b"].read(lambda book: book.items["x"]) == number
                assert before[0] == [*held["b"].state.history]
                master = await held.has_master()
                assert master.status().ballot > max(ballots), "no ballot is used twice (C-47)"

    run(main())


def test_a_member_alone_has_applied_everything_before_its_first_read(tmp_path: Path) -> None:
    """C-54."""

    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            await asyncio.gather(*(held["a"].submit(["x", 1]) for _ in range(500)))
            for _ in range(3):
                await held.stop("a")
                await held.start("a")
                assert await held["a"].read(lambda book: book.items["x"]) == 500

    run(main())


def test_ports_are_ours() -> None:
    """The helper keeps a port for us, and lets us listen on it."""

    async def main() -> None:
        ports = Ports()
        host, port = ports.take().split(":")
        for _ in range(2):
            server = await asyncio.start_server(lambda r, w: None, host, int(port))
            server.close()
            await server.wait_closed()
        ports.close()

    run(main())
