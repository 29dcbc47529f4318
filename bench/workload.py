"""The load that both systems get: values of 100 bytes, written over 10,000 keys.

``bench.level`` asks its children for larger values by the environment.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import Awaitable, Callable, Sequence

import msgspec

KEYS = 10_000
VALUE_BYTES_VARIABLE = "BENCH_VALUE_BYTES"
VALUE_BYTES = int(os.environ.get(VALUE_BYTES_VARIABLE, "100"))
VALUE = (bytes(range(256)) * (VALUE_BYTES // 256 + 1))[-VALUE_BYTES:]
KEY_NAMES = [f"key-{number:05d}" for number in range(KEYS)]
STRIDE = 7_919
"""Prime to KEYS: a walk in such strides visits every key, none twice before the others."""


def key_of(number: int) -> str:
    """The key that the operation with this number writes."""
    return KEY_NAMES[number * STRIDE % KEYS]


def percentile(ordered: Sequence[float], share: float) -> float:
    """The value below which ``share`` of the sorted values lie (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


class Load(msgspec.Struct):
    """What came of a closed loop: a fixed number of operations under way at any time."""

    operations: int
    failures: int
    per_second: float
    median_ms: float
    p99_ms: float
    first_error: str = ""

    @staticmethod
    def of(
        latencies: list[float], elapsed_seconds: float, failures: int = 0, first_error: str = ""
    ) -> Load:
        """Sum up a run from the seconds that each operation took."""
        if not latencies:
            return Load(0, failures, 0.0, 0.0, 0.0, first_error or "no operation ended")
        latencies.sort()
        return Load(
            operations=len(latencies),
            failures=failures,
            per_second=len(latencies) / elapsed_seconds,
            median_ms=percentile(latencies, 0.5) * 1e3,
            p99_ms=percentile(latencies, 0.99) * 1e3,
            first_error=first_error,
        )


async def closed_loop(
    operation: Callable[[int], Awaitable[object]],
    *,
    outstanding: int,
    seconds: float = float("inf"),
    count: int | None = None,
) -> Load:
    """Keep ``outstanding`` operations under way for some seconds, or until ``count`` are begun."""
    latencies: list[float] = []
    numbers = itertools.count() if count is None else iter(range(count))
    failures = 0
    first_error = ""
    begin = time.perf_counter()
    deadline = begin + seconds

    async def worker() -> None:
        nonlocal failures, first_error
        for number in numbers:
            started = time.perf_counter()
            if started >= deadline:
                return
            try:
                await operation(number)
            except Exception as error:
                failures += 1
                first_error = first_error or f"{type(error).__name__}: {error}"
                await asyncio.sleep(0.001)
            else:
                latencies.append(time.perf_counter() - started)

    await asyncio.gather(*(worker() for _ in range(outstanding)))
    return Load.of(latencies, time.perf_counter() - begin, failures, first_error)
