"""Figures: what was measured, in which unit, once a round; and the sums made from them."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.processes import Child
from bench.workload import Load

PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")


class Summary(msgspec.Struct, kw_only=True):
    """One figure as the report shows it. ``runs`` are in the order they were taken."""

    name: str
    unit: str
    min: float
    median: float
    max: float
    runs: list[float]


class Figures:
    """Collects figures by name, usually one value a round."""

    def __init__(self) -> None:
        self.round = 0
        self.failures: list[str] = []
        self._units: dict[str, str] = {}
        self._runs: dict[str, list[tuple[int, float]]] = {}

    def add(self, name: str, value: float, unit: str) -> None:
        """Note a figure's value in this round."""
        self._units[name] = unit
        self._runs.setdefault(name, []).append((self.round, value))

    def add_load(self, name: str, load: Load) -> None:
        """Note one run of a closed loop: throughput, latency, and failures if there were any."""
        self.add(f"{name}.per_second", load.per_second, "1/s")
        self.add(f"{name}.median", load.median_ms, "ms")
        self.add(f"{name}.p99", load.p99_ms, "ms")
        if load.failures:
            self.fail(name, f"{load.failures} operations failed, the first with {load.first_error}")

    def fail(self, stage: str, reason: str) -> None:
        """Note that a stage could not be measured; the benchmark as a whole then fails."""
        self.failures.append(f"{stage}: {reason}")

    def ratio(self, name: str, above: Sequence[str], below: Sequence[str]) -> None:
        """Add a figure that divides sums of others, in each round in which all were measured."""
        columns = [dict(self._runs.get(part, [])) for part in (*above, *below)]
        for number in columns[0]:
            if all(column.get(number) for column in columns):
                values = [column[number] for column in columns]
                quotient = sum(values[: len(above)]) / sum(values[len(above) :])
                self._units[name] = "x"
                self._runs.setdefault(name, []).append((number, quotient))

    def summaries(self) -> list[Summary]:
        """Every figure, in the order in which they were first noted."""
        summaries = []
        for name, runs in self._runs.items():
            values = [value for _, value in runs]
            summaries.append(
                Summary(
                    name=name,
                    unit=self._units[name],
                    min=min(values),
                    median=statistics.median(values),
                    max=max(values),
                    runs=values,
                )
            )
        return summaries


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far, all threads, in steps of 1/100 s."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_SECOND


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in RAM now."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_BYTES


def add_idle_cpu(
    figures: Figures, system: str, children: list[Child], places: list[str], seconds: float
) -> None:
    """Note what processes use while nobody asks anything of them."""
    time.sleep(0.5)  # what the load before has left to do
    before = [cpu_seconds(child.pid) for child in children]
    begin = time.monotonic()
    time.sleep(seconds)
    elapsed = time.monotonic() - begin
    for child, place, used in zip(children, places, before, strict=True):
        share = (cpu_seconds(child.pid) - used) / elapsed
        figures.add(f"{system}.idle_cpu.{place}", share * 100, "% of a core")
