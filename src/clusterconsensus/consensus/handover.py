"""Handing the mastership over, without a moment in which nobody could lead (E11).

The master stops taking changes into the log (they wait, none is refused), gives up its lease for
the rest of its ballot (C-22), waits until the one that shall lead holds the whole log, and asks it
to stand for election at once. That one needs no probe, and whoever follows this master does not
protect it against a prepare that names its ballot. If nothing comes of it within E, the master goes
on.

None of this is needed for safety: the other stands for election like anybody else. A master also
hands over by itself

* to a voter with a higher priority that has been level for 2 E, and
* when its own disk is slow and another voter has on its disk what is not on the own one yet,

but neither in the first 10 E of a mastership nor within 10 E after it came to nothing, so that the
mastership never wanders about.
"""

from __future__ import annotations

import math

from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.master import Master
from clusterconsensus.consensus.messages import TransferMaster
from clusterconsensus.consensus.types import NOBODY, ZERO, Incarnation, Role, member_id_of

LEVEL_ENTRIES = 256
"""Who lacks no more than this can take over soon; changes are not held for anybody else."""

CALM_TIMEOUTS = 10
"""For so many times E nothing is handed over unasked, in a new mastership or after a failure."""

LEVEL_TIMEOUTS = 2
"""For so many times E a voter with a higher priority must have been level."""

ENOUGH_SYNCS = 8
"""Of fewer syncs no average is taken."""


class Handover:
    """The handover that runs at the master, if one does."""

    def __init__(self, local: Local, master: Master) -> None:
        self._local = local
        self._master = master
        self.target: Incarnation = NOBODY
        """Who shall lead, NOBODY while nothing is handed over."""
        self.sent = False
        """Whether it was asked to."""
        self.failure = ""
        """Why the last one came to nothing."""
        self._until = math.inf
        self._send_at = math.inf
        self._ballot = ZERO
        self._calm_until = math.inf
        self._level_since: dict[Incarnation, float] = {}

    @property
    def running(self) -> bool:
        return self.target != NOBODY

    @property
    def deadline(self) -> float:
        """When it wants attention without any event."""
        return min(self._until, self._send_at) if self.running else math.inf

    # -- who could

    def objection(self, name: Incarnation) -> str:
        """Why a member cannot take over now; empty if it can."""
        local = self._local
        seat = local.log.configuration.seat(name)
        progress = self._master.progress.get(name)
        who = f"member {member_id_of(name)!r}"
        if seat is None or progress is None or not seat.is_voter:
            return f"{who} is not a voter"
        if not seat.priority:
            return f"{who} has the priority 0 and never leads"
        seconds = local.limits.election_timeout_seconds
        if not self._master.heard_within(name, seconds):
            return f"{who} was not heard within {seconds} s"
        if progress.probing:
            return f"{who} has not answered since its connection broke"
        if progress.recovering:
            return f"{who} has lost something and is not whole again"
        if name in self._master.comparison.diverged:
            return f"{who} has another state than the majority"
        lacks = local.log.last_seq - progress.match
        return f"{who} lacks {lacks} entries" if lacks > LEVEL_ENTRIES else ""

    def best(self) -> Incarnation:
        """Who would take over best: the highest priority first, then who holds most; or NOBODY."""
        found = NOBODY
        best = (0, 0)
        for seat in self._local.log.configuration.seats:
            name = seat.incarnation
            if name == self._local.name or self.objection(name):
                continue
            rank = (seat.priority, self._master.progress[name].match)
            if rank > best:
                found, best = name, rank
        return found

    # -- handing over

    def begin(self, target: Incarnation) -> None:
        """Hold what comes, and hand over as soon as the other holds everything."""
        local = self._local
        self.target = target
        self.sent = False
        self.failure = ""
        self._until = local.now + local.limits.election_timeout_seconds
        self._send_at = math.inf
        self._master.holding = True
        self._master.reads.lease_off()

    def end_of_turn(self, *, idle: bool) -> None:
        """Go on with it; or, while the membership is ``idle``, see whether to hand over unasked."""
        if self.running:
            self._go_on()
        else:
            self._look(idle=idle)
        if self.running and not self.sent:
            self._go_on()

    def _go_on(self) -> None:
        local = self._local
        seconds = local.limits.election_timeout_seconds
        last_seq = local.log.last_seq
        progress = self._master.progress[self.target]
        if progress.probing:
            self._fail("is not connected any more")  # no need to wait for a dead process
        elif self.sent:
            if local.now >= self._until:
                self._fail(f"did not take over within {seconds} s")
            elif local.now >= self._send_at:
                self._send(last_seq)
        elif progress.match == last_seq:
            self.sent = True
            self._until = local.now + seconds
            self._send(last_seq)
        elif local.now >= self._until:
            self._fail(f"did not catch up within {seconds} s")

    def _send(self, last_seq: int) -> None:
        local = self._local
        self._send_at = local.now + local.limits.heartbeat_seconds
        local.send(self.target, TransferMaster(self._master.ballot, last_seq))

    def _fail(self, reason: str) -> None:
        """The mastership stays here; what was held goes on."""
        self.failure = f"member {member_id_of(self.target)!r} {reason}"
        self._end()
        self._be_calm()

    def _end(self) -> None:
        self.target = NOBODY
        self.sent = False
        self._until = self._send_at = math.inf
        self._master.holding = False

    def step_down(self) -> None:
        """This member leads no more."""
        self._end()
        self._level_since.clear()

    # -- unasked

    def _be_calm(self) -> None:
        local = self._local
        self._calm_until = local.now + CALM_TIMEOUTS * local.limits.election_timeout_seconds
        self._level_since.clear()

    def _look(self, *, idle: bool) -> None:
        local = self._local
        if self._ballot != self._master.ballot:
            self._ballot = self._master.ballot
            self._be_calm()
        if local.role is not Role.MASTER:
            return
        preferred = self._preferred()
        if not idle or local.now < self._calm_until:
            return
        target = preferred or self._quicker()
        if target:
            self.begin(target)

    def _preferred(self) -> Incarnation:
        """A voter with a higher priority that has been level for long enough, or NOBODY."""
        local = self._local
        own = local.log.configuration.seat(local.name)
        if own is None:
            return NOBODY
        enough = LEVEL_TIMEOUTS * local.limits.election_timeout_seconds
        found, best = NOBODY, own.priority
        for seat in local.log.configuration.seats:
            if seat.priority <= own.priority or not seat.is_voter:
                continue
            name = seat.incarnation
            if self.objection(name):
                self._level_since.pop(name, None)
                continue
            since = self._level_since.setdefault(name, local.now)
            if local.now - since >= enough and seat.priority > best:
                found, best = name, seat.priority
        return found

    def _quicker(self) -> Incarnation:
        """Who has a better disk, when the own one is slow; or NOBODY.

        A disk is better if it holds everything while the own one has been at it for a while: where
        all disks are equally slow, the others, who begin later, are seldom done first.
        """
        local = self._local
        limit = local.limits.slow_disk_seconds
        syncs = local.recent_syncs
        if local.disk_waits_seconds() < limit / 2 or len(syncs) < ENOUGH_SYNCS:
            return NOBODY
        if sum(syncs) / len(syncs) <= limit:
            return NOBODY
        target = self.best()
        if not target or self._master.progress[target].match < local.log.last_seq:
            return NOBODY
        return target
