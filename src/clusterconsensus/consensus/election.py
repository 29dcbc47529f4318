"""Election: who should lead, and how it learns what was chosen before.

::

             nothing heard for [E, 2 E)        majority grants the probe
    follower ------------------------> probing ------------------------> preparing
        ^                                 |                                  | majority promises
        |    no majority in time,         |                                  v
        +------ a higher ballot, ---------+---------- no progress ------- adopting
             a master is heard                                               | own log is the best
                                                                             v
                                                                          master

Where the master itself asks a member to take over (E11), that one begins with preparing: its probe
would be refused by all who hear the master.

A probe changes nothing durable anywhere, so a member that cannot win disturbs nobody (E1, E2). A
prepare does (E3). Any member may win: it adopts the best log among the promises before it leads
(E5), which is why no member needs to be up to date to stand.

All that belongs to one attempt lives in one ``Candidacy``, made for one ballot and thrown away with
it: an answer for another ballot finds nobody to count it (A-6).

*Why adoption may append piece by piece.* A log with a higher last position than one's own contains
every entry that is or can still be chosen and that one's own log contains: if its last ballot is
the same, both are prefixes of one master's log; if it is higher, that ballot's master had every
chosen entry of lower ballots (I-4), and its log is a prefix of this one (I-3). So cutting off what
differs never loses a chosen entry, whether or not the rest arrives.
"""

from __future__ import annotations

import math
from enum import Enum, auto

from clusterconsensus.consensus.effects import ElectionEnded
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.log import well_formed
from clusterconsensus.consensus.messages import (
    Prepare,
    Probe,
    ProbeReply,
    Promise,
    PromisePart,
    PromisePull,
    Refusal,
    TransferMaster,
)
from clusterconsensus.consensus.quorum import is_majority
from clusterconsensus.consensus.types import (
    NOBODY,
    ZERO,
    Ballot,
    Entry,
    Incarnation,
    Position,
    Role,
    member_id_of,
)

MAX_BACK_OFF = 2
"""A failed prepare waits up to this many times longer for the next (E10)."""

IMMEDIATE_PROBES = 4
"""How often one attempt may start over at once with a higher ballot that it was told of."""


class Phase(Enum):
    PROBING = auto()
    PROMISING = auto()
    """The own promise is on its way to the disk (D1)."""
    PREPARING = auto()
    ADOPTING = auto()


class Candidacy:
    """One attempt at one ballot."""

    def __init__(self, ballot: Ballot, base: int, transfer_from: Ballot = ZERO) -> None:
        self.ballot = ballot
        self.base = base
        self.transfer_from = transfer_from
        """The ballot whose master asked for it (E11)."""
        self.phase = Phase.PROBING
        self.granted: set[Incarnation] = {ballot.owner}
        self.refusals: dict[Incarnation, Refusal] = {}
        self.asked: set[Incarnation] = {ballot.owner}
        self.lasts: dict[Incarnation, Position] = {}
        self.suffixes: dict[Incarnation, tuple[tuple[Entry, ...], bool]] = {}
        self.adopting_from: Incarnation = NOBODY
        self.progress_at = 0.0


