"""PySyncObj in the same run, on the same machine, with the same workload."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from bench.figures import Figures, add_idle_cpu
from bench.network import free_ports
from bench.processes import BenchError, Child, Order
from bench.workload import KEYS, Load

NOTE = (
    "PySyncObj writes its journal through a memory map and never syncs it (no fsync, no msync "
    "before it acknowledges): a power failure may lose what it acknowledged"
)
SETTINGS: dict[str, bool | int | float] = {
    "appendEntriesPeriod": 0.001,
    "autoTickPeriod": 0.0005,
    "connectionRetryTime": 0.2,
    "logCompactionMinEntries": 200_000,
}
"""The best throughput that we found; everything else is its default."""
PROMPT_SETTINGS = {**SETTINGS, "appendEntriesUseBatch": False}
"""The best latency of a single command: sent at once, at the price of a fifth of the throughput."""
POINTS = (("leader", 1), ("leader", 64), ("leader", 512), ("follower", 512))


class Status(msgspec.Struct):
    """How a member stands."""

    ready: bool
    leader: bool
    applied: int


def start_members(
    directory: Path, settings: dict[str, bool | int | float], children: list[Child]
) -> None:
    """Start three members that know each other."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(3)]
    for name, own in zip("abc", addresses, strict=True):
        others = [address for address in addresses if address != own]
        arguments = [msgspec.json.encode(settings).decode(), str(directory / name), own, *others]
        log = directory / f"{name}.log"
        children.append(Child(f"pysyncobj-{name}", "theirs_child", arguments, log))


def find_leader(children: list[Child]) -> Child:
    """Wait until one leads and all are ready."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        states = [child.ask(Order("status"), Status) for child in children]
        leaders = [child for child, state in zip(children, states, strict=True) if state.leader]
        if len(leaders) == 1 and all(state.ready for state in states):
            return leaders[0]
        time.sleep(0.05)
    raise BenchError("PySyncObj has no leader after 20 s")


@contextlib.contextmanager
def cluster(
    directory: Path, settings: dict[str, bool | int | float]
) -> Iterator[tuple[Child, Child]]:
    """Three members that hold all keys; yields the leader and one follower."""
    directory.mkdir(parents=True)
    children: list[Child] = []
    try:
        start_members(directory, settings, children)
        leader = find_leader(children)
        leader.ask(Order("fill", outstanding=512, count=KEYS), Load, 60)
        yield leader, next(child for child in children if child is not leader)
    finally:
        for child in children:
            child.close()


def measure(figures: Figures, directory: Path, *, seconds: float, idle_seconds: float) -> None:
    """One round on fresh clusters, each small enough that its log is not compacted meanwhile."""
    with cluster(directory / "batched", SETTINGS) as (leader, follower):
        for place, outstanding in POINTS:
            child = leader if place == "leader" else follower
            order = Order("submit", outstanding=outstanding, seconds=seconds)
            load = child.ask(order, Load, seconds + 30)
            figures.add_load(f"pysyncobj.submit.{place}.{outstanding}", load)
        add_idle_cpu(figures, "pysyncobj", [leader, follower], ["leader", "follower"], idle_seconds)
    with cluster(directory / "prompt", PROMPT_SETTINGS) as (leader, _):
        load = leader.ask(Order("submit", outstanding=1, seconds=seconds), Load, seconds + 30)
        figures.add_load("pysyncobj_prompt.submit.leader.1", load)
