"""Faults of disks."""

from __future__ import annotations

import errno
from random import Random

from clusterconsensus.simulation.trouble.base import Trouble
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
        cluster = self.cluster
        machine = self.any_machine(chance, [m for m in cluster.machines.values() if not m.is_lost])
        if machine is None or machine.life is None or not cluster.may_lose_another():
            return ""
        what = damage(machine, chance)
        if not what:
            return ""
        # It is not known when it will be noticed: from now on this disk is not to be counted on.
        machine.is_lost = True
        cluster.expected.add(machine.id)
        if chance.random() < 0.7:
            machine.kill()
            self.later(0.1, machine.start)
        return f"{what} of {machine}"

    def rot_last(self, chance: Random) -> str:
        """Without ``paranoid`` this would look like a write that a crash tore, and be cut off."""
        cluster = self.cluster
        machine = self.any_machine(chance, [m for m in cluster.machines.values() if m.runs])
        if machine is None or machine.is_lost or not cluster.may_lose_another():
            return ""
        machine.kill()
        if not damage_last_write(machine, chance):
            self.later(0.1, machine.start)
            return ""
        machine.is_lost = machine.is_paranoid = True
        cluster.expected.add(machine.id)
        self.later(0.1, machine.start)
        return f"the last write of {machine} is damaged"

    def wipe(self, chance: Random) -> str:
        cluster = self.cluster
        machine = self.any_machine(chance, [m for m in cluster.machines.values() if not m.is_lost])
        if machine is None or machine.life is None or not cluster.may_lose_another():
            return ""
        if cluster.has_stranger:
            return ""
        self.wiped = True
        machine.crash()
        machine.wipe()
        self.later(0.2, machine.start)
        return f"{machine} gets an empty disk"
