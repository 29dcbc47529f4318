"""What may happen in a random schedule to snapshots, disks and the membership.

Disks are lost only as long as a majority of every configuration in force keeps its own
(``spares``): a cluster is not asked to survive more.
"""

from __future__ import annotations

import math
import random

from clusterconsensus.consensus.messages import Action
from clusterconsensus.consensus.types import Configuration, EntryKind, Incarnation
from clusterconsensus.simulation.cores.cluster import Cluster
from clusterconsensus.simulation.cores.member import Member
from clusterconsensus.simulation.judges.observed import decode_configuration

CHANGES = (Action.REMOVE, Action.PROMOTE, Action.DEMOTE, Action.PRIORITY, Action.ADD_LEARNER)

MEMBERSHIP_KINDS = ("changemember", "addmember")


class Troubles:
    """The rarer half of what may happen to one cluster.

    Arguments:
        cluster: Which.
        draw: The source of chance.
    """

    def __init__(self, cluster: Cluster, draw: random.Random) -> None:
        self.cluster = cluster
        self.random = draw

    def member(self) -> Member | None:
        """Any member that runs."""
        up = [member for member in self.cluster.by_id.values() if member.is_up]
        return self.random.choice(up) if up else None

    # -- snapshots

    def snapshot(self) -> None:
        """Somebody takes one, or finishes one that was begun earlier."""
        member = self.member()
        if member is None:
            return
        if member.taking is None:
            self.cluster.begin_snapshot(member)
        if self.random.random() < 0.7:
            self.cluster.finish_snapshot(member)

    def snapshots_everywhere(self) -> None:
        """All members, twice: nobody's log reaches far back any more."""
        for _ in range(2):
            for member in self.cluster.by_id.values():
                if member.is_up and self.random.random() < 0.8:
                    self.cluster.begin_snapshot(member)
                    self.cluster.finish_snapshot(member)
            self.cluster.settle()

    def spoil(self) -> None:
        """The newest of two snapshots is damaged, and the log reaches back to the older one."""
        member = self.member()
        if member is None or len(member.store.snapshots) < 2:
            return
        store = member.store
        needed = store.base.seq > store.snapshots[-2].seq
        if needed and not self.spares(member):
            return
        self.cluster.crash(member)
        store.snapshots.pop()
        if needed:
            store.salvage()

    # -- disks

    def configurations(self) -> list[Configuration]:
        """Those that may still decide anything: on a disk, or in a log that is on its way there."""
        found = [configuration for _, configuration in self.cluster.ghost.configurations[-1:]]
        for member in self.cluster.by_id.values():
            store = member.store
            written = [*store.entries, *(e for batch in store.pending for e in batch.entries)]
            found += [
                decode_configuration(e.payload) for e in written if e.kind == EntryKind.CONFIG
            ]
        return found

    def spares(self, member: Member) -> bool:
        """Whether a member may lose its disk, too. Not while somebody asks for a change: what that
        leaves may live with fewer losses."""
        cluster = self.cluster
        if self._lost(member.name) or any(
            packet.kind in MEMBERSHIP_KINDS for held in cluster.links.values() for packet in held
        ):
            return False
        if any(
            m.is_up and m.running.membership.deadline < math.inf for m in cluster.by_id.values()
        ):
            return False
        return all(
            sum(self._lost(name) for name in configuration.voters)
            < (len(configuration.voters) - 1) // 2
            for configuration in self.configurations()
        )

    def _lost(self, name: Incarnation) -> bool:
        member = self.cluster.members[name]
        return member.store.recovering or self.cluster.by_id[member.id] is not member

    def damage(self) -> None:
        """Somebody's log is damaged, and a start finds that out."""
        member = self.member()
        if member is not None and self.spares(member):
            self.cluster.crash(member)
            member.store.salvage()

    def wipe(self) -> None:
        """Somebody gets an empty disk, and should be replaced by itself."""
        member = self.member()
        if member is None or not self.spares(member) or self.random.random() < 0.5:
            return
        self.cluster.wipe(member)
        self.replace_lost()

    def replace_lost(self) -> bool:
        """Ask for whoever came back with an empty disk to be replaced; whether there was one."""
        masters = [m for m in self.cluster.by_id.values() if m.is_up and m.local.leads]
        asked = False
        for via in masters[:1]:
            for seat in via.local.log.configuration.seats:
                if self.cluster.by_id[seat.id].name != seat.incarnation:
                    asked = True
                    waits = f"replace {seat.id}" in via.client.asked.values()
                    if via.is_up and not waits:
                        self.cluster.change(via, Action.REPLACE, seat.id)
        return asked

    # -- membership

    def change_members(self) -> None:
        """Somebody asks for some change of the membership."""
        via = self.member()
        seated = self.cluster.ghost.configurations[-1][1].everyone
        if via is None or any(self._lost(name) for name in seated):
            return
        action = self.random.choice(CHANGES)
        member_id = self.random.choice(sorted(self.cluster.by_id))
        priority = self.random.choice((0, 1, 1, 2)) if action is Action.PRIORITY else 1
        self.cluster.change(via, action, member_id, priority=priority)

    def transfer(self) -> None:
        """Somebody asks for the mastership to be handed over."""
        via = self.member()
        if via is not None:
            target = self.random.choice(["", *sorted(self.cluster.by_id)])
            self.cluster.change(via, Action.TRANSFER, target)
