"""Mutants of what a cluster needs for years: snapshots, recovery, leases, handing over, leaving."""

from __future__ import annotations

from clusterconsensus.consensus import changes
from clusterconsensus.consensus.acceptor import Acceptor
from clusterconsensus.consensus.election import Election
from clusterconsensus.consensus.master import Master
from clusterconsensus.consensus.recovery import Recovery
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
)
