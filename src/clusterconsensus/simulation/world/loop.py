"""Virtual time: one ``World``, and an asyncio event loop for each simulated machine.

A ``World`` keeps one clock, one queue of what is to be run now and one heap of what is to be run
later. Nothing else runs: no thread, no socket, no real clock. When nothing is left to do now, time
jumps to the next thing in the heap, so two minutes of a quiet cluster take as long as their events
take. What happens depends on the world's seed alone, and not on the machine, on ``PYTHONHASHSEED``
or on how fast anything is.

Each machine has a ``SimulatedLoop`` of its own: coroutines written for asyncio run on it unchanged.
Because the loop is the machine's, the machine can be *paused* (its callbacks wait while its clock
runs, as under ``SIGSTOP``), *frozen* (its clock stands too, as in a suspended virtual machine), and
*killed* (its callbacks are gone, and its tasks with it), and its clock can go wrong.

What would leave the simulation, such as a socket, a thread or a real sleep, is refused with a
``RealWorldError`` that names it.
"""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import math
import random
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn, TypeVar

from clusterconsensus.simulation.world.guard import RealWorldError, simulated

ResultT = TypeVar("ResultT")

MAX_EVENTS_IN_ONE_INSTANT = 1_000_000
"""More callbacks than this without time going on are taken for a loop that never ends."""

_CLOCK_NOISE_SECONDS = 1e-6
"""How far a converted time may be off; a clock that is further behind was changed meanwhile."""


class StalledError(RuntimeError):
    """Nothing can happen any more, and what is waited for has not."""


class Killed(BaseException):
    """Thrown into the coroutines of a machine that was killed, so that they end."""


class Handle:
    """A callback that waits for its turn. ``when`` is in the clock of its loop, 0 for "now"."""

    __slots__ = ("_args", "_callback", "_cancelled", "_context", "_when", "loop")

    def __init__(
        self,
        loop: SimulatedLoop,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: contextvars.Context | None,
    ) -> None:
        self.loop = loop
        self._when = when
        self._callback = callback
        self._args = args
        self._context = context or contextvars.copy_context()
        self._cancelled = False

    def cancel(self) -> None:
        self._cancelled = True

    def cancelled(self) -> bool:
        return self._cancelled

    def when(self) -> float:
        return self._when


class World:
    """One simulated world.

    Arguments:
        seed: Everything that is left to chance follows from it.

    Attributes:
        now: The true time in seconds since the beginning.
        events: How many callbacks have run.
        outside: The loop of whoever looks on from outside: its clock is right, nothing kills it.
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.now = 0.0
        self.events = 0
        self._ready: deque[Handle] = deque()
        self._heap: list[tuple[float, int, Handle]] = []
        self._order = 0
        self._failure: BaseException | None = None
        self.outside = self.make_loop("outside")

    def make_loop(self, name: str) -> SimulatedLoop:
        """An event loop for one process of a simulated machine."""
        return SimulatedLoop(self, name)  # type: ignore[abstract]  # the rest is refused, see _REAL

    def chance(self, name: str) -> random.Random:
        """A source of chance of its own for one purpose, so that using one more or less of one does
        not change the others."""
        return random.Random(f"{self.seed}/{name}")

    def fail(self, error: BaseException) -> None:
        """End the simulation with an error as soon as the present callback returns; the first one
        counts."""
        if self._failure is None:
            self._failure = error

    @property
    def failure(self) -> BaseException | None:
        """What ends, or has ended, the simulation."""
        return self._failure

    # -- scheduling

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> Handle:
        """Call something outside of every machine at a true time in seconds."""
        return self.schedule(self.outside, when, callback, args)

    def schedule(
        self,
        loop: SimulatedLoop,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
    ) -> Handle:
        """Have something happen to a machine at a true time: it runs in that machine's loop."""
        handle = Handle(loop, 0.0, callback, args, loop.context)
        self._order += 1
        heapq.heappush(self._heap, (when, self._order, handle))
        return handle

    def push(self, when: float, handle: Handle) -> None:
        """Put a handle into the heap at a true time. For loops."""
        self._order += 1
        heapq.heappush(self._heap, (when if when > self.now else self.now, self._order, handle))

    def push_ready(self, handle: Handle) -> None:
        """Put a handle at the end of what runs now. For loops."""
        self._ready.append(handle)

    # -- running

    def run(self, main: Coroutine[Any, Any, ResultT], *, until: float = math.inf) -> ResultT:
        """Run a coroutine on the outside loop until it ends, and everything else meanwhile.

        Arguments:
            main: What to run.
            until: The true time in seconds at which to give up.

        Raises:
            StalledError: nothing can happen any more (or ``until`` is reached), and ``main`` waits.
            BaseException: what ``main`` raises, or what ``fail`` was given.
        """
        with simulated():
            task = self.outside.create_task(main)
            self._run(task, until)
            result: ResultT = task.result()
            return result

    def _run(self, task: asyncio.Task[Any], until: float) -> None:
        ready, heap = self._ready, self._heap
        popleft, pop, set_running = ready.popleft, heapq.heappop, events._set_running_loop
        instant_began = self.events
        running: SimulatedLoop | None = None
        count = self.events
        try:
            while not task.done():
                if ready:
                    handle = popleft()
                elif heap:
                    when, _, handle = pop(heap)
                    if when > self.now:
                        if when > until:
                            raise StalledError(f"not ended at {until} s of simulated time")
                        self.now = when
                        instant_began = count
                    if handle._when and not handle._cancelled and not handle.loop.is_due(handle):
                        continue
                else:
                    raise StalledError("nothing can happen any more, and somebody still waits")
                if handle._cancelled:
                    continue
                loop = handle.loop
                if loop.is_held:
                    loop.hold(handle)
                    continue
                if loop is not running:
                    set_running(loop)
                    running = loop
                count += 1
                self.events = count
                try:
                    handle._context.run(handle._callback, *handle._args)
                except (SystemExit, KeyboardInterrupt):
                    raise
                except BaseException as error:
                    message = f"a callback raised: {handle._callback!r}"
                    loop.call_exception_handler({"message": message, "exception": error})
                if self._failure is not None:
                    raise self._failure
                if count - instant_began > MAX_EVENTS_IN_ONE_INSTANT:
                    raise StalledError(f"time does not go on behind {self.now} s")
        finally:
            self.events = count
            set_running(None)

    def close(self) -> None:
        """End every machine's tasks. Nothing can be run afterwards."""
        self._ready.clear()
        self._heap.clear()
        self.outside.kill()


