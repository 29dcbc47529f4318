"""Mutants of the master: entries chosen by counting wrongly, and masters that do not stop."""

from __future__ import annotations

from clusterconsensus.consensus.comparison import Comparison
from clusterconsensus.consensus.election import Election
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.master import Master
from clusterconsensus.consensus.progress import Progress
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.simulation.mutants.table import Mutant, edited, table

MUTANTS = table(
    Mutant(
        "older-ballots-by-count",
        "entries of older ballots are chosen by counting copies (C-2, Figure 8)",
        ("I-10", "I-4", "I-1"),
        edited(
            Master,
            "_commit",
            ("reached <= local.commit or reached < self._noop_seq", "reached <= local.commit"),
        ),
        "I-10",
        story="figure_8",
        core_seeds=range(10),
    ),
    Mutant(
        "commit-counts-committed-configuration",
        "copies are counted by the committed configuration instead of the latest (C-37)",
        ("I-10", "I-4", "I-11"),
        edited(
            Master,
            "_commit",
            (
                "majority_value(local.log.voters, matches, 0)",
                "majority_value(\n"
                "        local.log.committed_configuration(local.commit)[1].voters, matches, 0\n"
                "    )",
            ),
        ),
        "I-10",
        story="one_member",
    ),
    Mutant(
        "learners-count",
        "copies at members without a vote are counted (C-19)",
        ("I-10", "I-12", "I-4"),
        edited(
            Master,
            "_commit",
            (
                "majority_value(local.log.voters, matches, 0)",
                "majority_value(tuple(matches), matches, 0)",
            ),
        ),
        "I-10",
        core_seeds=range(118, 119),
    ),
    Mutant(
        "own-copy-before-sync",
        "a master counts its own copy before its disk has it (C-4)",
        ("I-10", "D4", "I-17", "I-21"),
        edited(
            Master,
            "_commit",
            (
                "matches[local.name] = local.log.durable_seq",
                "matches[local.name] = local.log.last_seq",
            ),
        ),
        "I-10",
        story="one_member",
        core_seeds=range(10),
    ),
    Mutant(
        "one-copy-is-enough",
        "what any follower holds is chosen",
        ("I-10", "I-4"),
        edited(
            Master,
            "_commit",
            ("majority_value(local.log.voters, matches, 0)", "max(matches.values())"),
        ),
        "I-10",
        story="majorities",
        core_seeds=range(10),
    ),
    Mutant(
        "sent-is-matched",
        "what was sent to a follower counts as held there",
        ("I-10", "I-4"),
        edited(
            Progress,
            "on_sent",
            (
                '"""Entries up to ``last_seq`` have left."""',
                "self.match = max(self.match, last_seq)",
            ),
        ),
        "I-10",
        story="lost_reply",
        core_seeds=range(10),
    ),
    Mutant(
        "acknowledgement-of-another-ballot",
        "an acknowledgement of an earlier ballot of this master is counted (A-6)",
        ("I-10", "I-8", "I-4"),
        edited(
            Master,
            "on_accepted",
            ("message.ballot != self.ballot or ", ""),
        ),
        "I-10",
        story="acknowledgement_of_an_earlier_ballot",
    ),
    Mutant(
        "match-goes-back",
        "a delayed acknowledgement takes back what a follower holds (C-3)",
        ("R3",),
        edited(
            Progress, "on_accepted", ("self.match = max(self.match, match)", "self.match = match")
        ),
        "expect",
        story="late_acknowledgement",
    ),
    Mutant(
        "accepts-before-the-noop-is-durable",
        "a fresh master sends accepts before the log that it adopted and its NOOP are durable",
        ("D6",),
        edited(
            Master,
            "end_of_turn",
            ("if local.tickets and local.tickets[0].number <= self._noop_ticket:", "if False:"),
        ),
        "D6",
        story="first_election",
    ),
    Mutant(
        "leads-without-a-majority",
        "a master that no majority answers goes on leading",
        ("I-22", "E9"),
        edited(
            Master,
            "on_tick",
            (
                "if local.now - majority_value(local.log.voters, contacts, -math.inf) > limit:",
                "if False:",
            ),
        ),
        "expect",
        story="deposed_master_does_not_read",
    ),
    Mutant(
        "gap-proves-contact",
        "a follower that refuses for a gap counts as following",
        ("E9", "I-22"),
        edited(
            Master,
            "on_reject",
            (
                "if self.catch_up.is_served(source):",
                "progress.contact_at = self._local.now\n        if True:",
            ),
        ),
        "expect",
        story="gap_is_no_acknowledgement",
    ),
    Mutant(
        "leads-on-a-hung-disk",
        "a master whose disk hangs goes on leading, and nobody takes over (C-26)",
        ("I-22", "E9"),
        edited(
            Master,
            "on_tick",
            ("elif local.disk_waits_seconds() > local.limits.disk_timeout_seconds:", "elif False:"),
        ),
        "expect",
        story="hung_disk",
    ),
    Mutant(
        "stands-on-a-hung-disk",
        "a member whose disk hangs stands for election",
        ("E10",),
        edited(
            Election,
            "on_tick",
            ("if local.disk_waits_seconds() > local.limits.disk_timeout_seconds:", "if False:"),
        ),
        "expect",
        story="hung_disk_does_not_stand",
    ),
    Mutant(
        "broken-connection-is-no-news",
        "a follower whose connection to the master broke waits for its whole timer",
        ("E13", "I-22"),
        edited(Election, "on_master_lost", ("self.deadline = min(self.deadline, soon)", "pass")),
        "expect",
        story="broken_connection",
    ),
    Mutant(
        "staged-bytes-leak",
        "what is chosen goes on counting against max_staged_bytes: in the end all is refused",
        ("I-22", "X5"),
        edited(
            Master,
            "_commit",
            ("self._staged_bytes -= self._staged.popleft()[1]", "self._staged.popleft()"),
        ),
        "I-22",
        core_seeds=range(10),
    ),
    Mutant(
        "window-never-opens",
        "what a follower acknowledged stays in its window: in the end nothing is sent",
        ("I-22", "R3"),
        edited(
            Progress,
            "on_accepted",
            ("while self._inflight and self._inflight[0][0] <= self.match:", "while False:"),
        ),
        "I-22",
        core_seeds=range(10),
    ),
    Mutant(
        "gap-is-ignored",
        "a master does not go back where a follower lacks entries",
        ("I-22", "R3"),
        edited(Progress, "on_gap", ("if previous_seq <= self.match:", "if True:")),
        "I-22",
        core_seeds=range(10),
    ),
    Mutant(
        "heartbeat-only-to-the-idle",
        "the commit travels with entries only: the last change is not applied by followers",
        ("R7", "I-22"),
        edited(Master, "_replicate", ("if everyone and not spoken:", "if False:")),
        "I-22",
        core_seeds=range(10),
    ),
    Mutant(
        "differences-are-not-compared",
        "a state machine that is not deterministic is not noticed",
        ("R9", "I-13"),
        edited(Comparison, "on_accepted", ("if own == message.checksum:", "if True:")),
        "expect",
        story="diverging_member",
    ),
    Mutant(
        "any-instance-is-believed",
        "a ballot out of all proportion is promised: the instances are used up (A-50)",
        ("E10",),
        edited(
            Local,
            "see_ballot",
            ("if ballot.instance > self.max_seen_instance + MAX_INSTANCE_JUMP:", "if False:"),
        ),
        "expect",
        story="absurd_instance",
    ),
    Mutant(
        "old-master-goes-on",
        "a master that takes an accept of a higher ballot does not stop leading",
        ("I-2", "E9"),
        edited(
            Replica,
            "_on_accept",
            ('self._step_down(f"{message.ballot} leads")', "pass"),
            ("local.change_role(", "local.leads or local.change_role("),
        ),
        "I-2",
        story="heartbeat_over_a_stale_suffix",
    ),
)
