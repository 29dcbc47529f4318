"""The guard: refuses what would leave a simulation, by the name of what was wanted.

It looks at one thread only, and only while a world runs in it; every other thread, and this one
afterwards, has the real world as ever.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn


class RealWorldError(RuntimeError):
    """Something in a simulation reached for the real world; the message names what."""


_simulating = False
_thread = 0
_guarded = False

_FORBIDDEN = {
    "_thread.start_new_thread": "a thread",
    "_thread.start_joinable_thread": "a thread",
    "socket.__new__": "a socket",
    "socket.getaddrinfo": "the resolver",
    "socket.gethostbyname": "the resolver",
    "subprocess.Popen": "a process",
    "os.fork": "a process",
    "os.forkpty": "a process",
    "os.posix_spawn": "a process",
    "os.system": "a process",
    "time.sleep": "a real sleep",
}


def _in_simulation() -> bool:
    return _simulating and threading.get_ident() == _thread


def _guard(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: does nothing unless a world runs in this very thread."""
    if event in _FORBIDDEN and _in_simulation():
        _refuse(event, _FORBIDDEN[event])


def _refuse(what: str, wanted: str) -> NoReturn:
    raise RealWorldError(
        f"{what}: a simulated machine asked for {wanted}; it has only the ports that its "
        "participant was given"
    )


@contextmanager
def simulated() -> Iterator[None]:
    """Mark this thread as simulating, and refuse what would leave the simulation.

    Audit hooks see sockets and processes. Real sleeps and threads, of which not every version of
    Python tells its hooks, are refused by stand-ins; other threads go on using the real ones.
    """
    global _simulating, _thread, _guarded
    if _simulating:
        raise RealWorldError("a world is run inside another one")
    if not _guarded:
        sys.addaudithook(_guard)
        _guarded = True
    real_sleep, real_start = time.sleep, threading.Thread.start

    def sleep(seconds: Any) -> None:
        if _in_simulation():
            _refuse("time.sleep", "a real sleep")
        real_sleep(seconds)

    def start(self: threading.Thread) -> None:
        if _in_simulation():
            _refuse("threading.Thread.start", "a thread")
        real_start(self)

    _simulating, _thread = True, threading.get_ident()
    time.sleep = sleep
    threading.Thread.start = start  # type: ignore[method-assign]  # put back below
    try:
        yield
    finally:
        time.sleep = real_sleep
        threading.Thread.start = real_start  # type: ignore[method-assign]  # as it was
        _simulating = False
