"""Sentinels: who notices that a state machine asks the world instead of its changes (K6).

A clock, a random number, a file: none of them gives the same answer on every member. Patching
``time.time`` would miss ``from time import time`` and cannot reach ``datetime.now``, which is
written in C. So this module listens to the interpreter instead: ``sys.setprofile`` tells of every
call into C, with the very function that is called, however its name was imported.

What the listener cannot see: calls that C code makes by itself, such as ``map(time.time, ...)`` or
a ``default_factory`` of msgspec; and iteration over sets. Those are found by comparing processes
(``states``). What it does not mind: imports, logging and warnings, whose files and clocks never
come back into the state; a ``random.Random`` that was given a seed; ``time.gmtime`` and
``strftime``, which read the clock only when they are given no time.

It is slow, many times slower than the code it listens to, and meant for tests.
"""

from __future__ import annotations

import _socket
import datetime
import gc
import io
import os
import random
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from types import FrameType
from typing import Any, ParamSpec, TypeVar

import msgspec

from clusterconsensus.state import Context, Readable, State

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class Forbidden(StrEnum):
    """What a state machine must not ask."""

    CLOCK = "a clock"
    CHANCE = "a source of random numbers"
    OUTSIDE = "the world outside the process"
    WAITING = "a wait"


ADVICE = {
    Forbidden.CLOCK: "Use context.time, the replicated clock, or put the time into the change; and "
    "name a time zone wherever one is involved: each member has its own.",
    Forbidden.CHANCE: "Draw before submitting and put what was drawn into the change, or derive it "
    "from context.sequence and context.index, which no two changes share.",
    Forbidden.OUTSIDE: "Ask before submitting and put the answer into the change. What is to be "
    "done outside is done by whoever reads the result, or on_commit.",
    Forbidden.WAITING: "Do not wait: apply runs in the event loop, and nothing else does while it "
    "runs.",
}


class ForbiddenCall(msgspec.Struct, frozen=True):
    """One call that a state machine must not make.

    Attributes:
        kind: What was asked.
        called: The function as the author knows it: ``time.time``, ``uuid.uuid4``.
        where: ``file:line`` of the author's code that called it.
        method: Which method of the state was running.
    """

    kind: Forbidden
    called: str
    where: str
    method: str

    def __str__(self) -> str:
        return f"{self.method} calls {self.called}, {self.kind}, at {self.where}"


class ForbiddenCallError(BaseException):
    """A watched state machine asked the world; ``call`` says what and where.

    Not an ``Exception``: it is no answer of ``apply``, and nobody who catches those may take it for
    one. It is raised after the method has ended, so no handler inside the method can swallow it.
    """

    def __init__(self, call: ForbiddenCall) -> None:
        super().__init__(f"{call}. {ADVICE[call.kind]}")
        self.call = call


class Watch:
    """Listens while functions run, and remembers what they should not have called.

    Attributes:
        calls: Each forbidden call once per place, in the order of their first time.
        hints: Where ``hash()`` and ``id()`` were called by the author's own code: legal, and the
            usual suspects when processes differ.
    """

    def __init__(self) -> None:
        self.calls: list[ForbiddenCall] = []
        self.hints: dict[str, str] = {}
        self._known: set[tuple[str, str]] = set()
        self._method = ""

    def run(
        self,
        function: Callable[Arguments, Result],
        *arguments: Arguments.args,
        **named: Arguments.kwargs,
    ) -> Result:
        """Call ``function`` and listen until it ends, however it ends.

        The cyclic collector does not run meanwhile: what its callbacks and finalizers call, a clock
        perhaps, is not what the state machine calls.
        """
        before = sys.getprofile()
        collects = gc.isenabled()
        self._method = getattr(function, "__name__", "apply")
        gc.disable()
        sys.setprofile(self._hear)
        try:
            return function(*arguments, **named)
        finally:
            sys.setprofile(before)
            if collects:
                gc.enable()

    def _hear(self, frame: FrameType, event: str, called: Any) -> None:
        if event == "c_call":
            kind = _judge(called)
            if kind is not None:
                self._note(kind, frame, _name_of(called), getattr(called, "__self__", None))
            elif called is _ID or called is _HASH:
                self._note_hint(frame, called.__name__)
        elif event == "call" and frame.f_code.co_name in _PYTHON_NAMES:
            if frame.f_code in _ENVIRONMENT:
                self._note(Forbidden.OUTSIDE, frame, "os.environ", os.environ)
            elif frame.f_code is _SEED and frame.f_locals.get("a") is None:
                self._note(Forbidden.CHANCE, frame, "random.Random() without a seed", None)

    def _note_hint(self, frame: FrameType, name: str) -> None:
        if name not in self.hints and _distance(frame.f_code.co_filename) == 0:
            self.hints[name] = _place(frame)

    def _note(self, kind: Forbidden, frame: FrameType, called: str, owner: object) -> None:
        frames: list[FrameType] = []
        walker: FrameType | None = frame
        while walker is not None and walker.f_code is not _RUN:
            if _is_tolerated(walker.f_code.co_filename):
                return
            frames.append(walker)
            walker = walker.f_back
        if not frames:
            return
        # The author's nearest frame; in a library of somebody else where there is none.
        chosen = min(
            range(len(frames)), key=lambda place: _distance(frames[place].f_code.co_filename)
        )
        for inner in reversed(frames[:chosen]):
            if not inner.f_code.co_filename.startswith("<string"):
                called = _public_name(inner, called, owner)
                break
        call = ForbiddenCall(kind, called, _place(frames[chosen]), self._method)
        if (call.called, call.where) not in self._known:
            self._known.add((call.called, call.where))
            self.calls.append(call)


