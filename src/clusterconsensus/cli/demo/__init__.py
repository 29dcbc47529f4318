"""``clusterconsensus demo``: a real cluster on this machine, killed again and again.

Several processes are members of one cluster and replicate a small bank. Other processes write to
it. The supervisor kills and freezes whoever is master, starts the killed again, and at the end
compares what the members hold with what the writers wrote down. It is a demonstration that can
fail: members that acknowledge too early (there is a switch for tests) are found out by it.

Reading order: ``bank`` (the state machine), ``plan`` (options and faults), ``protocol`` (how
writers speak to members), ``child`` (how each process begins and ends), ``member``, ``writer``,
``processes``, ``cluster``, ``supervisor`` (the story), ``checker``, ``report``, ``scene`` and
``view`` (what there is to see).
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import msgspec

from clusterconsensus.cli.demo.checker import JournalError, Verdict
from clusterconsensus.cli.demo.plan import Options
from clusterconsensus.cli.demo.processes import DemoError
from clusterconsensus.cli.demo.report import COULD_NOT_RUN, Report, report_of
from clusterconsensus.cli.demo.scene import NoView, View
from clusterconsensus.cli.demo.supervisor import Supervisor

__all__ = ["Options", "run"]

RICH_MISSING = (
    "clusterconsensus demo: its display needs rich: pip install 'clusterconsensus[cli]' "
    "(--json works without)"
)
INTERRUPTED = 130


def run(options: Options) -> int:
    """Run the demonstration and print its outcome.

    Returns:
        0 if nothing was lost or done twice, 1 if something was, 3 if the demonstration could not
        run to its end, 130 if it was interrupted.
    """
    if options.as_json:
        return _run(options, NoView(), _print_json)
    try:
        from clusterconsensus.cli.demo import view
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("rich"):
            raise
        print(RICH_MISSING, file=sys.stderr)
        return COULD_NOT_RUN
    console = view.make_console()
    return _run(options, view.make_view(console), lambda report: view.print_report(report, console))


def _run(options: Options, view: View, show: Callable[[Report], None]) -> int:
    seed = random.SystemRandom().randrange(1_000_000) if options.seed is None else options.seed
    directory = Path(tempfile.mkdtemp(prefix="clusterconsensus-demo-"))
    keep = options.keep
    try:
        report = asyncio.run(_report(options, seed, directory, view))
        if not (report.ok or options.unsafe_acknowledge_early):
            keep = True  # evidence
        if keep:
            report = msgspec.structs.replace(report, directory=str(directory))
        show(report)
        return report.exit_status
    except (DemoError, JournalError) as error:
        keep = True
        if options.as_json:
            sys.stdout.write(msgspec.json.encode({"error": str(error)}).decode() + "\n")
        print(f"clusterconsensus demo: {error} (seed {seed})", file=sys.stderr)
        return COULD_NOT_RUN
    except (KeyboardInterrupt, asyncio.CancelledError):
        print("clusterconsensus demo: interrupted; all processes have ended", file=sys.stderr)
        return INTERRUPTED
    finally:
        if keep:
            print(f"The members' directories are kept in {directory}", file=sys.stderr)
        else:
            shutil.rmtree(directory, ignore_errors=True)


async def _report(options: Options, seed: int, directory: Path, view: View) -> Report:
    own_task = asyncio.current_task()
    assert own_task is not None
    for number in (signal.SIGTERM, signal.SIGHUP):  # SIGINT does the same by itself
        with contextlib.suppress(ValueError):  # not in the main thread: no signals there
            asyncio.get_running_loop().add_signal_handler(number, own_task.cancel)
    supervisor = Supervisor(options, seed, directory, view)
    verdict: Verdict = await supervisor.run()
    return report_of(
        verdict,
        members=options.members,
        seed=seed,
        writing_seconds=supervisor.writing_seconds,
        faults=supervisor.failovers,
        directory=None,
    )


def _print_json(report: Report) -> None:
    sys.stdout.write(msgspec.json.encode(report).decode() + "\n")
