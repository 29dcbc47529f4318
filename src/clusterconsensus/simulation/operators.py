"""Operators of a simulated cluster: they change who belongs to it, and judge what they are told.

An operator asks some member for a change and waits. What it is told must be true: what is
*achieved* is so in a configuration that was chosen since it asked; what is refused comes with a
reason. What is unknown may come yet.

Operators are careful in one way only. They never ask for what would leave a majority of voters
whose disks are not sound: that would be the end of the cluster, by anybody's rules. For the rest
they do what operators do: remove masters, members that are cut off and members that are down, add
them again with empty disks, and ask twice.

``Operators.run`` changes the membership all the time: it lets the cluster grow to all machines and
shrink to one voter again, and does something else every now and then.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from random import Random
from typing import Any

from clusterconsensus.consensus.messages import Action
from clusterconsensus.consensus.types import Configuration, Role
from clusterconsensus.errors import ConsensusError, MembershipError, Outcome
from clusterconsensus.participant import Participant
from clusterconsensus.simulation.cluster import Cluster
from clusterconsensus.simulation.machine import GoneError, Machine

Holds = Callable[[Configuration], bool]

LEAVING = (Action.REMOVE, Action.DEMOTE)


class Operators:
    """Changes the membership of one cluster.

    Arguments:
        cluster: Whose.
        patience_seconds: How long a change may take.
    """

    def __init__(self, cluster: Cluster, patience_seconds: float) -> None:
        self.cluster = cluster
        self.patience_seconds = patience_seconds
        self.stopped = False
        self.wiped = False
        """Whether some machine got an empty disk."""
        self._grows = True

    # -- asking

    def configuration(self) -> Configuration:
        """The latest chosen configuration."""
        return self.cluster.ghost.configuration

    async def ask(
        self,
        via: Machine,
        action: Action,
        target: Machine,
        *,
        priority: int = 1,
        joins: bool = False,
    ) -> str:
        """Ask a member for a change, and judge what it says.

        Arguments:
            via: Whom to ask.
            action: For what.
            target: About whom.
            priority: For ``PRIORITY``.
            joins: Whether the target itself asks to be added, and ``via`` is whom it asks.

        Returns:
            ``ok``, ``refused``, ``unknown``, or ``no`` where asking would be too dangerous.
        """
        cluster, ghost = self.cluster, self.cluster.ghost
        began, first = cluster.world.now, len(ghost.configurations)
        seat = self.configuration().seat_of_id(target.id)
        leaves = seat is not None and (
            action in LEAVING or (action is Action.PRIORITY and not priority)
        )
        if leaves and seat is not None:
            if not cluster.may_leave(seat.incarnation):
                return "no"
            cluster.leaving[seat.incarnation] = None
        led = any(machine is target for machine in cluster.masters)
        cluster.did(f"operator at {via}: {action.name} {target} {priority}")
        if joins:
            outcome = await self._outcome(target, self._join(action, via))
        else:
            outcome = await self._outcome(via, self._call(action, target, priority))
        cluster.did(f"operator at {via}: {action.name} {target}: {outcome or 'achieved'}")
        cluster.sometimes[f"membership {action.name.lower()} {outcome or 'ok'}"] += 1
        if outcome:
            if leaves and seat is not None and outcome == "refused":
                cluster.leaving.pop(seat.incarnation, None)
            return outcome
        if action is Action.TRANSFER:
            if not led and not cluster.has_led(target.id, began):
                ghost.fail("E11", f"{target} has not led since it was asked to {began:.6f} s")
            return "ok"
        holds = self._goal(action, target, priority, joins=joins)
        since = [each for _, each in ghost.configurations[max(0, first - 1) :]]
        if not any(map(holds, since)):
            ghost.fail(
                "M6",
                f"{action.name} {target} is called achieved, and in no configuration that was "
                f"chosen since: {since[-1]}",
            )
        if action is Action.REMOVE and led:
            cluster.sometimes["master removed"] += 1
        if action is Action.PRIORITY and priority and seat is not None:
            cluster.leaving.pop(seat.incarnation, None)
        return "ok"

    def _call(
        self, action: Action, target: Machine, priority: int
    ) -> Callable[[Participant[Any]], Awaitable[None]]:
        seconds, member = self.patience_seconds, target.member

        async def call(participant: Participant[Any]) -> None:
            if action is Action.ADD:
                await participant.add_participant(member, timeout=seconds)
            elif action is Action.ADD_LEARNER:
                await participant.add_participant(member, learner=True, timeout=seconds)
            elif action is Action.REMOVE:
                await participant.remove_participant(member.id, timeout=seconds)
            elif action is Action.REPLACE:
                await participant.replace_participant(member, timeout=seconds)
            elif action is Action.PROMOTE:
                await participant.promote_participant(member.id, timeout=seconds)
            elif action is Action.DEMOTE:
                await participant.demote_participant(member.id, timeout=seconds)
            elif action is Action.PRIORITY:
                await participant.set_priority(member.id, priority, timeout=seconds)
            else:
                await participant.transfer_master(member.id, timeout=seconds)

        return call

    def _join(self, action: Action, via: Machine) -> Callable[[Participant[Any]], Awaitable[None]]:
        seconds, learner = self.patience_seconds, action is Action.ADD_LEARNER
        address = via.member.address
        return lambda participant: participant.join(address, learner=learner, timeout=seconds)

    async def _outcome(
        self, via: Machine, call: Callable[[Participant[Any]], Awaitable[None]]
    ) -> str:
        """What came of a call; empty if it is achieved."""
        try:
            await via.ask(call)
        except GoneError as error:
            return "unknown" if error.asked else "not asked"
        except MembershipError as error:
            if not str(error).strip():
                self.cluster.ghost.fail("M6", "a change is refused without a reason")
            return "unknown" if error.outcome is Outcome.UNKNOWN else "refused"
        except ConsensusError:
            return "unknown"  # a question may be on its way still
        return ""

    @staticmethod
    def _goal(action: Action, target: Machine, priority: int, *, joins: bool) -> Holds:
        """What a configuration must be like where a change is achieved."""

        def holds(configuration: Configuration) -> bool:
            seat = configuration.seat_of_id(target.id)
            if action is Action.REMOVE:
                return seat is None
            if seat is None:
                return False
            if action in (Action.ADD, Action.PROMOTE):
                return seat.is_voter
            if joins and action is Action.ADD_LEARNER:
                return True  # who joins has a seat then; somebody else may have asked for more
            if action in (Action.ADD_LEARNER, Action.DEMOTE):
                return not seat.is_voter and not seat.promoting
            if action is Action.PRIORITY:
                return seat.priority == priority
            life = target.life
            return life is not None and seat.incarnation == life.name and not seat.promoting

        return holds

    # -- machines

    async def make_fresh(self, machine: Machine) -> bool:
        """Give a machine that no longer belongs an empty disk; whether it takes part then."""
        life = machine.life
        if life is not None and life.name not in self.cluster.ghost.removed:
            if machine.participant is None:
                return False
            return life.is_up and life.local.role is Role.UNJOINED
        if life is not None:
            if self.cluster.has_stranger:
                return False
            self.wiped = True
            machine.crash()
            machine.wipe()
            self.cluster.did(f"{machine} gets an empty disk")
        machine.start()
        return await self.cluster.until(lambda: machine.participant is not None, 2.0)

    def outsiders(self) -> list[Machine]:
        """Machines without a seat."""
        seats = self.configuration()
        return [
            machine
            for machine in self.cluster.machines.values()
            if seats.seat_of_id(machine.id) is None and not machine.is_lost
        ]

    def seated(self, *, voters: bool | None = None) -> list[Machine]:
        """Machines that have a seat; only voters or only learners, if asked for."""
        return [
            self.cluster.machines[seat.id]
            for seat in self.configuration().seats
            if voters is None or seat.is_voter is voters
        ]

    def somebody(self, chance: Random) -> Machine | None:
        """Whom to ask: mostly one that takes part and belongs."""
        up = [machine for machine in self.seated() if machine.participant is not None]
        if not up or chance.random() < 0.05:
            up = self.cluster.up
        return up[chance.randrange(len(up))] if up else None

    def absent(self) -> list[Machine]:
        """Machines whose seat is that of a disk which is gone, or of no use any more."""
        found = []
        for seat in self.configuration().seats:
            life = self.cluster.lives.get(seat.incarnation)
            machine = self.cluster.machines[seat.id]
            if life is not None and (machine.life is not life or machine.is_lost):
                found.append(machine)
        return found

    # -- all the time

    async def run(self, chance: Random) -> None:
        """Change something, until stopped."""
        while True:
            await asyncio.sleep(chance.random() * 0.6)
            if self.stopped:
                return
            via = self.somebody(chance)
            if via is None:
                continue
            draw = chance.random()
            if draw < 0.5:
                await self._grow_or_shrink(via, chance)
            else:
                await self._anything(via, chance)

    async def _grow_or_shrink(self, via: Machine, chance: Random) -> None:
        outsiders, voters = self.outsiders(), self.seated(voters=True)
        if not outsiders:
            self.cluster.sometimes["everybody belongs"] += self._grows
            self._grows = False
        elif len(voters) <= 1:
            self.cluster.sometimes["one voter is left"] += not self._grows
            self._grows = True
        if self._grows:
            target = outsiders[chance.randrange(len(outsiders))]
            if await self.make_fresh(target):
                action = Action.ADD_LEARNER if chance.random() < 0.3 else Action.ADD
                await self.ask(via, action, target, joins=chance.random() < 0.3)
        elif len(voters) > 1:
            await self.ask(via, Action.REMOVE, voters[chance.randrange(len(voters))])

    async def _anything(self, via: Machine, chance: Random) -> None:
        absent, seated = self.absent(), self.seated()
        if absent and chance.random() < 0.5:
            await self.replace(via, absent[chance.randrange(len(absent))])
            return
        if not seated:
            return
        action = chance.choice(
            (
                Action.PROMOTE,
                Action.PROMOTE,
                Action.DEMOTE,
                Action.PRIORITY,
                Action.TRANSFER,
                Action.REMOVE,
                Action.REPLACE,
                Action.ADD,
            )
        )
        masters = self.cluster.masters
        if masters and action in LEAVING and chance.random() < 0.4:
            seated = masters
        if action is Action.PROMOTE:
            seated = self.seated(voters=False) or seated
        target = seated[chance.randrange(len(seated))]
        await self.ask(via, action, target, priority=chance.choice((0, 1, 1, 2, 5)))

    async def replace(self, via: Machine, machine: Machine) -> str:
        """Have a machine whose disk is gone take its own place again."""
        if machine.is_lost and machine.life is not None:
            if self.cluster.has_stranger:
                return "no"
            machine.crash()
            machine.wipe()
            self.wiped = True
            self.cluster.did(f"{machine} gets an empty disk")
        machine.start()
        await self.cluster.until(lambda: machine.participant is not None, 2.0)
        return await self.ask(via, Action.REPLACE, machine)
