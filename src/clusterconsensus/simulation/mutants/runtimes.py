"""Mutants of the runtime: appliers that differ, outcomes told wrongly, messages of strangers."""

from __future__ import annotations

from clusterconsensus.runtime import opening
from clusterconsensus.runtime.applier import Applier
from clusterconsensus.runtime.envelope import Gate
from clusterconsensus.runtime.questions import ReadQuestions
from clusterconsensus.runtime.submits import Submits
from clusterconsensus.runtime.writing import Writing
from clusterconsensus.simulation.mutants.table import Mutant, edited, table

MUTANTS = table(
    Mutant(
        "repetition-is-executed",
        "a request whose outcome is known is executed again (C-59)",
        ("I-15", "X1"),
        edited(Applier, "_apply_changes", ("outcome = known.get(number)", "outcome = None")),
        "I-15",
        drill="appliers",
    ),
    Mutant(
        "acknowledged-is-executed",
        "a late repetition of a request whose outcome was forgotten is executed",
        ("I-15", "X1"),
        edited(Applier, "_apply_changes", ("if number < session.acked_below:", "if False:")),
        "I-15",
        drill="appliers",
    ),
    Mutant(
        "session-expires-by-local-clock",
        "each member decides by its own clock whether a session has expired",
        ("I-13", "X2"),
        edited(
            Applier,
            "_apply_changes",
            (
                "if session is None:",
                "if session is None or self._clock() > session.last_time + 3600.0:",
            ),
        ),
        "I-13",
        drill="appliers",
    ),
    Mutant(
        "context-tells-local-time",
        "apply is told the local clock instead of the replicated one",
        ("I-13", "R10"),
        edited(
            Applier,
            "_apply_changes",
            (
                "Context(entry.seq, index, entry.time, session.number)",
                "Context(entry.seq, index, self._clock(), session.number)",
            ),
        ),
        "I-13",
        drill="appliers",
    ),
    Mutant(
        "error-text-is-compared",
        "the text of an exception, which may hold addresses, is part of the checksum",
        ("I-13", "R9"),
        edited(Applier, "_apply_changes", ("else outcomes.comparable(outcome)", "else outcome")),
        "I-13",
        drill="appliers",
    ),
    Mutant(
        "out-of-memory-is-an-answer",
        "one member's lack of memory is taken for what the change gives",
        ("I-13", "R8"),
        edited(
            Applier,
            "_apply_one",
            (
                "raise  # this member's",
                "outcome = outcomes.failure(MemoryError())  # this member's",
            ),
        ),
        "R8",
        drill="appliers",
    ),
    Mutant(
        "unknown-kind-is-skipped",
        "an entry of a kind that this version does not know is skipped",
        ("K4", "I-13"),
        edited(Applier, "_apply", ("elif kind != EntryKind.NOOP:", "elif False:")),
        "K4",
        drill="appliers",
    ),
    Mutant(
        "unknown-is-called-not-applied",
        "a change that was sent and not answered is reported as not applied",
        ("X4", "I-16"),
        edited(Submits, "_end", ("if again or any(", "if again and any(")),
        "X4",
        drill="submits",
    ),
    Mutant(
        "retry-under-a-new-number",
        "asking again for a change of unknown outcome sends it as a new one (C-59)",
        ("X1", "I-15"),
        edited(
            Submits,
            "retry",
            (
                "return self._wait_for(number, request, size, timeout)",
                "return self.submit(request, size, timeout)",
            ),
        ),
        "X1",
        drill="submits",
    ),
    Mutant(
        "unknown-is-acknowledged",
        "requests of unknown outcome count as acknowledged: their outcome is forgotten",
        ("X1", "I-15"),
        edited(Submits, "_acked_below", ("if self._unknown:", "if False:")),
        "X1",
        drill="submits",
    ),
    Mutant(
        "sent-again-in-another-session",
        "what was sent in a session that has expired is sent again in the next one",
        ("X2", "I-15"),
        edited(
            Submits,
            "_expire",
            ("for attempt in tuple(self._attempts.values()):", "for attempt in ():"),
        ),
        "X2",
        drill="submits",
    ),
    Mutant(
        "durable-when-handed-over",
        "the core hears that a write is durable when it begins",
        ("D3", "I-21"),
        edited(
            Writing,
            "flush",
            (
                "self._worker.call(lambda: journal.append(batch), done)",
                "self._on_durable(batch[-1].ticket)\n"
                "    self._worker.call(lambda: journal.append(batch), done)",
            ),
        ),
        "D3",
        drill="writing",
    ),
    Mutant(
        "full-disk-loses-the-write",
        "what did not fit on a full disk is not written when there is space again",
        ("W2", "I-21"),
        edited(Writing, "flush", ("self._gathered[:0] = batch", "pass")),
        "W2",
        drill="writing",
    ),
    Mutant(
        "failed-write-counts",
        "a write that failed is reported as durable",
        ("W2", "I-21"),
        edited(Writing, "flush", ("self._on_error(error)", "self._on_durable(batch[-1].ticket)")),
        "W2",
        drill="writing",
    ),
    Mutant(
        "follower-reads-before-applying",
        "a follower reads as soon as the master has confirmed, whatever it has applied itself",
        ("I-16", "L3"),
        edited(
            ReadQuestions,
            "on_ready",
            ("self._ready.append((seq, reading))", "self._ready.append((applied, reading))"),
        ),
        "L3",
        drill="questions",
    ),
    Mutant(
        "whole-log-is-applied",
        "a start applies the whole log, though its end may not be chosen",
        ("W7", "I-1"),
        edited(
            opening,
            "_open",
            (
                "commit = min(recovered.commit_hint, recovered.last_seq)",
                "commit = recovered.last_seq",
            ),
        ),
        "W7",
        drill="opening",
    ),
    Mutant(
        "cluster-is-ignored",
        "messages of another cluster are taken (C-45)",
        ("I4", "I-1", "I-19"),
        edited(
            Gate,
            "_same_cluster",
            ("return header.cluster_id == self._cluster_id", "return True"),
        ),
        "I4",
        drill="gate",
    ),
    Mutant(
        "blank-member-hears-everybody",
        "a member that belongs to no cluster takes part in any: it promises and votes",
        ("I1", "I-19"),
        edited(Gate, "_same_cluster", ("isinstance(message, Accept) and ", "")),
        "I1",
        drill="gate",
    ),
    Mutant(
        "disk-is-ignored",
        "messages for a disk that this member has lost are taken (C-42)",
        ("I0", "I-19"),
        edited(Gate, "_check", (' or header.to_disk not in ("", self.disk_id)', "")),
        "I0",
        drill="gate",
    ),
)