_RUN = Watch.run.__code__


class _Watched:
    """A state whose forbidden calls raise; everything but its three methods is handed through."""

    def __init__(self, state: State) -> None:
        self._state = state

    def apply(self, change: Any, context: Context) -> Any:
        return self._listen(self._state.apply, change, context)

    def snapshot(self) -> bytes | Iterable[bytes]:
        taken = self._listen(self._state.snapshot)
        return taken if isinstance(taken, bytes) else self._pieces(taken)

    def _pieces(self, taken: Iterable[bytes]) -> Iterator[bytes]:
        """Listen while each piece is made, as late as it is wanted."""
        pieces = iter(taken)

        def snapshot() -> bytes | None:
            return next(pieces, None)

        while (piece := self._listen(snapshot)) is not None:
            yield piece

    def install(self, snapshot: Readable) -> None:
        self._listen(self._state.install, snapshot)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._state, name)

    @staticmethod
    def _listen(
        function: Callable[Arguments, Result], *arguments: Arguments.args, **named: Arguments.kwargs
    ) -> Result:
        watch = Watch()
        try:
            result = watch.run(function, *arguments, **named)
        except Exception as error:
            if watch.calls:
                raise ForbiddenCallError(watch.calls[0]) from error
            raise
        if watch.calls:
            raise ForbiddenCallError(watch.calls[0])
        return result


def watched(state: State) -> State:
    """A state that does what ``state`` does and raises where it asks the world.

    Attributes are handed through, so that queries may read them; operators (``len(state)``,
    ``state[key]``) are not.

    Raises (the methods of what is returned):
        ForbiddenCallError: the method has called a clock, a random source, a file, ...; the change
            is applied all the same, and the state is not to be used any more.
    """
    return _Watched(state)


# -- what is forbidden

_ID, _HASH = id, hash

_PURE_CLOCK_CALLS = frozenset({"gmtime", "strftime", "strptime", "asctime", "struct_time"})
_PURE_SYSTEM_CALLS = frozenset({"fspath", "strerror"})
_CHANCE_CALLS = frozenset({"urandom", "getrandom"})
_PURE_SOCKET_CALLS = frozenset(
    {"htonl", "htons", "ntohl", "ntohs", "inet_aton", "inet_ntoa", "inet_ntop", "inet_pton"}
)
_OUTSIDE_MODULES = frozenset(
    {"_posixsubprocess", "_sqlite3", "sqlite3", "_ssl", "select", "fcntl", "mmap", "_winapi"}
)
_FILE_METHODS = frozenset(
    {"read", "read1", "readall", "readinto", "readline", "readlines", "write", "writelines"}
)
_FILES = (io.FileIO, io.BufferedReader, io.BufferedWriter, io.BufferedRandom, io.TextIOWrapper)

# The instance behind random.random() and its like. A private name, but one that all versions share,
# and the only one that tells it from a Random of the state's own.
_SHARED_RANDOM = random.random.__self__  # type: ignore[attr-defined]  # a bound method in C

_SEED = random.Random.seed.__code__
_ENVIRONMENT = tuple(
    getattr(type(os.environ), name).__code__
    for name in ("__getitem__", "__setitem__", "__delitem__", "__iter__")
)
_PYTHON_NAMES = frozenset({"seed", "__getitem__", "__setitem__", "__delitem__", "__iter__"})


