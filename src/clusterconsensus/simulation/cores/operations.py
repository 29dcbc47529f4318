"""What a story can do to a cluster beside messages, disks and clients: snapshots, damage, the
membership, and clocks. The commands are listed in ``story``."""

from __future__ import annotations

from collections.abc import Callable

from clusterconsensus.consensus.messages import Action
from clusterconsensus.simulation.cores.expectations import Expectations
from clusterconsensus.simulation.cores.member import Member


class Operations(Expectations):
    """Commands of an operator, and of what happens to machines."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: dict[str, Callable[[list[str]], None]] = {
            "snapshot": self.snapshot,
            "spoil": self.spoil,
            "damage": self.damage,
            "lose": self.lose,
            "add": self.add,
            "remove": lambda words: self.change(Action.REMOVE, words),
            "replace": lambda words: self.change(Action.REPLACE, words),
            "promote": lambda words: self.change(Action.PROMOTE, words),
            "demote": lambda words: self.change(Action.DEMOTE, words),
            "priority": self.priority,
            "transfer": self.transfer,
            "clock": self.clock,
            "freeze": self.freeze,
        }

    # -- snapshots and damage

    def snapshot(self, words: list[str]) -> None:
        member = self.member(words[0])
        half = words[1] if len(words) > 1 else ""
        if half == "alone":
            member.store.snapshots.clear()
        if half != "end":
            self.expect(self.cluster.begin_snapshot(member), f"{member} has applied something new")
        if half != "begin":
            self.cluster.finish_snapshot(member, alone=half == "alone")

    def spoil(self, words: list[str]) -> None:
        """The newest snapshot file is damaged; whoever looks at it finds that out."""
        store = self.member(words[0]).store
        self.expect(bool(store.snapshots), f"{words[0]} has a snapshot")
        store.snapshots.pop()

    def damage(self, words: list[str]) -> None:
        self._down(words[0]).store.salvage()

    def lose(self, words: list[str]) -> None:
        self._down(words[0]).store.lose_tail(int(words[1]))

    def _down(self, member_id: str) -> Member:
        member = self.member(member_id)
        self.expect(not member.is_up, f"{member} is down")
        return member

    # -- membership

    def change(self, action: Action, words: list[str], priority: int = 1) -> None:
        """``words``: of whom, ``via``, whom to ask, and perhaps ``force``."""
        self.expect(words[1] == "via", "it is said whom to ask")
        via = self.member(words[2])
        force = words[3:] == ["force"]
        self.cluster.change(via, action, words[0], priority=priority, force=force)

    def add(self, words: list[str]) -> None:
        learner = words[3:] == ["learner"]
        self.change(Action.ADD_LEARNER if learner else Action.ADD, words[:3])

    def priority(self, words: list[str]) -> None:
        self.change(Action.PRIORITY, [words[0], *words[2:]], int(words[1]))

    def transfer(self, words: list[str]) -> None:
        target = "" if words[0] == "anybody" else words[0]
        self.change(Action.TRANSFER, [target, *words[1:]])

    # -- clocks

    def clock(self, words: list[str]) -> None:
        """A clock jumps; its member notices it in its next turn."""
        member = self.member(words[0])
        member.clock_offset += float(words[1])
        if member.is_up:
            self.cluster.judge_lease(member)

    def freeze(self, words: list[str]) -> None:
        """Time passes, and neither the member nor its clock notices."""
        self.cluster.now += float(words[1])
        self.clock([words[0], f"-{words[1]}"])
