"""Processes that run seeds, and the one that hands them out.

Each worker is a fresh interpreter that gets one seed at a time on its standard input and answers
with one line of JSON. So it is known at any moment which seed a worker is at: when it dies, by a
signal, for want of memory or because a user's state ends the process, that seed has failed with a
crash, and another worker takes the next one. A worker that is silent for too long is treated alike.

Workers end with whoever started them: they notice when their standard input is closed.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from types import TracebackType

import msgspec

from clusterconsensus.simulation.running.runner import Options, lost, run_seed
from clusterconsensus.simulation.running.seeds import Result

MAX_SEED_SECONDS = 300.0
"""Real seconds after which a seed is taken to run for ever. Usual ones take about one."""

KEPT_BYTES = 4096
"""How much of a worker's last words is kept."""

AHEAD = 4
"""How many seeds per worker may be done while an earlier one is still at work."""

PROGRAM = "from clusterconsensus.simulation.running.crew import serve; serve()"


class Worker:
    """One process, as seen by who started it."""

    def __init__(self, options: Options) -> None:
        here = os.getcwd()
        path = os.pathsep.join(entry or here for entry in sys.path)
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.orders, self.answers = self.process.stdin, self.process.stdout
        self.complaints = self.process.stderr
        self.place: int | None = None
        self.seed = 0
        self.since = time.monotonic()
        self.ends = ""
        self._heard = b""
        self._words = b""
        self._write(msgspec.json.encode(options))

    def give(self, place: int, seed: int) -> None:
        """Let it run a seed, the one at this place of all."""
        self.place, self.seed, self.since = place, seed, time.monotonic()
        self._write(str(seed).encode())

    def _write(self, line: bytes) -> None:
        with contextlib.suppress(BrokenPipeError):  # it is dead: that will be read in a moment
            self.orders.write(line + b"\n")

    def hear(self) -> Result | None:
        """Read what it says.

        Raises:
            EOFError: it has ended.
        """
        data = os.read(self.answers.fileno(), 1 << 16)
        if not data:
            raise EOFError
        self._heard += data
        line, end, rest = self._heard.partition(b"\n")
        if not end:
            return None
        self._heard = rest
        return msgspec.json.decode(line, type=Result)

    def complain(self) -> bool:
        """Keep the end of what it writes to its standard error; False at the end of it."""
        data = os.read(self.complaints.fileno(), 1 << 16)
        self._words = (self._words + data)[-KEPT_BYTES:]
        return bool(data)

    def how_it_ended(self) -> str:
        """What became of it, for people; after ``end``."""
        os.set_blocking(self.complaints.fileno(), False)  # children of its own may hold the pipe
        with contextlib.suppress(BlockingIOError):
            while self.complain():
                pass
        code = self.process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        last = self._words.decode("utf-8", "replace").strip().splitlines()[-2:]
        words = f"; its last words: {' | '.join(last)}" if last else ""
        return f"the process that ran it {self.ends or how}{words}"

    def end(self) -> None:
        """End it, if it has not ended by itself."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Give back its pipes; after ``end``."""
        for pipe in (self.orders, self.answers, self.complaints):
            pipe.close()


class Crew:
    """Several workers. Leaving its context ends them all.

    Arguments:
        options: For all seeds.
        jobs: How many workers.
    """

    def __init__(self, options: Options, jobs: int) -> None:
        self.options = options
        self.jobs = jobs
        self._workers: list[Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for worker in self._workers:
            worker.end()
            worker.close()
        self._selector.close()

    def run(self, numbers: Iterable[int], take: Callable[[Result], bool]) -> None:
        """Run seeds until there are no more or ``take`` wants no more.

        Arguments:
            numbers: The seeds.
            take: Gets the results in the order of the seeds; False ends the run.
        """
        waiting = enumerate(numbers)
        given = taken = 0
        done: dict[int, Result] = {}
        more = True
        while True:
            while more and given - taken < self.jobs * AHEAD:
                worker = self._idle()
                if worker is None:
                    break
                place, seed = next(waiting, (None, 0))
                if place is None:
                    more = False
                    break
                worker.give(place, seed)
                given += 1
            if given == taken:
                return
            for place, result in self._listen():
                done[place] = result
            while taken in done:
                taken += 1
                if not take(done.pop(taken - 1)):
                    return

    def _idle(self) -> Worker | None:
        for worker in self._workers:
            if worker.place is None:
                return worker
        if len(self._workers) == self.jobs:
            return None
        worker = Worker(self.options)
        self._workers.append(worker)
        self._selector.register(worker.answers, selectors.EVENT_READ, worker)
        self._selector.register(worker.complaints, selectors.EVENT_READ, worker)
        return worker

    def _listen(self) -> Iterator[tuple[int, Result]]:
        """Wait until somebody says something, and a second at most."""
        for key, _ in self._selector.select(1.0):
            worker: Worker = key.data
            if worker not in self._workers:
                continue  # buried a moment ago
            if key.fileobj is worker.complaints:
                if not worker.complain():
                    self._selector.unregister(worker.complaints)
                continue
            try:
                result = worker.hear()
            except EOFError:
                yield from self._bury(worker)
            else:
                if result is not None and worker.place is not None:
                    place, worker.place = worker.place, None
                    yield place, result
        now = time.monotonic()
        for worker in [each for each in self._workers if each.place is not None]:
            if now - worker.since > MAX_SEED_SECONDS:
                worker.ends = f"had not ended after {MAX_SEED_SECONDS:g} s"
                yield from self._bury(worker)

    def _bury(self, worker: Worker) -> Iterator[tuple[int, Result]]:
        self._workers.remove(worker)
        for pipe in (worker.answers, worker.complaints):
            if pipe in self._selector.get_map():
                self._selector.unregister(pipe)
        worker.end()
        text = worker.how_it_ended()
        worker.close()
        if worker.place is not None:
            yield worker.place, lost(self.options.plan(worker.seed), DIED, text)


DIED = "process"
"""The rule of a violation whose run took its process with it."""


# -- in the worker


def serve() -> None:
    """Run the seeds that come in on the standard input until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started us ends us
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what a user's state prints is no answer
    options = msgspec.json.decode(sys.stdin.buffer.readline(), type=Options)
    orders: queue.SimpleQueue[int] = queue.SimpleQueue()
    threading.Thread(target=_hear_orders, args=(orders,), daemon=True).start()
    while True:
        result = run_seed(orders.get(), options)
        answers.write(msgspec.json.encode(result) + b"\n")
        answers.flush()


def _hear_orders(orders: queue.SimpleQueue[int]) -> None:
    """In a thread of its own, so that the end of the input is noticed in the middle of a seed."""
    for line in sys.stdin.buffer:
        orders.put(int(line))
    os._exit(0)
