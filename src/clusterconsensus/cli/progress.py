"""How far a long run has come: a bar on a terminal, a line now and then elsewhere.

The bar needs ``rich`` and a standard output that is a terminal. It is drawn by whoever reports the
progress and by no thread of its own: a simulated world may run in this very process.
"""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Protocol

LINE_SECONDS = 10.0
"""A line of progress at most so often where there is no bar."""

DRAW_SECONDS = 0.1
MIN_BAR_COLUMNS = 60
"""In a narrower terminal there is only the text."""


class Progress(Protocol):
    """Is told how far the run has come."""

    def show(self, done: float, text: str) -> None:
        """So much of the total is done; ``text`` says it in words."""
        ...


class _Lines:
    def __init__(self) -> None:
        self._next = time.monotonic() + LINE_SECONDS

    def show(self, done: float, text: str) -> None:
        now = time.monotonic()
        if now >= self._next:
            self._next = now + LINE_SECONDS
            print(text, flush=True)


class _Nothing:
    def show(self, done: float, text: str) -> None:
        """Programs read the output."""


@contextlib.contextmanager
def progress(total: float, *, quiet: bool = False) -> Iterator[Progress]:
    """Show progress for a while.

    Arguments:
        total: What ``done`` is measured by.
        quiet: Show nothing at all.
    """
    if quiet:
        yield _Nothing()
        return
    if not sys.stdout.isatty():
        yield _Lines()
        return
    try:
        from rich.console import Console
        from rich.live import Live
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text
    except ModuleNotFoundError:
        yield _Lines()
        return

    console = Console(highlight=False)
    if console.is_dumb_terminal:
        yield _Lines()
        return

    class Bar:
        """One line at the foot of the terminal."""

        def __init__(self, live: Live) -> None:
            self._live = live
            self._next = 0.0

        def show(self, done: float, text: str) -> None:
            now = time.monotonic()
            if now < self._next:
                return
            self._next = now + DRAW_SECONDS
            line = Table.grid(padding=(0, 1), expand=True)
            words = Text(text, no_wrap=True, overflow="ellipsis")
            if console.width >= MIN_BAR_COLUMNS:
                line.add_column(ratio=1)
                line.add_column(no_wrap=True)
                line.add_row(ProgressBar(total, min(done, total), complete_style="green"), words)
            else:
                line.add_row(words)
            self._live.update(line, refresh=True)

    with Live(console=console, auto_refresh=False, transient=True) as live:
        yield Bar(live)
