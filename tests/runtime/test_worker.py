"""The thread for blocking calls: in order, off the loop, errors and all."""

from __future__ import annotations

import asyncio
import threading

import pytest

from clusterconsensus.runtime.worker import ThreadWorker, Worker, call
from tests.runtime.helpers import run


def test_calls_run_in_order_in_one_other_thread() -> None:
    async def main() -> None:
        worker: Worker = ThreadWorker("one")
        seen: list[tuple[int, str]] = []
        finished = asyncio.Event()
        loop_thread = threading.current_thread()

        def done(_: None, error: Exception | None) -> None:
            assert error is None
            assert threading.current_thread() is loop_thread
            finished.set()

        for number in range(200):
            worker.call(
                lambda number=number: seen.append(  # type: ignore[misc]  # bound early
                    (number, threading.current_thread().name)
                ),
                done if number == 199 else lambda result, error: None,
            )
        await finished.wait()
        assert seen == [(number, "one") for number in range(200)]
        await worker.aclose()

    run(main())


def test_results_and_errors_come_back() -> None:
    async def main() -> None:
        worker = ThreadWorker("two")
        assert await call(worker, lambda: 3) == 3
        with pytest.raises(ZeroDivisionError):
            await call(worker, lambda: 1 // 0)
        assert await call(worker, lambda: "after") == "after"
        await worker.aclose()

    run(main())


def test_closing_finishes_what_was_called_and_ends_the_thread() -> None:
    async def main() -> None:
        worker = ThreadWorker("three")
        gate = threading.Event()
        seen: list[int] = []
        worker.call(lambda: gate.wait(30), lambda result, error: None)
        worker.call(lambda: seen.append(1), lambda result, error: None)
        closing = asyncio.ensure_future(worker.aclose())
        await asyncio.sleep(0)
        assert not closing.done()
        gate.set()
        await closing
        assert seen == [1]
        assert "three" not in [thread.name for thread in threading.enumerate()]
        await worker.aclose()

    run(main())


def test_closing_what_was_never_used_starts_nothing() -> None:
    async def main() -> None:
        await ThreadWorker("four").aclose()
        assert "four" not in [thread.name for thread in threading.enumerate()]

    run(main())


def test_cancelling_the_wait_does_not_cancel_the_call() -> None:
    async def main() -> None:
        worker = ThreadWorker("five")
        gate = threading.Event()
        seen: list[int] = []

        def work() -> None:
            gate.wait(30)
            seen.append(1)

        waiting = asyncio.ensure_future(call(worker, work))
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        gate.set()
        await worker.aclose()
        assert seen == [1]

    run(main())


def test_a_loop_that_was_closed_meanwhile_harms_nothing() -> None:
    gate = threading.Event()

    async def main() -> threading.Thread | None:
        worker = ThreadWorker("six")
        worker.call(lambda: gate.wait(30), lambda result, error: None)
        worker._jobs.put(None)
        return worker._thread

    thread = asyncio.run(main())
    gate.set()
    assert thread is not None
    thread.join(30)
    assert not thread.is_alive()
