"""clusterconsensus: three processes, durable writes, real sockets, real kills."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from bench.figures import Figures, add_idle_cpu, resident_bytes
from bench.network import free_ports
from bench.processes import BenchError, Child, Order
from bench.workload import KEYS, Load

PLACES = ("master", "follower")
OUTSTANDING = (1, 64, 512)
READS_OUTSTANDING = 64
MEMORY_ENTRIES = 100_000
SETTLE_SECONDS = 30.0


class Status(msgspec.Struct):
    """How a member stands."""

    master: bool
    has_master: bool
    applied: int
    sequence: int


class Cluster:
    """Three members, each a process with a directory of its own. Leaving ``with`` ends them."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True)
        self._directory = directory
        self._ports = dict(zip("abc", free_ports(3), strict=True))
        self.members: dict[str, Child] = {}

    def __enter__(self) -> Self:
        try:
            for member_id in self._ports:
                self.spawn(member_id)
            first = self.members["a"]
            first.do(Order("init"))
            for member_id in ("b", "c"):
                port = self._ports[member_id]
                first.do(Order("add", path=member_id, ports=[port]), SETTLE_SECONDS)
            self.settle()
            first.ask(Order("fill", outstanding=512, count=KEYS), Load, 60)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        for child in self.members.values():
            child.close()

    def spawn(self, member_id: str) -> Child:
        """Start a member's process on its directory, whatever that holds."""
        arguments = [
            str(self._directory / member_id),
            member_id,
            f"127.0.0.1:{self._ports[member_id]}",
        ]
        log = self._directory / f"{member_id}.log"
        child = Child(f"member {member_id}", "ours_child", arguments, log)
        self.members[member_id] = child
        child.do(Order("start"))
        return child

    def settle(self) -> None:
        """Wait until one member leads, all know a master, and all have applied the same."""
        self._wait(
            lambda states: (
                sum(state.master for state in states) == 1
                and all(state.has_master for state in states)
                and len({state.applied for state in states}) == 1
            ),
            "the members did not settle",
        )

    def wait_applied(self, member_id: str, count: int, timeout_seconds: float) -> None:
        """Wait until a member has applied so many changes."""
        deadline = time.monotonic() + timeout_seconds
        while (state := self.members[member_id].ask(Order("status"), Status)).applied < count:
            if time.monotonic() > deadline:
                raise BenchError(f"{member_id} applied {state.applied} of {count} changes in time")
            time.sleep(0.01)

    def _wait(self, condition: Callable[[list[Status]], bool], what: str) -> None:
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            states = [child.ask(Order("status"), Status) for child in self.members.values()]
            if condition(states):
                return
            if time.monotonic() > deadline:
                raise BenchError(f"{what} within {SETTLE_SECONDS:.0f} s: {states}")
            time.sleep(0.02)

    def roles(self) -> tuple[str, list[str]]:
        """The master's id and the followers'."""
        self.settle()
        for member_id, child in self.members.items():
            if child.ask(Order("status"), Status).master:
                return member_id, [other for other in self.members if other != member_id]
        raise BenchError("the master was lost meanwhile")

    def places(self) -> dict[str, Child]:
        """The master's process and one follower's."""
        master, followers = self.roles()
        return {"master": self.members[master], "follower": self.members[followers[0]]}


def measure_load(
    figures: Figures, cluster: Cluster, kind: str, outstanding: int, seconds: float
) -> None:
    """One closed loop of submits or reads, from the master and from a follower."""
    for place in PLACES:
        child = cluster.places()[place]
        order = Order(kind, outstanding=outstanding, seconds=seconds)
        load = child.ask(order, Load, seconds + 30)
        figures.add_load(f"{kind}.{place}.{outstanding}", load)


def measure_submit(figures: Figures, cluster: Cluster, seconds: float) -> None:
    for outstanding in OUTSTANDING:
        measure_load(figures, cluster, "submit", outstanding, seconds)


def measure_read(figures: Figures, cluster: Cluster, seconds: float) -> None:
    measure_load(figures, cluster, "read", READS_OUTSTANDING, seconds)


def measure_idle(figures: Figures, cluster: Cluster, seconds: float) -> None:
    master, followers = cluster.roles()
    children = [cluster.members[member_id] for member_id in (master, *followers)]
    names = ["master", "follower_1", "follower_2"]
    add_idle_cpu(figures, "clusterconsensus", children, names, seconds)


def measure_catch_up(figures: Figures, cluster: Cluster, changes: int) -> None:
    """Kill a follower, write ``changes`` meanwhile, start it again: how long until it has all.

    The time begins before its process does, so Python's own start and the replay of what the
    member already had are part of it.
    """
    master, followers = cluster.roles()
    missing = followers[0]
    cluster.members[missing].kill()
    load = cluster.members[master].ask(Order("fill", outstanding=512, count=changes), Load, 120)
    if load.failures:
        raise BenchError(f"{load.failures} writes failed with one member gone: {load.first_error}")
    target = cluster.members[master].ask(Order("status"), Status).applied
    begin = time.monotonic()
    cluster.spawn(missing)
    figures.add("catchup.restart", time.monotonic() - begin, "s")
    cluster.wait_applied(missing, target, 60)
    elapsed = time.monotonic() - begin
    figures.add("catchup.total", elapsed, "s")
    figures.add("catchup.missed", changes, "changes")
    figures.add("catchup.applied_since_start", target / elapsed, "changes/s")


def measure_memory(figures: Figures, cluster: Cluster, seconds: float) -> None:
    """Grow the log by 100,000 entries (or as many as the time allows, scaled) of one change each.

    All keys exist before, so the state itself does not grow.
    """
    places = cluster.places()
    before = {place: resident_bytes(child.pid) for place, child in places.items()}
    begin = places["master"].ask(Order("status"), Status).sequence
    order = Order("entries", count=MEMORY_ENTRIES, seconds=seconds)
    places["master"].ask(order, Load, seconds + 30)
    cluster.settle()
    entries = places["master"].ask(Order("status"), Status).sequence - begin
    figures.add("memory.entries_written", entries, "entries")
    for place, child in places.items():
        growth = (resident_bytes(child.pid) - before[place]) / entries * MEMORY_ENTRIES
        figures.add(f"memory.{place}.per_100k_entries", growth / 2**20, "MiB")
        figures.add(f"memory.{place}.resident", resident_bytes(child.pid) / 2**20, "MiB")


def measure_outages(figures: Figures, cluster: Cluster, kind: str, times: int) -> None:
    """Take the master away and wait for the next write that is acknowledged to a survivor.

    ``failover``: kill -9, so the others see its connections close. ``silence``: SIGSTOP, so only a
    timeout can tell. Only writes that began after the master was gone count.
    """
    for _ in range(times):
        master, others = cluster.roles()
        for member_id in others:
            cluster.members[member_id].do(Order("probe"))
        time.sleep(0.3)
        gone = time.monotonic()
        if kind == "failover":
            cluster.members[master].kill()
        else:
            cluster.members[master].pause()
        for member_id in others:
            cluster.members[member_id].order(Order("first since", seconds=gone))
        ends = [cluster.members[member_id].answer(float, 30) for member_id in others]
        figures.add(f"{kind}.next_write", (min(ends) - gone) * 1e3, "ms")
        figures.add(f"{kind}.every_survivor", (max(ends) - gone) * 1e3, "ms")
        if kind == "failover":
            cluster.spawn(master)
        else:
            cluster.members[master].resume()
