"""What there is to see of a run at one moment. The supervisor writes it, the views read it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import Protocol

from clusterconsensus.cli.demo.processes import ProcessState
from clusterconsensus.cli.demo.protocol import Status

MAX_EVENTS = 100
MAX_RATES = 600


@dataclass
class MemberScene:
    """One member: what the supervisor did to its process, and what it last said of itself."""

    id: str
    process: ProcessState = ProcessState.DOWN
    pid: int | None = None
    status: Status | None = None
    """None if it does not answer now."""


@dataclass
class Scene:
    """Everything a view may show."""

    seed: int
    members: list[MemberScene]
    phase: str = "starting"
    acknowledged: int = 0
    unknown: int = 0
    faults_planned: int = 0
    failover_seconds: list[float] = field(default_factory=list)
    rates: deque[float] = field(default_factory=lambda: deque(maxlen=MAX_RATES))
    """Acknowledged transfers per second, one number for each look at the journals."""
    events: deque[tuple[float, str]] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    """What happened, with the seconds since the start."""
    began: float = field(default_factory=time.monotonic)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.monotonic() - self.began


class View(Protocol):
    """Shows a scene, or does not."""

    def start(self, scene: Scene) -> None:
        """The run begins."""
        ...

    def event(self, scene: Scene) -> None:
        """Something happened: the last of ``scene.events``."""
        ...

    def refresh(self, scene: Scene) -> None:
        """Called a few times a second."""
        ...

    def close(self, scene: Scene) -> None:
        """Nothing more will be shown. Called once, also after an error."""
        ...


class NoView:
    """Shows nothing: for ``--json``."""

    def start(self, scene: Scene) -> None: ...

    def event(self, scene: Scene) -> None: ...

    def refresh(self, scene: Scene) -> None: ...

    def close(self, scene: Scene) -> None: ...
