"""Mutants of the membership: configurations that overlap too little, strangers that get a vote."""

from __future__ import annotations

from clusterconsensus.consensus import changes
from clusterconsensus.consensus.membership import Membership
from clusterconsensus.consensus.promotion import Promotion
from clusterconsensus.simulation.mutants.table import Mutant, edited, table

MUTANTS = table(
    Mutant(
        "configuration-before-an-own-entry",
        "a master changes the configuration before an entry of its own is chosen (C-34)",
        ("I-11", "I-4", "M3"),
        edited(
            Membership,
            "_may_append",
            ("self._local.role is Role.MASTER and ", ""),
        ),
        "I-11",
        story="change_before_an_own_entry",
        core_seeds=range(10),
    ),
    Mutant(
        "two-configurations-in-flight",
        "a configuration is appended before the one before it is chosen",
        ("M2", "I-11", "I-4"),
        edited(Membership, "_may_append", (" and self._committed()", "")),
        "M2",
        story="change_before_an_own_entry",
    ),
    Mutant(
        "voter-at-once",
        "a new member gets its vote before it holds the log",
        ("M4", "I-22"),
        edited(
            changes,
            "_come_in",
            (
                "Standing.LEARNER, promoting, change.priority",
                "Standing.VOTER, False, change.priority",
            ),
        ),
        "expect",
        story="change_before_an_own_entry",
    ),
    Mutant(
        "promoted-while-behind",
        "a learner is promoted although it has not caught up (C-36)",
        ("M4", "I-22"),
        edited(
            Promotion,
            "ready",
            (" and seat.incarnation in self._ready and self._may_vote(seat)", ""),
        ),
        "expect",
        story="new_voter_does_not_know_it_is_one",
    ),
    Mutant(
        "another-disk-is-the-same-member",
        "a member that comes back with an empty disk under its old id is taken for itself (C-42)",
        ("I0", "I-19"),
        edited(
            changes,
            "_same_disk_and_address",
            ("if facts.disk_id and seat.disk_id != facts.disk_id:", "if False:"),
        ),
        "expect",
        story="another_disk_is_refused",
    ),
    Mutant(
        "member-of-another-cluster-is-added",
        "a member that belongs to another cluster is taken in",
        ("I1", "I-19"),
        edited(
            Membership,
            "on_identity",
            ('elif message.cluster_id not in ("", self._local.cluster_id):', "elif False:"),
        ),
        "I1",
        drill="strangers",
    ),
    Mutant(
        "whoever-answers-is-added",
        "whoever answers at an address is taken for the member that was named",
        ("I2", "I-19"),
        edited(Membership, "on_identity", ("if found != member.id:", "if False:")),
        "I2",
        drill="strangers",
    ),
    Mutant(
        "added-before-it-is-chosen",
        "adding is called done before the entry is chosen",
        ("M6", "I-17"),
        edited(Membership, "_settle", ("if not self._committed():", "if False:")),
        "expect",
        story="added_when_chosen",
    ),
)
