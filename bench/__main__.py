"""``python -m bench [--quick] [--only NAME]``: JSON on stdout, a table on stderr."""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import FrameType
from typing import NoReturn

import msgspec

from bench import limits, ours, theirs
from bench.figures import Figures
from bench.processes import BenchError
from bench.report import build_report, console, print_table

LOAD_STAGES = ("submit", "read", "idle", "catchup")
MEMORY_STAGES = ("memory",)
"""On a cluster of its own: memory that earlier load left free would hide the growth."""
OUTAGE_STAGES = ("failover", "silence")
STAGES = ("limits", "pysyncobj", *LOAD_STAGES, *MEMORY_STAGES, *OUTAGE_STAGES)


class Plan(msgspec.Struct, frozen=True):
    """How much to measure."""

    rounds: int
    load_seconds: float
    idle_seconds: float
    missed_changes: int
    memory_seconds: float
    outages: dict[str, int]


FULL = Plan(3, 3.0, 5.0, 50_000, 30.0, {"failover": 5, "silence": 3})
QUICK = Plan(1, 1.0, 2.0, 5_000, 4.0, {"failover": 1, "silence": 1})


class Benchmark:
    """Takes the chosen stages in rounds; a stage that fails is noted and the next one taken."""

    def __init__(self, stages: tuple[str, ...], plan: Plan, directory: Path) -> None:
        self.figures = Figures()
        self._stages = stages
        self._plan = plan
        self._directory = directory

    def run(self) -> None:
        """Measure everything, then form the ratios."""
        for number in range(1, self._plan.rounds + 1):
            self.figures.round = number
            place = self._directory / f"round-{number}"
            if "limits" in self._stages:
                self._attempt("limits", partial(self._limits, place))
            if "pysyncobj" in self._stages:
                self._attempt("pysyncobj", partial(self._theirs, place))
            self._with_cluster(place / "ours", LOAD_STAGES)
            self._with_cluster(place / "memory", MEMORY_STAGES)
            shutil.rmtree(place, ignore_errors=True)
        self._with_cluster(self._directory / "outages", OUTAGE_STAGES)

    def _limits(self, place: Path) -> None:
        limits.measure(self.figures, place / "limits", quick=self._plan.rounds == 1)

    def _theirs(self, place: Path) -> None:
        theirs.measure(
            self.figures,
            place / "theirs",
            seconds=self._plan.load_seconds,
            idle_seconds=self._plan.idle_seconds,
        )

    def _with_cluster(self, place: Path, stages: tuple[str, ...]) -> None:
        """Take some stages of ours, one after the other, on one fresh cluster."""
        chosen = [stage for stage in stages if stage in self._stages]
        if not chosen:
            return
        figures, plan = self.figures, self._plan

        def measure(cluster: ours.Cluster, stage: str) -> None:
            match stage:
                case "submit":
                    ours.measure_submit(figures, cluster, plan.load_seconds)
                case "read":
                    ours.measure_read(figures, cluster, plan.load_seconds)
                case "idle":
                    ours.measure_idle(figures, cluster, plan.idle_seconds)
                case "catchup":
                    ours.measure_catch_up(figures, cluster, plan.missed_changes)
                case "memory":
                    ours.measure_memory(figures, cluster, plan.memory_seconds)
                case _:
                    ours.measure_outages(figures, cluster, stage, plan.outages[stage])

        def all_stages() -> None:
            with ours.Cluster(place) as cluster:
                for stage in chosen:
                    self._attempt(stage, partial(measure, cluster, stage))

        self._attempt("cluster", all_stages)

    def _attempt(self, stage: str, measure: Callable[[], None]) -> None:
        begin = time.monotonic()
        try:
            measure()
        except (BenchError, OSError) as error:
            self.figures.fail(stage, str(error))
        if stage != "cluster":
            seconds = time.monotonic() - begin
            console.print(f"[dim]round {self.figures.round}: {stage} took {seconds:.1f} s[/dim]")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round, within a minute")
    parser.add_argument(
        "--only", action="append", choices=STAGES, metavar="NAME", help=", ".join(STAGES)
    )
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(),
        help="where to put the members' directories (a real file system; default: here)",
    )
    parser.add_argument("--keep", action="store_true", help="keep directories and logs")
    return parser.parse_args()


def end_on_signal(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(128 + number)  # unwinds the stack, which ends the children


def main() -> int:
    arguments = parse_arguments()
    signal.signal(signal.SIGTERM, end_on_signal)
    signal.signal(signal.SIGINT, end_on_signal)
    plan = QUICK if arguments.quick else FULL
    stages = tuple(arguments.only) if arguments.only else STAGES
    arguments.directory.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=arguments.directory)).resolve()
    begin = time.monotonic()
    benchmark = Benchmark(stages, plan, directory)
    try:
        benchmark.run()
        seconds = time.monotonic() - begin
        report = build_report(benchmark.figures, directory, quick=arguments.quick, seconds=seconds)
    finally:
        if arguments.keep:
            console.print(f"kept {directory}")
        else:
            shutil.rmtree(directory, ignore_errors=True)
    print_table(report)
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
