"""Finding a state machine that is not deterministic, before it does harm (R9).

Every member chains a checksum over what it applies and what came of it. Followers report theirs
with each acknowledgement; the master compares at equal sequences. Who differs from the majority is
told to stop serving; a master that differs from the majority stops itself. Where no majority can
tell (two voters), the master's word stands, since its answers are those that clients have.
"""

from __future__ import annotations

from collections import deque

from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.messages import Accepted, Quarantine
from clusterconsensus.consensus.quorum import majority_size
from clusterconsensus.consensus.types import Ballot, Incarnation

CHECKSUMS_KEPT = 8_192
"""How many of its latest checksums a master keeps to compare followers with."""


class Comparison:
    """The checksums of one mastership."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._own: dict[int, int] = {}
        self._order: deque[int] = deque()
        self._agreeing: dict[Incarnation, int] = {}
        """Up to which sequence a member agreed."""
        self._differing: dict[Incarnation, Quarantine] = {}
        self.diverged: dict[Incarnation, None] = {}
        """Who was told to stop serving, and has not agreed since."""

    def clear(self) -> None:
        self._own.clear()
        self._order.clear()
        self._agreeing.clear()
        self._differing.clear()
        self.diverged.clear()

    def on_applied(self, seq: int, checksum: int) -> None:
        """The master itself has applied up to ``seq``."""
        if seq not in self._own:
            self._order.append(seq)
        self._own[seq] = checksum
        if len(self._order) > CHECKSUMS_KEPT:
            del self._own[self._order.popleft()]

    def on_accepted(self, source: Incarnation, ballot: Ballot, message: Accepted) -> None:
        """A follower reports."""
        own = self._own.get(message.applied)
        if own is None:
            return
        if own == message.checksum:
            self._agreeing[source] = max(message.applied, self._agreeing.get(source, 0))
            self._differing.pop(source, None)
            self.diverged.pop(source, None)
        else:
            self._agreeing.pop(source, None)
            self._differing[source] = Quarantine(ballot, message.applied, own, message.checksum)

    @property
    def found_differences(self) -> bool:
        """Whether somebody reported another checksum, and nothing was decided on it yet."""
        return bool(self._differing)

    def decide(self, reachable: frozenset[Incarnation]) -> None:
        """Once every reachable voter has reported, say who is wrong."""
        local = self._local
        voters = local.log.voters
        # The checksum is a chain: who agrees at or behind a sequence agrees at it.
        since = min(finding.seq for finding in self._differing.values())
        agreeing = {name for name, seq in self._agreeing.items() if seq >= since}
        reported = agreeing | self._differing.keys()
        if any(voter in reachable and voter not in reported for voter in voters):
            return
        against = [voter for voter in voters if voter in self._differing]
        if len(against) >= majority_size(len(voters)):
            finding = self._differing[against[0]]
            local.halt(
                f"the state of this member differs from the majority's at sequence {finding.seq}: "
                "its state machine is not deterministic",
                diverged=True,
            )
            return
        for name in sorted(self._differing):
            local.send(name, self._differing[name])
            self.diverged[name] = None
        self._differing.clear()
        self._agreeing.clear()