class Election:
    """Timers and candidacies of one member."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self.candidacy: Candidacy | None = None
        self.deadline = math.inf
        """When to stand for election if nothing is heard until then."""
        self._failed_prepares = 0
        self._probes_left = IMMEDIATE_PROBES
        self._asked_for = False

    # -- timers

    def start(self) -> None:
        """Set the first timer; a lone voter need not wait for anybody (C-54)."""
        local = self._local
        alone = local.log.voters == (local.name,)
        self.deadline = local.now if alone else local.now + local.election_delay()

    def on_master_heard(self, master: Incarnation) -> None:
        """A valid accept: no reason to stand for election (R1c)."""
        local = self._local
        self._failed_prepares = 0
        self.deadline = local.now + local.election_delay()
        if self.candidacy is not None:
            self.abandon(f"master {member_id_of(master)} is heard")

    def on_promised(self) -> None:
        """Another candidate was promised something: leave it time to use it."""
        local = self._local
        self.deadline = local.now + local.election_delay()
        if self.candidacy is not None:
            self.abandon(f"{local.promised} is promised to another candidate")

    def on_master_lost(self) -> None:
        """The connection to the master broke: stand soon, in random order (E13)."""
        local = self._local
        local.heard_at = -math.inf
        soon = local.now + local.limits.reconnect_delay_seconds * local.chance
        self.deadline = min(self.deadline, soon)

    def on_tick(self) -> None:
        local = self._local
        if local.leads:
            self.deadline = math.inf
            return
        if local.quarantined or self.objection():
            if local.now >= self.deadline:
                self.deadline = local.now + local.election_delay()
                self._ask_whether_removed()
            return
        if local.now >= self.deadline:
            if local.disk_waits_seconds() > local.limits.disk_timeout_seconds:
                # Its promise could not become durable, and yet would turn it from the master (E9).
                self.deadline = local.now + local.election_delay()
                return
            if self.candidacy is not None and self.candidacy.phase is not Phase.PROBING:
                recent = local.now - self.candidacy.progress_at
                if recent < local.limits.election_timeout_seconds:
                    self.deadline = self.candidacy.progress_at
                    self.deadline += local.limits.election_timeout_seconds
                    return
                self._fail_prepare("no majority promised in time")
                return
            if self.candidacy is not None:
                self._end_request("no majority answered in time")
            self._probes_left = IMMEDIATE_PROBES
            self._probe("no master heard")

    def start_now(self) -> None:
        """The application wants an election (``StartElection``)."""
        local = self._local
        if local.leads:
            local.effects.append(ElectionEnded(""))
        elif objection := self.objection():
            local.effects.append(ElectionEnded(objection))
        elif local.limits.lease_reads and local.hears_master():
            # Its own vote may be part of the master's lease (L2); ``transfer`` ends that first.
            local.effects.append(ElectionEnded("a master is heard and may hold a lease"))
        else:
            self._asked_for = True
            self._probes_left = IMMEDIATE_PROBES
            if self.candidacy is None or self.candidacy.phase is Phase.PROBING:
                self._probe("asked to")

    def objection(self) -> str:
        """Why this member must not stand for election; empty if it may."""
        local = self._local
        seat = local.log.configuration.seat(local.name)
        if local.removed:
            return "this member was removed from its cluster (M8)"
        if seat is None or not seat.is_voter:
            return "this member is not a voter"
        if local.recovering:
            return "this member has lost something and is not whole again (W4)"
        return "" if seat.priority else "this member has the priority 0 and never leads"

    def on_transfer(self, source: Incarnation, message: TransferMaster) -> None:
        """The master asks this member to lead: no probe, it would be refused (E11). Whoever may not
        stand lets it pass, and the master goes on."""
        local = self._local
        ballot = message.ballot
        if source != local.master or ballot != local.master_ballot or ballot != local.promised:
            return  # from a master of the past
        if local.leads or not local.hears_master() or local.quarantined or self.objection():
            return
        if min(local.log.last_seq, local.log.durable_seq) < message.last_seq:
            return
        instance = max(local.promised.instance, local.max_seen_instance) + 1
        candidacy = Candidacy(Ballot(instance, local.name), local.commit, ballot)
        self.candidacy = candidacy
        self.deadline = local.now + local.election_delay()
        local.change_role(Role.CANDIDATE, candidacy.ballot, NOBODY, "the master hands over")
        self._prepare(candidacy)

    def _end_request(self, refusal: str) -> None:
        if self._asked_for:
            self._asked_for = False
            self._local.effects.append(ElectionEnded(refusal))

    # -- probing (E1)

    def _probe(self, reason: str) -> None:
        local = self._local
        instance = max(local.promised.instance, local.max_seen_instance) + 1
        candidacy = Candidacy(Ballot(instance, local.name), local.commit)
        self.candidacy = candidacy
        self.deadline = local.now + local.election_delay()
        local.change_role(Role.CANDIDATE, candidacy.ballot, NOBODY, reason)
        if is_majority(local.log.voters, candidacy.granted):
            self._prepare(candidacy)
            return
        seq, _ = local.log.committed_configuration(local.commit)
        others = tuple(voter for voter in local.log.voters if voter != local.name)
        local.broadcast(others, Probe(candidacy.ballot, seq, local.commit, local.log.last))

    def on_probe_reply(self, source: Incarnation, message: ProbeReply) -> None:
        local = self._local
        local.see_ballot(message.promised)
        candidacy = self.candidacy
        if candidacy is None or candidacy.phase is not Phase.PROBING:
            return
        if message.ballot != candidacy.ballot:
            return
        if message.refusal is Refusal.NONE:
            candidacy.granted.add(source)
            if is_majority(local.log.voters, candidacy.granted):
                self._prepare(candidacy)
        elif message.refusal is Refusal.LOWER:
            if message.promised >= candidacy.ballot and self._probes_left > 0:
                self._probes_left -= 1
                self._probe("a higher ballot was promised elsewhere")
        else:
            candidacy.refusals[source] = message.refusal
            if self._asked_for and self._cannot_win(candidacy):
                said = ", ".join(
                    f"{member_id_of(name)}: {refusal.name}"
                    for name, refusal in sorted(candidacy.refusals.items())
                )
                self.abandon(f"a majority refused ({said})")

    def _cannot_win(self, candidacy: Candidacy) -> bool:
        voters = self._local.log.voters
        open_still = [voter for voter in voters if voter not in candidacy.refusals]
        return not is_majority(voters, open_still)

    def _ask_whether_removed(self) -> None:
        """Who has its own removal in the log, does not know it to be committed and hears nobody,
        asks: any member that knows says so, in its answer to a probe (M8)."""
        local = self._local
        configuration = local.log.configuration
        if local.removed or local.hears_master() or local.name not in configuration.removed:
            return
        instance = max(local.promised.instance, local.max_seen_instance) + 1
        seq, _ = local.log.committed_configuration(local.commit)
        question = Probe(Ballot(instance, local.name), seq, local.commit, local.log.last)
        local.broadcast(configuration.everyone, question)

    # -- preparing (E3)

    def _prepare(self, candidacy: Candidacy) -> None:
        local = self._local
        if candidacy.ballot <= local.promised:
            self._probe("a higher ballot was promised meanwhile")
            return
        candidacy.phase = Phase.PROMISING
        candidacy.granted = set()
        candidacy.progress_at = local.now
        local.raise_promise(candidacy.ballot)
        local.persist(promised=candidacy.ballot)

    def end_of_turn(self) -> bool:
        """Go on where the disk was waited for. Returns whether the election is won."""
        local = self._local
        candidacy = self.candidacy
        if candidacy is None or candidacy.phase is Phase.PROBING:
            return False
        if candidacy.phase is Phase.PROMISING:
            if local.promised_durable < candidacy.ballot:
                return False
            candidacy.phase = Phase.PREPARING
            candidacy.granted.add(local.name)  # counted only now (D1)
            candidacy.base = local.commit
            candidacy.lasts[local.name] = local.log.last
        if candidacy.phase is Phase.PREPARING:
            self._ask(candidacy)
            return self._adopt(candidacy)
        return False

    def _ask(self, candidacy: Candidacy) -> None:
        """Ask everyone in any configuration of the log who was not asked yet (E3, E6)."""
        local = self._local
        known: set[Incarnation] = set()
        for configuration in local.log.configurations():
            known.update(configuration.everyone)
        new = tuple(sorted(known - candidacy.asked))
        candidacy.asked.update(new)
        local.broadcast(
            new,
            Prepare(candidacy.ballot, candidacy.base, local.log.last, candidacy.transfer_from),
        )

    def on_promise(self, source: Incarnation, message: Promise) -> None:
        local = self._local
        local.see_ballot(message.promised)
        candidacy = self.candidacy
        if candidacy is None or message.ballot != candidacy.ballot:
            return
        if candidacy.phase not in (Phase.PREPARING, Phase.ADOPTING):
            return
        if message.refusal is Refusal.NONE:
            candidacy.granted.add(source)
            candidacy.lasts[source] = message.last
            candidacy.suffixes[source] = (message.suffix, message.more)
            candidacy.progress_at = local.now
        else:
            candidacy.refusals[source] = message.refusal
            if message.promised > candidacy.ballot:
                self._fail_prepare(f"{message.promised} is promised elsewhere")

    # -- adopting (E5, E6)

    def _adopt(self, candidacy: Candidacy) -> bool:
        """Take the best log of the promises. Returns whether it is the own one: the ballot is won.

        Recomputed after every piece: the configuration that counts is the one that the adopted log
        ends with, and a promise that came meanwhile may hold a better log still (E6).
        """
        local = self._local
        log = local.log
        if not is_majority(log.voters, candidacy.granted):
            return False
        own = log.last
        best, last = local.name, own
        for name in sorted(candidacy.lasts):
            if name != local.name and candidacy.lasts[name] > last:
                best, last = name, candidacy.lasts[name]
        if best == local.name:
            if local.name in log.voters:
                return True
            self._fail_prepare("the adopted configuration has no vote for this member")
            return False
        suffix, more = candidacy.suffixes.pop(best, ((), True))
        candidacy.adopting_from = best
        candidacy.phase = Phase.ADOPTING
        if suffix:
            self._take(candidacy, candidacy.base, suffix, more)
        else:
            self._pull(candidacy, candidacy.base + 1)
        return candidacy is self.candidacy and self.end_of_turn()

    def on_promise_part(self, source: Incarnation, message: PromisePart) -> None:
        candidacy = self.candidacy
        if candidacy is None or message.ballot != candidacy.ballot or not message.entries:
            return
        if candidacy.phase is Phase.ADOPTING and source == candidacy.adopting_from:
            self._take(candidacy, message.first - 1, message.entries, message.more)

    def _take(
        self,
        candidacy: Candidacy,
        previous_seq: int,
        entries: tuple[Entry, ...],
        more: bool,
    ) -> None:
        local = self._local
        log = local.log
        ballot = log.ballot_at(previous_seq)
        if ballot is None or not well_formed(
            Position(ballot, previous_seq), entries, candidacy.ballot
        ):
            self._fail_prepare(f"{member_id_of(candidacy.adopting_from)} sent what fits no log")
            return
        cut, fresh = log.merge(entries, local.commit)
        if fresh:
            local.persist(truncate_from=cut, entries=fresh)
        candidacy.progress_at = local.now
        if more:
            self._pull(candidacy, entries[-1].seq + 1)
        else:
            candidacy.phase = Phase.PREPARING
            candidacy.lasts[local.name] = log.last
            # What it holds beyond this it has not shown; it must not be chosen for it again.
            candidacy.lasts[candidacy.adopting_from] = log.last

    def _pull(self, candidacy: Candidacy, first: int) -> None:
        self._local.send(candidacy.adopting_from, PromisePull(candidacy.ballot, first))

    # -- endings

    def _fail_prepare(self, reason: str) -> None:
        """Wait longer than after a probe: this attempt has cost others a promise (E10)."""
        local = self._local
        factor = min(2**self._failed_prepares, MAX_BACK_OFF)
        self._failed_prepares += 1
        self.deadline = local.now + local.election_delay() * factor
        self.abandon(reason)

    def abandon(self, reason: str) -> None:
        """End the candidacy, if there is one."""
        local = self._local
        self.candidacy = None
        if local.role is Role.CANDIDATE:
            local.change_role(local.passive_role(), local.promised, NOBODY, reason)
        self._end_request(reason)

    def won(self) -> Ballot:
        """End the candidacy as a success and return its ballot."""
        candidacy = self.candidacy
        if candidacy is None:
            raise AssertionError("no candidacy to win")
        self.candidacy = None
        self._failed_prepares = 0
        self.deadline = math.inf
        self._end_request("")
        return candidacy.ballot
