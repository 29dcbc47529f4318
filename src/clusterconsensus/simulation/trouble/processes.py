"""Faults of processes and of the power."""

from __future__ import annotations

from random import Random

from clusterconsensus.simulation.trouble.base import Trouble


class Processes(Trouble):
    """Faults of processes and of the power."""

    def kill(self, chance: Random) -> str:
        machine = self.any_running(chance)
        if machine is None:
            return ""
        machine.kill()
        self.restart_later(chance, machine)
        return f"{machine} is killed"

    def close(self, chance: Random) -> str:
        machine = self.any_machine(chance, self.cluster.up)
        if machine is None:
            return ""
        machine.close()  # and whatever stops by itself is started again
        return f"{machine} is stopped in good order"

    def kill_master(self, chance: Random) -> str:
        machine = self.any_machine(chance, self.cluster.masters)
        if machine is None:
            return ""
        machine.kill()
        self.restart_later(chance, machine)
        return f"the master {machine} is killed"

    def power(self, chance: Random) -> str:
        machine = self.any_running(chance)
        if machine is None:
            return ""
        machine.crash()
        self.restart_later(chance, machine)
        return f"{machine} loses power"

    def power_in_operation(self, chance: Random) -> str:
        machine = self.any_running(chance)
        if machine is None:
            return ""
        machine.lose_power_at(1 + chance.randrange(6))
        machine_restarts = 0.5 + chance.random() * 3.0
        self.later(machine_restarts, self.start_machine, machine)
        return f"{machine} will lose power in the middle of a write"

    def restart_all(self, chance: Random) -> str:
        for machine in self.cluster.machines.values():
            machine.kill()
            self.restart_later(chance, machine)
        return "everybody is killed"

    def power_all(self, chance: Random) -> str:
        for machine in self.cluster.machines.values():
            machine.crash()
            self.restart_later(chance, machine)
        return "the power fails everywhere"

    def pause(self, chance: Random) -> str:
        machine = self.any_running(chance)
        if machine is None or machine.loop is None or machine.loop.is_held:
            return ""
        seconds = self.a_while(chance)
        machine.loop.pause()
        self.band(machine, "paused")
        self.later(seconds, self.go_on, machine)
        return f"{machine} is stopped for {seconds:.2f} s"

    def freeze(self, chance: Random) -> str:
        machine = self.any_running(chance)
        if machine is None or machine.loop is None or machine.loop.is_held:
            return ""
        seconds = self.a_while(chance)
        machine.clock.freeze()
        self.band(machine, "frozen")
        self.later(seconds, self.go_on, machine)
        return f"{machine} is frozen for {seconds:.2f} s, its clock too"
