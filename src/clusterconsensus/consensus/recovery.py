"""Recovering: a member that has lost what it acknowledged gets its vote back only when it is whole.

A damaged journal means that this member once said "I hold this" of entries that it holds no more.
Until it holds them again it must not take part in choosing a master: a candidate that counts its
promise would believe that nothing else was chosen (W4). It may accept and acknowledge all the same,
since what it says of its log *now* is true.

It is whole again when it holds everything it can ever have acknowledged. Whatever that was, it
belonged to ballots up to its promise, which is not lost. So it asks the master of a ballot at or
above that promise, once that one's first own entry is committed, where its log ends *now*: all that
was chosen in lower ballots is in that log, and so is all that this member can have acknowledged in
this one. When its own durable log equals the master's up to there, it has its vote again (W5).

The question carries a number drawn in this run of the process. An answer to an earlier run, or any
older message of the master's, could name an end that lies before what was lost.

A member can also have lost something without knowing: its disk was set back to an old image, or
said that it had synced what it had not. The master notices if it still is the one to whom this was
acknowledged, and says so; the member looks into its log and, if it is true, gives up its vote in
the same way. If the master has changed meanwhile nobody can notice.

Source: Alagappan et al., *Protocol-Aware Recovery for Consensus-Based Storage*, FAST 2018; Michael
et al., *Recovering Shared Objects Without Stable Storage*, DISC 2017, on what goes wrong otherwise.
"""

from __future__ import annotations

import math

from clusterconsensus.consensus.acceptor import Acceptor
from clusterconsensus.consensus.effects import FoundRegressed, Recovered
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.messages import RecoverAsk, RecoverTell, Regressed
from clusterconsensus.consensus.types import NOBODY, ZERO, Incarnation, Role


class Recovery:
    """Getting the vote back, and helping others to."""

    def __init__(self, local: Local, acceptor: Acceptor) -> None:
        self._local = local
        self._acceptor = acceptor
        self._nonce = 0
        self._ask_at = -math.inf
        self._ballot = ZERO
        self.target_seq = 0
        """Up to where this member must be whole; 0 while nobody has said."""
        self._ticket = 0

    def start(self) -> None:
        """Draw the number of this run's question."""
        self._nonce = int(self._local.chance * 2**53)

    def on_ask(self, source: Incarnation, message: RecoverAsk) -> None:
        """Another member asks: only a master whose first own entry is committed may tell."""
        local = self._local
        if local.role is Role.MASTER:
            local.send(source, RecoverTell(local.master_ballot, message.nonce, local.log.last_seq))

    def on_tell(self, source: Incarnation, message: RecoverTell) -> None:
        """The master says where its log ended when it was asked."""
        local = self._local
        if not local.recovering or self._ticket or message.nonce != self._nonce:
            return
        if source == local.master and message.ballot == local.promised:
            self._ballot = message.ballot
            self.target_seq = message.last_seq

    def on_regressed(self, source: Incarnation, message: Regressed) -> None:
        """The master has an acknowledgement of this member for what the member says it lacks."""
        local = self._local
        if source != local.master or message.ballot != local.promised or local.recovering:
            return
        position = message.position
        if position.seq <= local.commit or local.log.ballot_at(position.seq) == position.ballot:
            return  # messages had overtaken each other
        local.recovering = True
        self._ticket = 0
        self._ballot, self.target_seq = ZERO, 0
        local.persist(recovering=True)
        local.effects.append(FoundRegressed(position.seq))

    def end_of_turn(self) -> None:
        """Ask, compare, and note durably that this member is whole."""
        local = self._local
        if not local.recovering:
            return
        if self._ticket:
            if not local.tickets or local.tickets[0].number > self._ticket:
                local.recovering = False
                local.effects.append(Recovered(self.target_seq))
            return
        if self._ballot != local.promised:
            self._ballot, self.target_seq = ZERO, 0  # another master: it must be asked anew
        if not self.target_seq:
            if local.master != NOBODY and not local.leads and local.now >= self._ask_at:
                self._ask_at = local.now + local.limits.heartbeat_seconds
                local.send(local.master, RecoverAsk(self._nonce))
            return
        whole = min(self._acceptor.verified(self._ballot), local.log.durable_seq)
        if whole >= self.target_seq and local.promised_durable >= self._ballot:
            self._ticket = local.persist(recovering=False)
