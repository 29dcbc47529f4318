"""The demonstration with real processes: it passes, it can fail, and it leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from clusterconsensus.cli.demo.report import Report
from clusterconsensus.cli.demo.writer import Fate, read_journal

COMMAND = (
    sys.executable,
    "-c",
    "import sys; from clusterconsensus.cli import main; sys.exit(main())",
    "demo",
    "--json",
)
DEADLINE_SECONDS = 50.0


@pytest.fixture(name="temporary")
def temporary_fixture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the demonstration puts its directory."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return tmp_path


def run_demo(*options: str) -> tuple[int, Report]:
    process = subprocess.run(
        [*COMMAND, *options], capture_output=True, timeout=DEADLINE_SECONDS, check=False
    )
    if process.returncode not in (0, 1):
        pytest.fail(f"exit status {process.returncode}: {process.stderr.decode()}")
    return process.returncode, msgspec.json.decode(process.stdout, type=Report)


def test_a_run_loses_nothing_and_keeps_what_it_is_told_to(temporary: Path) -> None:
    status, report = run_demo("--seconds", "6", "--seed", "5", "--keep")
    assert status == 0
    assert report.members == 3
    assert report.lost == report.doubled == report.wrongly_refused == report.made_up == 0
    assert report.total_kept
    assert report.members_agree
    assert report.acknowledged > 0
    assert report.changes_per_second > 0
    assert len(report.failovers) == 2
    assert all(seconds > 0 for seconds in report.failovers)

    assert report.directory is not None
    directory = Path(report.directory)
    assert directory.parent == temporary
    assert {path.name for path in directory.glob("member-?")} == {
        "member-a",
        "member-b",
        "member-c",
    }
    records = [record for path in directory.glob("*.journal") for record in read_journal(path)]
    acknowledged = [key for fate, key in records if fate is Fate.ACKNOWLEDGED]
    assert len(acknowledged) == report.acknowledged


def test_members_that_acknowledge_too_early_are_found_out(temporary: Path) -> None:
    status, report = run_demo("--seconds", "3", "--seed", "5", "--unsafe-acknowledge-early")
    assert status == 1
    assert report.lost > 0
    assert report.lost_examples
    assert report.directory is None
    assert list(temporary.iterdir()) == []


@contextlib.contextmanager
def running_demo(temporary: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A demonstration whose writers have begun."""
    with subprocess.Popen(
        [*COMMAND, "--seconds", "60"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        try:
            deadline = time.monotonic() + DEADLINE_SECONDS
            while not any(path.stat().st_size for path in temporary.glob("*/w*.journal")):
                assert process.poll() is None, process.communicate()
                assert time.monotonic() < deadline
                time.sleep(0.05)
            yield process
        finally:
            process.kill()


def test_an_interrupt_ends_everything(temporary: Path) -> None:
    with running_demo(temporary) as process:
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=DEADLINE_SECONDS)
    assert process.returncode == 130
    assert output == b""
    assert errors.count(b"\n") == 1
    assert b"interrupted" in errors
    assert list(temporary.iterdir()) == []


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and relies on prctl")
def test_no_child_outlives_the_supervisor(temporary: Path) -> None:
    with running_demo(temporary) as process:
        children_file = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        children = [int(pid) for pid in children_file.read_text().split()]
        assert len(children) >= 5
        os.kill(children[0], signal.SIGSTOP)
        process.kill()
        process.communicate(timeout=DEADLINE_SECONDS)
    deadline = time.monotonic() + DEADLINE_SECONDS
    while any(map(is_running, children)):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"
