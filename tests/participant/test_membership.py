"""Adding, removing, replacing and moving members, and refusing the wrong ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from clusterconsensus import (
    Member,
    MembershipError,
    MembershipPendingError,
    NoMasterError,
    Outcome,
    Participant,
    Role,
    SettingsError,
    TcpTransport,
)
from clusterconsensus.errors import RemovedError
from clusterconsensus.runtime.status import CatchUp, Removed
from clusterconsensus.settings import KIB
from tests.participant.helpers import (
    FAST,
    STEADY,
    Book,
    Cluster,
    Ports,
    cluster,
    error_of,
    run,
    until,
)


def test_members_are_added_through_any_member_and_repeating_it_is_harmless(tmp_path: Path) -> None:
    """M6."""

    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            for name in "bcd":
                await held.start(name)
                assert held[name].status().role is Role.UNJOINED
            await held["a"].add_participant(held.member("b"))
            await held["b"].add_participant(held.member("c"))
            await held["c"].add_participant(held.member("d"))
            for name in "abcd":
                for other in "abcd":
                    await held[name].add_participant(held.member(other))
            for participant in await held.settled():
                seats = participant.status().members
                assert [seat.id for seat in seats] == list("abcd")
                assert all(seat.is_voter for seat in seats)
            before = held["a"].status().configuration_sequence
            await held["a"].add_participant(held.member("b"))
            assert held["a"].status().configuration_sequence == before

    run(main())


def test_several_members_are_asked_for_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            for name in "bcde":
                await held.start(name)
            a = held["a"]
            changes = [a.submit(["x", 1]) for _ in range(50)]
            adding = [a.add_participant(held.member(name)) for name in "bcdebc"]
            await asyncio.gather(*adding, *changes)
            for participant in await held.settled():
                assert [seat.standing for seat in participant.status().members] == ["voter"] * 5
                assert participant.state.items == {"x": 50}

    run(main())


def test_a_member_is_added_under_constant_load(tmp_path: Path) -> None:
    """C-36."""

    async def main() -> None:
        async with cluster(tmp_path, "ab") as held:
            stop = False

            async def submitter(name: str) -> None:
                while not stop:
                    await held[name].submit(["x", 1])

            load = [asyncio.ensure_future(submitter(name)) for name in "ab" for _ in range(4)]
            await held.start("c")
            await held["b"].add_participant(held.member("c"))
            stop = True
            await asyncio.gather(*load)
            await held.settled()

    run(main())


def test_an_address_that_nobody_answers(tmp_path: Path) -> None:
    """A-46: it harms nobody, and the member may come later."""

    async def main() -> None:
        async with cluster(tmp_path, "ab") as held:
            for name in "ab":
                error = await error_of(held[name].add_participant(held.member("c"), timeout=0.3))
                assert isinstance(error, MembershipPendingError)
                assert error.outcome is Outcome.UNKNOWN
                assert str(held.member("c")) in str(error)
                assert await held[name].submit(["x", 1]) > 0
            adding = asyncio.ensure_future(held["b"].add_participant(held.member("c")))
            await asyncio.sleep(0.05)
            assert not adding.done()
            await held.start("c")
            await adding
            await held.settled()

    run(main())


def test_without_a_master_nobody_is_added(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            participant = await held.start("a")
            error = await error_of(participant.add_participant(held.member("b"), timeout=0.05))
            assert isinstance(error, NoMasterError)
            error = await error_of(participant.add_participant(Member("no good", "x")))
            assert isinstance(error, SettingsError)

    run(main())


def test_another_member_at_the_address_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "ab") as held:
            await held.start("c")
            for name in "ab":
                wrong = Member("z", held.member("c").address)
                error = await error_of(held[name].add_participant(wrong))
                assert isinstance(error, MembershipError)
                assert "is 'c', not 'z'" in str(error)
            error = await error_of(held["a"].add_participant(Member("b", held.ports.take())))
            assert isinstance(error, MembershipError)
            assert held.member("b").address in str(error)
            await held["a"].add_participant(held.member("c"))

    run(main())


def test_a_member_of_another_cluster_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path / "one", "ab") as one, cluster(tmp_path / "two", "c") as two:
            (cluster_id,) = {two["c"].status().cluster_id}
            error = await error_of(one["b"].add_participant(two.member("c")))
            assert isinstance(error, MembershipError)
            assert cluster_id in str(error)
            assert await two["c"].submit(["x", 1]) == 1
            assert len(one["a"].status().members) == 2

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    run(main())


def test_a_member_of_another_cluster_on_a_known_address_is_not_listened_to(tmp_path: Path) -> None:
    """C-45: it founded a cluster of the same name, and answers at a member's address."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            await held["a"].submit(["x", 1])
            await held.stop("c")
            stranger = held.make("c", directory=held.directory("elsewhere"))
            async with stranger:
                await stranger.init_master()
                assert await stranger.submit(["x", 100]) == 100
                for number in range(2, 12):
                    assert await held["b"].submit(["x", 1]) == number
                await until(lambda: stranger.status().dropped)
                assert stranger.state.items == {"x": 100}
                assert set(stranger.status().dropped) <= {"destination", "cluster"}
            await held.start("c")
            for participant in await held.settled():
                assert participant.state.items == {"x": 11}

    run(main())


