"""Faults of disks."""

from __future__ import annotations

import errno
from random import Random

from clusterconsensus.simulation.machine import Machine
from clusterconsensus.simulation.trouble.base import Trouble, ignore
from clusterconsensus.simulation.trouble.rotting import damage, damage_last_write


class Disks(Trouble):
    """Faults of disks."""

    def slow_disk(self, chance: Random) -> str:
        machine = self.any_machine(chance)
        if machine is None:
            return ""
        machine.disk_seconds = chance.choice((0.005, 0.05, 0.3))
        seconds = self.a_while(chance)

        def quick() -> None:
            machine.disk_seconds = 0.0002

        self.later(seconds, quick)
        return f"the disk of {machine} takes {machine.disk_seconds} s for {seconds:.2f} s"

    def hung_disk(self, chance: Random) -> str:
        machine = self.any_machine(chance, self.cluster.masters if chance.random() < 0.5 else None)
        if machine is None:
            return ""
        machine.disk_hangs = True
        seconds = self.a_while(chance)
        self.later(seconds, machine.unhang)
        return f"the disk of {machine} hangs for {seconds:.2f} s"

    def failed_sync(self, chance: Random) -> str:
        machine = self.any_running(chance)
        if machine is None:
            return ""
        machine.disk.fail_next("datasync", OSError(errno.EIO, "input/output error"))
        return f"the next sync of {machine} will fail"

    def failed_write(self, chance: Random) -> str:
        machine = self.any_running(chance)
        if machine is None:
            return ""
        machine.disk.fail_next("pwrite", OSError(errno.EIO, "input/output error"))
        return f"the next write of {machine} will fail"

    def full_disk(self, chance: Random) -> str:
        machine = self.any_machine(chance)
        if machine is None:
            return ""
        disk = machine.disk
        disk.capacity_bytes = (1 << 40) - disk.space_bytes() + chance.choice((0, 1000, 70_000))
        seconds = 2 * self.a_while(chance)

        def empty() -> None:
            disk.capacity_bytes = 1 << 40

        self.later(seconds, empty)
        return f"the disk of {machine} has no space for {seconds:.2f} s"

    def rot(self, chance: Random) -> str:
        machine = self._any_sound(chance)
        if machine is None:
            return ""
        what = damage(machine, chance)
        if not what:
            return ""
        if chance.random() < 0.7:
            machine.kill()
            self.later(0.1, self.start_machine, machine)
        return f"{what} of {machine}"

    def _any_sound(self, chance: Random) -> Machine | None:
        """One whose disk may be damaged. It is not known when that will be noticed, nor whether it
        can be repaired: until then the machine is not to be counted on."""
        cluster = self.cluster
        machines = [m for m in cluster.machines.values() if not (m.is_lost or m.in_doubt)]
        machine = self.any_machine(chance, machines)
        if machine is None or machine.life is None or not cluster.may_lose_another():
            return None
        return machine

    def flip_journal(self, chance: Random) -> str:
        """It runs on with what it has in memory; the next start, or a scrub, finds it."""
        machine = self._any_sound(chance)
        if machine is None or not machine.runs:
            return ""
        what = damage(machine, chance, bits=True)
        return f"{what} of {machine}, which runs on" if what else ""

    def flip_snapshot(self, chance: Random) -> str:
        """Of two snapshots the other one serves, with the log behind it; and where there is one
        only, the others help."""
        cluster = self.cluster
        machine = self.any_machine(chance, [m for m in cluster.machines.values() if not m.is_lost])
        if machine is None or machine.life is None:
            return ""
        paths = machine.snapshots.paths()
        if not paths:
            return ""
        path = paths[chance.randrange(len(paths))]
        if not self._can_do_without(machine, path) and (
            machine.in_doubt or not cluster.may_lose_another()
        ):
            return ""
        size = len(machine.disk.content(path).durable)
        machine.disk.flip(path, chance.randrange(size), chance.randrange(8))
        machine.note_damage(path)
        if chance.random() < 0.5:
            machine.kill()
            self.later(0.1, self.start_machine, machine)
        return f"a bit of {path} of {machine} flips"

    def _can_do_without(self, machine: Machine, path: str) -> bool:
        """Whether the log of a machine leads on from another snapshot, or from the beginning."""
        life = machine.life
        if life is None or machine.in_doubt or not life.is_up:
            return False
        base = life.local.log.base.seq
        others = [machine.snapshots.seq(each) for each in machine.snapshots.paths() if each != path]
        return base <= max(others, default=0)

    def rot_last(self, chance: Random) -> str:
        """Without ``paranoid`` this would look like a write that a crash tore, and be cut off. With
        it nobody knows what the member promised last: it stays down."""
        machine = self._any_sound(chance)
        if machine is None or not machine.runs:
            return ""
        machine.kill()
        found = damage_last_write(machine, chance)
        self.later(0.1, self.start_machine, machine)
        if not found:
            return ""
        machine.is_paranoid = True
        return f"the last write of {machine} is damaged"

    def wipe(self, chance: Random) -> str:
        cluster = self.cluster
        machine = self._any_sound(chance)
        if machine is None or cluster.has_stranger:
            return ""
        self.operators.wiped = True
        machine.crash()
        machine.wipe()
        self.later(0.2, machine.start)
        return f"{machine} gets an empty disk"

    # -- snapshots

    def snapshot_now(self, chance: Random) -> str:
        machine = self.any_machine(chance, self.cluster.up)
        if machine is None:
            return ""
        machine.ask(lambda participant: participant.snapshot()).add_done_callback(ignore)
        return f"{machine} is asked for a snapshot"

    def slow_snapshot(self, chance: Random) -> str:
        machine = self.any_machine(chance)
        if machine is None:
            return ""
        machine.snapshot_seconds = chance.choice((0.1, 1.0, 5.0))
        seconds = 2 * self.a_while(chance)

        def quick() -> None:
            machine.snapshot_seconds = 0.0

        self.later(seconds, quick)
        return f"snapshots take {machine} {machine.snapshot_seconds} s for {seconds:.2f} s"

    def power_in_snapshot(self, chance: Random) -> str:
        machine = self.any_running(chance)
        if machine is None:
            return ""
        machine.lose_power_at(1 + chance.randrange(12), "/snapshot-")
        if chance.random() < 0.5:
            machine.ask(lambda participant: participant.snapshot()).add_done_callback(ignore)
        self._restart_when_down(machine, 0.5 + chance.random() * 2.0)
        return f"{machine} will lose power in the middle of a snapshot"

    def _restart_when_down(self, machine: Machine, seconds: float) -> None:
        def look() -> None:
            if machine.runs:
                self.later(seconds, look)
            else:
                self.start_machine(machine)

        self.later(seconds, look)

    def power_in_install(self, chance: Random) -> str:
        operations, dies = chance.randrange(10), chance.random() < 0.3
        seconds = 0.5 + chance.random() * 2.0

        def strike(machine: Machine) -> None:
            self.cluster.did(f"{machine} is about to install a snapshot, and loses power")
            if operations:
                machine.lose_power_at(operations)
            elif dies:
                self.later(0.0, machine.kill)
            else:
                self.later(0.0, machine.crash)
            self._restart_when_down(machine, seconds)

        self.armed_installs.append(strike)
        return "whoever installs the next snapshot will lose power"
