"""Simulated machines run the real participant; what they lose is what a real one would."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clusterconsensus.errors import OutcomeUnknownError
from clusterconsensus.settings import KIB, Settings
from clusterconsensus.simulation.cluster import Cluster
from clusterconsensus.simulation.judges.invariants import BrokenError
from clusterconsensus.simulation.judges.models import CounterState
from clusterconsensus.simulation.judges.platter import Platter
from clusterconsensus.simulation.machine import GoneError, Machine
from clusterconsensus.simulation.trouble.rotting import damage
from clusterconsensus.simulation.world.disk import PowerFailure
from clusterconsensus.simulation.world.loop import World
from clusterconsensus.simulation.world.worker import SimulatedWorker


def make(seed: int = 1) -> Cluster:
    return Cluster(World(seed), CounterState, Settings(segment_bytes=64 * KIB))


async def add(machine: Machine, number: int, timeout: float = 30.0) -> Any:
    return await machine.ask(
        lambda participant: participant.submit(["add", number], timeout=timeout)
    )


def total(machine: Machine) -> int:
    assert machine.witness is not None
    assert isinstance(machine.witness.state, CounterState)
    return int(machine.witness.state.query(("get",)))


def test_a_cluster_of_real_participants_on_virtual_time() -> None:
    cluster = make()

    async def main() -> list[int]:
        await cluster.found("abc")
        results = [await add(cluster.machines[each], 1) for each in "abcabc"]
        await asyncio.sleep(1)
        return results

    assert cluster.run(main()) == [1, 2, 3, 4, 5, 6]
    assert [total(machine) for machine in cluster.up] == [6, 6, 6]
    assert cluster.world.now < 10


def test_the_master_is_killed_and_another_goes_on() -> None:
    cluster = make()

    async def main() -> float:
        await cluster.found("abc")
        await add(cluster.machines["a"], 5)
        began = cluster.world.now
        cluster.machines["a"].kill()
        assert await add(cluster.machines["b"], 1) == 6
        return cluster.world.now - began

    assert cluster.run(main()) < 0.2  # the broken connection is news (E13)
    assert cluster.ghost.sometimes["mastership"] == 2


def test_a_machine_without_power_is_silent() -> None:
    cluster = make()

    async def main() -> float:
        await cluster.found("abc")
        await add(cluster.machines["a"], 5)
        began = cluster.world.now
        cluster.machines["a"].crash()
        assert await add(cluster.machines["b"], 1) == 6
        return cluster.world.now - began

    assert 1.0 <= cluster.run(main()) < 3.0  # only E tells


@pytest.mark.parametrize("seed", range(8))
def test_whatever_the_power_takes_nothing_acknowledged_is_lost(seed: int) -> None:
    cluster = make(seed)

    async def main() -> int:
        await cluster.found("abc")
        acknowledged = 0
        for round_number in range(3):
            for _ in range(10):
                for each in "abc":
                    acknowledged = await add(cluster.machines[each], 1)
            for machine in cluster.machines.values():
                if (round_number + seed) % 2:
                    machine.crash()
                else:
                    machine.kill()
            for machine in cluster.machines.values():
                machine.start()
            assert await cluster.until(lambda: len(cluster.up) == 3, 10)
        return acknowledged

    assert cluster.run(main()) == 90
    assert cluster.machines["a"].starts == 4


def test_who_waits_at_a_process_that_dies_does_not_know() -> None:
    cluster = make()

    async def main() -> None:
        await cluster.found("a")
        machine = cluster.machines["a"]
        machine.disk_hangs = True
        answer = machine.ask(lambda participant: participant.submit(["add", 1]))
        await asyncio.sleep(0.1)
        machine.kill()
        with pytest.raises(GoneError) as died:
            await answer
        assert died.value.asked
        with pytest.raises(GoneError) as down:
            await machine.ask(lambda participant: participant.submit(["add", 1]))
        assert not down.value.asked

    cluster.run(main())


def test_power_fails_in_the_middle_of_a_write() -> None:
    cluster = make()

    async def main() -> None:
        await cluster.found("a")
        machine = cluster.machines["a"]
        machine.lose_power_at(2)  # the write happens, its sync does not
        with pytest.raises(GoneError):
            await add(machine, 1)
        assert not machine.runs
        machine.start()
        assert await cluster.until(lambda: machine.participant, 10)
        assert await add(machine, 1) in (1, 2)

    cluster.run(main())
    assert cluster.sometimes["power failure in the middle of an operation"] == 1


def test_a_hung_disk_costs_the_mastership_and_comes_back() -> None:
    cluster = make()

    async def main() -> None:
        await cluster.found("abc")
        first = cluster.machines["a"]
        assert await add(first, 1000) == 1000
        first.disk_hangs = True
        with pytest.raises(OutcomeUnknownError):
            await add(first, 1, timeout=0.5)
        assert await add(cluster.machines["b"], 10) in (1010, 1011)
        first.unhang()
        assert await add(first, 100) in (1110, 1111)

    cluster.run(main())
    assert cluster.sometimes["stepped down for a hung disk"] == 1


def test_damage_is_refused_and_a_sound_disk_must_not_be() -> None:
    cluster = make()

    async def main() -> None:
        await cluster.found("abc")
        for _ in range(20):
            await add(cluster.machines["a"], 1)
        machine = cluster.machines["c"]
        assert damage(machine, cluster.world.chance("rot"))
        machine.kill()
        machine.start()
        await cluster.until(lambda: machine.is_lost, 10)

    with pytest.raises(BrokenError, match="W3: c refuses a disk that nobody damaged"):
        cluster.run(main())


def test_a_wiped_machine_is_nobody() -> None:
    cluster = make()

    async def main() -> None:
        await cluster.found("abc")
        await add(cluster.machines["a"], 1)
        machine = cluster.machines["c"]
        machine.crash()
        machine.wipe()
        machine.start()
        assert await cluster.until(lambda: machine.participant, 10)
        await asyncio.sleep(5)
        assert machine.life is not None
        assert machine.life.local.role == "unjoined"
        assert len(cluster.sound_voters()) == 2
        assert cluster.has_majority()
        assert not cluster.may_lose_another()

    cluster.run(main())


def test_the_platter_is_what_the_journal_made_durable() -> None:
    cluster = make()

    async def main() -> None:
        await cluster.found("abc")
        for number in range(30):
            await add(cluster.machines["abc"[number % 3]], 1)
        await asyncio.sleep(1)

    cluster.run(main())
    for life in cluster.lives.values():
        log = life.local.log
        assert life.durable_last == log.durable_seq == log.last_seq
        assert life.durable_promise == life.local.promised_durable
        assert all(
            life.durable_ballot(seq) == log.ballot_at(seq) for seq in range(1, log.last_seq + 1)
        )
        again = Platter("/data", life.name.partition("@")[2])
        again.read(life.machine.disk)
        assert again.entries == life.platter.entries
        assert again.promised == life.platter.promised


def test_a_lying_disk_is_seen_through() -> None:
    """The ghost reads the platter, not what the journal says of itself."""
    cluster = make()

    async def main() -> None:
        await cluster.found("a")
        cluster.machines["a"].disk.lie = True
        await add(cluster.machines["a"], 1)

    with pytest.raises(BrokenError, match="I-10"):
        cluster.run(main())


def test_a_worker_takes_its_time_and_keeps_its_order() -> None:
    world = World()
    loop = world.make_loop("a")
    times = iter((1.0, 2.0, float("inf"), 0.5))
    worker = SimulatedWorker(loop, lambda: next(times), lambda: None)
    told: list[tuple[float, object]] = []

    def note(result: object, error: Exception | None) -> None:
        told.append((world.now, result or type(error)))

    worker.call(lambda: "first", note)
    worker.call(lambda: 1 // 0, note)
    worker.call(lambda: "third", note)
    world.run(asyncio.sleep(10))
    assert told == [(1.0, "first"), (3.0, ZeroDivisionError)]
    worker.go_on()
    world.run(asyncio.sleep(10))
    assert told[2:] == [(10.5, "third")]


def test_a_worker_whose_disk_loses_power_tells_nobody_but_the_machine() -> None:
    world = World()
    loop = world.make_loop("a")
    died: list[float] = []
    worker = SimulatedWorker(loop, lambda: 1.0, lambda: died.append(world.now))
    told: list[object] = []

    def fails() -> None:
        raise PowerFailure

    worker.call(fails, lambda result, error: told.append(error))
    worker.call(lambda: None, lambda result, error: told.append(result))
    world.run(asyncio.sleep(5))
    assert died == [1.0]
    assert told == []
