"""Starting, freezing and killing the processes of a run, each by its own process id.

A child gets an order (see ``child``) and two things from its parent: a pipe as standard input,
whose end tells it that the parent is gone, and a file for whatever it has to say. It is put into a
process group of its own, so that Ctrl-C in the terminal reaches only the supervisor, which then
ends its children itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
import sys
from enum import StrEnum
from pathlib import Path

import msgspec

from clusterconsensus.cli.demo.child import MemberOrder, WriterOrder
from clusterconsensus.cli.demo.protocol import HOST

PORTS = range(20_000, 32_000)
"""Below the range from which systems take the ports of outgoing connections. A killed member's port
is then still free when it starts again."""

MAX_PORT_TRIES = 1_000

BOOT = (
    "import os, sys; sys.path[:] = sys.argv[1].split(os.pathsep); "
    "from clusterconsensus.cli.demo.child import main; main(int(sys.argv[2]), sys.argv[3])"
)


class DemoError(Exception):
    """The demonstration cannot go on; the message says why, in one line."""


class ProcessState(StrEnum):
    """What the supervisor has made of a process."""

    UP = "up"
    STOPPED = "stopped"
    DOWN = "down"


class Child:
    """One child process, which may be started again after its end.

    Arguments:
        name: For messages, ``"member a"``.
        order: What it is to be.
        log: The file that its standard error is appended to.
        ended: Done with a text as soon as any child ends that nobody told to.
    """

    def __init__(
        self, name: str, order: MemberOrder | WriterOrder, log: Path, ended: asyncio.Future[str]
    ) -> None:
        self.name = name
        self.state = ProcessState.DOWN
        self._order = msgspec.json.encode(order).decode()
        self._log = log
        self._ended = ended
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._told_to_end = False

    @property
    def pid(self) -> int | None:
        """The process id, None while there is no process."""
        if self._process is None or self._process.returncode is not None:
            return None
        return self._process.pid

    async def start(self) -> None:
        """Start the process.

        Raises:
            DemoError: the system refuses.
        """
        # sys.path is handed over as it is, and -P keeps the current directory out of it: a child
        # imports the very same package as this process, wherever the command was given.
        command = (sys.executable, "-P", "-c", BOOT, os.pathsep.join(sys.path), str(os.getpid()))
        try:
            with self._log.open("ab") as log:
                self._process = await asyncio.create_subprocess_exec(
                    *command,
                    self._order,
                    stdin=asyncio.subprocess.PIPE,
                    stdout=log,
                    stderr=log,
                    process_group=0,
                )
        except OSError as error:
            raise DemoError(f"{self.name} cannot be started: {error}") from error
        self._told_to_end = False
        self.state = ProcessState.UP
        self._watch = asyncio.create_task(self._report_end(self._process))

    async def _report_end(self, process: asyncio.subprocess.Process) -> None:
        status = await process.wait()
        self.state = ProcessState.DOWN
        if not self._told_to_end and not self._ended.done():
            if status < 0:  # then its last words tell nothing
                text = f"{self.name} was ended by a signal from elsewhere ({-status})"
            else:
                text = f"{self.name} ended by itself with status {status}: {self.last_words()}"
            self._ended.set_result(text)

    def last_words(self) -> str:
        """The last line that the process has said."""
        with contextlib.suppress(OSError):
            lines = self._log.read_text(encoding="utf-8", errors="replace").split("\n")
            for line in reversed(lines):
                if line.strip():
                    return line.strip()
        return "it said nothing"

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal, if the process still runs."""
        if self._process is None or self.pid is None:
            return
        if number in (signal.SIGKILL, signal.SIGTERM):
            self._told_to_end = True
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        if number == signal.SIGSTOP:
            self.state = ProcessState.STOPPED
        elif number == signal.SIGCONT:
            self.state = ProcessState.UP

    async def kill(self) -> None:
        """SIGKILL, and wait until the system has taken everything back."""
        self.send_signal(signal.SIGKILL)
        await self.wait()

    async def wait(self) -> None:
        """Until the process has ended. Returns at once if none runs."""
        if self._watch is not None:
            await self._watch


def free_ports(count: int, chance: random.Random) -> list[int]:
    """Ports that nobody listens on now.

    Raises:
        DemoError: there are too few.
    """
    found: list[int] = []
    for port in chance.sample(PORTS, MAX_PORT_TRIES):
        if len(found) == count:
            break
        with socket.socket() as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                trial.bind((HOST, port))
                found.append(port)
    if len(found) < count:
        raise DemoError(f"no {count} free ports from {PORTS.start} to {PORTS.stop} on {HOST}")
    return found
