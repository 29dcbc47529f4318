"""Where every process of the demonstration begins, and how it ends if its parent is gone.

A child must never outlive the supervisor, not even when that is killed by SIGKILL and can tidy up
nothing. Two things see to it. The child's standard input is a pipe that only the supervisor holds
open: when it closes, whatever the reason, the child ends. And on Linux the kernel is asked to kill
the child when its parent dies, which also ends one that SIGSTOP has frozen and that therefore reads
nothing.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading

import msgspec

PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


class MemberOrder(msgspec.Struct, frozen=True, kw_only=True, tag="member"):
    """Be a member."""

    id: str
    address: str
    port: int
    """Where writers and the supervisor connect, on loopback."""
    directory: str
    unsafe_acknowledge_early: bool


class WriterOrder(msgspec.Struct, frozen=True, kw_only=True, tag="writer"):
    """Be a writer."""

    name: str
    lanes: int
    seed: int
    ports: list[int]
    journal: str


def end_with_parent(parent: int) -> None:
    """Make sure that this process ends when its parent does.

    Arguments:
        parent: The process id of the supervisor.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the kernel knew of our wish
            os._exit(1)
    threading.Thread(target=_await_parents_end, name="parent-watch", daemon=True).start()


def _await_parents_end() -> None:
    while os.read(sys.stdin.fileno(), 1024):
        pass
    os._exit(1)


def main(parent: int, order_line: str) -> None:
    """Run as a child: be what the order says, until told otherwise."""
    end_with_parent(parent)
    # Imported late, so that the watch above covers the time that imports take.
    from clusterconsensus.cli.demo import member, writer

    order = msgspec.json.decode(order_line, type=MemberOrder | WriterOrder)
    if isinstance(order, MemberOrder):
        member.run(order)
    else:
        writer.run(order)
