"""What may happen in a random schedule: progress, faults, and what clients do."""

from __future__ import annotations

import random
from collections.abc import Callable

import msgspec

from clusterconsensus.consensus import events
from clusterconsensus.consensus.local import Limits
from clusterconsensus.simulation.cores.cluster import Cluster
from clusterconsensus.simulation.cores.member import Member
from clusterconsensus.simulation.cores.troubles import Troubles
from clusterconsensus.simulation.cores.world import Packet

SMALL = Limits(
    max_batch_bytes=300,
    max_staged_bytes=1_500,
    window_messages=3,
    window_bytes=1_000,
    log_cache_bytes=4_000,
    request_timeout_seconds=5.0,
    keep_log_entries=1,
    max_kept_log_entries=200,
    chunk_bytes=150,
)


class Happenings(Troubles):
    """Draws which faults there are and how often, and makes them happen to one cluster."""

    def __init__(self, seed: int, *, tells: bool = False) -> None:
        self.seed = seed
        draw = random.Random(seed)
        limits = SMALL if draw.random() < 0.7 else Limits(request_timeout_seconds=5.0)
        self.by_lease = draw.random() < 0.3
        if self.by_lease:
            limits = msgspec.structs.replace(limits, lease_reads=True)
        super().__init__(Cluster(limits, draw.random), draw)
        self.cluster.tells = tells
        self.cluster.found("abcde"[: draw.choice((1, 2, 3, 3, 3, 3, 4, 5, 5))])
        self.spare = list("def" if len(self.cluster.by_id) < 4 else "fg")
        self.attic: list[tuple[str, Packet]] = []
        self.reorder = draw.choice((0.0, 0.0, 0.1, 0.5))
        self.loss = draw.choice((0.0, 0.0, 0.02, 0.2))
        self.repeat = draw.choice((0.0, 0.0, 0.05, 0.3))
        self.delay = draw.choice((0.0, 0.0, 0.02, 0.1))
        self.slow_disk = draw.random() < 0.6
        self.slow_apply = draw.random() < 0.3
        self.steps = draw.choice((300, 600, 1_200, 2_000))
        self.trouble = draw.choice((0.01, 0.03, 0.06, 0.15))
        self.demand = draw.choice((0.05, 0.1, 0.2))
        self.hurry = draw.choice((0.0, 0.02, 0.1))
        rare = draw.choice((0.0, 1.0, 1.0, 4.0))
        keeps = draw.choice((0.0, 2.0, 6.0))
        self.actions: list[tuple[Callable[[], None], float]] = [
            (self.give_up, 0.5),
            (self.settle, draw.choice((0.0, 0.5, 2.0))),
            (self.slow_down, 1.0),
            (self.crash, draw.choice((0.0, 0.4, 1.5))),
            (self.crash_at_persist, draw.choice((0.0, 0.4, 1.5))),
            (self.restart, 2.0),
            (self.cut, draw.choice((0.0, 0.5, 2.0))),
            (self.heal, draw.choice((0.5, 1.5))),
            (self.isolate_master, draw.choice((0.0, 0.4, 1.0))),
            (self.depose, draw.choice((0.0, 0.4, 1.0))),
            (self.one_accept_only, draw.choice((0.0, 0.5, 1.0))),
            (self.add, draw.choice((0.0, 1.0, 2.0))),
            (self.stand, draw.choice((0.0, 0.3, 1.5))),
            (self.disconnect, 0.3 * rare),
            (self.replay, (1.0 + rare) if self.delay else 0.0),
            (self.close_sessions, 0.05 * rare),
            (self.everybody_restarts, 0.05 * rare),
            (self.snapshot, keeps),
            (self.snapshots_everywhere, 0.2 * keeps),
            (self.spoil, 0.2 * keeps),
            (self.damage, draw.choice((0.0, 0.3, 1.0))),
            (self.wipe, draw.choice((0.0, 0.0, 0.3))),
            (self.change_members, draw.choice((0.0, 0.0, 0.5, 1.5))),
            (self.transfer, draw.choice((0.0, 0.0, 0.5, 1.0))),
        ]
        self.change = 0
        self.waited = 0.0

    def link(self) -> tuple[str, str] | None:
        full = [link for link, waiting in self.cluster.links.items() if waiting]
        return self.random.choice(full) if full else None

    def progress(self) -> None:
        """What would happen anyway goes on: messages, syncs, applying; time, if nothing else."""
        draw = self.random.random()
        cluster = self.cluster
        if draw < self.hurry:
            self.pass_time(self.random.choice((0.01, 0.1, 1.0)))
            return
        if draw > 1.0 - self.demand:
            self.random.choice((self.submit, self.submit, self.retry, self.read))()
            return
        link = self.link()
        if link is not None and draw < 0.6:
            for _ in range(self.random.choice((1, 1, 2, 5))):
                self.deliver(link)
            return
        member = self.member()
        if member is None:
            return
        if member.loads and self.random.random() < 0.5:
            member.inbox.append(member.loads.popleft())
        if member.inbox:
            cluster.turn(member)
        elif member.store.pending:
            cluster.sync(member, self.random.choice((1, 1, None)))
        elif member.machine.applied < member.asked_apply:
            cluster.apply(member)
        elif link is None:
            self.wait()

    def deliver(self, link: tuple[str, str]) -> None:
        waiting = self.cluster.links.get(link)
        if not waiting:
            return
        place = 0
        if self.random.random() < self.reorder:
            place = self.random.randrange(len(waiting))
        if self.random.random() < self.delay:
            self.attic.append((link[1], waiting[place]))
            if self.random.random() < 0.5:
                waiting.pop(place)
                return
        if self.random.random() < self.loss:
            waiting.pop(place)
        else:
            self.cluster.deliver(*link, place, keep=self.random.random() < self.repeat)

    def wait(self) -> None:
        """Nothing is under way: wait for the next deadline, or somewhat longer."""
        deadlines = [
            member.running.deadline - member.clock_offset
            for member in self.cluster.by_id.values()
            if member.is_up
        ]
        self.pass_time(max(0.0, min(deadlines) - self.cluster.now))

    def pass_time(self, seconds: float) -> None:
        self.cluster.now += seconds + self.random.random() * 0.05
        for member_id in sorted(self.cluster.by_id):
            if self.random.random() < 0.9:
                self.cluster.tick_due(self.cluster.by_id[member_id])

    def slow_down(self) -> None:
        """Somebody's disk or state machine becomes slow, or quick again."""
        member = self.member()
        if member is not None and self.slow_disk:
            member.holds_disk = self.random.random() < 0.6
        if member is not None and self.slow_apply:
            member.holds_apply = self.random.random() < 0.6

    def submit(self) -> None:
        member = self.member()
        if member is None or len(member.client.calls) > 20:
            return
        self.change += 1
        text = self.random.choice((f"x={self.change}", "n+1", "n+1", "oops!"))
        if self.random.random() < 0.1:
            text = f"{'long' * 60}={self.change}"
        self.cluster.submit(member, text)
        if self.random.random() < 0.7:
            self.cluster.send_calls(member)

    def retry(self) -> None:
        member = self.member()
        if member is not None:
            self.cluster.send_calls(member)

    def give_up(self) -> None:
        member = self.member()
        if member is not None and member.client.calls:
            self.cluster.give_up(member, self.random.choice(sorted(member.client.calls)))

    def read(self) -> None:
        member = self.member()
        if member is not None:
            self.cluster.read(member, lease=self.by_lease and self.random.random() < 0.7)

    def settle(self) -> None:
        self.cluster.settle()

    def crash(self) -> None:
        member = self.member()
        if member is not None:
            self.cluster.crash(member, self.random.choice((0, 0, 1, 2)))
            self._forget_submits_to(member)

    def _forget_submits_to(self, member: Member) -> None:
        """A connection ends with its process: what it carried does not reach the next one."""
        for (_, target), waiting in self.cluster.links.items():
            if target == member.id:
                waiting[:] = [packet for packet in waiting if packet.kind != "submit"]
        self.attic = [
            (target, packet)
            for target, packet in self.attic
            if target != member.id or packet.kind != "submit"
        ]

    def crash_at_persist(self) -> None:
        member = self.member()
        if member is not None:
            member.crash_at_persist = self.random.choice((1, 1, 2, 3))
            member.crash_keeps = self.random.random() < 0.5

    def restart(self) -> None:
        down = [member for member in self.cluster.by_id.values() if not member.is_up]
        if down:
            member = self.random.choice(down)
            self._forget_submits_to(member)
            self.cluster.restart(member)

    def everybody_restarts(self) -> None:
        for member in self.cluster.by_id.values():
            if member.is_up:
                self.cluster.crash(member, self.random.choice((0, 1)))
            self._forget_submits_to(member)
            self.cluster.restart(member)

    def cut(self) -> None:
        ids = sorted(self.cluster.by_id)
        if len(ids) < 2:
            return
        how = self.random.random()
        if how < 0.4:
            source, target = self.random.sample(ids, 2)
            self.cluster.cut(source, target, both=self.random.random() < 0.5)
        elif how < 0.7:
            self._isolate(self.random.choice(ids))
        else:
            left = set(self.random.sample(ids, self.random.randrange(1, len(ids))))
            for one in sorted(left):
                for other in ids:
                    if other not in left:
                        self.cluster.cut(one, other)

    def _isolate(self, member_id: str) -> None:
        both = self.random.random() < 0.7
        outwards = self.random.random() < 0.5
        for other in sorted(self.cluster.by_id):
            if other != member_id:
                link = (member_id, other) if both or outwards else (other, member_id)
                self.cluster.cut(*link, both=both)

    def heal(self) -> None:
        self.cluster.cuts.clear()

    def masters(self) -> list[Member]:
        return [m for m in self.cluster.by_id.values() if m.is_up and m.local.leads]

    def isolate_master(self) -> None:
        """Right when a configuration is in force and not chosen, if there is one."""
        for member in self.masters():
            log = member.local.log
            if log.configuration_seq > member.local.commit or self.random.random() < 0.3:
                self._isolate(member.id)

    def depose(self) -> None:
        """A master is cut off, the others go on without it, and it is asked all the same."""
        masters = self.masters()
        if not masters:
            return
        cluster = self.cluster
        old = self.random.choice(masters)
        for other in sorted(cluster.by_id):
            if other != old.id:
                cluster.cut(old.id, other)
        others = [member_id for member_id in cluster.by_id if member_id != old.id]
        for _ in range(20):
            cluster.now += 0.2
            for member_id in others:
                cluster.tick_due(cluster.by_id[member_id])
            cluster.settle(others)
            new = [m for m in self.masters() if m.serves and m is not old]
            if new:
                break
        for member in new[:1]:
            for _ in range(3):
                self.change += 1
                cluster.submit(member, f"x={self.change}")
                cluster.send_calls(member)
                cluster.settle(others)
        if old.is_up:
            cluster.read(old)
            cluster.submit(old, "n+1")
            cluster.send_calls(old)
            cluster.work(old)

    def one_accept_only(self) -> None:
        """Of what a master has just sent, one accept arrives; then it is cut off."""
        for member in self.masters():
            links = [
                link
                for link, waiting in self.cluster.links.items()
                if link[0] == member.id and any(packet.kind == "accept" for packet in waiting)
            ]
            if not links:
                continue
            link = self.random.choice(links)
            waiting = self.cluster.links[link]
            place = next(i for i, packet in enumerate(waiting) if packet.kind == "accept")
            self.cluster.deliver(*link, place)
            self._isolate(member.id)

    def add(self) -> None:
        via = self.random.choice(self.masters() or [self.member()])
        if via is None:
            return
        while self.spare and self.random.random() < 0.5:
            fresh = self.cluster.add_machine(self.spare.pop(0))
            self.cluster.start(fresh)
        for _ in range(self.random.choice((1, 2))):
            if via.is_up:
                target = self.cluster.by_id[self.random.choice(sorted(self.cluster.by_id))]
                self.cluster.add(via, target)

    def stand(self) -> None:
        member = self.member()
        if member is not None:
            self.cluster.turn(member, [events.StartElection()])

    def disconnect(self) -> None:
        ids = sorted(self.cluster.by_id)
        if len(ids) < 2:
            return
        one, other = self.random.sample(ids, 2)
        for source, target in ((one, other), (other, one)):
            self.cluster.links.pop((source, target), None)
            name = self.cluster.by_id[source].name
            if self.random.random() < 0.9:
                self.cluster.turn(self.cluster.by_id[target], [events.Disconnected(name)])

    def replay(self) -> None:
        """Something old arrives, late or once more."""
        if self.attic:
            place = self.random.randrange(len(self.attic))
            target, packet = self.attic[place]
            if self.random.random() < 0.5:
                self.attic.pop(place)
            self.cluster.receive(self.cluster.by_id[target], packet)

    def close_sessions(self) -> None:
        for member in self.masters():
            order = member.machine.sessions.idle(member.machine.time + 1.0, 10)
            if order is not None:
                self.cluster.turn(member, [events.CloseSessionsLocal(order)])
