"""Mutants of the log: cut too early or too late, continued wrongly, remembered wrongly."""

from __future__ import annotations

from clusterconsensus.consensus.log import Log
from clusterconsensus.consensus.master import Master
from clusterconsensus.simulation.mutants.table import Mutant, edited, table, together

MUTANTS = table(
    Mutant(
        "shorter-message-cuts",
        "the log is cut off where a message ends, though nothing in it differs (C-11)",
        ("I-4", "I-7", "R1f", "R6"),
        edited(
            Log,
            "merge",
            (
                "    return None, ()\n",
                "    if entries and commit <= entries[-1].seq < self.last_seq:\n"
                "        cut = entries[-1].seq + 1\n"
                "        self.truncate(cut)\n"
                "    return cut, ()\n",
            ),
        ),
        "R6",
        core_seeds=range(76, 77),
    ),
    Mutant(
        "equal-entries-cut",
        "the log is cut off at the first entry of a message, though it is the same",
        ("I-7", "I-4", "R1f"),
        edited(
            Log,
            "merge",
            (
                "if self.ballot_at(entry.seq) == entry.ballot:",
                "if self.ballot_at(entry.seq) == entry.ballot and entry.seq <= commit:",
            ),
        ),
        "I-4",
        story="failover_with_adoption",
        core_seeds=range(10),
    ),
    Mutant(
        "same-place-is-same-entry",
        "an entry stays where another one of the same sequence arrives",
        ("I-8", "I-1", "R1f"),
        edited(
            Log,
            "merge",
            ("if self.ballot_at(entry.seq) == entry.ballot:", "if True:"),
        ),
        "I-1",
        story="promise_is_enforced",
        core_seeds=range(10),
    ),
    Mutant(
        "cut-keeps-durable",
        "what was durable counts as durable after it was cut off and replaced",
        ("D3", "I-8", "I-10"),
        edited(
            Log,
            "truncate",
            ("self.durable_seq = min(self.durable_seq, self.last_seq)\n", "pass\n"),
        ),
        "I-8",
        story="replaced_entry_is_not_durable",
    ),
    Mutant(
        "cut-keeps-configuration",
        "a configuration stays in force when its entry is cut off",
        ("I-12", "I-22", "M1"),
        edited(Log, "truncate", ("if self._configurations[-1][0] >= first:", "if False:")),
        "expect",
        story="cut_configuration_is_no_longer_in_force",
    ),
    Mutant(
        "sequence-from-commit",
        "a master numbers new entries from its commit: sequences are given out twice",
        ("I-9", "R2"),
        edited(Master, "_batch", ("seq = local.log.last_seq + 1", "seq = local.commit + 1")),
        "I-9",
        story="one_value_for_one_sequence",
        core_seeds=range(10),
    ),
    Mutant(
        "time-goes-back",
        "a master stamps entries with its own clock, though the log is ahead of it",
        ("R10",),
        together(
            edited(
                Master,
                "begin",
                ("max(local.log.last_time, local.wall_seconds)", "local.wall_seconds"),
            ),
            edited(Master, "_batch", ("max(self._time, local.wall_seconds)", "local.wall_seconds")),
        ),
        "R10",
        core_seeds=range(10),
    ),
)
