"""The port for blocking calls: one thread in production, none in a simulator."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Protocol, TypeVar

ResultT = TypeVar("ResultT")


class Worker(Protocol):
    """Runs blocking calls one after another, in order, off the event loop."""

    def call(
        self,
        function: Callable[[], ResultT],
        done: Callable[[ResultT | None, Exception | None], None],
    ) -> None:
        """Run ``function`` and then, in the event loop, ``done`` with its result or its error."""
        ...

    async def aclose(self) -> None:
        """Finish what was called and stop."""
        ...


class ThreadWorker:
    """A worker with one thread, started by its first call.

    Arguments:
        name: The thread's name.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    def call(
        self,
        function: Callable[[], ResultT],
        done: Callable[[ResultT | None, Exception | None], None],
    ) -> None:
        loop = self._loop

        def job() -> None:
            try:
                result = function()
            except Exception as error:
                outcome: tuple[ResultT | None, Exception | None] = (None, error)
            else:
                outcome = (result, None)
            try:
                loop.call_soon_threadsafe(done, *outcome)
            except RuntimeError:
                # The loop was closed under a running participant: nobody is left to tell.
                return

        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()

    async def aclose(self) -> None:
        thread, self._thread = self._thread, None
        if thread is None:
            return
        ended = self._loop.create_future()

        def last() -> None:
            self._loop.call_soon_threadsafe(ended.set_result, None)

        self._jobs.put(last)
        self._jobs.put(None)
        await asyncio.shield(ended)
        thread.join()


async def call(worker: Worker, function: Callable[[], ResultT]) -> ResultT:
    """Await a blocking call on a worker.

    **Cancellation** stops the waiting, not the call.
    """
    future: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()

    def done(result: ResultT | None, error: Exception | None) -> None:
        if future.done():
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]  # None only where ResultT is None

    worker.call(function, done)
    return await future
