"""The fault injector: does to a simulated cluster what a plan says.

Each action draws from a source of chance of its own, so it does the same whether or not others were
left out. Most faults end by themselves after a while; ``heal`` ends all. Members that were lost for
good stay lost, and the injector takes care that a majority of disks is never lost nor in doubt at
once, unless the plan says so. The faults themselves are in ``trouble``.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from clusterconsensus.simulation.cluster import Cluster
from clusterconsensus.simulation.machine import Machine
from clusterconsensus.simulation.trouble.disks import Disks
from clusterconsensus.simulation.trouble.links import Links
from clusterconsensus.simulation.trouble.moments import Moments
from clusterconsensus.simulation.trouble.plan import BY_NAME, Action, Plan
from clusterconsensus.simulation.trouble.processes import Processes


class Injector(Processes, Disks, Links, Moments):
    """Makes trouble for one cluster.

    Arguments:
        cluster: Whose.
        plan: What is done and when.
    """

    def __init__(self, cluster: Cluster, plan: Plan) -> None:
        super().__init__(cluster, plan)
        self._seed = plan.seed
        self._chance = Random(f"{plan.seed}/injector")
        self._actions: dict[str, Callable[[Random], str]] = {
            name: getattr(self, name.replace("-", "_")) for name in BY_NAME
        }
        cluster.on_configuration = self._on_configuration
        cluster.on_accepts = self._on_accepts
        cluster.on_install = self._on_install
        cluster.restart_seconds = self._restart_seconds

    def _restart_seconds(self) -> float:
        return 0.1 if self.healed else 0.1 + self._chance.random() * 2.0

    def start(self) -> None:
        """Begin: every action of the plan will happen at its time, from now on."""
        world = self.cluster.world
        if "stranger" in self.plan.faults:
            self.cluster.stranger()  # it takes a while until it is a cluster
        for action in self.plan.actions:
            world.call_at(world.now + action.at, self._act, action)

    def _act(self, action: Action) -> None:
        if not self.healed:
            chance = Random(f"{self._seed}/{action.number}/{action.fault}")
            said = self._actions[action.fault](chance)
            if said:
                self.cluster.did(f"action {action.number}, {action.fault}: {said}")
                self.cluster.sometimes[f"fault {action.fault}"] += 1

    def heal(self) -> None:
        """End all trouble that can be ended, and start whatever can be started."""
        self.healed = True
        cluster = self.cluster
        if cluster.recorder is not None:
            for source, target in sorted(cluster.network.cuts):
                cluster.recorder.healed(cluster.world.now, source, target)
        cluster.network.heal()
        self.armed.clear()
        self.armed_accepts.clear()
        self.armed_installs.clear()
        self.operators.stopped = True
        for machine in cluster.machines.values():
            self._mend(machine)
            self.go_on(machine)
            if not machine.is_lost:
                machine.start()
        cluster.did("everything is healed")

    def _mend(self, machine: Machine) -> None:
        machine.disk.before = None
        machine.disk.spare()
        machine.disk.capacity_bytes = 1 << 40
        machine.disk.lie = False
        machine.set_clock(rate=1.0)
        machine.unhang()
        machine.hurry()
        machine.work_slowly(0.0)
