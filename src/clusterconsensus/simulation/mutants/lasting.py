"""Mutants of what a cluster needs for years: snapshots, recovery, leases, handing over, leaving."""

from __future__ import annotations

from clusterconsensus.consensus import changes
from clusterconsensus.consensus.acceptor import Acceptor
from clusterconsensus.consensus.catchup import CatchUp, Receiver
from clusterconsensus.consensus.departures import Departures
from clusterconsensus.consensus.election import Election
from clusterconsensus.consensus.handover import Handover
from clusterconsensus.consensus.master import Master
from clusterconsensus.consensus.reads import Reads
from clusterconsensus.consensus.recovery import Recovery
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.runtime.keeping import Keeping
from clusterconsensus.runtime.snapshots import Snapshotter
from clusterconsensus.simulation.mutants.table import Mutant, edited, table

MUTANTS = table(
    Mutant(
        "recovering-member-promises",
        "a member that has lost what it acknowledged promises a ballot",
        ("I-19", "W4", "I-4"),
        edited(Acceptor, "on_prepare", ("if local.recovering:", "if False:")),
        "I-19",
        cluster_seeds=range(3, 4),
    ),
    Mutant(
        "recovering-member-stands",
        "a member that has lost what it acknowledged stands for election",
        ("I-19", "W4", "I-4"),
        edited(Election, "objection", ("if local.recovering:", "if False:")),
        "I-19",
        cluster_seeds=range(1),
    ),
    Mutant(
        "whole-too-early",
        "a recovering member gets its vote back before it holds what it acknowledged",
        ("W5", "I-19", "I-4"),
        edited(Recovery, "end_of_turn", ("whole >= self.target_seq and ", "")),
        "W5",
        cluster_seeds=range(14, 15),
    ),
    Mutant(
        "lost-is-a-stale-gap",
        "a master does not believe that a member has lost what it acknowledged (C-44)",
        ("I-22", "W4"),
        edited(
            Master,
            "on_reject",
            (
                "progress.on_lost(message.hint)",
                "progress.on_gap(message.previous_seq, message.hint)",
            ),
        ),
        "I-22",
        cluster_seeds=range(29, 30),
    ),
    Mutant(
        "snapshot-without-sessions",
        "a snapshot holds no sessions: what was applied before it may be applied again",
        ("I-15", "X1"),
        edited(
            Snapshotter,
            "_begin",
            ("encode_saved(capture.sessions)", "encode_saved([])"),
        ),
        "I-15",
        cluster_seeds=range(4, 5),
    ),
    Mutant(
        "snapshot-is-one-off",
        "a snapshot is called by the sequence before the last one that it holds (C-16)",
        ("I-14", "S5", "I-13"),
        edited(
            Keeping,
            "_describe",
            ("position=log.position(capture.seq)", "position=log.position(capture.seq - 1)"),
        ),
        "I-14",
        cluster_seeds=range(1),
    ),
    Mutant(
        "removed-member-comes-back",
        "a member that was removed is added again with the disk it had (C-42, C-43)",
        ("I-20", "I3"),
        edited(
            changes,
            "_was_removed",
            (
                "if incarnation(change.member.id, facts.disk_id) not in",
                "if True or incarnation(change.member.id, facts.disk_id) not in",
            ),
        ),
        "I-20",
        cluster_seeds=range(18, 19),
    ),
    Mutant(
        "base-is-not-written",
        "a log gives way to a snapshot, and the journal is not told",
        ("S4", "I-9", "I-21"),
        edited(Receiver, "on_whole", ("local.persist(base=snapshot.position)", "pass")),
        "I-9",
        story="ballot_at_the_boundary",
    ),
    Mutant(
        "compacted-is-a-conflict",
        "what is no longer in the log is read as a conflict (C-12)",
        ("R1d", "I-7"),
        edited(Acceptor, "on_accept", ("if previous.seq > local.commit and log", "if log")),
        "expect",
        story="delayed_accept_below_the_base",
    ),
    Mutant(
        "compacts-behind-the-newest",
        "the log goes although only one snapshot covers it",
        ("S6", "I-21"),
        edited(
            CatchUp,
            "_compact",
            ("covered = min(self._older_seq, local.applied)", "covered = local.applied"),
        ),
        "S6",
        story="snapshot_while_applying",
    ),
    Mutant(
        "lease-survives-a-transfer",
        "a master that hands over keeps its lease (C-22)",
        ("I-18", "I-16", "L2"),
        edited(Handover, "begin", ("self._master.reads.lease_off()", "pass")),
        "expect",
        story="lease_ends_with_a_transfer",
    ),
    Mutant(
        "lease-without-an-end",
        "a lease lasts longer than a majority keeps from helping another",
        ("I-18", "L2"),
        edited(
            Reads,
            "on_contact",
            ("limits.election_timeout_seconds * (", "10 * limits.election_timeout_seconds * ("),
        ),
        "I-18",
        story="lease_does_not_outlive_a_pause",
    ),
    Mutant(
        "lease-of-any-clock",
        "a lease outlives a clock that goes back (C-23)",
        ("I-18", "L2"),
        edited(Replica, "step", ("self.master.reads.lease_off()", "pass")),
        "expect",
        story="clock_goes_back",
    ),
    Mutant(
        "handed-over-too-early",
        "a member is asked to lead before it holds the whole log",
        ("E11", "I-22"),
        edited(Handover, "_go_on", ("elif progress.match == last_seq:", "elif True:")),
        "expect",
        story="hand_over",
    ),
    Mutant(
        "nothing-is-held",
        "changes go into the log while the mastership is handed over",
        ("E11",),
        edited(Handover, "begin", ("self._master.holding = True", "pass")),
        "expect",
        story="hand_over",
    ),
    Mutant(
        "late-transfer-is-taken",
        "a member stands because a master of the past asked it to",
        ("E11", "I-22"),
        edited(
            Election,
            "on_transfer",
            (
                "if source != local.master or ballot != local.master_ballot "
                "or ballot != local.promised:",
                "if False:",
            ),
        ),
        "expect",
        story="late_transfer",
    ),
    Mutant(
        "nobody-tells-the-removed",
        "who was removed hears nothing more from the master (C-41)",
        ("M8", "I-20"),
        edited(Departures, "add", ("self._leaving[name] = Departure(seq)", "return")),
        "expect",
        story="removed_member_is_told",
    ),
    Mutant(
        "removed-does-not-ask",
        "who may have been removed waits for ever to be told",
        ("M8", "I-22"),
        edited(
            Election,
            "_ask_whether_removed",
            ("local.broadcast(configuration.everyone, question)", "pass"),
        ),
        "expect",
        story="removal_is_not_chosen",
    ),
    Mutant(
        "removed-is-not-told-so",
        "a probe of a removed member is answered like anybody's",
        ("M8", "E2"),
        edited(Acceptor, "on_probe", ("if source in committed.removed:", "if False:")),
        "expect",
        story="removed_while_cut_off",
    ),
    Mutant(
        "master-demotes-itself",
        "a master takes its own vote instead of handing over first (C-38)",
        ("M7", "E9"),
        edited(changes, "_leave", ("if seat.incarnation == facts.own:", "if False:")),
        "expect",
        story="demoted_master",
    ),
    Mutant(
        "too-few-may-live",
        "a change is made that leaves fewer living voters than a majority",
        ("M9", "I-22"),
        edited(changes, "_cannot_live", ("and not force:", "and False:")),
        "M9",
        story="too_few_would_live",
    ),
    Mutant(
        "told-before-an-own-entry",
        "a master ends a recovery before an entry of its own is chosen",
        ("W5", "I-19"),
        edited(Recovery, "on_ask", ("if local.role is Role.MASTER:", "if local.leads:")),
        "W5",
        story="damaged_logs_of_two_of_five",
    ),
    Mutant(
        "lost-tail-is-ignored",
        "a member is told that it has lost what it acknowledged, and votes on",
        ("W6", "I-19"),
        edited(Recovery, "on_regressed", ("local.recovering = True", "return")),
        "expect",
        story="lost_tail_is_told",
    ),
    Mutant(
        "recovering-member-grants-probes",
        "a member that has lost what it acknowledged grants a probe",
        ("I-19", "W4"),
        edited(Acceptor, "on_probe", ("elif local.recovering:", "elif False:")),
        "I-19",
        story="damaged_log_of_one",
    ),
)
