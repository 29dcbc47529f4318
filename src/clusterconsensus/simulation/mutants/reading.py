"""Mutants of linearizable reads: answers without a proof, or with an old one."""

from __future__ import annotations

from clusterconsensus.consensus.master import Master
from clusterconsensus.consensus.reads import Reads
from clusterconsensus.simulation.mutants.table import Mutant, edited, table

MUTANTS = table(
    Mutant(
        "read-before-an-own-entry",
        "a fresh master confirms reads before it knows what is chosen (C-20)",
        ("I-16", "L1", "E8"),
        edited(Master, "end_of_turn", ("serving = local.role is Role.MASTER", "serving = True")),
        "I-16",
        story="read_waits_for_the_first_own_entry",
    ),
    Mutant(
        "read-without-a-round",
        "a master confirms reads without asking anybody (L1)",
        ("I-16", "L1"),
        edited(
            Reads,
            "on_round",
            ("self._waiting = []", "self._waiting = []\n        self.on_confirmed(number)"),
        ),
        "I-16",
        story="follower_asks_a_deposed_master",
        core_seeds=range(5, 6),
    ),
    Mutant(
        "follower-is-told-at-once",
        "a follower's question is answered with the commit of now, without a round",
        ("I-16", "L3"),
        edited(
            Reads,
            "ask",
            (
                "elif len(self._waiting)",
                "elif source != NOBODY:\n"
                "        self._local.send(source, ReadTell(nonce, True, self._local.commit))\n"
                "    elif len(self._waiting)",
            ),
        ),
        "I-16",
        story="follower_asks_a_deposed_master",
    ),
    Mutant(
        "earlier-round-proves-a-read",
        "a round that was sent before the question came is taken for its proof",
        ("I-16", "L1"),
        edited(
            Master,
            "end_of_turn",
            (
                "if everyone or (serving and self.reads.wait_for_round):",
                "if serving and self.reads.wait_for_round:\n"
                "        self.reads.on_round(self._round)\n"
                "    if everyone:",
            ),
        ),
        "I-16",
        core_seeds=range(28, 29),
    ),
    Mutant(
        "one-answer-proves-a-read",
        "one follower's answer confirms a read, whoever the others follow",
        ("I-16", "L1"),
        edited(
            Master,
            "end_of_turn",
            ("majority_value(local.log.voters, rounds, 0)", "max(rounds.values())"),
        ),
        "I-16",
        story="follower_asks_a_deposed_master",
        core_seeds=range(32, 33),
    ),
    Mutant(
        "reads-survive-a-deposition",
        "reads that wait when a master steps down are confirmed in its next ballot",
        ("I-16", "E9"),
        edited(Master, "step_down", ("self.reads.refuse_all()", "pass")),
        "expect",
        story="reads_end_with_the_mastership",
    ),
)
