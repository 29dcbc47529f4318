"""One member of a PySyncObj cluster, as a child process.

The load runs inside PySyncObj's own thread: the callback of one command submits the next. That is
the quickest way in that its interface offers, with no other thread to hand anything to.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
import time

import msgspec
import pysyncobj

from bench.processes import Order, die_with_parent, obey
from bench.theirs import Status
from bench.workload import VALUE, Load, key_of


class Store(pysyncobj.SyncObj):  # type: ignore[misc]  # it carries no types
    """A replicated dict."""

    def __init__(self, own: str, others: list[str], conf: pysyncobj.SyncObjConf) -> None:
        super().__init__(own, others, conf)
        self.items: dict[str, bytes] = {}

    @pysyncobj.replicated  # type: ignore[untyped-decorator]  # it carries no types
    def put(self, key: str, value: bytes) -> None:
        self.items[key] = value


def closed_loop(
    store: Store, *, outstanding: int, seconds: float = float("inf"), count: int | None = None
) -> Load:
    """Keep ``outstanding`` commands under way for some seconds, or until ``count`` are begun."""
    numbers = itertools.count() if count is None else iter(range(count))
    latencies: list[float] = []
    failures = 0
    active = outstanding
    done = threading.Event()
    begin = time.perf_counter()
    deadline = begin + seconds

    def begin_next() -> bool:
        number = next(numbers, None)
        started = time.perf_counter()
        if number is None or started >= deadline:
            return False
        store.put(
            key_of(number), VALUE, callback=lambda result, error: on_done(started, result, error)
        )
        return True

    def on_done(started: float, result: object, error: int) -> None:
        nonlocal failures, active
        if error == pysyncobj.FAIL_REASON.SUCCESS:
            latencies.append(time.perf_counter() - started)
        else:
            failures += 1
        if not begin_next():
            active -= 1
            if not active:
                done.set()

    for _ in range(outstanding):
        begin_next()
    if not done.wait(30 if count is not None else seconds + 15):
        raise TimeoutError(f"{active} of {outstanding} commands were never answered")
    return Load.of(latencies, time.perf_counter() - begin, failures)


def main() -> None:
    """``theirs_child PARENT SETTINGS PREFIX OWN_ADDRESS OTHER_ADDRESS...``"""
    die_with_parent()
    settings, prefix, own, *others = sys.argv[2:]
    conf = pysyncobj.SyncObjConf(
        journalFile=f"{prefix}.journal",
        fullDumpFile=f"{prefix}.dump",
        **msgspec.json.decode(settings, type=dict[str, bool | int | float]),
    )
    store = Store(own, others, conf)

    def handle(order: Order) -> object:
        match order.do:
            case "status":
                return Status(store.isReady(), store._isLeader(), store.raftLastApplied)
            case "submit":
                return closed_loop(store, outstanding=order.outstanding, seconds=order.seconds)
            case "fill":
                return closed_loop(store, outstanding=order.outstanding, count=order.count)
            case _:
                raise ValueError(order.do)

    obey(handle)
    os._exit(0)  # its thread has nothing to write that the benchmark needs


if __name__ == "__main__":
    main()
