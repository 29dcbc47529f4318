"""What a person sees: a live picture in a terminal, plain lines elsewhere, a table at the end.

The live picture needs a terminal that can move its cursor and has some room. The size of the real
terminal counts, not what ``COLUMNS`` says, for a line that is longer than the terminal would break
the picture. Everywhere else (a pipe, a log, a very small or dumb terminal) each event is a line.
"""

from __future__ import annotations

import os
import sys

from rich.console import (
    Console,
    ConsoleDimensions,
    Group,
    JustifyMethod,
    OverflowMethod,
    RenderableType,
)
from rich.live import Live
from rich.table import Table
from rich.text import Text

from clusterconsensus.cli.demo.bank import ACCOUNTS, OPENING_BALANCE
from clusterconsensus.cli.demo.processes import ProcessState
from clusterconsensus.cli.demo.report import Failover, Report
from clusterconsensus.cli.demo.scene import MemberScene, Scene, View

MIN_LIVE_COLUMNS = 32
MIN_LIVE_LINES = 14
MIN_TABLE_COLUMNS = 46
MIN_COLUMNS = 20
USUAL_SIZE = ConsoleDimensions(80, 24)
PROGRESS_SECONDS = 3.0

SHOWN_EVENTS = 12
BARS = "▁▂▃▄▅▆▇█"
ASCII_BARS = ".:-=+*#@"

COLUMNS = {"member": 0, "process": 0, "role": 0, "log": 46, "chosen": 58, "ballot": 68, "pid": 80}
"""What is told of each member, and how wide a terminal must be for it."""

PROCESS_TEXTS = {
    ProcessState.UP: ("up", ""),
    ProcessState.DOWN: ("killed", "red"),
    ProcessState.STOPPED: ("frozen", "yellow"),
}
ROLE_STYLES = {"master": "bold green", "pending": "green", "candidate": "yellow"}


class PipeConsole(Console):
    """A console that lets its caller know when nobody reads any more."""

    def on_broken_pipe(self) -> None:
        """Not rich's way, which is to leave the program at once: children must be ended first."""
        raise BrokenPipeError("the standard output is closed")


def make_console() -> Console:
    """A console on the standard output whose width makes sense."""
    console = PipeConsole(highlight=False)
    size = _terminal_size()
    if size is not None:
        console.size = size
    if console.width <= 0:  # COLUMNS=0 says nothing
        console.width = USUAL_SIZE.width
    console.width = max(console.width, MIN_COLUMNS)
    return console


def make_view(console: Console) -> View:
    """The live picture where there is room for it, plain lines elsewhere."""
    size = _terminal_size()
    if (
        size is not None
        and console.is_terminal
        and not console.is_dumb_terminal
        and size.width >= MIN_LIVE_COLUMNS
        and size.height >= MIN_LIVE_LINES
    ):
        return LiveView(console)
    return LinesView(console)


def _terminal_size() -> ConsoleDimensions | None:
    """Of the terminal behind the standard output; None if that is none."""
    try:
        size = os.get_terminal_size(sys.stdout.fileno())
    except (OSError, ValueError):
        return None
    if size.columns <= 0 or size.lines <= 0:  # a terminal that nobody has told its size
        return USUAL_SIZE
    return ConsoleDimensions(size.columns, size.lines)


def _opening(scene: Scene) -> str:
    count = len(scene.members)
    members = "1 member" if count == 1 else f"{count} members"
    patience = "" if count >= 3 else " None of them can be spared: a fault stops all writing."
    faults = "1 fault" if scene.faults_planned == 1 else f"{scene.faults_planned} faults"
    return (
        f"{members} on this machine, a bank of {ACCOUNTS} accounts with {OPENING_BALANCE} each, "
        f"{faults} to come. Seed {scene.seed}.{patience}"
    )


class LinesView:
    """Each event a line, and a line of progress now and then."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress_at = PROGRESS_SECONDS

    def start(self, scene: Scene) -> None:
        self._console.print(_opening(scene), soft_wrap=True)

    def event(self, scene: Scene) -> None:
        seconds, text = scene.events[-1]
        self._console.print(f"{seconds:6.1f} s  {text}", markup=False, soft_wrap=True)

    def refresh(self, scene: Scene) -> None:
        if scene.seconds < self._progress_at:
            return
        self._progress_at = scene.seconds + PROGRESS_SECONDS
        if scene.phase == "writing":
            rate = scene.rates[-1] if scene.rates else 0.0
            text = f"{scene.acknowledged:,} transfers acknowledged, {rate:,.0f} per second"
        else:
            text = f"{scene.phase} ..."
        self._console.print(f"{scene.seconds:6.1f} s  {text}", markup=False, soft_wrap=True)

    def close(self, scene: Scene) -> None:
        pass


class LiveView:
    """A picture that is drawn over itself."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, redirect_stderr=False)

    def start(self, scene: Scene) -> None:
        self._live.start()

    def event(self, scene: Scene) -> None:
        self.refresh(scene)

    def refresh(self, scene: Scene) -> None:
        size = _terminal_size()
        if size is not None:
            self._console.size = size
        self._live.update(picture(scene, self._console), refresh=True)

    def close(self, scene: Scene) -> None:
        self.refresh(scene)
        self._live.stop()


