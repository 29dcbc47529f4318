"""Simulated machines run the real participant; what they lose is what a real one would."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from clusterconsensus.consensus.messages import Action
from clusterconsensus.errors import OutcomeUnknownError
from clusterconsensus.participant import Participant
from clusterconsensus.settings import KIB, Settings
from clusterconsensus.simulation.cluster import Cluster
from clusterconsensus.simulation.judges.invariants import BrokenError
from clusterconsensus.simulation.judges.models import CounterState
from clusterconsensus.simulation.judges.platter import Platter
from clusterconsensus.simulation.judges.snapshots import read_whole
from clusterconsensus.simulation.judges.witness import ClusterGhost
from clusterconsensus.simulation.machine import GoneError, Machine
from clusterconsensus.simulation.operators import Operators
from clusterconsensus.simulation.trouble.rotting import damage, damage_last_write
from clusterconsensus.simulation.world.disk import PowerFailure
from clusterconsensus.simulation.world.loop import World
from clusterconsensus.simulation.world.worker import SimulatedWorker
from clusterconsensus.state import Readable


def make(seed: int = 1, settings: Settings | None = None) -> Cluster:
    return Cluster(World(seed), CounterState, settings or Settings(segment_bytes=64 * KIB))


async def add(machine: Machine, number: int, timeout: float = 30.0) -> Any:
    return await machine.ask(
        lambda participant: participant.submit(["add", number], timeout=timeout)
    )


async def add_for_ever(machine: Machine) -> None:
    while True:
        await add(machine, 1)


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


def test_damage_is_repaired_by_the_others() -> None:
    cluster = make()

    async def main() -> None:
        await cluster.found("abc")
        for _ in range(20):
            await add(cluster.machines["a"], 1)
        machine = cluster.machines["c"]
        assert damage(machine, cluster.world.chance("rot"))
        assert machine.in_doubt
        assert not cluster.may_lose_another()
        assert cluster.has_majority()
        machine.kill()
        machine.start()
        assert machine.in_doubt
        assert await cluster.until(lambda: not machine.in_doubt, 10)
        assert cluster.may_lose_another()
        assert len(cluster.sound_voters()) == 3

    cluster.run(main())
    assert cluster.sometimes["started without a vote"] == 1
    assert cluster.sometimes["recovering left"] == 1


def test_a_sound_disk_must_not_be_taken_for_a_damaged_one() -> None:
    cluster = make()

    async def main() -> None:
        await cluster.found("abc")
        for _ in range(20):
            await add(cluster.machines["a"], 1)
        machine = cluster.machines["c"]
        assert damage(machine, cluster.world.chance("rot"))
        machine.damage, machine.was_damaged = None, False  # as if nobody had done it
        machine.kill()
        machine.start()
        await asyncio.sleep(5)

    with pytest.raises(BrokenError, match="W3: c has no vote on a disk that nobody damaged"):
        cluster.run(main())


def test_a_disk_that_does_not_tell_what_was_promised_is_replaced() -> None:
    cluster = make()
    operators = Operators(cluster, 10.0)

    async def main() -> None:
        await cluster.found("abc")
        for _ in range(20):
            await add(cluster.machines["a"], 1)
        a, _, c = cluster.machines.values()
        c.kill()
        assert damage_last_write(c, cluster.world.chance("rot"))
        c.is_paranoid = True
        c.start()
        assert await cluster.until(lambda: c.is_lost, 10)
        assert "cannot be known" in c.reason
        assert operators.absent() == [c]
        assert await operators.replace(a, c) == "ok"
        assert cluster.is_sound(cluster.voters()[-1])
        assert operators.absent() == []

    cluster.run(main())
    assert cluster.sometimes["damage refused"] == 1
    assert cluster.sometimes["replaced"] == 1
    assert len(cluster.sound_voters()) == 3


# -- snapshots

SMALL = Settings(
    segment_bytes=64 * KIB,
    snapshot_entries=5,
    keep_log_entries=1,
    max_kept_log_entries=10,
    chunk_bytes=128,
)


async def leave_behind(cluster: Cluster) -> Machine:
    """A member is cut off until the others have forgotten what it lacks, and comes back."""
    await cluster.found("abc")
    a, _, c = cluster.machines.values()
    for other in "ab":
        cluster.network.cuts |= {("c", other), (other, "c")}
    for _ in range(40):
        await add(a, 1)
    cluster.network.cuts.clear()
    return c


def test_who_was_away_too_long_gets_a_snapshot() -> None:
    cluster = make(settings=SMALL)

    async def main() -> int:
        c = await leave_behind(cluster)
        assert await cluster.until(lambda: cluster.sometimes["snapshot installed"], 10)
        assert await add(c, 1) == 41
        assert await cluster.until(lambda: total(c) == 41, 10)
        return total(c)

    assert cluster.run(main()) == 41
    assert cluster.sometimes["snapshot taken"] > 5
    assert cluster.sometimes["log compacted"] > 5
    machine = cluster.machines["a"]
    found = [
        read_whole(path, machine.disk.durable_names[path]) for path in machine.snapshots.paths()
    ]
    assert len(found) == 2
    assert machine.snapshots.newest() == max(each.seq for each in found if each)
    machine.disk.flip(machine.snapshots.paths()[-1], 100, 1)
    machine.snapshots.forget()
    assert machine.snapshots.newest() == min(each.seq for each in found if each)


def test_a_snapshot_with_another_label_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ClusterGhost.count_up_to
    cluster = make(settings=SMALL)
    monkeypatch.setattr(ClusterGhost, "count_up_to", lambda self, seq: real(self, seq - 1))
    with pytest.raises(BrokenError, match="I-14: a snapshot of a holds"):
        cluster.run(leave_behind(cluster))


def test_a_copy_that_a_snapshot_did_not_make_whole_is_caught(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def install(self: CounterState, snapshot: Readable) -> None:
        self.total = 1 + int(snapshot.read()[0])

    cluster = make(settings=SMALL)

    async def main() -> None:
        await leave_behind(cluster)
        monkeypatch.setattr(CounterState, "install", install)
        await asyncio.sleep(10)

    with pytest.raises(BrokenError, match="I-14: the copy of c after"):
        cluster.run(main())


def test_the_power_fails_in_the_middle_of_a_snapshot() -> None:
    cluster = make(settings=SMALL)

    async def main() -> None:
        await cluster.found("a")
        machine = cluster.machines["a"]
        for operations in range(1, 8):
            machine.lose_power_at(operations, "/snapshot-")
            with pytest.raises(GoneError):
                await add_for_ever(machine)
            machine.start()
            assert await cluster.until(lambda: machine.participant, 10)

    cluster.run(main())
    assert cluster.sometimes["power failure in the middle of an operation"] == 7


# -- operators


def test_operators_are_told_the_truth() -> None:
    cluster = make()
    operators = Operators(cluster, 10.0)

    async def main() -> None:
        await cluster.found("abc")
        a, b, c = cluster.machines.values()
        d = cluster.add_machine("d")
        assert await operators.make_fresh(d)
        assert await operators.ask(b, Action.ADD_LEARNER, d) == "ok"
        assert operators.seated(voters=False) == [d]
        assert await operators.ask(c, Action.PROMOTE, d) == "ok"
        assert await operators.ask(c, Action.TRANSFER, d) == "ok"
        assert cluster.masters == [d]
        assert await operators.ask(a, Action.REMOVE, d) == "ok"  # which hands over first
        assert operators.outsiders() == [d]
        assert await operators.ask(a, Action.TRANSFER, d) == "refused"
        assert await operators.ask(a, Action.PRIORITY, b, priority=3) == "ok"
        # What was removed comes back with an empty disk only.
        assert await operators.ask(a, Action.ADD, d) == "refused"
        assert await operators.make_fresh(d)
        assert await operators.ask(a, Action.ADD, d) == "ok"
        assert len(cluster.sound_voters()) == 4

    cluster.run(main())
    assert cluster.sometimes["master removed"] == 1
    assert cluster.sometimes["handed over"] >= 2


def test_operators_do_not_ask_for_the_end() -> None:
    cluster = make()
    operators = Operators(cluster, 10.0)

    async def main() -> None:
        await cluster.found("abc")
        a, b, c = cluster.machines.values()
        c.crash()
        c.wipe()
        assert await operators.ask(a, Action.REMOVE, b) == "no"
        assert await operators.ask(a, Action.DEMOTE, b) == "no"
        assert await operators.ask(a, Action.REMOVE, c) == "ok"
        assert cluster.may_leave(operators.configuration().seats[1].incarnation)
        cluster.leaving[operators.configuration().seats[0].incarnation] = None
        assert not cluster.may_leave(operators.configuration().seats[1].incarnation)

    cluster.run(main())


def test_an_achievement_that_is_none_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = make()
    operators = Operators(cluster, 10.0)

    async def call(self: object, member_id: str, timeout: float | None = None) -> None:
        return None

    monkeypatch.setattr(Participant, "demote_participant", call)

    async def main() -> None:
        await cluster.found("abc")
        a, b, _ = cluster.machines.values()
        await operators.ask(a, Action.DEMOTE, b)

    with pytest.raises(BrokenError, match="M6: DEMOTE b is called achieved"):
        cluster.run(main())


# -- clocks


@pytest.mark.parametrize("leases", [False, True])
def test_where_leases_are_relied_on_the_clock_goes_on_in_a_freeze(leases: bool) -> None:
    cluster = make(settings=Settings(segment_bytes=64 * KIB, lease_reads=leases))

    async def main() -> tuple[float, float, float]:
        await cluster.found("a")
        machine = cluster.machines["a"]
        machine.set_clock(rate=2.0)
        before = machine.clock.time()
        machine.clock.freeze()
        await asyncio.sleep(3)
        frozen = machine.clock.time() - before
        machine.clock.resume()
        resumed = machine.clock.time() - before
        await asyncio.sleep(1)
        machine.set_clock(jump=10.0)
        return frozen, resumed, machine.clock.time() - before

    passed = 6.0 if leases else 0.0
    assert cluster.run(main()) == pytest.approx((passed, passed, passed + 2.0 + 10.0))


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
