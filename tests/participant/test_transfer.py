"""Handing the mastership over: asked for, by priority, and before an orderly end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec

from clusterconsensus import BecameMaster, LostMaster, MembershipError, Role, SettingsError
from tests.participant.helpers import FAST, STEADY, Cluster, cluster, error_of, run, until

QUICK = msgspec.structs.replace(FAST, election_timeout_seconds=0.25, heartbeat_seconds=0.03)
"""For handovers that come by themselves, after many election timeouts."""


async def leads(held: Cluster, name: str) -> None:
    await until(lambda: held[name].is_master)


def test_the_mastership_is_handed_to_a_member_by_any_member(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            assert held["a"].is_master
            await held["a"].transfer_master("b")
            await leads(held, "b")
            await held["c"].transfer_master("a")
            await leads(held, "a")
            await held["c"].transfer_master("a")
            assert held["a"].is_master, "it was so already"
            await held["c"].transfer_master("c")
            await leads(held, "c")
            assert await held["b"].submit(["x", 1]) == 1
            await held.settled()

    run(main())


def test_the_mastership_is_handed_to_anybody_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            for name in "abc":
                before = await held.has_master()
                ballot = before.status().ballot
                await held[name].transfer_master()
                after = await held.has_master()
                assert after is not before
                assert after.status().ballot.instance == ballot.instance + 1

    run(main())


def test_no_change_fails_while_the_mastership_moves_under_load(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            stop = False
            done = 0

            async def submitter(name: str) -> None:
                nonlocal done
                while not stop:
                    await held[name].submit(["x", 1], timeout=10)
                    done += 1

            load = [asyncio.ensure_future(submitter(name)) for name in "abc" for _ in range(4)]
            for to in "bcab":
                await held["a"].transfer_master(to)
                await leads(held, to)
                wanted = done + 20
                while done < wanted:
                    await held[to].submit(["y", 0])
            stop = True
            await asyncio.gather(*load)
            for participant in await held.settled():
                assert participant.state.items == {"x": done, "y": 0}

    run(main())


def test_a_handover_takes_no_election_timeout(tmp_path: Path) -> None:
    """E is far longer than the test may take."""

    async def main() -> None:
        settings = msgspec.structs.replace(STEADY, election_timeout_seconds=60.0)
        async with cluster(tmp_path, "abc", settings=settings) as held:
            for to in "bca":
                await held["a"].transfer_master(to)
                await leads(held, to)
                assert await held[to].submit(["x", 1]) > 0

    run(main())


def test_who_cannot_take_over_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "ab", settings=FAST) as held:
            await held.start("c")
            await held["a"].add_participant(held.member("c"), learner=True)
            for wrong, why in (("c", "not a voter"), ("z", "'z'")):
                error = await error_of(held["b"].transfer_master(wrong))
                assert isinstance(error, MembershipError)
                assert why in str(error)
            await held["a"].set_priority("b", 0)
            error = await error_of(held["b"].transfer_master())
            assert isinstance(error, MembershipError)
            assert "no other voter" in str(error)
            error = await error_of(held["b"].transfer_master("b"))
            assert "priority 0" in str(error)
            assert isinstance(await error_of(held["b"].transfer_master("no good")), SettingsError)
            assert held["a"].is_master
            assert await held["b"].submit(["x", 1]) == 1

    run(main())


def test_a_target_that_is_cut_off_costs_a_moment_and_no_change(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=FAST) as held:
            master = await held.has_master()
            others = [name for name in "abc" if held[name] is not master]
            held.cuts.cut(master.member.id, others[0])
            transfer = asyncio.ensure_future(error_of(master.transfer_master(others[0])))
            changes = [asyncio.ensure_future(master.submit(["x", 1])) for _ in range(10)]
            error = await transfer
            assert isinstance(error, MembershipError)
            assert f"'{others[0]}'" in str(error)
            await asyncio.gather(*changes)
            held.cuts.heal()
            await held.settled()

    run(main())


def test_a_master_that_closes_hands_over_first(tmp_path: Path) -> None:
    async def main() -> None:
        settings = msgspec.structs.replace(STEADY, election_timeout_seconds=60.0)
        async with cluster(tmp_path, "abc", settings=settings) as held:
            told: list[object] = []

            async def listen() -> None:
                async for event in held["a"].events():
                    told.append(event)

            listening = asyncio.ensure_future(listen())
            await asyncio.sleep(0)
            load = [asyncio.ensure_future(held[name].submit(["x", 1])) for name in "bc" * 5]
            await held.stop("a")
            await listening
            assert any(isinstance(event, LostMaster) for event in told)
            await asyncio.gather(*load)
            assert (await held.has_master()).member.id in "bc"
            await held.settled()

    run(main())


def test_a_master_that_shall_not_hand_over_does_not(tmp_path: Path) -> None:
    async def main() -> None:
        settings = msgspec.structs.replace(
            STEADY,
            election_timeout_seconds=60.0,
            hand_over_on_close=False,
            reconnect_delay_seconds=50.0,
        )
        async with cluster(tmp_path, "abc", settings=settings) as held:
            ballot = held["a"].status().ballot
            await held.stop("a")
            assert held["b"].status().ballot == ballot
            assert {held[name].status().promised for name in "bc"} == {ballot}

    run(main())


def test_whoever_asks_waits_until_somebody_else_leads(tmp_path: Path) -> None:
    """Also where the master chooses to whom, and another member asks."""

    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            for _ in range(3):
                master = await held.has_master()
                name = master.member.id
                asker = next(other for other in "abc" if other != name)
                await until(lambda asker=asker: held[asker].current_master is not None)  # type: ignore[misc]  # bound early
                before = held[asker].status().ballot
                await held[asker].transfer_master()
                assert held[asker].status().ballot > before
                assert held[asker].current_master != master.member

    run(main())


def test_a_preferred_member_gets_the_mastership_by_itself(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc", settings=QUICK) as held:
            await held["b"].set_priority("c", 5)
            await leads(held, "c")
            assert await held["a"].submit(["x", 1]) == 1
            seats = {seat.id: seat.priority for seat in held["a"].status().members}
            assert seats == {"a": 1, "b": 1, "c": 5}
            await held.stop("c")
            await held.has_master()
            assert held["a"].is_master or held["b"].is_master
            await held.start("c")
            await leads(held, "c")
            await held.settled()

    run(main())


def test_a_member_with_priority_0_follows_and_never_leads(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "ab", settings=FAST) as held:
            await held.start("c")
            await held["a"].add_participant(held.member("c"), priority=0)
            assert held["c"].status().role is Role.FOLLOWER
            error = await error_of(held["c"].start_election())
            assert "priority 0" in str(error)
            await held.stop("a")
            await leads(held, "b")
            assert await held["c"].submit(["x", 1]) == 1, "its vote counts"
            for wrong in (-1, 10**9):
                assert isinstance(await error_of(held["b"].set_priority("c", wrong)), SettingsError)

    run(main())


def test_the_new_master_is_told_that_it_leads(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "ab") as held:
            stream = held["b"].events()
            await held["a"].transfer_master("b")
            async for event in stream:
                if isinstance(event, BecameMaster):
                    break
            await stream.aclose()
            error = await error_of(held["b"].transfer_master("z"))
            assert isinstance(error, MembershipError)

    run(main())
