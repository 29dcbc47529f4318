"""What a participant needs from the machine besides its transport, in one place.

Production uses the defaults; a simulator brings its own files, worker, clock and chance, and runs
the very same participant on them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from clusterconsensus.consensus.replica import Replica
from clusterconsensus.runtime.worker import ThreadWorker, Worker
from clusterconsensus.storage.files import Files, RealFiles

boot_seconds: Callable[[], float] = partial(
    time.clock_gettime, getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
)
"""A clock that only goes forward, and goes on while the machine is suspended: leases depend on that
(L2). Where the system has none such, the ordinary monotonic clock."""


@dataclass(frozen=True)
class Environment:
    """The ports of a participant.

    Arguments:
        files: The file system.
        make_worker: Makes a named worker for blocking calls, in the running loop.
        clock: A monotonic clock in seconds, with which everything is measured: elections, leases,
            time-outs.
        wall_seconds: The wall clock, in seconds since the Unix epoch; used for replicated time
            only, never to measure.
        chance: The one source of randomness: election timers, disk ids, cluster ids.
        watch: Is given the core of each participant that starts, before its first step. For
            simulators, which compare the members with each other; production watches nothing.
        pause: Keeps a worker's thread waiting for some seconds, so that the event loop has the
            interpreter meanwhile.
    """

    files: Files = field(default_factory=RealFiles)
    make_worker: Callable[[str], Worker] = ThreadWorker
    clock: Callable[[], float] = boot_seconds
    wall_seconds: Callable[[], float] = time.time
    chance: random.Random = field(default_factory=random.Random)
    watch: Callable[[Replica], None] | None = None
    pause: Callable[[float], None] = time.sleep

    def new_id(self) -> str:
        """A fresh identifier of 32 hexadecimal digits."""
        return f"{self.chance.getrandbits(128):032x}"
