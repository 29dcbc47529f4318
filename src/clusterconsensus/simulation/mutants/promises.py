"""Mutants of the acceptor: promises forgotten, lowered, given too early or to two at once."""

from __future__ import annotations

from clusterconsensus.consensus.acceptor import Acceptor
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.simulation.mutants.table import Mutant, edited, table, together

MUTANTS = table(
    Mutant(
        "promise-only-in-memory",
        "a promise is given and never written: a restart forgets it (C-35)",
        ("D2", "I-5", "I-4"),
        edited(
            Acceptor,
            "on_prepare",
            ("local.persist(promised=message.ballot)", "local.persist()"),
        ),
        "D2",
        story="promise_survives_a_restart",
        core_seeds=range(10),
    ),
    Mutant(
        "promise-not-recorded",
        "a prepare is granted without promising anything: lower accepts are taken afterwards",
        ("D2", "I-4", "I-7"),
        together(
            edited(Acceptor, "on_prepare", ("if raised:", "if False:")),
            edited(
                Acceptor,
                "_answer_prepare",
                ("if prepare.ballot != local.promised:", "if False:"),
                ("elif local.promised_durable >= prepare.ballot:", "else:"),
            ),
        ),
        "D2",
        story="promise_is_enforced",
        core_seeds=range(10),
    ),
    Mutant(
        "promise-before-sync",
        "a promise is told while it is still on its way to the disk",
        ("D2", "I-5"),
        edited(
            Acceptor,
            "_answer_prepare",
            ("elif local.promised_durable >= prepare.ballot:", "else:"),
        ),
        "D2",
        story="first_election",
        core_seeds=range(10),
    ),
    Mutant(
        "equal-instance-is-granted",
        "ballots are compared without their owner: two members win one instance",
        ("I-2", "I-4", "I-5"),
        together(
            edited(
                Acceptor,
                "on_prepare",
                (
                    "elif message.ballot <= local.promised:",
                    "elif message.ballot.instance < local.promised.instance:",
                ),
            ),
            edited(
                Acceptor,
                "_answer_prepare",
                (
                    "if prepare.ballot != local.promised:",
                    "if prepare.ballot.instance != local.promised.instance:",
                ),
                (
                    "elif local.promised_durable >= prepare.ballot:",
                    "elif local.promised_durable.instance >= prepare.ballot.instance:",
                ),
            ),
        ),
        "I-5",
        story="duel",
        core_seeds=range(10),
    ),
    Mutant(
        "promise-is-lowered",
        "a prepare of a lower ballot is granted, and the promise goes down to it",
        ("I-5", "I-4"),
        together(
            edited(
                Acceptor,
                "on_prepare",
                ("elif message.ballot <= local.promised:", "elif False:"),
                (
                    "raised = message.ballot > local.promised",
                    "raised = message.ballot != local.promised",
                ),
            ),
            edited(Local, "raise_promise", ("if ballot <= self.promised:", "if False:")),
        ),
        "I-5",
        story="duel",
        core_seeds=range(10),
    ),
    Mutant(
        "accept-below-promise",
        "an accept of a lower ballot than the promised one is taken and acknowledged (R1a)",
        ("I-5", "I-7", "I-1", "D3"),
        together(
            edited(Acceptor, "refuse_lower", ("if message.ballot >= local.promised:", "if True:")),
            edited(Acceptor, "_acknowledge", ("ballot != local.promised or ", "")),
        ),
        "I-5",
        story="promise_survives_a_restart",
        core_seeds=range(10),
    ),
    Mutant(
        "accept-does-not-raise-promise",
        "entries of a higher ballot are accepted, and a lower one may still be promised (C-1)",
        ("I-5", "I-1", "I-4", "D3"),
        together(
            edited(
                Acceptor,
                "on_accept",
                ("raised = message.ballot > local.promised", "raised = False"),
            ),
            edited(
                Acceptor,
                "_acknowledge",
                ("ballot != local.promised or local.promised_durable < ballot or ", ""),
            ),
        ),
        "D3",
        story="heartbeat_over_a_stale_suffix",
        core_seeds=range(10),
    ),
    Mutant(
        "accept-promise-not-persisted",
        "an accept raises the promise in memory only",
        ("D3", "I-5"),
        edited(
            Acceptor,
            "on_accept",
            ("promised=message.ballot if raised else None, truncate", "promised=None, truncate"),
        ),
        "D3",
        story="changes_after_failover",
        core_seeds=range(10),
    ),
    Mutant(
        "gap-forgets-the-promise",
        "an accept that is refused as a gap raises the promise without writing it",
        ("D3", "I-5"),
        edited(
            Acceptor,
            "on_accept",
            ("    local.persist(promised=message.ballot)\n", "    local.persist()\n"),
        ),
        "D3",
        story="accept_raises_the_promise",
        core_seeds=range(10),
    ),
    Mutant(
        "accepted-before-sync",
        "entries are acknowledged when they are in memory, before the disk has them",
        ("D3", "I-8", "I-21"),
        edited(
            Acceptor,
            "_acknowledge",
            ("min(self._verified, local.log.durable_seq)", "self._verified"),
        ),
        "D3",
        story="acknowledgement_waits_for_the_disk",
        core_seeds=range(10),
    ),
    Mutant(
        "heartbeat-acknowledges-unsynced",
        "a heartbeat's answer reports entries that are still being synced (C-8)",
        ("D3", "I-8", "I-21"),
        edited(
            Acceptor,
            "_acknowledge",
            (
                "match = min(self._verified, local.log.durable_seq)",
                "match = self._verified if self._ack_due else "
                "min(self._verified, local.log.durable_seq)",
            ),
        ),
        "D3",
        story="acknowledgement_waits_for_the_disk",
        core_seeds=range(10),
    ),
    Mutant(
        "written-counts-as-durable",
        "what was handed to the disk counts as durable at once",
        ("D3", "I-10", "I-21"),
        edited(
            Local,
            "persist",
            (
                "self.effects.append(\n",
                "self.log.durable_seq = self.log.last_seq\n    self.effects.append(\n",
            ),
        ),
        "D3",
        story="acknowledgement_waits_for_the_disk",
        core_seeds=range(10),
    ),
    Mutant(
        "heartbeat-ignores-a-gap",
        "an accept without entries verifies whatever stands before it",
        ("I-8", "I-1", "R6"),
        edited(
            Acceptor,
            "on_accept",
            (
                "if previous.seq > local.commit and ",
                "if message.entries and previous.seq > local.commit and ",
            ),
        ),
        "R6",
        story="adding_under_load",
        core_seeds=range(10),
    ),
    Mutant(
        "commit-up-to-own-end",
        "a follower's commit is bounded by its own log's end, not by what was verified (C-10)",
        ("I-1", "I-8"),
        edited(
            Acceptor,
            "on_accept",
            ("min(message.commit, self._verified)", "min(message.commit, log.last_seq)"),
        ),
        "I-1",
        story="heartbeat_over_a_stale_suffix",
        core_seeds=range(300),
    ),
    Mutant(
        "verified-outlives-its-ballot",
        "what one ballot's messages verified counts in the next ballot too",
        ("I-8", "I-1"),
        edited(Acceptor, "_follow", ("self._verified = 0\n", "pass\n")),
        "I-8",
        story="figure_8",
    ),
    Mutant(
        "commit-goes-back",
        "a follower takes the commit of a delayed message, though it knows a higher one (C-3)",
        ("I-6",),
        together(
            edited(
                Acceptor,
                "on_accept",
                ("if message.commit > local.commit:", "if True:"),
                (
                    "max(local.commit, min(message.commit, self._verified))",
                    "min(message.commit, self._verified)",
                ),
            ),
            edited(Local, "advance_commit", ("max(self.commit, seq)", "seq")),
        ),
        "I-6",
        story="commit_never_goes_back",
        core_seeds=range(10),
    ),
    Mutant(
        "applied-before-durable",
        "what is chosen is applied before it is durable here",
        ("D5", "I-21"),
        edited(Local, "finish_turn", ("min(self.commit, self.log.durable_seq)", "self.commit")),
        "D5",
        story="changes_after_failover",
        core_seeds=range(10),
    ),
    Mutant(
        "suffix-begins-one-late",
        "a promise carries the log from base + 2 on",
        ("I-22", "E4"),
        edited(
            Acceptor,
            "_answer_prepare",
            ("local.log.slice(prepare.base + 1,", "local.log.slice(prepare.base + 2,"),
        ),
        "expect",
        story="laggard_pulls_a_long_log",
        core_seeds=range(11, 12),
    ),
    Mutant(
        "probe-raises-the-promise",
        "a probe raises the promise: a member that cannot win deposes masters (C-31)",
        ("I-2", "I-22", "E2"),
        edited(
            Acceptor,
            "on_probe",
            (
                "reply = ProbeReply(",
                "if message.ballot > local.promised:\n"
                "        local.raise_promise(message.ballot)\n"
                "        local.persist(promised=message.ballot)\n"
                "    reply = ProbeReply(",
            ),
        ),
        "I-2",
        story="cannot_hear",
        core_seeds=range(10),
    ),
    Mutant(
        "probe-renews-the-timer",
        "being probed restarts the election timer: a member that cannot win keeps others waiting",
        ("I-22", "E2"),
        edited(
            Replica,
            "_on_received",
            (
                "if handler is not None:",
                "if isinstance(event.message, Probe):\n"
                "        self.election.deadline = self.local.now + self.local.election_delay()\n"
                "    if handler is not None:",
            ),
        ),
        "expect",
        story="quorum_loss",
    ),
    Mutant(
        "refusals-hide-the-promise",
        "refusals do not tell the higher ballot: who is behind never learns of it (C-28)",
        ("I-22", "E2", "R1a"),
        together(
            edited(
                Acceptor,
                "on_probe",
                (
                    "ProbeReply(message.ballot, refusal, local.promised,",
                    "ProbeReply(message.ballot, refusal, ZERO,",
                ),
            ),
            edited(
                Acceptor,
                "on_prepare",
                (
                    "Promise(message.ballot, refusal, local.promised,",
                    "Promise(message.ballot, refusal, ZERO,",
                ),
            ),
            edited(
                Acceptor,
                "_reject",
                (
                    "message.ballot, refusal, self._local.promised,",
                    "message.ballot, refusal, ZERO,",
                ),
            ),
        ),
        "I-22",
        core_seeds=range(23),
    ),
    Mutant(
        "prepare-is-never-sticky",
        "a prepare is granted although a master is heard: one member deposes it at will",
        ("E4", "I-22"),
        edited(
            Acceptor,
            "on_prepare",
            (
                "elif local.hears_master() and local.master != source and not asked_by_master:",
                "elif False:",
            ),
        ),
        "expect",
        story="equal_ballot_is_no_grant",
    ),
    Mutant(
        "own-configuration-is-asked",
        "a prepare of a member that the own, old configuration does not name is refused (C-32)",
        ("E4", "I-22"),
        edited(
            Acceptor,
            "on_prepare",
            (
                "elif message.ballot <= local.promised:",
                "elif source not in local.log.voters:\n"
                "        refusal = Refusal.NOT_MEMBER\n"
                "    elif message.ballot <= local.promised:",
            ),
        ),
        "expect",
        story="own_configuration_is_not_asked",
    ),
)
