"""``python -m bench.snapshots``: what snapshots of a large state cost those who submit meanwhile.

Three processes with every sync on hold a state of a million keys of 100 bytes each. In each round
the same closed loops of submits run on the master: without snapshots; while the master takes one
after the other; and while all three members do, which on one machine share its processors and its
disk. Prints a table on the standard error and JSON on the standard output.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Self

import msgspec

from bench.ours import SETTLE_SECONDS, Cluster
from bench.processes import BenchError, Child, Order
from bench.report import console
from bench.workload import Load

PHASES = ("without", "master", "all")
OUTSTANDING = (1, 64)
FILL_SECONDS = 300.0


class Taken(msgspec.Struct):
    """What a member has done between two orders."""

    snapshots: int
    seconds: float
    """How long one took on average."""
    size_bytes: int


class Row(msgspec.Struct):
    """One phase, over all rounds."""

    phase: str
    outstanding: int
    per_second: float
    median_ms: float
    p99_ms: float
    failures: int
    snapshots: int
    snapshot_seconds: float
    snapshot_bytes: int


class LargeCluster(Cluster):
    """Three members that begin with a large state."""

    def __init__(self, directory: Path, keys: int) -> None:
        super().__init__(directory)
        self._keys = keys

    def __enter__(self) -> Self:
        try:
            for member_id in self._ports:
                self.spawn(member_id)
            first = self.members["a"]
            first.do(Order("init", count=self._keys), FILL_SECONDS)
            for member_id in ("b", "c"):
                port = self._ports[member_id]
                first.do(Order("add", path=member_id, ports=[port]), FILL_SECONDS)
            self.settle()
        except BaseException:
            self.close()
            raise
        return self

    def spawn(self, member_id: str) -> Child:
        """Start a member's process."""
        address = f"127.0.0.1:{self._ports[member_id]}"
        arguments = [str(self._directory / member_id), member_id, address]
        log = self._directory / f"{member_id}.log"
        child = Child(f"member {member_id}", "snapshots_child", arguments, log)
        self.members[member_id] = child
        child.do(Order("start"), SETTLE_SECONDS)
        return child


def measure(cluster: LargeCluster, phase: str, outstanding: int, seconds: float) -> Row:
    """One closed loop on the master, while those whose turn it is take snapshots."""
    master, followers = cluster.roles()
    taking = {"without": [], "master": [master], "all": [master, *followers]}[phase]
    for member_id in taking:
        cluster.members[member_id].do(Order("take"))
    if taking:
        time.sleep(0.5)  # so that all are at it
    order = Order("submit", outstanding=outstanding, seconds=seconds)
    load = cluster.members[master].ask(order, Load, seconds + 60)
    taken = [cluster.members[member_id].ask(Order("rest"), Taken, 120) for member_id in taking]
    cluster.settle()
    if load.failures:
        raise BenchError(f"{load.failures} submits failed, the first with {load.first_error}")
    return Row(
        phase,
        outstanding,
        load.per_second,
        load.median_ms,
        load.p99_ms,
        load.failures,
        sum(each.snapshots for each in taken),
        max((each.seconds for each in taken), default=0.0),
        max((each.size_bytes for each in taken), default=0),
    )


def summed(rows: list[Row]) -> Row:
    """The medians of several rounds of one phase."""
    return Row(
        rows[0].phase,
        rows[0].outstanding,
        statistics.median(row.per_second for row in rows),
        statistics.median(row.median_ms for row in rows),
        statistics.median(row.p99_ms for row in rows),
        sum(row.failures for row in rows),
        sum(row.snapshots for row in rows),
        statistics.median(row.snapshot_seconds for row in rows),
        max(row.snapshot_bytes for row in rows),
    )


def print_rows(rows: list[Row]) -> None:
    console.print(f"{'snapshots on':14}{'at once':>8}{'1/s':>10}{'p50 ms':>9}{'p99 ms':>9}   taken")
    for row in rows:
        taken = (
            f"{row.snapshots} of {row.snapshot_bytes / 2**20:.0f} MiB, {row.snapshot_seconds:.1f} s"
            if row.snapshots
            else ""
        )
        console.print(
            f"{row.phase:14}{row.outstanding:8}{row.per_second:10,.0f}{row.median_ms:9.2f}"
            f"{row.p99_ms:9.2f}   {taken}"
        )


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.snapshots", description=__doc__)
    parser.add_argument("--keys", type=int, default=1_000_000, help="keys of the state")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of each loop")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(),
        help="where to put the members' directories (a real file system; default: here)",
    )
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    arguments.directory.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.directory)).resolve()
    found: dict[tuple[str, int], list[Row]] = {}
    try:
        with LargeCluster(directory / "large", arguments.keys) as cluster:
            # Once for nothing: the first loop opens the session and warms the caches.
            measure(cluster, "without", OUTSTANDING[-1], 1.0)
            for _ in range(arguments.rounds):
                for outstanding in OUTSTANDING:
                    for phase in PHASES:
                        row = measure(cluster, phase, outstanding, arguments.seconds)
                        found.setdefault((phase, outstanding), []).append(row)
    except (BenchError, OSError) as error:
        console.print(f"[red]not measured: {error}[/red]")
        return 1
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    rows = [summed(found[phase, outstanding]) for outstanding in OUTSTANDING for phase in PHASES]
    print_rows(rows)
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(rows), indent=2) + b"\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
