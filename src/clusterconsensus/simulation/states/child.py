"""One fresh process that applies given changes and tells what came of them.

Started by ``processes`` as ``python -m clusterconsensus.simulation.states.child``: a ``Task`` as
JSON on the standard input, one ``Told`` as JSON a line on the standard output. What the state
machine prints goes to the standard error.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time

import msgspec

from clusterconsensus.simulation.states.findings import shown
from clusterconsensus.simulation.states.loading import load_state, load_workload
from clusterconsensus.simulation.states.messages import Task, Told, digest, digest_all
from clusterconsensus.simulation.states.running import draw, perform, place_in_log
from clusterconsensus.state import whole

MAX_SNAPSHOT_BYTES = 16 * 1024 * 1024
"""A larger last snapshot is told by its digest only."""


def _set_clock_ahead(seconds: int) -> None:
    """Let ``time.time`` and ``time_ns`` show another day. Before the user's modules are imported,
    so that it does not matter how they do it."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + seconds
    time.time_ns = lambda: now_ns() + seconds * 1_000_000_000


def main() -> None:
    """Do the task on the standard input."""
    told = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)

    def tell(line: Told) -> None:
        told.write(msgspec.json.encode(line) + b"\n")

    task = msgspec.json.decode(sys.stdin.buffer.read(), type=Task)
    if task.clock_ahead_seconds:
        _set_clock_ahead(task.clock_ahead_seconds)
    loaded = load_state(task.state)
    if task.workload:
        own = draw(load_workload(task.workload), loaded.codec, task.seed, len(task.changes))
        tell(Told("workload", 0, digest_all(own)))
    state = loaded.factory()
    steps = place_in_log(task.changes, task.seed)
    every = max(1, len(steps) // 10)
    for number, step in enumerate(steps, 1):
        answer = perform(state, loaded.codec, step)
        tell(Told("answer", number, digest(answer.outcome), answer.shown))
        if number % every == 0 or number == len(steps):
            snapshot: object = None
            with contextlib.suppress(Exception):  # check_snapshot tells of it
                snapshot = whole(state.snapshot())
            if isinstance(snapshot, bytes):
                fits = number == len(steps) and len(snapshot) <= MAX_SNAPSHOT_BYTES
                data = snapshot if fits else b""
                tell(Told("snapshot", number, digest(snapshot), shown(snapshot), data))
    told.close()


if __name__ == "__main__":
    main()
