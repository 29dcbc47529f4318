"""Losing and finding masters."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from clusterconsensus import ElectionError, NoMasterError, Role
from tests.participant.helpers import FAST, Told, cluster, error_of, run, until


def test_another_master_takes_over_when_one_leaves(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            expected = 0
            for _ in range(3):
                master = await held.has_master()
                name = master.member.id
                expected += 1
                assert await master.submit(["x", 1]) == expected
                await held.stop(name)
                for participant in held.running.values():
                    expected += 1
                    assert await participant.submit(["x", 1]) == expected
                assert await held.has_master() is not master
                await held.start(name)
            await held.settled()

    run(main())


def test_a_master_that_is_cut_off_is_replaced_and_comes_back_as_a_follower(tmp_path: Path) -> None:
    """A-45, E9: it steps down by itself, and what it could not commit is not lost on the way."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            master = await held.has_master()
            name = master.member.id
            others = [other for other in "abc" if other != name]
            await master.submit(["x", 1])
            ballot = master.status().ballot
            held.cuts.isolate(name, *others)
            staged = asyncio.ensure_future(master.submit(["y", 1]))
            assert await held[others[0]].submit(["x", 1]) == 2
            await until(lambda: not master.is_master)
            held.cuts.heal()
            assert await staged == 1
            assert await master.submit(["x", 1]) == 3
            await held.settled()
            assert (await held.has_master()).status().ballot > ballot
            assert held[others[1]].state.items == {"x": 3, "y": 1}

    run(main())


def test_what_a_cut_off_master_had_staged_is_applied_once(tmp_path: Path) -> None:
    """A-8, A-13, A-14: over and over."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            submits: list[asyncio.Future[int]] = []
            for _ in range(4):
                master = await held.has_master()
                name = master.member.id
                others = [other for other in "abc" if other != name]
                submits += [
                    asyncio.ensure_future(participant.submit(["x", 1]))
                    for participant in held.running.values()
                    for _ in range(5)
                ]
                await asyncio.sleep(0)
                held.cuts.isolate(name, *others)
                await held[others[0]].submit(["y", 1])
                held.cuts.heal()
            results = await asyncio.gather(*submits)
            assert sorted(results) == list(range(1, 61))
            await held.settled()

    run(main())


def test_no_majority_no_master(tmp_path: Path) -> None:
    """A-5: half is not a majority."""

    async def main() -> None:
        async with cluster(tmp_path, "abcd", settings=FAST) as held:
            await held["a"].submit(["x", 1])
            await held.settled()
            for one in "ab":
                held.cuts.isolate(one, "c", "d")
            await until(lambda: not any(held[name].is_master for name in "abcd"))
            for name in "abcd":
                error = await error_of(held[name].submit(["y", 1], timeout=0.1))
                assert isinstance(error, NoMasterError)
                assert held.x(name) == 1
            held.cuts.heal()
            await held["d"].submit(["x", 1])
            await held.settled()

    run(main())


def test_a_voter_that_cannot_hear_does_not_disturb_the_others(tmp_path: Path) -> None:
    """C-55: probes raise nothing, and a master that is heard is kept."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            master = await held.has_master()
            deaf = next(name for name in "abc" if name != master.member.id)
            others = [name for name in "abc" if name != deaf]
            for other in others:
                held.cuts.cut(other, deaf)
            await until(lambda: held[deaf].status().role is Role.CANDIDATE)
            promised = [held[name].status().promised for name in others]
            for number in range(1, 40):
                assert await held[others[0]].submit(["x", 1]) == number
                await asyncio.sleep(FAST.heartbeat_seconds / 2)
            assert [held[name].status().promised for name in others] == promised
            held.cuts.heal()
            assert await held[deaf].submit(["x", 1]) == 40

    run(main())


def test_chained_connections_suffice(tmp_path: Path) -> None:
    """E12: the one in the middle is connected to a majority."""

    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            held.cuts.isolate("a", "c")
            assert await held["b"].submit(["x", 1]) == 1
            await until(lambda: held["b"].is_master or held["b"].current_master is not None)
            assert await held["b"].submit(["x", 1]) == 2
            held.cuts.heal()
            await held["c"].submit(["x", 1])
            await held.settled()

    run(main())