class SimulatedLoop(asyncio.AbstractEventLoop):
    """An asyncio event loop on virtual time.

    Arguments:
        world: Whose time it lives in.
        name: For people.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.context = contextvars.copy_context()
        self.is_held = False
        """Whether callbacks do not run now: paused, frozen or dead."""
        self.dead = False
        self._held: list[Handle] = []
        self._stopped = False
        self._busy_until = 0.0
        self._frozen_at: float | None = None
        self._rate = 1.0
        self._shift = 0.0
        self._floor = 0.0
        self._tasks: list[asyncio.Task[Any]] = []
        self._prune_at = 64

    def __repr__(self) -> str:
        return f"<SimulatedLoop {self.name} at {self.time():.6f} s>"

    # -- the clock

    def time(self) -> float:
        """This machine's clock in seconds. Never goes back."""
        if self._frozen_at is not None:
            return self._frozen_at
        now = max(self.world.now, self._busy_until) * self._rate + self._shift
        return now if now > self._floor else self._floor

    def set_rate(self, rate: float) -> None:
        """Let this machine's clock run at another speed from now on; 1.0 is right."""
        now = self.time()
        self._rate = rate
        self._shift = now - self.world.now * rate

    def is_due(self, handle: Handle) -> bool:
        """Whether a timer's time has come by this machine's clock; put off otherwise."""
        when = handle.when()
        behind = when - self.time()
        if behind > _CLOCK_NOISE_SECONDS and not self.is_held:
            self.world.push(self.world.now + behind / self._rate, handle)
            return False
        if behind > 0.0 and self._frozen_at is None:
            self._floor = when
        return True

    # -- what the fault injector does

    def spend(self, seconds: float) -> None:
        """The callback that runs now takes so long: this machine's clock goes on at once, and
        nothing else runs on it meanwhile."""
        world = self.world
        if self._busy_until <= world.now:
            self._busy_until = world.now
            self.is_held = True
            world.call_at(world.now + seconds, self._rest)
        self._busy_until += seconds

    def _rest(self) -> None:
        """What kept this machine busy is over, or not yet."""
        world = self.world
        if self._busy_until > world.now + _CLOCK_NOISE_SECONDS:
            world.call_at(self._busy_until, self._rest)
        elif not self._stopped:
            self._go_on()

    def pause(self) -> None:
        """Stop every callback while the clock runs on (``SIGSTOP``)."""
        self.is_held = self._stopped = True

    def freeze(self) -> None:
        """Stop every callback and the clock with them (a suspended machine)."""
        if self._frozen_at is None:
            self._frozen_at = self.time()
        self.is_held = self._stopped = True

    def resume(self) -> None:
        """End ``pause`` or ``freeze``: what has waited runs now, in order."""
        if self.dead:
            return
        if self._frozen_at is not None:
            self._shift = self._frozen_at - self.world.now * self._rate
            self._frozen_at = None
            self._busy_until = 0.0
        self._stopped = False
        if self._busy_until <= self.world.now + _CLOCK_NOISE_SECONDS:
            self._go_on()

    def _go_on(self) -> None:
        if self.dead:
            return
        self.is_held = False
        held, self._held = self._held, []
        for handle in held:
            if not handle._when or self.is_due(handle):
                self.world.push_ready(handle)

    def kill(self) -> None:
        """End everything that runs here, at once. What its coroutines do in their endings has no
        effect any more: nothing they call runs."""
        if self.dead:
            return
        self.dead = self.is_held = True
        self._held.clear()
        tasks, self._tasks = self._tasks, []
        running = events._get_running_loop()
        events._set_running_loop(self)
        try:
            for task in tasks:
                if not task.done():
                    _end(task)
        finally:
            events._set_running_loop(running)

    def hold(self, handle: Handle) -> None:
        """Keep a callback that came up while this machine does not run; drop it if it is dead."""
        if not self.dead:
            self._held.append(handle)

    # -- asyncio

    def call_soon(  # type: ignore[override]  # a handle is all that asyncio asks for
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        handle = Handle(self, 0.0, callback, args, context)
        if not self.dead:
            self.world.push_ready(handle)
        return handle

    def call_at(  # type: ignore[override]  # a handle is all that asyncio asks for
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        handle = Handle(self, when or 1e-9, callback, args, context)
        if not self.dead:
            world = self.world
            world.push(world.now + max(0.0, when - self.time()) / self._rate, handle)
        return handle

    def call_later(  # type: ignore[override]  # a handle is all that asyncio asks for
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def call_soon_threadsafe(  # type: ignore[override]  # a handle is all that asyncio asks for
        self,
        callback: Callable[..., object],
        *args: Any,
        context: contextvars.Context | None = None,
    ) -> Handle:
        return self.call_soon(callback, *args, context=context)

    def create_future(self) -> asyncio.Future[Any]:
        return asyncio.Future(loop=self)

    def create_task(self, coro: Any, **options: Any) -> asyncio.Task[Any]:
        options.pop("eager_start", None)
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=self, **options)
        if self.dead:
            _end(task)
            return task
        self._tasks.append(task)
        if len(self._tasks) > self._prune_at:
            self._tasks = [held for held in self._tasks if not held.done()]
            self._prune_at = 64 + 2 * len(self._tasks)
        return task

    def get_debug(self) -> bool:
        return False

    def set_debug(self, enabled: bool) -> None:
        """Ignored: a simulation is its own debugger."""

    def is_running(self) -> bool:
        return events._get_running_loop() is self

    def is_closed(self) -> bool:
        return self.dead

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Whatever nobody handled ends the simulation, unless the machine is dead already."""
        error = context.get("exception")
        if self.dead or isinstance(error, Killed):
            return
        self.world.fail(error or RuntimeError(f"{self.name}: {context.get('message')}"))

    async def shutdown_asyncgens(self) -> None:
        """Nothing to do: generators end with their machine."""

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """Nothing to do: there is none."""


_REAL = frozenset(
    name
    for name in dir(asyncio.AbstractEventLoop)
    if name.startswith(("sock_", "add_", "remove_", "connect_", "subprocess_", "create_", "get"))
    or name in ("run_in_executor", "set_default_executor", "sendfile", "start_tls", "run_forever")
    or name in ("run_until_complete", "stop", "close")
) - {"create_future", "create_task", "get_debug", "get_exception_handler", "get_task_factory"}
"""What an event loop offers and a simulated one refuses."""


def _refusing(name: str) -> Callable[..., NoReturn]:
    def refuse(self: SimulatedLoop, *args: object, **options: object) -> NoReturn:
        raise RealWorldError(
            f"loop.{name} reaches for the real world; a simulated machine has only the ports that "
            "its participant was given"
        )

    return refuse


for _name in sorted(_REAL):
    setattr(SimulatedLoop, _name, _refusing(_name))


def _end(task: asyncio.Task[Any]) -> None:
    """Throw ``Killed`` into a task's coroutine until it has ended, whatever it waits for in its own
    endings; and let the task go without a word."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own
    coroutine = task.get_coro()
    for _ in range(100):
        try:
            coroutine.throw(Killed())
        except BaseException:
            return
