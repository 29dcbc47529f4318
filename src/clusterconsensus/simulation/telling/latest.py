"""A list that forgets: the latest of what was appended, and how much came before.

Where a simulated run tells millions of things and somebody wants to see the last few thousand.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Generic, TypeVar

Text = str | Callable[[], str]
"""A text, or what makes it when somebody wants to read it."""

T = TypeVar("T")


class Latest(Generic[T]):
    """The last ``limit`` things appended, numbered from 0 in the order of appending.

    Twice as many may be held for a moment: dropping half of them at once makes each cheap.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.items: list[tuple[float, T, Text]] = []
        """When it happened, what, and the text of it."""
        self.dropped = 0
        self.dropped_until = -math.inf

    @property
    def next(self) -> int:
        """The number that the next one gets."""
        return self.dropped + len(self.items)

    def append(self, at: float, item: T, text: Text = "") -> None:
        if len(self.items) >= 2 * self.limit:
            self.trim()
        self.items.append((at, item, text))

    def get(self, number: int) -> T | None:
        """None for what was dropped."""
        place = number - self.dropped
        return self.items[place][1] if 0 <= place < len(self.items) else None

    def trim(self) -> None:
        excess = len(self.items) - self.limit
        if excess > 0:
            self.dropped_until = self.items[excess - 1][0]
            self.dropped += excess
            del self.items[:excess]

    def kept(self) -> list[T]:
        self.trim()
        return [item for _, item, _ in self.items]
