"""Joining a cluster from outside, by the address of any of its members."""

from __future__ import annotations

import asyncio
from pathlib import Path

from clusterconsensus import (
    MembershipError,
    MembershipPendingError,
    ParticipantClosedError,
    Role,
    SettingsError,
    Standing,
)
from tests.participant.helpers import FAST, cluster, error_of, run, until


def test_members_join_through_the_master_or_a_follower(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "a") as held:
            for name, by in (("b", "a"), ("c", "b"), ("d", "c")):
                await held.start(name)
                await held[name].join(held.member(by).address, priority=3)
                status = held[name].status()
                assert status.role is Role.FOLLOWER
                assert [seat.priority for seat in status.members if seat.id == name] == [3]
                await held[name].join(held.member(by).address)
            assert await held["d"].submit(["x", 1]) == 1
            for participant in await held.settled():
                assert [seat.id for seat in participant.status().members] == list("abcd")

    run(main())


def test_several_join_at_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "ab") as held:
            for name in "cde":
                await held.start(name)
            address = held.member("b").address
            await asyncio.gather(*(held[name].join(address) for name in "cde"))
            for participant in await held.settled():
                assert [seat.standing for seat in participant.status().members] == ["voter"] * 5

    run(main())


def test_a_learner_joins_and_becomes_a_voter_when_it_joins_as_one(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "ab") as held:
            await held.start("c")
            address = held.member("b").address
            await held["c"].join(address, learner=True)
            assert held["c"].status().role is Role.LEARNER
            assert await held["c"].submit(["x", 1]) == 1
            await held["c"].join(address)
            assert held["c"].status().role is Role.FOLLOWER
            seats = held["a"].status().members
            assert [seat.standing for seat in seats] == [Standing.VOTER] * 3

    run(main())


def test_where_nobody_is_or_no_cluster_it_waits(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, settings=FAST) as held:
            a, b = await held.start("a"), await held.start("b")
            nowhere = held.ports.take()
            error = await error_of(b.join(nowhere, timeout=0.1))
            assert isinstance(error, MembershipPendingError)
            assert nowhere in str(error)
            joining = asyncio.ensure_future(b.join(held.member("a").address))
            error = await error_of(b.join(held.member("a").address, timeout=0.3))
            assert isinstance(error, MembershipPendingError)
            assert "no cluster" in str(error)
            assert not joining.done()
            await a.init_master()
            await joining
            assert b.status().role is Role.FOLLOWER
            assert isinstance(await error_of(b.join("")), SettingsError)
            assert isinstance(await error_of(b.join(nowhere, priority=-1)), SettingsError)

    run(main())


def test_who_is_refused_is_told_why(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path, "abc") as held:
            await held.stop("c")
            held.wipe("c")
            await held.start("c")
            error = await error_of(held["c"].join(held.member("b").address))
            assert isinstance(error, MembershipError)
            assert "another disk" in str(error)
            assert "replace" in str(error)
            assert held["c"].status().role is Role.UNJOINED

    run(main())


def test_a_member_of_another_cluster_is_not_let_in(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path / "one", "a") as one, cluster(tmp_path / "two", "c") as two:
            error = await error_of(two["c"].join(one.member("a").address, timeout=0.3))
            assert isinstance(error, MembershipPendingError)
            assert "nobody of its cluster" in str(error)
            assert two["c"].status().role is Role.MASTER
            assert len(one["a"].status().members) == 1
            assert len(two["c"].status().members) == 1

    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    run(main())


def test_a_join_that_waits_ends_with_the_participant(tmp_path: Path) -> None:
    async def main() -> None:
        async with cluster(tmp_path) as held:
            b = await held.start("b")
            joining = asyncio.ensure_future(error_of(b.join(held.ports.take())))
            await until(lambda: b.status().transport)
            await held.stop("b")
            assert isinstance(await joining, ParticipantClosedError)

    run(main())