def test_adding_a_member_again_that_lost_its_disk_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            await held.stop("c")
            held.wipe("c")
            await held.start("c")
            error = await error_of(held["a"].add_participant(held.member("c")))
            assert isinstance(error, MembershipError)
            assert "another disk" in str(error)

    run(main())


def test_adding_a_member_again_that_is_gone_is_harmless(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            await held.stop("c")
            await held["a"].add_participant(held.member("c"))
            await held["b"].add_participant(held.member("c"))
            await held.start("c")
            await held["c"].add_participant(held.member("c"))
            await held.settled()

    run(main())


def test_a_member_that_lost_its_disk_is_another_member(tmp_path: Path) -> None:
    """C-42, I2, W6: it counts for nothing, however often it asks."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            await held["a"].submit(["x", 1])
            await held.stop("c")
            held.wipe("c")
            await held.start("c")
            assert await held["b"].submit(["x", 1]) == 2
            assert held["c"].status().role is Role.UNJOINED
            assert held["c"].state.items == {}
            (other,) = [name for name in "ab" if not held[name].is_master]
            await held.stop(other)
            survivor = "a" if other == "b" else "b"
            await until(lambda: not held[survivor].is_master)
            await error_of(held[survivor].submit(["x", 1], timeout=0.3))
            assert held[survivor].state.items == {"x": 2}, "one of three is no majority"

    run(main())


def test_a_late_member_gets_from_the_disk_what_the_memory_has_not(tmp_path: Path) -> None:
    async def main() -> None:
        settings = msgspec.structs.replace(STEADY, log_cache_bytes=16 * KIB, segment_bytes=64 * KIB)
        async with cluster(tmp_path, "ab", settings=settings) as held:
            text = "x" * 1_000
            for _ in range(6):
                await asyncio.gather(*(held["a"].submit(text) for _ in range(20)))
                await held["b"].submit(text * 9)
            await held.settled()
            status = held["a"].status()
            assert status.log_cache_bytes < 64 * KIB
            assert status.journal["segments"] > 2
            await held.start("c")
            await held["a"].add_participant(held.member("c"))
            await held.settled()
            assert len(held["c"].state.history) == 126
            await held.stop("c")
            for _ in range(6):
                await asyncio.gather(*(held["b"].submit(text) for _ in range(20)))
            await held.start("c")
            assert await held["c"].read(lambda book: len(book.history)) == 246
            await held.settled()

    run(main())


def test_two_clusters_share_one_transport(tmp_path: Path) -> None:
    async def main() -> None:
        ports = Ports()
        transports = {}
        clusters = [Cluster(tmp_path / name, ports, STEADY, name) for name in ("one", "two")]
        try:
            for name in "abc":
                address = ports.take()
                transports[name] = TcpTransport(address)
                for held in clusters:
                    held._addresses[name] = address
            for held in clusters:
                for name in "abc":
                    await held.start(name, transport=transports[name])
                first = held["abc"[clusters.index(held)]]
                await first.init_master()
                for name in "abc":
                    await first.add_participant(held.member(name))
            one, two = clusters
            await asyncio.gather(
                *(one[name].submit(["x", 1]) for name in "abc"),
                *(two[name].submit(["x", 10]) for name in "abc"),
            )
            for participant in await one.settled():
                assert participant.state.items == {"x": 3}
            for participant in await two.settled():
                assert participant.state.items == {"x": 30}
            assert transports["a"].statistics()["now_connected"] == 2
            for name in "abc":
                await one.stop(name)
            assert await two["c"].submit(["x", 10]) == 40
        finally:
            for held in clusters:
                await held.close()
            ports.close()

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    run(main())


# -- leaving, coming back, moving


def seats(held: Cluster, name: str) -> dict[str, str]:
    """The standing of each member, as one of them sees it."""
    return {seat.id: str(seat.standing) for seat in held[name].status().members}


def test_a_follower_is_removed_and_told_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            events = held["c"].events()
            await held["b"].remove_participant("c")
            assert seats(held, "a") == {"a": "voter", "b": "voter"}
            await until(lambda: held["c"].status().role is Role.REMOVED)
            async for event in events:
                if isinstance(event, Removed):
                    break
            await events.aclose()
            for call in (
                held["c"].submit(["x", 1]),
                held["c"].submit_all([["x", 1]]),
                held["c"].read(lambda book: book.items),
                held["c"].read(lambda book: book.items, consistency="local"),
                held["c"].ping_master(),
                held["c"].start_election(),
                held["c"].wait_for_master(),
                held["c"].add_participant(held.member("d")),
                held["c"].join(held.member("a").address),
                held["c"].transfer_master(),
            ):
                error = await error_of(call)
                assert isinstance(error, RemovedError)
                assert error.outcome is Outcome.NOT_APPLIED
                assert "empty directory" in str(error)
            assert await held["b"].submit(["x", 1]) == 1
            await held["a"].remove_participant("c")
            error = await error_of(held["a"].add_participant(held.member("c")))
            assert isinstance(error, MembershipError)
            assert "removed" in str(error)

    run(main())


def test_a_removed_member_stays_removed_and_comes_back_empty(tmp_path: Path) -> None:
    """I3, M8."""

    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            await held["a"].remove_participant("c")
            await until(lambda: held["c"].status().role is Role.REMOVED)
            await held.stop("c")
            await held.start("c")
            assert held["c"].status().role is Role.REMOVED
            assert isinstance(await error_of(held["c"].submit(["x", 1])), RemovedError)
            await held.stop("c")
            held.wipe("c")
            await held.start("c")
            await held["b"].add_participant(held.member("c"))
            assert await held["c"].submit(["x", 1]) == 1
            await held.settled()

    run(main())


def test_a_member_removes_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            await held["c"].remove_participant("c")
            await until(lambda: held["c"].status().role is Role.REMOVED)
            assert seats(held, "a") == {"a": "voter", "b": "voter"}

    run(main())


def test_the_master_is_removed_under_load_and_no_change_fails(tmp_path: Path) -> None:
    """M7."""

    async def main() -> None:
        async with cluster(tmp_path, "abcd") as held:
            stop = False
            done = 0

            async def submitter(name: str) -> None:
                nonlocal done
                while not stop:
                    await held[name].submit(["x", 1])
                    done += 1

            load = [asyncio.ensure_future(submitter(name)) for name in "bcd" for _ in range(3)]
            assert held["a"].is_master
            await held["a"].remove_participant("a")
            await until(lambda: held["a"].status().role is Role.REMOVED)
            assert (await held.has_master()).member.id in "bcd"
            before = done
            await until(lambda: done > before + 20)
            stop = True
            await asyncio.gather(*load)
            assert seats(held, "b") == {"b": "voter", "c": "voter", "d": "voter"}
            await held.stop("a")
            for participant in await held.settled():
                assert participant.state.items == {"x": done}

    run(main())


def test_a_cut_off_member_is_removed_and_hears_of_it_when_it_is_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            master = (await held.has_master()).member.id
            lost, other = (name for name in "abc" if name != master)
            held.cuts.isolate(lost, master, other)
            await held[other].remove_participant(lost)
            assert held[lost].status().role is not Role.REMOVED
            assert await held[other].submit(["x", 1]) == 1
            held.cuts.heal()
            await until(lambda: held[lost].status().role is Role.REMOVED)
            assert await held[other].submit(["x", 1]) == 2

    run(main())


def test_what_would_leave_too_few_is_refused_and_done_by_force(tmp_path: Path) -> None:
    """M9."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            await held.stop("c")
            for call in (
                held["a"].remove_participant("b"),
                held["b"].demote_participant("b"),
            ):
                error = await error_of(call)
                assert isinstance(error, MembershipError)
                assert not error.retryable
                assert "force" in str(error)
            assert seats(held, "a") == dict.fromkeys("abc", "voter")
            await held["a"].remove_participant("c")
            await held["a"].remove_participant("b")
            error = await error_of(held["a"].remove_participant("a", force=True))
            assert "last voter" in str(error)
            assert await held["a"].submit(["x", 1]) == 1

    run(main())


def test_force_removes_although_it_must_wait_for_another(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            assert held["a"].is_master
            await held.stop("c")
            removal = asyncio.ensure_future(held["a"].remove_participant("b", force=True))
            await until(lambda: "b" not in seats(held, "a"))
            assert not removal.done(), "c has to agree"
            await held.start("c")
            await removal
            await until(lambda: held["b"].status().role is Role.REMOVED)
            assert seats(held, "c") == {"a": "voter", "c": "voter"}

    run(main())


def test_unknown_members_are_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "ab") as held:
            a = held["a"]
            for call in (
                a.remove_participant("z"),
                a.replace_participant(held.member("z")),
                a.move_participant("z", "127.0.0.1:1"),
                a.promote_participant("z"),
                a.demote_participant("z"),
                a.set_priority("z", 2),
            ):
                error = await error_of(call)
                assert isinstance(error, MembershipError)
                assert "'z'" in str(error)
            for call in (a.remove_participant("no good"), a.move_participant("b", "")):
                assert isinstance(await error_of(call), SettingsError)

    run(main())


def test_a_wiped_member_is_replaced_under_load(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            stop = False

            async def submitter(name: str) -> None:
                while not stop:
                    await held[name].submit(["x", 1])

            load = [asyncio.ensure_future(submitter(name)) for name in "ab" for _ in range(3)]
            await held["b"].replace_participant(held.member("c"))  # with itself
            old = {seat.id: seat.disk_id for seat in held["a"].status().members}
            await held.stop("c")
            held.wipe("c")
            await held.start("c")
            await held["b"].replace_participant(held.member("c"))
            await held["a"].replace_participant(held.member("c"))
            stop = True
            await asyncio.gather(*load)
            await held.settled()
            new = {seat.id: seat.disk_id for seat in held["a"].status().members}
            assert new["c"] != old["c"]
            assert (new["a"], new["b"]) == (old["a"], old["b"])
            assert seats(held, "b") == dict.fromkeys("abc", "voter")

    run(main())


def test_a_living_member_is_not_replaced_by_another_process_of_its_name(tmp_path: Path) -> None:
    """Not by a process at another address either, whose connections say nothing about it."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            other = Member("b", held.ports.take())
            impostor = Participant(
                cluster=held.name,
                member=other,
                state=Book(),
                directory=held.directory("other-b"),
                transport=TcpTransport(other.address),
                settings=FAST,
            )
            async with impostor:
                error = await error_of(held["a"].replace_participant(other, timeout=3.0))
                assert isinstance(error, MembershipError)
                assert "alive" in str(error)
            assert held["b"].status().role is not Role.REMOVED
            await held.settled()

    run(main())


def test_a_vote_is_taken_and_given_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            await held["b"].demote_participant("c")
            await until(lambda: held["c"].status().role is Role.LEARNER)
            await held["b"].demote_participant("c")
            assert await held["c"].submit(["x", 1]) == 1
            assert await held["c"].read(lambda book: book.items["x"]) == 1
            await held["c"].promote_participant("c")
            await until(lambda: held["c"].status().role is Role.FOLLOWER)
            await held["c"].promote_participant("c")
            assert held["a"].is_master
            await held["a"].demote_participant("a")
            await until(lambda: held["a"].status().role is Role.LEARNER)
            assert (await held.has_master()).member.id in "bc"
            await held.settled()

    run(main())


def test_a_learner_counts_for_nothing(tmp_path: Path) -> None:
    """M4."""

    async def main() -> None:
        async with cluster(tmp_path, "ab", settings=FAST) as held:
            await held.start("c")
            await held["a"].add_participant(held.member("c"), learner=True)
            assert seats(held, "b") == {"a": "voter", "b": "voter", "c": "learner"}
            error = await error_of(held["c"].start_election())
            assert "not a voter" in str(error)
            await held["a"].submit(["x", 1])
            await held.stop("b")
            await until(lambda: not held["a"].is_master)
            await error_of(held["a"].submit(["x", 1], timeout=0.2))
            assert held["c"].state.items == {"x": 1}
            await held.start("b")
            await held.settled()

    run(main())


def test_a_member_moves_to_another_address(tmp_path: Path) -> None:
    """I5."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            disks = {seat.id: seat.disk_id for seat in held["a"].status().members}
            error = await error_of(held["a"].move_participant("c", held.member("b").address))
            assert isinstance(error, MembershipError)
            assert "'b'" in str(error)
            await held.stop("c")
            held._addresses["c"] = held.ports.take()
            moving = asyncio.ensure_future(
                held["b"].move_participant("c", held.member("c").address)
            )
            await held.start("c")
            await moving
            assert await held["a"].submit(["x", 1]) == 1
            await held.settled()
            for name in "abc":
                found = {seat.id: seat for seat in held[name].status().members}
                assert found["c"].address == held.member("c").address
                assert {seat.id: seat.disk_id for seat in found.values()} == disks
            await held["c"].move_participant("c", held.member("c").address)

    run(main())


def test_the_master_tells_how_far_a_newcomer_is(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "ab") as held:
            for _ in range(5):
                await held["a"].submit(["x", 1])
            events = held["a"].events()
            await held.start("c")
            held.cuts.cut("c", "a")  # it is taken in by nobody, and caught up with nothing
            adding = asyncio.ensure_future(held["b"].add_participant(held.member("c")))
            await asyncio.sleep(0)
            held.cuts.heal()
            async for event in events:
                if isinstance(event, CatchUp):
                    assert event.member == held.member("c")
                    assert event.sequence <= event.target_sequence
                    assert event.target_sequence >= 6
                    break
            await events.aclose()
            await adding

    run(main())
