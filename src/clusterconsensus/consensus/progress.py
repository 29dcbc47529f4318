"""How far one follower is, as its master knows it (R3)."""

from __future__ import annotations

from collections import deque

from clusterconsensus.consensus.local import Limits


class Progress:
    """One follower's state at the master.

    While *probing*, one message with entries is sent and then only empty ones, until an answer
    shows where the logs meet. While *streaming*, entries go out ahead of the acknowledgements, up
    to a window. ``next`` is the next sequence to send; ``match`` is durable there and only grows
    within a ballot (C-3).
    """

    def __init__(self, next_seq: int, now: float) -> None:
        self.next = next_seq
        self.match = 0
        self.probing = True
        self.loading = False
        self.level = 0
        """Its feature level, as it last told; 0 while it has not."""
        self.leases = False
        """Whether it keeps the rules of leases (L2)."""
        self.recovering = False
        self.round = 0
        """The highest round it acknowledged."""
        self.contact_at = now
        """When that round was sent; the start of the mastership until then."""
        self._probe: tuple[int, int] | None = None
        """What was sent while probing: its last sequence and its size in bytes."""
        self._inflight: deque[tuple[int, int]] = deque()
        self._inflight_bytes = 0

    @property
    def awaited(self) -> bool:
        """Whether something was sent while probing, and its answer has not come."""
        return self._probe is not None

    def may_send(self, limits: Limits) -> bool:
        """Whether more entries may leave now."""
        if self.loading:
            return False
        if self.probing:
            return self._probe is None
        return (
            len(self._inflight) < limits.window_messages
            and self._inflight_bytes < limits.window_bytes
        )

    def on_sent(self, last_seq: int, size_bytes: int) -> None:
        """Entries up to ``last_seq`` have left."""
        if self.probing:
            self._probe = (last_seq, size_bytes)
            return
        self.next = last_seq + 1
        self._inflight.append((last_seq, size_bytes))
        self._inflight_bytes += size_bytes

    def on_accepted(self, match: int) -> None:
        """It verified what was sent, and holds everything up to ``match``."""
        self.match = max(self.match, match)
        self.probing = False
        if self._probe is not None:
            # Taken to have arrived too, though not yet to be durable: if it did not, the next
            # heartbeat, which stands behind it, meets a gap.
            self.next = self._probe[0] + 1
            self._inflight.append(self._probe)
            self._inflight_bytes += self._probe[1]
            self._probe = None
        self.next = max(self.next, self.match + 1)
        while self._inflight and self._inflight[0][0] <= self.match:
            self._inflight_bytes -= self._inflight.popleft()[1]

    def on_gap(self, previous_seq: int, hint: int) -> bool:
        """It lacks what was sent. Returns False for a stale refusal, which changes nothing."""
        if previous_seq <= self.match:
            return False
        if self.probing and previous_seq != self.next - 1:
            return False
        self.restart(max(min(hint, previous_seq - 1), self.match) + 1)
        return True

    def on_lost(self, hint: int) -> None:
        """It has lost what it acknowledged, and holds no more than ``hint`` (W4)."""
        self.match = 0
        self.restart(hint + 1)

    def restart(self, next_seq: int) -> None:
        """Probe again from ``next_seq``; whatever is on its way counts as lost."""
        self.next = next_seq
        self.probing = True
        self.loading = False
        self._probe = None
        self._inflight.clear()
        self._inflight_bytes = 0
