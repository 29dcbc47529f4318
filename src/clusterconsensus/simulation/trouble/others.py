"""Faults of applications, of clocks and of the membership; and what no cluster survives."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Coroutine
from random import Random
from typing import Any

from clusterconsensus.consensus.messages import Action
from clusterconsensus.simulation.judges.invariants import BrokenError
from clusterconsensus.simulation.trouble.base import Trouble, ignore


class Others(Trouble):
    """Faults of applications, of clocks and of the membership; and what no cluster survives."""

    _jumped_at = -math.inf

    def slow_apply(self, chance: Random) -> str:
        machine = self.any_machine(chance)
        if machine is None:
            return ""
        each, seconds = chance.choice((0.002, 0.02, 0.2)), self.a_while(chance)
        machine.work_slowly(each)
        self.later(seconds, machine.work_slowly, 0.0)
        return f"each change takes {machine} {each} s to apply, for {seconds:.2f} s"

    def elsewhere(self, chance: Random) -> str:
        self.cluster.insists = 0.5
        return "clients without an answer ask somebody else, too"

    def stranger(self, chance: Random) -> str:
        """A cluster of the same name, but not the same one, wants one of our members (I1, I4)."""
        target = self.any_machine(chance, self.cluster.sound_voters())
        if target is None or self.wiped:
            return ""  # whoever has an empty disk may follow whom it likes
        stranger = self.cluster.stranger()
        if stranger is None:
            return ""
        future = stranger.ask(
            lambda participant: participant.add_participant(target.member, timeout=2.0)
        )
        future.add_done_callback(must_be_refused)
        return f"a stranger wants {target}"

    # -- clocks

    def wall_clock(self, chance: Random) -> str:
        machine = self.any_machine(chance)
        if machine is None:
            return ""
        jump = chance.choice((-3600.0, -60.0, -1.0, 1.0, 60.0, 3600.0))
        machine.wall_skew += jump
        return f"the wall clock of {machine} jumps by {jump:g} s"

    def drift(self, chance: Random) -> str:
        said = []
        for machine in self.cluster.machines.values():
            machine.set_clock(rate=1.0 + chance.choice((-0.3, -0.05, 0.0, 0.05, 0.3)))
            said.append(f"{machine} {machine.clock.rate:g}")
        return f"clocks run at {', '.join(said)}"

    def lease_clock(self, chance: Random) -> str:
        """Never by more than the members were told to expect (``max_clock_drift``): what is allowed
        is shared by drift and jumps, since a lease of E may see both."""
        settings = self.plan.settings
        if "drift" not in self.plan.faults and chance.random() < 0.5:
            said = []
            for machine in self.cluster.machines.values():
                machine.set_clock(rate=1.0 + chance.choice((-0.02, 0.0, 0.02)))
                said.append(f"{machine} {machine.clock.rate:g}")
            return f"clocks run at {', '.join(said)}"
        struck = self.any_machine(chance)
        if struck is None:
            return ""
        now, timeout = self.cluster.world.now, settings.election_timeout_seconds
        if now < self._jumped_at + 3 * timeout:
            return ""  # two jumps in one lease would be more than the members were told of
        self._jumped_at = now
        jump = chance.choice((-1, 1)) * timeout * (0.02 if "drift" in self.plan.faults else 0.04)
        struck.set_clock(jump=jump)
        return f"the clock of {struck} jumps by {jump:g} s"

    # -- members

    def membership(self, chance: Random) -> str:
        """The spare machines are there from the beginning (``Plan.machines``)."""
        task = self.cluster.world.outside.create_task(self.operators.run(chance))
        task.add_done_callback(ended_well)
        return "the membership changes all the time"

    def remove_member(self, chance: Random) -> str:
        cluster, operators = self.cluster, self.operators
        voters = operators.seated()
        if cluster.masters and chance.random() < 0.3:
            voters = [machine for machine in cluster.masters if machine in voters]
        target, via = self.any_machine(chance, voters), operators.somebody(chance)
        if target is None or via is None:
            return ""
        if chance.random() < 0.3:
            self.cut_off(target, self.a_while(chance))
        self._operate(operators.ask(via, Action.REMOVE, target))
        return f"{target} is to be removed by {via}"

    def _operate(self, what: Coroutine[Any, Any, object]) -> None:
        self.cluster.world.outside.create_task(what).add_done_callback(ended_well)

    def replace_wiped(self, chance: Random) -> str:
        cluster, operators = self.cluster, self.operators
        via = operators.somebody(chance)
        target = self.any_machine(chance, operators.absent())
        if via is None:
            return ""
        if target is None:
            target = self.any_machine(chance, operators.seated())
            if target is None or target.life is None or cluster.has_stranger:
                return ""
            if not target.in_doubt and not cluster.may_lose_another():
                return ""
            operators.wiped = True
            target.crash()
            target.wipe()
        self._operate(operators.replace(via, target))
        return f"{target} gets an empty disk, and is to be replaced by {via}"

    def transfer(self, chance: Random) -> str:
        operators = self.operators
        via = operators.somebody(chance)
        target = self.any_machine(chance, operators.seated())
        if via is None or target is None:
            return ""
        self._operate(operators.ask(via, Action.TRANSFER, target))
        return f"{via} is asked that {target} leads"

    def members(self, chance: Random) -> str:
        """Mostly sensible: somebody new, by somebody who belongs. Sometimes not."""
        cluster = self.cluster
        if self.spare and chance.random() < 0.7:
            cluster.add_machine(self.spare.pop(0)).start()
        voters = [machine.id for machine in cluster.sound_voters()]
        fresh = [m for m in cluster.machines.values() if m.id not in voters and not m.is_lost]
        sensible = chance.random() < 0.8
        target = self.any_machine(chance, fresh if fresh and sensible else None)
        via = self.any_machine(chance, cluster.sound_voters() if sensible else cluster.up)
        if target is None or via is None:
            return ""
        future = via.ask(
            lambda participant: participant.add_participant(target.member, timeout=5.0)
        )
        future.add_done_callback(ignore)
        return f"{target} is to be added by {via}"

    def old_image(self, chance: Random) -> str:
        machine = self.any_running(chance)
        if machine is None:
            return ""
        image = machine.disk.snapshot_image()
        seconds = 2 * self.a_while(chance)

        def restore() -> None:
            machine.crash()
            machine.disk.restore_image(image)
            self.later(0.1, machine.start)
            self.cluster.did(f"{machine} gets its disk of {seconds:.2f} s ago")

        self.later(seconds, restore)
        return f"an image of the disk of {machine} is taken, for later"

    def lying_disk(self, chance: Random) -> str:
        machine = self.any_running(chance)
        if machine is None:
            return ""
        machine.disk.lie = True

        def fails() -> None:
            machine.crash()
            machine.disk.lie = False
            self.later(0.1, machine.start)

        self.later(self.a_while(chance), fails)
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

        self.later(seconds, lose)
        return f"a majority will be lost after {seconds:.2f} s"


def ended_well(task: asyncio.Task[Any]) -> None:
    """An operator's work is done; what it found is the end of the simulation."""
    if not task.cancelled() and (error := task.exception()) is not None:
        raise error


def must_be_refused(future: asyncio.Future[Any]) -> None:
    if future.exception() is None:
        raise BrokenError("I1", "a member was taken in by another cluster")
