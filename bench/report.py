"""What comes out: facts about the machine, figures, ratios; as JSON and as a table."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from importlib import metadata
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from bench import theirs
from bench.figures import Figures, Summary
from bench.processes import ROOT
from bench.workload import KEYS, VALUE_BYTES

console = Console(stderr=True)
if not console.is_terminal:
    console = Console(stderr=True, width=120)

RATIOS: list[tuple[str, list[str], list[str]]] = [
    (
        "ratio.latency_of_one.vs_sync_and_round_trip",
        ["submit.master.1.median"],
        ["limit.fdatasync_written_ahead.median", "limit.tcp_round_trip_two_cores.median"],
    ),
    ("ratio.throughput_512.vs_futures", ["submit.master.512.per_second"], ["limit.futures"]),
    (
        "ratio.throughput_512.vs_bare_quorum_one_batch",
        ["submit.master.512.per_second"],
        ["limit.bare_quorum_one_batch"],
    ),
    (
        "ratio.throughput_1.vs_pysyncobj_prompt",
        ["submit.master.1.per_second"],
        ["pysyncobj_prompt.submit.leader.1.per_second"],
    ),
    *(
        (
            f"ratio.throughput_{outstanding}{suffix}.vs_pysyncobj",
            [f"submit.{ours}.{outstanding}.per_second"],
            [f"pysyncobj.submit.{leader}.{outstanding}.per_second"],
        )
        for ours, leader, outstanding, suffix in (
            ("master", "leader", 1, ""),
            ("master", "leader", 64, ""),
            ("master", "leader", 512, ""),
            ("follower", "follower", 512, "_from_follower"),
        )
    ),
]
"""Name, the figures above the line, the figures below it."""


class Machine(msgspec.Struct):
    """What it ran on."""

    cores: int
    processor: str
    kernel: str
    python: str
    file_system: str
    device: str
    load_average: list[float]


class Report(msgspec.Struct):
    """All that a run found. ``version`` changes when a field changes its meaning."""

    version: int
    taken: str
    seconds: float
    quick: bool
    revision: str
    packages: dict[str, str]
    machine: Machine
    workload: dict[str, int]
    pysyncobj_settings: dict[str, dict[str, bool | int | float]]
    notes: list[str]
    figures: list[Summary]
    ratios: list[Summary]
    failures: list[str]


def processor() -> str:
    """The processor's name as the kernel tells it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def mount_of(directory: Path) -> tuple[str, str]:
    """The file system type and the device that hold a directory."""
    best = ("unknown", "unknown", "")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        device, point, kind = line.split()[:3]
        point = point.encode().decode("unicode_escape")
        if directory.is_relative_to(point) and len(point) >= len(best[2]):
            best = (kind, device, point)
    return best[0], best[1]


def revision() -> str:
    """The checkout's commit, with ``+changes`` if it has any that are not committed."""
    try:
        commit = subprocess.run(
            ["git", "rev-parse", "--verify", "HEAD"], cwd=ROOT, capture_output=True, check=True
        )
        status = subprocess.run(
            ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "none"
    return commit.stdout.decode().strip() + ("+changes" if status.stdout.strip() else "")


def installed(package: str) -> str:
    """A package's version."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def build_report(figures: Figures, directory: Path, *, quick: bool, seconds: float) -> Report:
    """Form the ratios and gather the facts."""
    file_system, device = mount_of(directory)
    notes = [
        "every figure: least, median and greatest of the rounds; ratios are formed within a round",
        "submits are durable: synced to the disk by a majority before they are acknowledged",
        theirs.NOTE,
        "PySyncObj is loaded from its own thread, callback by callback: its quickest interface",
        "the bare quorum has no protocol, no log, no state and nobody who waits for a result",
        "a round trip between two cores stands for one between hosts; on one core it is quicker",
        "clusterconsensus runs with its default settings",
    ]
    if file_system in ("tmpfs", "ramfs"):
        notes.append(f"{directory} is in memory ({file_system}): a sync costs nothing here")
    for ratio in RATIOS:
        figures.ratio(*ratio)
    summaries = figures.summaries()
    return Report(
        version=1,
        taken=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        seconds=round(seconds, 1),
        quick=quick,
        revision=revision(),
        packages={name: installed(name) for name in ("clusterconsensus", "pysyncobj", "msgspec")},
        machine=Machine(
            cores=len(os.sched_getaffinity(0)),
            processor=processor(),
            kernel=platform.release(),
            python=f"{platform.python_implementation()} {platform.python_version()}",
            file_system=file_system,
            device=device,
            load_average=list(os.getloadavg()),
        ),
        workload={"keys": KEYS, "value_bytes": VALUE_BYTES, "members": 3},
        pysyncobj_settings={"batched": theirs.SETTINGS, "prompt": theirs.PROMPT_SETTINGS},
        notes=notes,
        figures=[summary for summary in summaries if not summary.name.startswith("ratio.")],
        ratios=[summary for summary in summaries if summary.name.startswith("ratio.")],
        failures=figures.failures,
    )


def readable(value: float) -> str:
    """Three or four digits that matter."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def print_table(report: Report) -> None:
    """The same for people, on standard error."""
    machine = report.machine
    table = Table(
        title=f"clusterconsensus {report.packages['clusterconsensus']} on {machine.cores} cores, "
        f"{machine.python}, {machine.file_system}",
        caption=f"{'one short round' if report.quick else 'three rounds'}, "
        f"{report.seconds:.0f} s; ratios within each round",
    )
    table.add_column("figure", no_wrap=True)
    for heading in ("min", "median", "max"):
        table.add_column(heading, justify="right")
    table.add_column("unit")
    group = ""
    for summary in (*report.figures, *report.ratios):
        head = summary.name.partition(".")[0]
        if group and head != group:
            table.add_section()
        group = head
        values = (readable(value) for value in (summary.min, summary.median, summary.max))
        table.add_row(summary.name, *values, summary.unit)
    console.print(table)
    for note in report.notes[1:]:
        console.print(f"[dim]* {note}[/dim]", highlight=False)
    for failure in report.failures:
        console.print(f"[red]failed: {failure}[/red]", highlight=False, markup=True)
