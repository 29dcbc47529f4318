"""What a participant needs from the machine besides its transport, in one place.

Production uses the defaults; a simulator brings its own files, worker, clock and chance, and runs
the very same participant on them.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from clusterconsensus.consensus.replica import Replica
from clusterconsensus.runtime.worker import ThreadWorker, Worker
from clusterconsensus.storage.files import Files, RealFiles


@dataclass(frozen=True)
class Environment:
    """The ports of a participant.

    Arguments:
        files: The file system.
        make_worker: Makes a named worker for blocking calls, in the running loop.
        wall_seconds: The wall clock, in seconds since the Unix epoch; used for replicated time
            only, never to measure.
        chance: The one source of randomness: election timers, disk ids, cluster ids.
        watch: Is given the core of each participant that starts, before its first step. For
            simulators, which compare the members with each other; production watches nothing.
    """

    files: Files = field(default_factory=RealFiles)
    make_worker: Callable[[str], Worker] = ThreadWorker
    wall_seconds: Callable[[], float] = time.time
    chance: random.Random = field(default_factory=random.Random)
    watch: Callable[[Replica], None] | None = None

    def new_id(self) -> str:
        """A fresh identifier of 32 hexadecimal digits."""
        return f"{self.chance.getrandbits(128):032x}"
