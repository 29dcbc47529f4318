"""The limits of this machine, measured beside everything else so that the ratios mean something."""

from __future__ import annotations

import os
import statistics
from pathlib import Path

from bench.figures import Figures
from bench.processes import Child, Order

WINDOW_BATCHES = 8
FUTURES_WAITERS = 512


def measure_round_trips(figures: Figures, first: Child, second: Child, count: int) -> None:
    """A blocking round trip, with both processes on one core and with a core for each.

    The kernel places them now so, now so, and the second costs several times the first: an idle
    core has to be woken. Left to chance, this figure would not be the same twice.
    """
    cores = sorted(os.sched_getaffinity(0))
    for name, core in (("one_core", cores[0]), ("two_cores", cores[-1])):
        first.do(Order("use cores", cores=[cores[0]]))
        second.do(Order("use cores", cores=[core]))
        port = second.ask(Order("echo"), int)
        taken = first.ask(Order("round trips", count=count, ports=[port]), list[float], 60)
        figures.add(f"limit.tcp_round_trip_{name}.median", statistics.median(taken) * 1e3, "ms")
    for child in (first, second):
        child.do(Order("use cores", cores=cores))


def measure(figures: Figures, directory: Path, *, quick: bool) -> None:
    """One round: disk, network, event loop, and the three together without a protocol."""
    directory.mkdir(parents=True)
    syncs, trips, seconds = (300, 2_000, 1.0) if quick else (1_000, 10_000, 2.0)
    names = ("limit-a", "limit-b", "limit-c")
    children: list[Child] = []
    try:
        for name in names:
            children.append(Child(name, "limits_child", [], directory / f"{name}.log"))
        first, second, third = children

        for how in ("written ahead", "append"):
            order = Order(f"fdatasync {how}", count=syncs, path=str(directory / "sync"))
            taken = first.ask(order, list[float], 60)
            name = f"limit.fdatasync_{how.replace(' ', '_')}.median"
            figures.add(name, statistics.median(taken) * 1e3, "ms")

        measure_round_trips(figures, first, second, trips)

        order = Order("futures", outstanding=FUTURES_WAITERS, seconds=seconds)
        figures.add("limit.futures", first.ask(order, float), "1/s")

        for window in (1, WINDOW_BATCHES):
            ports = [
                child.ask(Order("append", path=str(directory / f"{child.name}.file")), int)
                for child in (second, third)
            ]
            order = Order(
                "lead",
                ports=ports,
                path=str(directory / f"{first.name}.file"),
                outstanding=window,
                seconds=seconds,
            )
            name = "pipelined" if window > 1 else "one_batch"
            figures.add(f"limit.bare_quorum_{name}", first.ask(order, float, 60), "changes/s")
    finally:
        for child in children:
            child.close()