def _judge(called: Any) -> Forbidden | None:
    """Whether a function written in C is forbidden, by its module and name or by its owner."""
    module = getattr(called, "__module__", None)
    name = called.__name__
    if module is None:
        return _judge_method(called.__self__, name)
    if module == "time":
        if name == "sleep":
            return Forbidden.WAITING
        return None if name in _PURE_CLOCK_CALLS else Forbidden.CLOCK
    if module in ("posix", "nt"):
        if name in _CHANCE_CALLS:
            return Forbidden.CHANCE
        if name in _PURE_SYSTEM_CALLS or name[0] == "_" or name[0].isupper():
            return None
        return Forbidden.OUTSIDE
    if module in ("io", "_io"):
        return Forbidden.OUTSIDE if name in ("open", "open_code") else None
    if module == "_uuid":
        return Forbidden.CHANCE
    if module in ("_socket", "socket"):
        return None if name in _PURE_SOCKET_CALLS or name.startswith("CMSG") else Forbidden.OUTSIDE
    if module == "_thread" and name.startswith("start_"):
        return Forbidden.OUTSIDE
    return Forbidden.OUTSIDE if module in _OUTSIDE_MODULES else None


def _judge_method(owner: Any, name: str) -> Forbidden | None:
    if name in ("now", "utcnow", "today"):
        if isinstance(owner, type) and issubclass(owner, datetime.date):
            return Forbidden.CLOCK
        return None
    if owner is _SHARED_RANDOM:
        return Forbidden.CHANCE
    if isinstance(owner, _FILES):
        is_read_or_written = name in _FILE_METHODS and _is_real_file(owner)
        return Forbidden.OUTSIDE if is_read_or_written else None
    return Forbidden.OUTSIDE if isinstance(owner, _socket.socket) else None


def _is_real_file(stream: Any) -> bool:
    """Whether a stream is more than memory, and not what ``print`` writes to."""
    if stream in (sys.stdout, sys.stderr):
        return False
    try:
        return bool(stream.fileno() > 2)
    except (OSError, ValueError):
        return False


# -- names and places

_TOLERATED_MODULES = ("warnings.py", "traceback.py", "linecache.py", "_strptime.py")
_STANDARD_LIBRARY = tuple(sysconfig.get_path(which) + os.sep for which in ("stdlib", "platstdlib"))
_TOLERATED = tuple(
    root + name
    for root in _STANDARD_LIBRARY
    for name in (*_TOLERATED_MODULES, "logging" + os.sep, "importlib" + os.sep)
)


def _is_tolerated(filename: str) -> bool:
    return filename.startswith(("<frozen importlib", *_TOLERATED))


def _distance(filename: str) -> int:
    """How far a file is from the author: 0 his own, 1 somebody's library, 2 Python's own."""
    if filename.startswith("<"):
        return 2
    if "site-packages" in filename or "dist-packages" in filename:
        return 1
    return 2 if filename.startswith(_STANDARD_LIBRARY) else 0


def _place(frame: FrameType) -> str:
    return place(frame.f_code.co_filename, frame.f_lineno)


def place(filename: str, line: int) -> str:
    """``file:line``, relative to the current directory where the file is below it."""
    here = os.getcwd() + os.sep
    return f"{filename.removeprefix(here)}:{line}"


def _name_of(called: Any) -> str:
    module = getattr(called, "__module__", None)
    if module is not None:
        short = {"posix": "os", "nt": "os", "_socket": "socket"}.get(module, module)
        return str(called.__name__) if short in ("io", "_io") else f"{short}.{called.__name__}"
    owner = called.__self__
    if owner is _SHARED_RANDOM:
        return f"random.{called.__name__}"
    if isinstance(owner, type):
        return f"{owner.__module__}.{owner.__qualname__}.{called.__name__}"
    return str(called.__qualname__)


def _public_name(frame: FrameType, called: str, owner: object) -> str:
    """The library function that the author called and that called ``called`` in turn."""
    name = f"{frame.f_globals.get('__name__', '')}.{frame.f_code.co_qualname}"
    if owner is os.environ and frame.f_locals.get("self") is owner:
        return "os.environ"
    if name.startswith("random.Random."):
        if owner is _SHARED_RANDOM or frame.f_locals.get("self") is _SHARED_RANDOM:
            return name.replace("random.Random.", "random.")
        if name.endswith((".__init__", ".seed")):
            return "random.Random() without a seed"
    return name.removesuffix(".__init__")