def picture(scene: Scene, console: Console) -> RenderableType:
    """The whole scene, as wide and as high as the console allows."""
    size = console.size
    events = max(1, min(SHOWN_EVENTS, size.height - len(scene.members) - 10))
    cut: OverflowMethod = "crop" if console.options.ascii_only else "ellipsis"
    shown = [f"{seconds:6.1f} s  {text}" for seconds, text in list(scene.events)[-events:]]
    return Group(
        Text(_opening(scene), style="dim", no_wrap=True, overflow=cut),
        _members_table(scene, size.width, cut),
        _throughput(scene, console, cut),
        Text(f"{scene.seconds:6.1f} s  {scene.phase}", style="bold", no_wrap=True, overflow=cut),
        *(Text(line, no_wrap=True, overflow=cut) for line in shown),
    )


def _members_table(scene: Scene, width: int, cut: OverflowMethod) -> Table:
    """Who does what. A narrow terminal shows fewer columns instead of broken ones."""
    table = Table()
    for name, needed_width in COLUMNS.items():
        if width >= needed_width:
            side: JustifyMethod = "right" if name in ("log", "chosen", "pid") else "left"
            table.add_column(name, justify=side, no_wrap=True, overflow=cut)
    for member in scene.members:
        cells = _cells(member)
        table.add_row(*(cells[str(column.header)] for column in table.columns))
    return table


def _cells(member: MemberScene) -> dict[str, Text]:
    process, style = PROCESS_TEXTS[member.process]
    status = member.status
    cells = {"member": Text(member.id), "process": Text(process, style)}
    cells["pid"] = Text("" if member.pid is None else str(member.pid))
    if status is None:
        return cells | dict.fromkeys(("role", "log", "chosen", "ballot"), Text("-", "dim"))
    role = status.role.removesuffix(" master")
    return cells | {
        "role": Text(role, ROLE_STYLES.get(role, "")),
        "log": Text(f"{status.last_sequence:,}"),
        "chosen": Text(f"{status.commit:,}"),
        "ballot": Text(status.ballot),
    }


def _throughput(scene: Scene, console: Console, cut: OverflowMethod) -> Text:
    rate = scene.rates[-1] if scene.rates else 0.0
    bars = ASCII_BARS if console.options.ascii_only else BARS
    numbers = f"{scene.acknowledged:,} done  {rate:,.0f}/s  {scene.unknown:,} unknown  "
    room = max(0, console.width - len(numbers))
    shown = list(scene.rates)[-room:] if room else []
    highest = max(shown, default=0.0) or 1.0
    chart = "".join(bars[min(len(bars) - 1, int(rate / highest * len(bars)))] for rate in shown)
    return Text(numbers, no_wrap=True, overflow=cut).append(chart, "cyan")


def print_report(report: Report, console: Console) -> None:
    """The table at the end, and one sentence that says it all."""
    rate = f"{report.changes_per_second:,.0f} per second"
    findings = {
        "acknowledged": Text(f"{report.acknowledged:,} ({rate})"),
        "unknown (either is right)": Text(f"{report.unknown:,}"),
        "acknowledged, but lost": _count(report.lost),
        "applied twice": _count(report.doubled),
        "refused, but applied": _count(report.wrongly_refused),
        "applied, but never issued": _count(report.made_up),
        "total kept": _yes(report.total_kept),
        "balances fit the transfers": _yes(report.balances_right),
        "all members equal": _yes(report.members_agree),
    }
    failovers = {
        _fault_name(number, fault): Text(f"{fault.seconds:.3f} s")
        for number, fault in enumerate(report.faults, start=1)
    }
    if console.width < MIN_TABLE_COLUMNS:
        for name, finding in (findings | failovers).items():
            console.print(Text(f"{name}: ").append_text(finding))
    else:
        table = Table(show_header=False)
        table.add_column()
        table.add_column(justify="right")
        for rows in (findings, failovers):
            for name, finding in rows.items():
                table.add_row(name, finding)
            table.add_section()
        console.print(table)
    if report.ok:
        count = len(report.failovers)
        failovers_text = "1 fail-over" if count == 1 else f"{count} fail-overs"
        console.print(f"{failovers_text}; nothing was lost and nothing was done twice.")
        return
    console.print("The cluster has broken its promise.", style="bold red")
    if report.lost_examples:
        console.print(f"Lost, for example: {', '.join(report.lost_examples)}", markup=False)
    if report.doubled_examples:
        console.print(f"Twice, for example: {', '.join(report.doubled_examples)}", markup=False)


def _fault_name(number: int, fault: Failover) -> str:
    return f"fail-over {number}: {fault.kind} to {fault.victim}"


def _count(number: int) -> Text:
    return Text(f"{number:,}", "bold red" if number else "green")


def _yes(good: bool) -> Text:
    return Text("yes", "green") if good else Text("NO", "bold red")
