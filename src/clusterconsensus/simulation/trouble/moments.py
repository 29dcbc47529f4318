"""Faults at the worst moment, on purpose."""

from __future__ import annotations

from random import Random

from clusterconsensus.simulation.machine import Machine
from clusterconsensus.simulation.trouble.base import ignore
from clusterconsensus.simulation.trouble.others import Others
from clusterconsensus.simulation.world.network import kind_of

ELECTIONS = frozenset(("Probe", "ProbeReply", "Prepare", "Promise", "PromisePull", "PromisePart"))


class Moments(Others):
    """Faults at the worst moment, on purpose."""

    def _on_configuration(self, machine: Machine) -> None:
        if self.armed:
            self.armed.pop()(machine)

    def _on_accepts(self, machine: Machine) -> None:
        if self.armed_accepts:
            self.armed_accepts.pop()(machine)

    def _on_install(self, machine: Machine) -> None:
        if self.armed_installs and not self.healed:
            self.armed_installs.pop()(machine)

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
                self.cut_off(machine, seconds)
                if dies:
                    machine.kill()
                    self.later(seconds, self.start_machine, machine)

            def lost(source: str, target: str, content: bytes) -> bool:
                # Whoever has it does not stand: somebody else must find it there (E5, E6).
                return source == reached and kind_of(content) in ("Probe", "Prepare")

            network = self.cluster.network
            network.filter = lost

            def end() -> None:
                if network.filter is lost:
                    network.filter = None

            for other in others:
                if other != reached:
                    self.cut_link(machine.id, other, seconds)
                    self.cut_link(other, machine.id, seconds)
            self.later(0.05, cut_off)
            self.later(seconds, end)

        self.armed.append(strike)
        added = self.members(chance)
        return (
            f"whoever writes the next configuration will be cut off; {added or 'nobody is added'}"
        )

    def one_accept(self, chance: Random) -> str:
        seconds = 2 * self.a_while(chance)

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

            self.later(seconds, end)

        self.armed_accepts.append(strike)
        return "of the next accepts one will arrive"

    def elections(self, chance: Random) -> str:
        machine = self.any_machine(chance, self.cluster.up)
        if machine is None:
            return ""
        self.stand(machine)
        return f"{machine} stands for election"

    def stand(self, machine: Machine) -> None:
        future = machine.ask(lambda participant: participant.start_election(timeout=1.0))
        future.add_done_callback(ignore)

    def duel(self, chance: Random) -> str:
        network = self.cluster.network
        seconds = self.a_while(chance)
        share = chance.choice((0.3, 0.7, 1.0))
        network_chance = Random(chance.getrandbits(32))

        def lost(source: str, target: str, content: bytes) -> bool:
            return kind_of(content) not in ELECTIONS and network_chance.random() < share

        network.filter = lost
        for machine in self.cluster.up:
            self.stand(machine)

        def end() -> None:
            if network.filter is lost:
                network.filter = None

        self.later(seconds, end)
        return f"everybody stands, and {share:.0%} of the rest is lost for {seconds:.2f} s"
