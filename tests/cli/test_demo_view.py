"""What a person sees fits the terminal, whatever its size."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from clusterconsensus.cli.demo import view
from clusterconsensus.cli.demo.plan import FaultKind
from clusterconsensus.cli.demo.processes import ProcessState
from clusterconsensus.cli.demo.protocol import Status
from clusterconsensus.cli.demo.report import Failover, Report
from clusterconsensus.cli.demo.scene import MemberScene, Scene


def a_scene() -> Scene:
    status = Status(
        id="a",
        role="pending master",
        ballot="12345:a",
        master="a",
        last_sequence=1_234_567,
        commit=1_234_566,
        applied=1_234_566,
        members=["a", "b", "c"],
        waiting=0,
    )
    members = [
        MemberScene("a", ProcessState.UP, 1_234_567, status),
        MemberScene("b", ProcessState.DOWN),
        MemberScene("c", ProcessState.STOPPED, 4_321),
    ]
    scene = Scene(seed=1, members=members, phase="writing", faults_planned=6, acknowledged=98_765)
    scene.rates.extend(float(number) for number in range(300))
    for number in range(20):
        scene.events.append((float(number), f"event {number} [not markup] " + "long " * 20))
    return scene


def a_report(lost: int) -> Report:
    fault = Failover(kind=FaultKind.KILL, victim="a", seconds=0.0625)
    return Report(
        members=3,
        seed=1,
        writing_seconds=10.0,
        acknowledged=1_000,
        changes_per_second=100.0,
        unknown=3,
        refused=0,
        lost=lost,
        doubled=0,
        wrongly_refused=0,
        made_up=0,
        total_kept=True,
        balances_right=True,
        members_agree=True,
        failovers=[0.0625],
        faults=[fault],
        lost_examples=["w0.0.1"] * min(lost, 1),
        doubled_examples=[],
        directory=None,
        ok=not lost,
    )


def a_console(width: int, height: int = 30, encoding: str = "utf-8") -> Console:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    return Console(file=file, width=width, height=height, highlight=False)


def text_of(console: Console) -> str:
    file = console.file
    assert isinstance(file, io.TextIOWrapper)
    file.flush()
    raw = file.buffer
    assert isinstance(raw, io.BytesIO)
    return raw.getvalue().decode(file.encoding)


@pytest.mark.parametrize("width", [32, 40, 56, 68, 80, 200])
def test_the_picture_fits_the_terminal(width: int) -> None:
    console = a_console(width, height=20)
    console.print(view.picture(a_scene(), console))
    lines = text_of(console).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= 20
    text = "\n".join(lines)
    for word in ("killed", "frozen", "writing", "event 19", "98,765"):
        assert word in text


def test_a_terminal_without_unicode_gets_none() -> None:
    console = a_console(100, encoding="ascii")
    console.print(view.picture(a_scene(), console))
    assert "98,765" in text_of(console)


def test_lines_tell_each_event_in_full() -> None:
    console = a_console(30)
    lines = view.LinesView(console)
    scene = a_scene()
    lines.start(scene)
    lines.event(scene)
    text = text_of(console)
    assert "Seed 1." in text
    assert scene.events[-1][1].rstrip() in text


@pytest.mark.parametrize("width", [20, 46, 80])
def test_the_table_tells_everything_at_any_width(width: int) -> None:
    console = a_console(width)
    view.print_report(a_report(lost=0), console)
    text = " ".join(text_of(console).split())
    for words in ("acknowledged", "1,000", "applied twice", "SIGKILL", "0.062 s", "nothing was"):
        assert words in text


def test_a_loss_is_told() -> None:
    console = a_console(80)
    view.print_report(a_report(lost=5), console)
    text = text_of(console)
    assert "broken its promise" in text
    assert "w0.0.1" in text
    assert "nothing was lost" not in text


def test_a_pipe_that_nobody_reads_is_told_to_the_caller() -> None:
    with pytest.raises(BrokenPipeError):
        view.make_console().on_broken_pipe()


@pytest.mark.parametrize(("columns", "width"), [("0", 80), ("5", 20), ("x", 80), ("61", 61)])
def test_columns_that_make_no_sense_are_not_followed(
    columns: str, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setattr(view, "_terminal_size", lambda: None)
    assert view.make_console().width == width
