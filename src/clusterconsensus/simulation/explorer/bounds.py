"""How far the explorer goes: what may happen how often, so that the space is finite and small.

A bound counts happenings of the whole cluster, not of one member. All of them are small numbers:
the space grows by about a factor of five with each.
"""

from __future__ import annotations

import msgspec

MAX_MEMBERS = 7
MAX_COUNT = 15
"""The highest bound of anything that is counted."""


COUNTED = (
    "ballots",
    "changes",
    "crashes",
    "hangs",
    "losses",
    "repeats",
    "ticks",
    "snapshots",
    "damages",
)
"""The bounds that count happenings."""


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """What may happen, and how often.

    Raises:
        ValueError: a bound is out of range.
    """

    members: int = 3
    """Voters of the cluster, 1 to 7."""
    ballots: int = 2
    """How often an election timer runs out and a member stands, in all."""
    changes: int = 2
    """How many changes applications submit, each at a member that leads."""
    crashes: int = 1
    """How often a member crashes and starts again at once; of its unsynced writes it loses all or
    keeps the first few."""
    hangs: int = 1
    """How often a disk lets its writes wait, so that a crash can lose them. It waits until a sync,
    which may come at any moment; all other writes are synced in the move that they are made in."""
    losses: int = 1
    """How many messages are lost. Counts for nothing with ``reorder``: there a message that is
    never delivered is as good as lost."""
    repeats: int = 1
    """How many messages arrive a second time, at any later moment."""
    ticks: int = 1
    """How often a member that leads looks at its clock: either a heartbeat is due, or no majority
    has answered for too long and it steps down."""
    snapshots: int = 0
    """How often a member takes a snapshot, and forgets its log up to there."""
    damages: int = 0
    """How often a member loses its log and starts without a vote."""
    reorder: bool = False
    """Whether messages overtake each other on one link."""
    probes: bool = False
    """Whether probes and their answers travel like other messages. Otherwise a member that stands
    asks the others at once, one after another, until a majority has agreed: an answer to a probe
    changes nothing where it is given (E2), so its delays matter to nobody's log."""
    states: int = 200_000
    """Distinct states after which to stop."""
    price: int = 6
    """Near states come first, and this is how many moves each change, fault and tick counts for
    beside its own: so long ways with few of them are not left behind by short ways with many. With
    0 the moves alone count."""
    depth: int | None = None
    """Moves from the start after which to stop, None for as many as there are."""

    def __post_init__(self) -> None:
        if not 1 <= self.members <= MAX_MEMBERS:
            raise ValueError(f"members must be 1 to {MAX_MEMBERS}, not {self.members}")
        for name in COUNTED:
            if not 0 <= getattr(self, name) <= MAX_COUNT:
                raise ValueError(f"{name} must be 0 to {MAX_COUNT}, not {getattr(self, name)}")
        if self.price < 0:
            raise ValueError(f"price must not be negative, and is {self.price}")
        if self.states < 1:
            raise ValueError(f"states must be at least 1, not {self.states}")
        if self.depth is not None and self.depth < 0:
            raise ValueError(f"depth must not be negative, and is {self.depth}")
