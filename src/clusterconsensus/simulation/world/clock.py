"""The clock that a simulated machine measures everything with (``Environment.clock``).

It follows the clock of the machine's event loop, which may run too fast or too slow and stands
while the machine is frozen. This one can do what such clocks do beside: it may count the time for
which the machine was frozen, as a clock of the time since the boot does, and it may jump.
"""

from __future__ import annotations

from clusterconsensus.simulation.world.loop import SimulatedLoop, World


class BootClock:
    """One machine's clock.

    Arguments:
        world: Whose time is the true one.
        counts_sleep: Whether it goes on while the machine is frozen.
    """

    def __init__(self, world: World, *, counts_sleep: bool) -> None:
        self._world = world
        self._counts_sleep = counts_sleep
        self._loop: SimulatedLoop | None = None
        self._shift = 0.0
        self._asleep_since: float | None = None
        self.rate = 1.0
        """How fast it runs; 1.0 is right."""

    def attach(self, loop: SimulatedLoop | None) -> None:
        """The machine's process begins (with its loop), or has ended."""
        self._loop = loop
        self._asleep_since = None
        if loop is not None:
            loop.set_rate(self.rate)

    def time(self) -> float:
        """Seconds; only differences matter."""
        base = self._world.now if self._loop is None else self._loop.time()
        return base + self._shift + self._slept()

    def _slept(self) -> float:
        if self._asleep_since is None:
            return 0.0
        return (self._world.now - self._asleep_since) * self.rate

    def set_rate(self, rate: float) -> None:
        """Run at another speed from now on."""
        if self._asleep_since is not None:
            self._shift += self._slept()
            self._asleep_since = self._world.now
        self.rate = rate
        if self._loop is not None:
            self._loop.set_rate(rate)

    def jump(self, seconds: float) -> None:
        """Go forward by so much at once, or back."""
        self._shift += seconds

    def freeze(self) -> None:
        """Everything stops on the machine, the clock of its event loop too."""
        if self._loop is not None:
            if self._counts_sleep and self._asleep_since is None:
                self._asleep_since = self._world.now
            self._loop.freeze()

    def resume(self) -> None:
        """End a freeze, or a pause."""
        self._shift += self._slept()
        self._asleep_since = None
        if self._loop is not None and self._loop.is_held:
            self._loop.resume()
