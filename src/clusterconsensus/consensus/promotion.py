"""Promotion: which learner has caught up (M4).

Judged by rounds, because the log moves on while a learner follows it (C-36): a round ends when the
learner holds what the master had when the round began. One that took less than E means that the
learner keeps pace, and that its vote will not stall the cluster.
"""

from __future__ import annotations

from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.master import Master
from clusterconsensus.consensus.quorum import majority_size
from clusterconsensus.consensus.types import Incarnation, Seat


class CatchUpRound:
    """One round of a learner's catching up."""

    def __init__(self, target_seq: int, now: float) -> None:
        self.target_seq = target_seq
        self.began_at = now


class Promotion:
    """Learners that are to become voters, at the master."""

    def __init__(self, local: Local, master: Master) -> None:
        self._local = local
        self._master = master
        self._rounds: dict[Incarnation, CatchUpRound] = {}
        self._ready: set[Incarnation] = set()

    def step_down(self) -> None:
        """This member leads no more."""
        self._rounds.clear()
        self._ready.clear()

    def measure(self) -> None:
        """Follow the rounds. The latest one counts: who was quick once and has fallen behind since
        is not ready."""
        local = self._local
        limit = local.limits.election_timeout_seconds
        for seat in local.log.configuration.seats:
            name = seat.incarnation
            progress = self._master.progress.get(name)
            if not seat.promoting or progress is None:
                continue
            running = self._rounds.get(name)
            if running is None:
                self._rounds[name] = CatchUpRound(local.log.last_seq, local.now)
                continue
            quick = local.now - running.began_at < limit
            if not quick:
                self._ready.discard(name)
            if progress.match >= running.target_seq:
                if quick:
                    self._ready.add(name)
                self._rounds[name] = CatchUpRound(local.log.last_seq, local.now)

    def ready(self) -> Seat | None:
        """A learner that may get its vote: it keeps pace, is whole, and a majority of the
        configuration with it is alive."""
        for seat in self._local.log.configuration.seats:
            if seat.promoting and seat.incarnation in self._ready and self._may_vote(seat):
                return seat
        return None

    def _may_vote(self, seat: Seat) -> bool:
        local, master = self._local, self._master
        limit = local.limits.election_timeout_seconds
        progress = master.progress.get(seat.incarnation)
        if progress is None or progress.recovering:
            return False
        if not master.heard_within(seat.incarnation, limit):
            return False
        voters = (*local.log.voters, seat.incarnation)
        alive = sum(master.heard_within(name, limit) for name in voters)
        return alive >= majority_size(len(voters))

    def forget(self, name: Incarnation) -> None:
        """It was promoted; should it ever be a learner again, it begins anew."""
        self._rounds.pop(name, None)
        self._ready.discard(name)
