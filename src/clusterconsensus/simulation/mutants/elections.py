"""Mutants of the election: votes that were not given, logs that were not adopted."""

from __future__ import annotations

from clusterconsensus.consensus import quorum
from clusterconsensus.consensus.acceptor import Acceptor
from clusterconsensus.consensus.election import Election
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.simulation.mutants.table import Mutant, edited, table, together

MUTANTS = table(
    Mutant(
        "half-is-a-majority",
        "half of the voters are taken for a majority",
        ("I-4", "I-10", "I-2"),
        edited(quorum, "majority_size", ("voters // 2 + 1", "max(1, voters // 2)")),
        "I-10",
        story="majorities",
        core_seeds=range(10),
    ),
    Mutant(
        "half-of-the-others",
        "a majority is (n - 1) / 2 others and oneself: of four, two",
        ("I-4", "I-10", "I-2"),
        edited(quorum, "majority_size", ("voters // 2 + 1", "(voters - 1) // 2 + 1")),
        "I-10",
        story="majorities",
        core_seeds=range(10),
    ),
    Mutant(
        "nothing-is-adopted",
        "the winner keeps its own log, whatever the promises show",
        ("I-4", "E5"),
        edited(
            Election,
            "_adopt",
            ("if name != local.name and candidacy", "if name == local.name and candidacy"),
        ),
        "I-4",
        story="failover_with_adoption",
        core_seeds=range(10),
    ),
    Mutant(
        "longest-log-is-best",
        "the longest log is adopted instead of the one with the highest last ballot",
        ("I-4", "I-7", "E5"),
        edited(
            Election,
            "_adopt",
            ("candidacy.lasts[name] > last:", "candidacy.lasts[name].seq > last.seq:"),
        ),
        "I-4",
        story="longest_log_is_not_the_best",
    ),
    Mutant(
        "adopted-in-part",
        "the winner leads with the first piece of the log that it adopts",
        ("I-4", "E5"),
        edited(Election, "_take", ("if more:", "if False:")),
        "I-4",
        story="laggard_pulls_a_long_log",
        core_seeds=range(63, 64),
    ),
    Mutant(
        "adopted-without-a-second-count",
        "the majority is not counted again by the configuration that was adopted (E6)",
        ("E5", "E6", "I-2", "I-4"),
        edited(
            Election,
            "_adopt",
            (
                "return candidacy is self.candidacy and self.end_of_turn()",
                "return candidacy is self.candidacy and candidacy.phase is Phase.PREPARING",
            ),
        ),
        "E5",
        story="counted_again_after_adopting",
    ),
    Mutant(
        "candidate-counts-committed-configuration",
        "a candidate counts promises by its committed configuration instead of its latest (C-37)",
        ("E5", "E6", "I-4", "I-2"),
        edited(
            Election,
            "_adopt",
            (
                "if not is_majority(log.voters, candidacy.granted):",
                "if not is_majority(\n"
                "        log.committed_configuration(local.commit)[1].voters, candidacy.granted\n"
                "    ):",
            ),
        ),
        "E5",
        story="counted_again_after_adopting",
    ),
    Mutant(
        "learners-elect",
        "promises of members without a vote are counted (C-19)",
        ("E5", "I-12", "I-4", "E6"),
        together(
            edited(
                Election,
                "_probe",
                (
                    "tuple(voter for voter in local.log.voters if",
                    "tuple(voter for voter in local.log.configuration.everyone if",
                ),
            ),
            edited(
                Election,
                "on_probe_reply",
                ("is_majority(local.log.voters,", "is_majority(local.log.configuration.everyone,"),
            ),
            edited(
                Election,
                "_adopt",
                (
                    "if not is_majority(log.voters, candidacy.granted):",
                    "if not is_majority(log.configuration.everyone, candidacy.granted):",
                ),
            ),
        ),
        "E5",
        story="learners_do_not_elect",
    ),
    Mutant(
        "probes-count-as-promises",
        "who agreed to a probe counts as having promised",
        ("E5", "I-4", "I-2"),
        edited(Election, "_prepare", ("candidacy.granted = set()\n", "pass\n")),
        "E5",
        story="failover_with_adoption",
        core_seeds=range(10),
    ),
    Mutant(
        "refusals-count-as-promises",
        "who refused to promise is counted too",
        ("E5", "I-4", "I-2"),
        edited(
            Election,
            "on_promise",
            (
                "candidacy.refusals[source] = message.refusal",
                "candidacy.refusals[source] = message.refusal\n"
                "        candidacy.granted.add(source)",
            ),
        ),
        "E5",
        core_seeds=range(10),
    ),
    Mutant(
        "votes-of-another-election",
        "promises for an earlier ballot of this candidate are counted (A-6)",
        ("E5", "I-4", "I-2"),
        together(
            edited(
                Election,
                "on_promise",
                (
                    "if candidacy is None or message.ballot != candidacy.ballot:",
                    "if candidacy is None:",
                ),
            ),
            edited(
                Election,
                "on_probe_reply",
                ("if message.ballot != candidacy.ballot:", "if False:"),
            ),
        ),
        "E5",
        story="late_votes_of_another_election",
    ),
    Mutant(
        "base-is-the-own-end",
        "a candidate asks for what stands behind its log instead of behind its commit",
        ("I-3", "I-4", "I-22"),
        edited(
            Election,
            "end_of_turn",
            ("candidacy.base = local.commit", "candidacy.base = local.log.last_seq"),
        ),
        "I-3",
        core_seeds=range(17, 18),
    ),
    Mutant(
        "prepare-before-sync",
        "a candidate asks for promises before its own is durable",
        ("D1", "I-2"),
        edited(
            Election,
            "end_of_turn",
            ("if local.promised_durable < candidacy.ballot:", "if False:"),
        ),
        "D1",
        story="first_election",
        core_seeds=range(10),
    ),
    Mutant(
        "candidate-promises-nothing",
        "a candidate does not write its own promise",
        ("D1", "I-5", "I-2"),
        edited(
            Election, "_prepare", ("local.persist(promised=candidacy.ballot)", "local.persist()")
        ),
        "D1",
        story="first_election",
        core_seeds=range(10),
    ),
    Mutant(
        "restart-keeps-the-ballot",
        "a master that restarts goes on leading in the ballot it had (C-47)",
        ("I-2", "I-3", "W7"),
        edited(
            Replica,
            "start",
            (
                "self.election.start()",
                "self.election.start()\n"
                "    if self.local.promised.owner == self.local.name and self.local.commit > 1:\n"
                "        self.master.begin(self.local.promised)",
            ),
        ),
        "expect",
        story="master_restarts_in_its_ballot",
        core_seeds=range(10),
    ),
    Mutant(
        "timer-not-random",
        "every member waits equally long before it stands",
        ("I-22", "E1"),
        edited(Local, "election_delay", ("(1.0 + self.chance)", "1.0")),
        "expect",
        story="timers_differ",
    ),
    Mutant(
        "learner-stands",
        "a member without a vote stands for election and wins",
        ("E1", "I-12", "E6"),
        together(
            edited(
                Election,
                "on_tick",
                (
                    "if local.quarantined or self.objection():",
                    "if local.standing is None or local.quarantined:",
                ),
            ),
            edited(Election, "_adopt", ("if local.name in log.voters:", "if True:")),
        ),
        "expect",
        story="learner_does_not_stand",
    ),
    Mutant(
        "probe-knows-no-master",
        "a probe is agreed to although a master is heard",
        ("E2", "I-22"),
        edited(
            Acceptor,
            "on_probe",
            ("if local.hears_master() and local.master != source:", "if False:"),
        ),
        "expect",
        story="probe_of_who_cannot_hear",
    ),
    Mutant(
        "prepare-asked-in-any-order",
        "whom a candidate asks is taken from a set in whatever order it has",
        ("K3",),
        edited(
            Election,
            "_ask",
            ("tuple(sorted(known - candidacy.asked))", "tuple(known - candidacy.asked)"),
        ),
        "K3",
        is_order=True,
    ),
)
