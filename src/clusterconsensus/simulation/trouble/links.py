"""Faults of the network."""

from __future__ import annotations

from random import Random

from clusterconsensus.simulation.trouble.base import Trouble
from clusterconsensus.simulation.world.network import KINDS


class Links(Trouble):
    """Faults of the network."""

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

    def cut(self, chance: Random) -> str:
        two = self.two_ids(chance)
        if two is None:
            return ""
        seconds = self.a_while(chance)
        self.cut_link(*two, seconds)
        self.cut_link(two[1], two[0], seconds)
        return f"{two[0]} and {two[1]} are cut for {seconds:.2f} s"

    def one_way(self, chance: Random) -> str:
        two = self.two_ids(chance)
        if two is None:
            return ""
        seconds = self.a_while(chance)
        self.cut_link(*two, seconds)
        return f"nothing passes from {two[0]} to {two[1]} for {seconds:.2f} s"

    def split(self, chance: Random) -> str:
        ids = list(self.cluster.machines)
        if len(ids) < 2:
            return ""
        left = chance.sample(ids, 1 + chance.randrange(len(ids) - 1))
        seconds = self.a_while(chance)
        for one in ids:
            for other in ids:
                if (one in left) != (other in left):
                    self.cut_link(one, other, seconds)
        return f"{' '.join(sorted(left))} are cut from the rest for {seconds:.2f} s"

    def bridge(self, chance: Random) -> str:
        ids = list(self.cluster.machines)
        if len(ids) < 3:
            return ""
        middle = ids[chance.randrange(len(ids))]
        rest = [each for each in ids if each != middle]
        left = chance.sample(rest, max(1, len(rest) // 2))
        seconds = self.a_while(chance)
        for one in rest:
            for other in rest:
                if (one in left) != (other in left):
                    self.cut_link(one, other, seconds)
        return f"only {middle} reaches everybody for {seconds:.2f} s"

    def isolate(self, chance: Random) -> str:
        machine = self.any_machine(chance)
        if machine is None:
            return ""
        how = chance.choice(("both", "both", "deaf", "mute"))
        seconds = self.a_while(chance)
        self.cut_off(machine, seconds, how)
        return f"{machine} is cut off ({how}) for {seconds:.2f} s"

    def isolate_master(self, chance: Random) -> str:
        machine = self.any_machine(chance, self.cluster.masters)
        if machine is None:
            return ""
        seconds = self.a_while(chance)
        self.cut_off(machine, seconds)
        return f"the master {machine} is cut off for {seconds:.2f} s"

    def disconnect(self, chance: Random) -> str:
        two = self.two_ids(chance)
        if two is None:
            return ""
        self.cluster.network.break_link(*two)
        self.cluster.network.break_link(two[1], two[0])
        return f"the connections of {two[0]} and {two[1]} are reset"

    def block(self, chance: Random) -> str:
        network = self.cluster.network
        kinds = set(chance.sample(sorted(KINDS.values()), 1 + chance.randrange(3)))
        seconds = self.a_while(chance)
        network.blocked_kinds |= kinds
        self.later(seconds, network.blocked_kinds.difference_update, kinds)
        return f"no {', '.join(sorted(kinds))} passes for {seconds:.2f} s"
