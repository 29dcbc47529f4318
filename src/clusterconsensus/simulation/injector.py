"""The fault injector: does to a simulated cluster what a plan says.

Each action draws from a source of chance of its own, so it does the same whether or not others were
left out. Most faults end by themselves after a while; ``heal`` ends all. Members that were lost for
good stay lost, and the injector takes care that a majority of disks is never lost, unless the plan
says so.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from clusterconsensus.errors import ConsensusError
from clusterconsensus.simulation.cluster import Cluster
from clusterconsensus.simulation.invariants import BrokenError
from clusterconsensus.simulation.machine import GoneError, Machine
from clusterconsensus.simulation.network import KINDS, kind_of
from clusterconsensus.simulation.plan import Action, Plan

ELECTIONS = frozenset(("Probe", "ProbeReply", "Prepare", "Promise", "PromisePull", "PromisePart"))


class Injector:
    """Makes trouble for one cluster.

    Arguments:
        cluster: Whose.
        plan: What is done and when.
    """

    def __init__(self, cluster: Cluster, plan: Plan) -> None:
        self.cluster = cluster
        self.plan = plan
        self._seed = plan.seed
        self._chance = Random(f"{plan.seed}/injector")
        self._healed = False
        self._wiped = False
        self._spare = [f"s{number}" for number in range(1, plan.spare + 1)]
        self._armed: list[Callable[[Machine], None]] = []
        self._armed_accepts: list[Callable[[Machine], None]] = []
        self._actions: dict[str, Callable[[Random], str]] = {
            "kill": self.kill,
            "power": self.power,
            "power-in-operation": self.power_in_operation,
            "restart-all": self.restart_all,
            "power-all": self.power_all,
            "kill-master": self.kill_master,
            "pause": self.pause,
            "freeze": self.freeze,
            "slow-disk": self.slow_disk,
            "hung-disk": self.hung_disk,
            "failed-sync": self.failed_sync,
            "failed-write": self.failed_write,
            "full-disk": self.full_disk,
            "rot": self.rot,
            "wipe": self.wipe,
            "loss": self.loss,
            "delay": self.delay,
            "repeat": self.repeat,
            "overtake": self.overtake,
            "garble": self.garble,
            "replay": self.replay,
            "misdeliver": self.misdeliver,
            "cut": self.cut,
            "one-way": self.one_way,
            "split": self.split,
            "bridge": self.bridge,
            "isolate": self.isolate,
            "isolate-master": self.isolate_master,
            "disconnect": self.disconnect,
            "block": self.block,
            "configuration-then-cut": self.configuration_then_cut,
            "one-accept": self.one_accept,
            "elections": self.elections,
            "duel": self.duel,
            "slow-apply": self.slow_apply,
            "elsewhere": self.elsewhere,
            "stranger": self.stranger,
            "wall-clock": self.wall_clock,
            "drift": self.drift,
            "members": self.members,
            "old-image": self.old_image,
            "lying-disk": self.lying_disk,
            "lost-majority": self.lost_majority,
        }
        cluster.on_configuration = self._on_configuration
        cluster.on_accepts = self._on_accepts
        cluster.restart_seconds = self._restart_seconds

    def _restart_seconds(self) -> float:
        return 0.1 if self._healed else 0.1 + self._chance.random() * 2.0

    def start(self) -> None:
        """Begin: every action of the plan will happen at its time, from now on."""
        world = self.cluster.world
        for action in self.plan.actions:
            world.call_at(world.now + action.at, self._act, action)

    def _act(self, action: Action) -> None:
        if not self._healed:
            chance = Random(f"{self._seed}/{action.number}/{action.fault}")
            said = self._actions[action.fault](chance)
            if said:
                self.cluster.did(f"action {action.number}, {action.fault}: {said}")
                self.cluster.sometimes[f"fault {action.fault}"] += 1

    def heal(self) -> None:
        """End all trouble that can be ended, and start whatever can be started."""
        self._healed = True
        cluster = self.cluster
        if cluster.recorder is not None:
            for source, target in sorted(cluster.network.cuts):
                cluster.recorder.healed(cluster.world.now, source, target)
        cluster.network.heal()
        self._armed.clear()
        self._armed_accepts.clear()
        for machine in cluster.machines.values():
            self._mend(machine)
            self._go_on(machine)
            if not machine.is_lost:
                machine.start()
        cluster.did("everything is healed")

    def _mend(self, machine: Machine) -> None:
        machine.disk.before = None
        machine.disk.spare()
        machine.disk.capacity_bytes = 1 << 40
        machine.disk.lie = False
        machine.disk_seconds = 0.0002
        machine.clock_rate = 1.0
        if machine.loop is not None:
            machine.loop.set_rate(1.0)
        machine.unhang()
        machine.work_slowly(0.0)

    # -- helpers

    def _later(self, seconds: float, what: Callable[..., object], *args: object) -> None:
        def act() -> None:
            if not self._healed:
                what(*args)

        world = self.cluster.world
        world.call_at(world.now + seconds, act)

    def _any(self, chance: Random, machines: Sequence[Machine] | None = None) -> Machine | None:
        choice = list(self.cluster.machines.values() if machines is None else machines)
        return choice[chance.randrange(len(choice))] if choice else None

    def _running(self, chance: Random) -> Machine | None:
        return self._any(chance, [m for m in self.cluster.machines.values() if m.runs])

    def _restart_later(self, chance: Random, machine: Machine) -> None:
        seconds = chance.choice((0.0, 0.05, 0.5, 2.0, 5.0)) * (0.5 + chance.random())
        self._later(seconds, self._start, machine)

    def _start(self, machine: Machine) -> None:
        if not machine.is_lost:
            machine.start()

    def _cut(self, source: str, target: str, seconds: float) -> None:
        """Cut one direction of a link for a while."""
        cluster = self.cluster
        cluster.network.cuts.add((source, target))
        if cluster.recorder is not None:
            cluster.recorder.cut(cluster.world.now, source, target)
        self._later(seconds, self._join, source, target)

    def _join(self, source: str, target: str) -> None:
        cluster = self.cluster
        cluster.network.cuts.discard((source, target))
        if cluster.recorder is not None:
            cluster.recorder.healed(cluster.world.now, source, target)

    def _cut_off(self, machine: Machine, seconds: float, how: str = "both") -> None:
        for other in self.cluster.machines:
            if other != machine.id:
                if how != "deaf":
                    self._cut(machine.id, other, seconds)
                if how != "mute":
                    self._cut(other, machine.id, seconds)

    def _a_while(self, chance: Random) -> float:
        """From a moment to several election timeouts."""
        timeout = self.plan.settings.election_timeout_seconds
        return timeout * chance.choice((0.1, 0.5, 1.5, 3.0, 6.0)) * (0.5 + chance.random())

    # -- processes

    def kill(self, chance: Random) -> str:
        machine = self._running(chance)
        if machine is None:
            return ""
        machine.kill()
        self._restart_later(chance, machine)
        return f"{machine} is killed"

    def kill_master(self, chance: Random) -> str:
        machine = self._any(chance, self.cluster.masters)
        if machine is None:
            return ""
        machine.kill()
        self._restart_later(chance, machine)
        return f"the master {machine} is killed"

    def power(self, chance: Random) -> str:
        machine = self._running(chance)
        if machine is None:
            return ""
        machine.crash()
        self._restart_later(chance, machine)
        return f"{machine} loses power"

    def power_in_operation(self, chance: Random) -> str:
        machine = self._running(chance)
        if machine is None:
            return ""
        machine.lose_power_at(1 + chance.randrange(6))
        machine_restarts = 0.5 + chance.random() * 3.0
        self._later(machine_restarts, self._start, machine)
        return f"{machine} will lose power in the middle of a write"

    def restart_all(self, chance: Random) -> str:
        for machine in self.cluster.machines.values():
            machine.kill()
            self._restart_later(chance, machine)
        return "everybody is killed"

    def power_all(self, chance: Random) -> str:
        for machine in self.cluster.machines.values():
            machine.crash()
            self._restart_later(chance, machine)
        return "the power fails everywhere"

    def pause(self, chance: Random) -> str:
        machine = self._running(chance)
        if machine is None or machine.loop is None or machine.loop.is_held:
            return ""
        seconds = self._a_while(chance)
        machine.loop.pause()
        self._band(machine, "paused")
        self._later(seconds, self._go_on, machine)
        return f"{machine} is stopped for {seconds:.2f} s"

    def freeze(self, chance: Random) -> str:
        machine = self._running(chance)
        if machine is None or machine.loop is None or machine.loop.is_held:
            return ""
        seconds = self._a_while(chance)
        machine.loop.freeze()
        self._band(machine, "frozen")
        self._later(seconds, self._go_on, machine)
        return f"{machine} is frozen for {seconds:.2f} s, its clock too"

    def _band(self, machine: Machine, kind: str) -> None:
        recorder = self.cluster.recorder
        if recorder is not None:
            recorder.span_begins(self.cluster.world.now, machine.id, kind)  # type: ignore[arg-type]
            # a span's kind

    def _go_on(self, machine: Machine) -> None:
        if machine.loop is not None and machine.loop.is_held:
            machine.loop.resume()
        recorder = self.cluster.recorder
        if recorder is not None:
            recorder.span_ends(self.cluster.world.now, machine.id, "paused")
            recorder.span_ends(self.cluster.world.now, machine.id, "frozen")

    # -- disks

    def slow_disk(self, chance: Random) -> str:
        machine = self._any(chance)
        if machine is None:
            return ""
        machine.disk_seconds = chance.choice((0.005, 0.05, 0.3))
        seconds = self._a_while(chance)

        def quick() -> None:
            machine.disk_seconds = 0.0002

        self._later(seconds, quick)
        return f"the disk of {machine} takes {machine.disk_seconds} s for {seconds:.2f} s"

    def hung_disk(self, chance: Random) -> str:
        machine = self._any(chance, self.cluster.masters if chance.random() < 0.5 else None)
        if machine is None:
            return ""
        machine.disk_hangs = True
        seconds = self._a_while(chance)
        self._later(seconds, machine.unhang)
        return f"the disk of {machine} hangs for {seconds:.2f} s"

    def failed_sync(self, chance: Random) -> str:
        machine = self._running(chance)
        if machine is None:
            return ""
        machine.disk.fail_next("datasync", OSError(errno.EIO, "input/output error"))
        return f"the next sync of {machine} will fail"

    def failed_write(self, chance: Random) -> str:
        machine = self._running(chance)
        if machine is None:
            return ""
        machine.disk.fail_next("pwrite", OSError(errno.EIO, "input/output error"))
        return f"the next write of {machine} will fail"

    def full_disk(self, chance: Random) -> str:
        machine = self._any(chance)
        if machine is None:
            return ""
        disk = machine.disk
        disk.capacity_bytes = (1 << 40) - disk.space_bytes() + chance.choice((0, 1000, 70_000))
        seconds = 2 * self._a_while(chance)

        def empty() -> None:
            disk.capacity_bytes = 1 << 40

        self._later(seconds, empty)
        return f"the disk of {machine} has no space for {seconds:.2f} s"

    def rot(self, chance: Random) -> str:
        cluster = self.cluster
        machine = self._any(chance, [m for m in cluster.machines.values() if not m.is_lost])
        if machine is None or machine.life is None or not cluster.may_lose_another():
            return ""
        what = machine.rot(chance)
        if not what:
            return ""
        # It is not known when it will be noticed: from now on this disk is not to be counted on.
        machine.is_lost = True
        cluster.expected.add(machine.id)
        if chance.random() < 0.7:
            machine.kill()
            self._later(0.1, machine.start)
        return f"{what} of {machine}"

    def wipe(self, chance: Random) -> str:
        cluster = self.cluster
        machine = self._any(chance, [m for m in cluster.machines.values() if not m.is_lost])
        if machine is None or machine.life is None or not cluster.may_lose_another():
            return ""
        if cluster.has_stranger:
            return ""
        self._wiped = True
        machine.crash()
        machine.wipe()
        self._later(0.2, machine.start)
        return f"{machine} gets an empty disk"

    # -- the network

    def loss(self, chance: Random) -> str:
        self.cluster.network.loss = chance.choice((0.01, 0.05, 0.2, 0.4))
        return f"{self.cluster.network.loss:.0%} of all messages are lost"

    def delay(self, chance: Random) -> str:
        network = self.cluster.network
        timeout = self.plan.settings.election_timeout_seconds
        network.jitter_seconds = chance.choice((0.001, 0.01, 0.05))
        network.late = chance.choice((0.01, 0.1))
        network.late_seconds = timeout * chance.choice((0.5, 2.0, 10.0))
        return f"{network.late:.0%} of all messages are up to {network.late_seconds:.1f} s late"

    def repeat(self, chance: Random) -> str:
        self.cluster.network.repeat = chance.choice((0.02, 0.2))
        return f"{self.cluster.network.repeat:.0%} of all messages arrive twice"

    def overtake(self, chance: Random) -> str:
        self.cluster.network.overtake = chance.choice((0.05, 0.5))
        return f"{self.cluster.network.overtake:.0%} of all messages may be overtaken"

    def garble(self, chance: Random) -> str:
        self.cluster.network.garble = chance.choice((0.002, 0.02))
        return f"{self.cluster.network.garble:.1%} of all frames are garbled"

    def replay(self, chance: Random) -> str:
        return "something old arrives again" if self.cluster.network.replay() else ""

    def misdeliver(self, chance: Random) -> str:
        said = "a message arrives at the wrong machine"
        return said if self.cluster.network.misdeliver() else ""

    def _two(self, chance: Random) -> tuple[str, str] | None:
        ids = list(self.cluster.machines)
        if len(ids) < 2:
            return None
        one, other = chance.sample(ids, 2)
        return one, other

    def cut(self, chance: Random) -> str:
        two = self._two(chance)
        if two is None:
            return ""
        seconds = self._a_while(chance)
        self._cut(*two, seconds)
        self._cut(two[1], two[0], seconds)
        return f"{two[0]} and {two[1]} are cut for {seconds:.2f} s"

    def one_way(self, chance: Random) -> str:
        two = self._two(chance)
        if two is None:
            return ""
        seconds = self._a_while(chance)
        self._cut(*two, seconds)
        return f"nothing passes from {two[0]} to {two[1]} for {seconds:.2f} s"

    def split(self, chance: Random) -> str:
        ids = list(self.cluster.machines)
        if len(ids) < 2:
            return ""
        left = chance.sample(ids, 1 + chance.randrange(len(ids) - 1))
        seconds = self._a_while(chance)
        for one in ids:
            for other in ids:
                if (one in left) != (other in left):
                    self._cut(one, other, seconds)
        return f"{' '.join(sorted(left))} are cut from the rest for {seconds:.2f} s"

    def bridge(self, chance: Random) -> str:
        ids = list(self.cluster.machines)
        if len(ids) < 3:
            return ""
        middle = ids[chance.randrange(len(ids))]
        rest = [each for each in ids if each != middle]
        left = chance.sample(rest, max(1, len(rest) // 2))
        seconds = self._a_while(chance)
        for one in rest:
            for other in rest:
                if (one in left) != (other in left):
                    self._cut(one, other, seconds)
        return f"only {middle} reaches everybody for {seconds:.2f} s"

    def isolate(self, chance: Random) -> str:
        machine = self._any(chance)
        if machine is None:
            return ""
        how = chance.choice(("both", "both", "deaf", "mute"))
        seconds = self._a_while(chance)
        self._cut_off(machine, seconds, how)
        return f"{machine} is cut off ({how}) for {seconds:.2f} s"

    def isolate_master(self, chance: Random) -> str:
        machine = self._any(chance, self.cluster.masters)
        if machine is None:
            return ""
        seconds = self._a_while(chance)
        self._cut_off(machine, seconds)
        return f"the master {machine} is cut off for {seconds:.2f} s"

    def disconnect(self, chance: Random) -> str:
        two = self._two(chance)
        if two is None:
            return ""
        self.cluster.network.break_link(*two)
        self.cluster.network.break_link(two[1], two[0])
        return f"the connections of {two[0]} and {two[1]} are reset"

    def block(self, chance: Random) -> str:
        network = self.cluster.network
        kinds = set(chance.sample(sorted(KINDS.values()), 1 + chance.randrange(3)))
        seconds = self._a_while(chance)
        network.blocked_kinds |= kinds
        self._later(seconds, network.blocked_kinds.difference_update, kinds)
        return f"no {', '.join(sorted(kinds))} passes for {seconds:.2f} s"

    # -- at the worst moment

    def _on_configuration(self, machine: Machine) -> None:
        if self._armed:
            self._armed.pop()(machine)

    def _on_accepts(self, machine: Machine) -> None:
        if self._armed_accepts:
            self._armed_accepts.pop()(machine)

    def configuration_then_cut(self, chance: Random) -> str:
        """The configuration is in one log only, or in two; and whoever goes on must find it."""
        seconds = (2 + 2 * chance.random()) * self.plan.settings.election_timeout_seconds
        reaches, dies = chance.random() < 0.7, chance.random() < 0.5

        def strike(machine: Machine) -> None:
            others = [each for each in self.cluster.machines if each != machine.id]
            reached = others[chance.randrange(len(others))] if reaches and others else "nobody"
            self.cluster.did(
                f"{machine} has written a configuration, reaches {reached}, and is cut off"
            )

            def cut_off() -> None:
                self._cut_off(machine, seconds)
                if dies:
                    machine.kill()
                    self._later(seconds, self._start, machine)

            for other in others:
                if other != reached:
                    self._cut(machine.id, other, seconds)
                    self._cut(other, machine.id, seconds)
            self._later(0.05, cut_off)

        self._armed.append(strike)
        self._later(0.01, self.members, chance)
        return "whoever writes the next configuration will be cut off"

    def one_accept(self, chance: Random) -> str:
        seconds = 2 * self._a_while(chance)

        def strike(machine: Machine) -> None:
            others = [each for each in self.cluster.machines if each != machine.id]
            if not others:
                return
            reached = others[chance.randrange(len(others))]
            passed = 0

            def lost(source: str, target: str, content: bytes) -> bool:
                nonlocal passed
                if source != machine.id or kind_of(content) != "Accept":
                    return source == machine.id or target == machine.id
                passed += target == reached
                return target != reached or passed > 1

            network = self.cluster.network
            network.filter = lost
            self.cluster.did(f"one more accept of {machine} arrives, at {reached}")

            def end() -> None:
                if network.filter is lost:
                    network.filter = None

            self._later(seconds, end)

        self._armed_accepts.append(strike)
        return "of the next accepts one will arrive"

    def elections(self, chance: Random) -> str:
        machine = self._any(chance, self.cluster.up)
        if machine is None:
            return ""
        self._stand(machine)
        return f"{machine} stands for election"

    def _stand(self, machine: Machine) -> None:
        future = machine.ask(lambda participant: participant.start_election(timeout=1.0))
        future.add_done_callback(_ignore)

    def duel(self, chance: Random) -> str:
        network = self.cluster.network
        seconds = self._a_while(chance)
        share = chance.choice((0.3, 0.7, 1.0))
        network_chance = Random(chance.getrandbits(32))

        def lost(source: str, target: str, content: bytes) -> bool:
            return kind_of(content) not in ELECTIONS and network_chance.random() < share

        network.filter = lost
        for machine in self.cluster.up:
            self._stand(machine)

        def end() -> None:
            if network.filter is lost:
                network.filter = None

        self._later(seconds, end)
        return f"everybody stands, and {share:.0%} of the rest is lost for {seconds:.2f} s"

    # -- applications

    def slow_apply(self, chance: Random) -> str:
        machine = self._any(chance)
        if machine is None:
            return ""
        each, seconds = chance.choice((0.002, 0.02, 0.2)), self._a_while(chance)
        machine.work_slowly(each)
        self._later(seconds, machine.work_slowly, 0.0)
        return f"each change takes {machine} {each} s to apply, for {seconds:.2f} s"

    def elsewhere(self, chance: Random) -> str:
        self.cluster.insists = 0.5
        return "clients without an answer ask somebody else, too"

    def stranger(self, chance: Random) -> str:
        """A cluster of the same name, but not the same one, wants one of our members (I1, I4)."""
        target = self._any(chance, self.cluster.sound_voters())
        if target is None or self._wiped:
            return ""  # whoever has an empty disk may follow whom it likes
        stranger = self.cluster.stranger()
        if stranger is None:
            return ""
        future = stranger.ask(
            lambda participant: participant.add_participant(target.member, timeout=2.0)
        )
        future.add_done_callback(_must_be_refused)
        return f"a stranger wants {target}"

    # -- clocks

    def wall_clock(self, chance: Random) -> str:
        machine = self._any(chance)
        if machine is None:
            return ""
        jump = chance.choice((-3600.0, -60.0, -1.0, 1.0, 60.0, 3600.0))
        machine.wall_skew += jump
        return f"the wall clock of {machine} jumps by {jump:g} s"

    def drift(self, chance: Random) -> str:
        said = []
        for machine in self.cluster.machines.values():
            machine.clock_rate = 1.0 + chance.choice((-0.3, -0.05, 0.0, 0.05, 0.3))
            if machine.loop is not None:
                machine.loop.set_rate(machine.clock_rate)
            said.append(f"{machine} {machine.clock_rate:g}")
        return f"clocks run at {', '.join(said)}"

    # -- members

    def members(self, chance: Random) -> str:
        cluster = self.cluster
        if self._spare and chance.random() < 0.7:
            machine = cluster.add_machine(self._spare.pop(0))
            machine.start()
        target, via = self._any(chance), self._any(chance, cluster.up)
        if target is None or via is None:
            return ""
        future = via.ask(
            lambda participant: participant.add_participant(target.member, timeout=5.0)
        )
        future.add_done_callback(_ignore)
        return f"{target} is to be added by {via}"

    # -- beyond

    def old_image(self, chance: Random) -> str:
        machine = self._running(chance)
        if machine is None:
            return ""
        image = machine.disk.snapshot_image()
        seconds = 2 * self._a_while(chance)

        def restore() -> None:
            machine.crash()
            machine.disk.restore_image(image)
            self._later(0.1, machine.start)
            self.cluster.did(f"{machine} gets its disk of {seconds:.2f} s ago")

        self._later(seconds, restore)
        return f"an image of the disk of {machine} is taken, for later"

    def lying_disk(self, chance: Random) -> str:
        machine = self._running(chance)
        if machine is None:
            return ""
        machine.disk.lie = True

        def fails() -> None:
            machine.crash()
            machine.disk.lie = False
            self._later(0.1, machine.start)

        self._later(self._a_while(chance), fails)
        return f"the disk of {machine} lies"

    def lost_majority(self, chance: Random) -> str:
        cluster = self.cluster
        ids = [machine for machine in cluster.machines.values() if machine.life is not None]
        seconds = self.plan.seconds * (0.3 + 0.5 * chance.random())

        def lose() -> None:
            for machine in ids[: len(ids) // 2 + 1]:
                machine.crash()
                machine.is_lost = True
            cluster.did("a majority is lost for good")

        self._later(seconds, lose)
        return f"a majority will be lost after {seconds:.2f} s"


def _must_be_refused(future: asyncio.Future[Any]) -> None:
    if future.exception() is None:
        raise BrokenError("I1", "a member was taken in by another cluster")


def _ignore(future: asyncio.Future[Any]) -> None:
    """Whatever becomes of it is fine."""
    error = future.exception()
    if error is not None and not isinstance(error, ConsensusError | GoneError):
        raise error
