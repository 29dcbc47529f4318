"""Linearizable reads without a log entry (L1, L3).

A read must see everything that was acknowledged before it began. So the master notes its commit,
proves by a round of accepts sent *after* the question arrived that no other master can have
acknowledged anything meanwhile, and answers with the noted commit; whoever applies that far may
read. All reads that wait share one round.

With leases (L2) the proof may have come before the question: while a majority has acknowledged a
round that was *sent* less than E ago (less the drift that clocks may have), none of them helps to
elect another master, because whoever hears a master refuses to promise for E (E4), also to itself
and also after a restart. A lease needs clocks that run about equally fast and count while the
machine sleeps; it needs no clock that tells the time. Once this member has asked another to take
over it has no lease for the rest of its ballot (E11, C-22).

Source: Ongaro, *Consensus: Bridging Theory and Practice* (2014), section 6.4.
"""

from __future__ import annotations

import math
from collections import deque

from clusterconsensus.consensus.effects import ReadReady, ReadRefused
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.messages import ReadTell
from clusterconsensus.consensus.types import NOBODY, Incarnation, Role

MAX_WAITING_READS = 65_536
"""Read questions that wait at a master; the asker repeats what is dropped beyond it."""

Reader = tuple[Incarnation, int]
"""Who asks (NOBODY for this member itself), and the number of its question."""


class Reads:
    """The read questions at the master."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self.lease_ends = -math.inf
        """Until when the majority that was heard last lets nobody else lead, as far as the clock
        can be trusted; meaningful only while this member is master."""
        self._lease_off = False
        self._waiting: list[Reader] = []
        self._asked: deque[tuple[int, int, list[Reader]]] = deque()

    @property
    def wait_for_round(self) -> bool:
        """Whether questions have come that no round covers yet."""
        return bool(self._waiting)

    @property
    def wait_for_answers(self) -> bool:
        """Whether questions wait for their round to be acknowledged."""
        return bool(self._asked)

    # -- leases (L2)

    def begin(self) -> None:
        """A mastership begins."""
        self.lease_ends = -math.inf
        self._lease_off = False

    def lease_off(self) -> None:
        """No lease for the rest of this ballot."""
        self._lease_off = True
        self.lease_ends = -math.inf

    def on_contact(self, sent_at: float) -> None:
        """A majority that keeps the rules of leases acknowledged a round sent then."""
        limits = self._local.limits
        if not self._lease_off:
            self.lease_ends = sent_at + limits.election_timeout_seconds * (
                1.0 - limits.max_clock_drift
            )

    def has_lease(self, now: float) -> bool:
        """Whether a read may be served at ``now`` without asking anybody."""
        return now < self.lease_ends and self._local.role is Role.MASTER

    # -- questions

    def ask(self, source: Incarnation, nonce: int, *, lease: bool = False) -> None:
        """A question has arrived."""
        local = self._local
        if not local.leads:
            self._refuse(source, nonce)
        elif lease and self.has_lease(local.now):
            self._confirm(source, nonce, local.commit)
        elif len(self._waiting) < MAX_WAITING_READS:
            self._waiting.append((source, nonce))

    def on_round(self, number: int) -> None:
        """A round begins now: it covers every question that waits."""
        if self._waiting:
            self._asked.append((number, self._local.commit, self._waiting))
            self._waiting = []

    def on_confirmed(self, number: int) -> None:
        """A majority has acknowledged this round or a later one."""
        while self._asked and self._asked[0][0] <= number:
            _, seq, readers = self._asked.popleft()
            for source, nonce in readers:
                self._confirm(source, nonce, seq)

    def _confirm(self, source: Incarnation, nonce: int, seq: int) -> None:
        local = self._local
        if source == NOBODY:
            local.effects.append(ReadReady(nonce, seq))
        else:
            local.send(source, ReadTell(nonce, True, seq))

    def refuse_all(self) -> None:
        """This member leads no more."""
        self.lease_off()
        readers, self._waiting = self._waiting, []
        for _, _, asked in self._asked:
            readers.extend(asked)
        self._asked.clear()
        for source, nonce in readers:
            self._refuse(source, nonce)

    def _refuse(self, source: Incarnation, nonce: int) -> None:
        if source == NOBODY:
            self._local.effects.append(ReadRefused(nonce))
        else:
            self._local.send(source, ReadTell(nonce, False, 0))
