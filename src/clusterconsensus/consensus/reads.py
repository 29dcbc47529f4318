"""Linearizable reads without a log entry (L1, L3).

A read must see everything that was acknowledged before it began. So the master notes its commit,
proves by a round of accepts sent *after* the question arrived that no other master can have
acknowledged anything meanwhile, and answers with the noted commit; whoever applies that far may
read. All reads that wait share one round.

Source: Ongaro, *Consensus: Bridging Theory and Practice* (2014), section 6.4.
"""

from __future__ import annotations

from collections import deque

from clusterconsensus.consensus.effects import ReadReady, ReadRefused
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.messages import ReadTell
from clusterconsensus.consensus.types import NOBODY, Incarnation

MAX_WAITING_READS = 65_536
"""Read questions that wait at a master; the asker repeats what is dropped beyond it."""

Reader = tuple[Incarnation, int]
"""Who asks (NOBODY for this member itself), and the number of its question."""


class Reads:
    """The read questions at the master."""

    def __init__(self, local: Local) -> None:
        self._local = local
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

    def ask(self, source: Incarnation, nonce: int) -> None:
        """A question has arrived."""
        if not self._local.leads:
            self._refuse(source, nonce)
        elif len(self._waiting) < MAX_WAITING_READS:
            self._waiting.append((source, nonce))

    def on_round(self, number: int) -> None:
        """A round begins now: it covers every question that waits."""
        if self._waiting:
            self._asked.append((number, self._local.commit, self._waiting))
            self._waiting = []

    def on_confirmed(self, number: int) -> None:
        """A majority has acknowledged this round or a later one."""
        local = self._local
        while self._asked and self._asked[0][0] <= number:
            _, seq, readers = self._asked.popleft()
            for source, nonce in readers:
                if source == NOBODY:
                    local.effects.append(ReadReady(nonce, seq))
                else:
                    local.send(source, ReadTell(nonce, True, seq))

    def refuse_all(self) -> None:
        """This member leads no more."""
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
