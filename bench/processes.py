"""Children that obey orders, and that never outlive the benchmark.

A child is ``python -m bench.<module>``. It reads one JSON order a line from its standard input and
answers with one JSON line; what it logs goes to a file. It ends when its input closes, when it is
told to, and, if the parent is killed without a word, by the signal that the kernel then sends it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self, TypeVar

import msgspec

ROOT = Path(__file__).resolve().parent.parent
PR_SET_PDEATHSIG = 1
ResultT = TypeVar("ResultT")


class BenchError(Exception):
    """A measurement could not be taken; the report holds the reason in the figure's place."""


class Order(msgspec.Struct, omit_defaults=True):
    """What a child is asked to do; each order uses the fields it needs."""

    do: str
    seconds: float = 0.0
    outstanding: int = 1
    count: int = 0
    ports: list[int] = []
    cores: list[int] = []
    path: str = ""


class Answer(msgspec.Struct):
    """What came of it: a result, or the error that stands in its place."""

    result: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""


class Child:
    """One child process. Leaving the ``with`` block ends it."""

    def __init__(self, name: str, module: str, arguments: list[str], log: Path) -> None:
        self.name = name
        self.log = log
        self._buffer = bytearray()
        self._stopped = False
        with log.open("ab") as log_file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"bench.{module}", str(os.getpid()), *arguments],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log_file,
                bufsize=0,
                process_group=0,  # a Ctrl-C reaches the parent only, which then ends its children
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def order(self, order: Order) -> None:
        """Send an order without waiting for the answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")
        except OSError as error:
            raise BenchError(f"{self.name} is gone: {error}; {self._last_words()}") from error

    def answer(self, result_type: type[ResultT], timeout_seconds: float = 30.0) -> ResultT:
        """Wait for the answer to the oldest order that has none yet."""
        line = self._read_line(time.monotonic() + timeout_seconds)
        answer = msgspec.json.decode(line, type=Answer)
        if answer.error:
            raise BenchError(f"{self.name}: {answer.error}")
        return msgspec.json.decode(answer.result, type=result_type)

    def ask(
        self, order: Order, result_type: type[ResultT], timeout_seconds: float = 30.0
    ) -> ResultT:
        """Send an order and wait for its answer."""
        self.order(order)
        return self.answer(result_type, timeout_seconds)

    def do(self, order: Order, timeout_seconds: float = 30.0) -> None:
        """Send an order and wait until it is carried out."""
        self.ask(order, object, timeout_seconds)

    def kill(self) -> None:
        """``kill -9``, and wait until it is gone."""
        self._process.kill()
        self._reap()

    def pause(self) -> None:
        """SIGSTOP: the process is silent, its connections stay open."""
        self._stopped = True
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._stopped = False
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End the child: by closing its input, and by force if that is not enough."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            with contextlib.suppress(OSError):
                self._process.stdin.close()
        if not self._stopped:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        if self._process.poll() is None:
            self._process.kill()
        self._reap()

    def _reap(self) -> None:
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(OSError):
                    stream.close()

    def _read_line(self, deadline: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        while True:
            line, newline, rest = self._buffer.partition(b"\n")
            if newline:
                self._buffer = rest
                return bytes(line)
            wait_seconds = deadline - time.monotonic()
            if wait_seconds <= 0 or not select.select([descriptor], [], [], wait_seconds)[0]:
                raise BenchError(f"{self.name} did not answer in time; {self._last_words()}")
            data = os.read(descriptor, 1 << 16)
            if not data:
                raise BenchError(f"{self.name} has ended; {self._last_words()}")
            self._buffer += data

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            lines = self.log.read_text(errors="replace").strip().splitlines()
            if lines:
                return f"the last line of its log: {lines[-1]}"
        return "its log is empty"


def die_with_parent() -> None:
    """Called first thing in a child: the kernel kills it when its parent is gone."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):  # the parent died before the line above
        os._exit(1)


def encode_answer(result: object) -> bytes:
    """An answer with a result, as the line that goes to the parent."""
    return msgspec.json.encode(Answer(result=msgspec.Raw(msgspec.json.encode(result)))) + b"\n"


def encode_failure(error: BaseException) -> bytes:
    """An answer with an error."""
    return msgspec.json.encode(Answer(error=f"{type(error).__name__}: {error}")) + b"\n"


def obey(handle: Callable[[Order], object]) -> None:
    """The main loop of a child without an event loop: orders in, answers out, until the end."""
    source: BinaryIO = sys.stdin.buffer
    for line in source:
        try:
            reply = encode_answer(handle(msgspec.json.decode(line, type=Order)))
        except Exception as error:
            reply = encode_failure(error)
        os.write(1, reply)