def test_waiting_for_a_master(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            for name in "abc":
                found = await held[name].wait_for_master(30)
                assert found in [held.member(other) for other in "abc"]
            await held.stop("a")
            await held.stop("b")
            await until(lambda: not held["c"].has_master)
            for _ in range(20):
                error = await error_of(held["c"].wait_for_master(0.01))
                assert isinstance(error, NoMasterError)
                assert "'c'" in str(error)
            waiting = asyncio.ensure_future(held["c"].wait_for_master())
            await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.gather(waiting, return_exceptions=True)
            waiting = asyncio.ensure_future(held["c"].wait_for_master())
            await held.start("a")
            assert (await waiting).id in "ac"

    run(main())


def test_an_election_against_a_healthy_master_is_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            error = await error_of(held["b"].start_election())
            assert isinstance(error, ElectionError)
            assert "STICKY" in str(error)
            await held["a"].start_election()
            assert held["a"].is_master
            fresh = await held.start("d")
            error = await error_of(fresh.start_election())
            assert isinstance(error, ElectionError)
            assert "not a voter" in str(error)

    run(main())


def test_an_election_may_be_started_when_the_master_is_gone(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            await held.stop("a")
            for _ in range(1_000):
                try:
                    await held["b"].start_election(30)
                except ElectionError:
                    if held["c"].is_master:
                        return  # it was quicker
                    continue
                break
            assert held["b"].is_master
            assert held["b"].current_master == held.member("b")

    run(main())


def test_an_election_without_a_majority_ends_in_time(tmp_path: Path) -> None:
    async def main() -> None:
        alone = msgspec.structs.replace(FAST, hand_over_on_close=False)
        async with cluster(tmp_path, "abc", settings=alone) as held:
            await held.stop("a")
            await held.stop("c")
            error = await error_of(held["b"].start_election(0.2))
            assert isinstance(error, ElectionError)
            assert "0.2 s" in str(error)

    run(main())


def test_the_loss_of_the_mastership_is_always_told(tmp_path: Path) -> None:
    """A-36: by a cut, by another's higher ballot, by closing."""

    async def main() -> None:
        async with cluster(tmp_path, settings=FAST) as held:
            told = {name: Told() for name in "abc"}
            for name in "abc":
                await held.start(name, handler=told[name])
            await held["a"].init_master()
            for name in "bc":
                await held["a"].add_participant(held.member(name))
            for _ in range(3):
                master = await held.has_master()
                name = master.member.id
                assert told[name].masterships[-1] == "become"
                others = [other for other in "abc" if other != name]
                held.cuts.isolate(name, *others)
                await until(lambda name=name: told[name].masterships[-1] == "lose")  # type: ignore[misc]  # bound early
                held.cuts.heal()
            master = await held.has_master()
            await master.aclose()
            assert told[master.member.id].masterships[-1] == "lose"
            for name in "abc":
                seen = told[name].masterships
                assert seen == ["become", "lose"] * (len(seen) // 2) + ["become"] * (len(seen) % 2)

    run(main())


def test_the_role_is_told_as_it_is(tmp_path: Path) -> None:
    async def main() -> None:
        settings = msgspec.structs.replace(FAST, election_timeout_seconds=1.0)
        async with cluster(tmp_path, "ab", settings=settings) as held:
            a, b = held["a"].status(), held["b"].status()
            assert (a.role, b.role) == (Role.MASTER, Role.FOLLOWER)
            assert a.master == b.master == held.member("a")
            assert a.master_seconds == 0
            assert b.master_seconds is not None
            assert a.ballot == b.ballot
            assert list(a.followers) == ["b"]
            assert b.followers == {}
            assert [seat.id for seat in b.members] == ["a", "b"]
            assert all(seat.is_voter for seat in b.members)
            assert held["b"].has_master
            assert not held["b"].is_master
            assert held["b"].current_master == held.member("a")
            await held.stop("b")
            await until(lambda: not held["a"].is_master)

    run(main())
