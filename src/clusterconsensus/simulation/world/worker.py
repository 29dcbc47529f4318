"""The worker of a simulated machine: blocking calls that take virtual time and no thread.

A call is begun, takes as long as the machine's disk takes, and has its effects at its end, all at
once. That is indistinguishable from a call that works all the time, as long as nobody looks; and
whoever looks is a crash. So a crash in the middle runs the call as far as a random file operation
and lets it die there: what it wrote until then is unsynced, and the disk decides what is left of
it.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar

from clusterconsensus.simulation.world.disk import PowerFailure
from clusterconsensus.simulation.world.loop import Handle, SimulatedLoop

ResultT = TypeVar("ResultT")

Job = tuple[Callable[[], Any], Callable[[Any, Exception | None], None]]


class SimulatedWorker:
    """Runs blocking calls one after another, each after a while of virtual time.

    Arguments:
        loop: The machine's; what is done is told there.
        take_seconds: Draws how long the next call takes; infinity for one that hangs.
        died: Is told that a call met a power failure.
    """

    def __init__(
        self, loop: SimulatedLoop, take_seconds: Callable[[], float], died: Callable[[], None]
    ) -> None:
        self._loop = loop
        self._take_seconds = take_seconds
        self._died = died
        self._jobs: deque[Job] = deque()
        self._timer: Handle | None = None
        self._hangs = False

    def call(
        self,
        function: Callable[[], ResultT],
        done: Callable[[ResultT | None, Exception | None], None],
    ) -> None:
        self._jobs.append((function, done))
        if len(self._jobs) == 1:
            self._begin()

    def _begin(self) -> None:
        seconds = self._take_seconds()
        self._hangs = seconds == float("inf")
        if not self._hangs:
            world = self._loop.world
            self._timer = world.call_at(world.now + seconds, self._finish)

    def go_on(self) -> None:
        """A disk that hung works again."""
        if self._hangs and self._jobs and not self._loop.dead:
            self._hangs = False
            self._begin()

    def hurry(self) -> None:
        """The disk is quick again: what is under way takes as long as if it began now."""
        if self._timer is not None and self._jobs and not self._hangs and not self._loop.dead:
            self._timer.cancel()
            self._begin()

    def _finish(self) -> None:
        if self._loop.dead:
            return
        function, done = self._jobs[0]
        result, trouble = None, None
        try:
            result = function()
        except PowerFailure:
            self._jobs.clear()
            self._died()
            return
        except Exception as error:
            trouble = error
        self._jobs.popleft()
        self._loop.call_soon(done, result, trouble)
        if self._jobs:
            self._begin()

    def break_off(self) -> None:
        """The process dies: run the call that is under way until the disk refuses it."""
        if self._timer is not None:
            self._timer.cancel()
        if self._jobs and not self._hangs:
            with contextlib.suppress(PowerFailure, Exception):
                self._jobs[0][0]()
        self._jobs.clear()

    async def aclose(self) -> None:
        ended = self._loop.create_future()
        self.call(lambda: None, lambda result, error: ended.set_result(None))
        await ended
