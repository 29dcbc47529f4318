"""The acceptor: promises and accepts. The rules here keep the log safe under any schedule.

Two promises are the whole of it. *Having promised a ballot, take nothing below it* (R1a, E4), and
*say so only when it is on the disk* (D2, D3). Time appears once, in the refusal of a prepare while
a master is heard (STICKY): that one only protects availability, never the log.

Acknowledging is a matter of state, not of messages: ``verified`` is how far the own log is known to
equal the master's in its ballot, ``durable_seq`` how far the disk holds it. At the end of a turn at
most one ``Accepted`` leaves, with the smaller of the two; when the disk catches up another follows.
So a heartbeat never waits for the disk, and a repeated or empty accept never claims more than the
disk holds (C-8).
"""

from __future__ import annotations

from clusterconsensus.consensus.effects import Load
from clusterconsensus.consensus.local import FEATURE_LEVEL, Local
from clusterconsensus.consensus.log import LogError, well_formed
from clusterconsensus.consensus.messages import (
    Accept,
    Accepted,
    Prepare,
    Probe,
    ProbeReply,
    Promise,
    PromisePart,
    PromisePull,
    Refusal,
    Reject,
)
from clusterconsensus.consensus.types import ZERO, Ballot, Entry, Incarnation, Position


class Acceptor:
    """Promise and accept for one member."""

    def __init__(self, local: Local) -> None:
        self._local = local
        self._verified = 0
        self._verified_ballot = ZERO
        self._ack_due = False
        self._ack_round = 0
        self._acked_match = 0
        self._preparing: tuple[Incarnation, Prepare] | None = None
        self._pull: tuple[Incarnation, PromisePull] | None = None

    # -- probes (E2)

    def on_probe(self, source: Incarnation, message: Probe) -> None:
        """Answer from what is known now; nothing changes here, no timer either (C-31)."""
        local = self._local
        refusal = Refusal.NONE
        seq, committed = local.log.committed_configuration(local.commit)
        if source in committed.removed:
            refusal = Refusal.REMOVED
        elif local.recovering:
            refusal = Refusal.RECOVERING
        elif local.hears_master() and local.master != source:
            refusal = Refusal.STICKY
        elif seq > message.configuration_seq and committed.seat(source) is None:
            refusal = Refusal.NOT_MEMBER
        elif message.ballot <= local.promised:
            refusal = Refusal.LOWER
        elif self._is_compacted(message.base, message.last):
            refusal = Refusal.COMPACTED
        reply = ProbeReply(message.ballot, refusal, local.promised, local.log.last)
        local.send(source, reply)

    def _is_compacted(self, base: int, last: Position) -> bool:
        """Whether the asker would have to adopt entries that are no longer here."""
        log = self._local.log
        return log.base.seq > base and log.last > last

    # -- promises (E4)

    def ignore_prepare(self, source: Incarnation, message: Prepare) -> bool:
        """A ballot is promised only to its owner, and never one out of all proportion."""
        return message.ballot.owner != source or not self._local.see_ballot(message.ballot)

    def on_prepare(self, source: Incarnation, message: Prepare) -> bool:
        """Promise, or refuse at once. Returns whether the promise was raised.

        The own configuration is not consulted: the candidate's decides whose promises count (C-32).
        """
        local = self._local
        if self._preparing == (source, message):
            return False  # a repetition; the answer is on its way or is given again below
        refusal = Refusal.NONE
        asked_by_master = message.transfer_from == local.master_ballot > ZERO
        if local.recovering:
            refusal = Refusal.RECOVERING
        elif local.hears_master() and local.master != source and not asked_by_master:
            refusal = Refusal.STICKY
        elif message.ballot <= local.promised:
            repeated = message.ballot == local.promised and local.master_ballot < message.ballot
            refusal = Refusal.NONE if repeated else Refusal.LOWER
        elif self._is_compacted(message.base, message.last):
            refusal = Refusal.COMPACTED
        if refusal is not Refusal.NONE:
            reply = Promise(message.ballot, refusal, local.promised, local.log.last)
            local.send(source, reply)
            return False
        raised = message.ballot > local.promised
        if raised:
            local.raise_promise(message.ballot)
            local.persist(promised=message.ballot)
        self._preparing = (source, message)
        return raised

    def _answer_prepare(self) -> None:
        """Send the promise as soon as it is durable, with the suffix if it is at hand (D2)."""
        local = self._local
        if self._preparing is None:
            return
        source, prepare = self._preparing
        if prepare.ballot != local.promised:
            self._preparing = None
        elif local.promised_durable >= prepare.ballot:
            self._preparing = None
            suffix: tuple[Entry, ...] = ()
            more = False
            last = local.log.last
            if last > prepare.last:
                if local.log.is_cached(prepare.base + 1):
                    suffix = local.log.slice(prepare.base + 1, local.limits.max_batch_bytes)
                more = not suffix or suffix[-1].seq < last.seq
            local.send(
                source,
                Promise(prepare.ballot, Refusal.NONE, local.promised, last, suffix, more),
            )

    def on_promise_pull(self, source: Incarnation, message: PromisePull) -> None:
        """Hand out more of the log, as long as this ballot is still the one promised (E5)."""
        local = self._local
        if message.ballot != local.promised_durable or message.ballot.owner != source:
            return
        log = local.log
        if not log.base.seq < message.first <= log.last_seq or local.promised != message.ballot:
            return
        if local.log.is_cached(message.first):
            entries = local.log.slice(message.first, local.limits.max_batch_bytes)
            self._send_part(source, message, entries)
        else:
            self._pull = (source, message)
            # Only what left the memory, all of it chosen: a late answer cannot hold what was cut.
            last = local.log.first_cached - 1
            local.effects.append(Load(source, message.first, last, local.limits.max_batch_bytes))

    def on_loaded(self, source: Incarnation, first: int, entries: tuple[Entry, ...]) -> bool:
        """Entries read for a pull; returns False if no pull waits for them."""
        if self._pull is None or self._pull[0] != source or self._pull[1].first != first:
            return False
        message, self._pull = self._pull[1], None
        if entries and message.ballot == self._local.promised:
            self._send_part(source, message, entries)
        return True

    def _send_part(
        self, source: Incarnation, message: PromisePull, entries: tuple[Entry, ...]
    ) -> None:
        more = entries[-1].seq < self._local.log.last_seq
        self._local.send(source, PromisePart(message.ballot, message.first, entries, more))

    # -- accepts (R1)

    def ignore_accept(self, source: Incarnation, message: Accept) -> bool:
        """Only a ballot's owner speaks in it; what cannot be part of any log is dropped."""
        ballot = message.ballot
        if ballot.owner != source or not self._local.see_ballot(ballot):
            return True
        if message.previous.seq < 0 or message.commit < 0:
            return True
        return not well_formed(message.previous, message.entries, ballot)

    def refuse_lower(self, source: Incarnation, message: Accept) -> bool:
        """R1a: refuse what is below the promise, and say which promise it is."""
        local = self._local
        if message.ballot >= local.promised:
            return False
        self._reject(source, message, Refusal.LOWER, 0)
        return True

    def on_accept(self, source: Incarnation, message: Accept) -> None:
        """Take over what fits (R1b to R1g); the caller has refused lower ballots and taken the
        follower's role.

        Raises:
            LogError: a committed entry would be replaced: a broken invariant, never a message's
                fault.
        """
        local = self._local
        log = local.log
        raised = message.ballot > local.promised
        if raised:
            local.raise_promise(message.ballot)  # accepting is promising (C-1)
        self._follow(message.ballot)
        local.cluster_level = message.level
        previous = message.previous
        if previous.seq > local.commit and log.ballot_at(previous.seq) != previous.ballot:
            if raised:
                local.persist(promised=message.ballot)
            refusal = Refusal.LOST if local.recovering else Refusal.GAP
            self._reject(source, message, refusal, self._hint(previous.seq))
            return
        entries = message.entries
        if previous.seq < local.commit:
            # What is committed here matches by definition; it may even have left this log (C-12).
            self._check_covered(entries)
            entries = tuple(entry for entry in entries if entry.seq > local.commit)
        cut, fresh = log.merge(entries, local.commit)
        if raised or fresh:
            local.persist(
                promised=message.ballot if raised else None, truncate_from=cut, entries=fresh
            )
        self._verified = max(self._verified, previous.seq + len(message.entries))
        if message.commit > local.commit:
            # Bounded by what this ballot's messages verified, not by the own log's end (C-10).
            local.advance_commit(max(local.commit, min(message.commit, self._verified)))
        if message.round > self._ack_round or not fresh:
            # A new round is answered at once, whatever the disk does; what merely brings entries
            # is answered when they are durable, which ``_acknowledge`` notices by itself.
            self._ack_due = True
        self._ack_round = max(self._ack_round, message.round)

    def _follow(self, ballot: Ballot) -> None:
        """What was verified counts for its ballot alone."""
        if ballot != self._verified_ballot:
            self._verified_ballot = ballot
            self._verified = 0
            self._ack_due = False
            self._acked_match = 0
            self._ack_round = 0

    def verified(self, ballot: Ballot) -> int:
        """Up to where the own log is known to equal the master's in a ballot."""
        return self._verified if ballot == self._verified_ballot else 0

    def on_snapshot(self, ballot: Ballot, *, raised: bool) -> None:
        """A piece of a snapshot came from a master: following it is promising its ballot (R1b)."""
        local = self._local
        if raised:
            local.raise_promise(ballot)
            local.persist(promised=ballot)
        self._follow(ballot)

    def on_installed(self, seq: int) -> None:
        """The log gave way to a snapshot. All of it is chosen, so it is in the log of whoever leads
        in the ballot that is followed (I-4)."""
        self._verified = max(self._verified, seq)
        self._ack_due = self._verified_ballot is not ZERO

    def _check_covered(self, entries: tuple[Entry, ...]) -> None:
        local = self._local
        base = local.log.base.seq
        for entry in entries:
            if base < entry.seq <= local.commit and local.log.ballot_at(entry.seq) != entry.ballot:
                raise LogError(f"entry {entry} differs from the committed one here (I-1)")

    def _hint(self, previous_seq: int) -> int:
        """A sequence up to which the logs may agree: the end, or before a conflicting run."""
        local = self._local
        if previous_seq > local.log.last_seq:
            return local.log.last_seq
        return max(local.log.run_start(previous_seq) - 1, local.commit)

    def _reject(self, source: Incarnation, message: Accept, refusal: Refusal, hint: int) -> None:
        previous = message.previous.seq
        reject = Reject(
            message.ballot, refusal, self._local.promised, previous, hint, message.round
        )
        self._local.send(source, reject)

    def _acknowledge(self) -> None:
        """One ``Accepted`` for everything that this turn verified or synced (D3)."""
        local = self._local
        ballot: Ballot = self._verified_ballot
        if ballot != local.promised or local.promised_durable < ballot or local.leads:
            return
        match = min(self._verified, local.log.durable_seq)
        if not self._ack_due and match <= self._acked_match:
            return
        self._ack_due = False
        self._acked_match = match
        local.send(
            ballot.owner,
            Accepted(
                ballot,
                match,
                self._ack_round,
                local.applied,
                local.checksum,
                FEATURE_LEVEL,
                local.limits.lease_reads,
                local.recovering,
            ),
        )

    def end_of_turn(self) -> None:
        """Release what waited for the disk."""
        self._answer_prepare()
        if self._verified_ballot is not ZERO:
            self._acknowledge()
