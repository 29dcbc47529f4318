"""Mutants of sessions and submits at the core: changes applied twice, or told wrongly."""

from __future__ import annotations

from clusterconsensus.consensus.master import Master
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.sessions import Session, SessionTable
from clusterconsensus.simulation.mutants.table import Mutant, edited, table, together

MUTANTS = table(
    Mutant(
        "session-opened-twice",
        "a repeated OpenSession replaces the session that the first one opened",
        ("X1", "I-15"),
        edited(SessionTable, "open", ("if session.nonce == order.nonce:", "if False:")),
        "X1",
        drill="session table",
    ),
    Mutant(
        "late-start-takes-the-session",
        "a delayed OpenSession of an earlier start replaces the session of the later one",
        ("X1",),
        edited(SessionTable, "open", ("if session.nonce > order.nonce:", "if False:")),
        "X1",
        drill="session table",
    ),
    Mutant(
        "acknowledged-one-too-many",
        "the outcome of the first request that its owner still waits for is forgotten too",
        ("I-15", "X1"),
        edited(
            Session,
            "acknowledge",
            ("if number >= below}", "if number > below}"),
            ("range(self.acked_below, below):", "range(self.acked_below, below + 1):"),
        ),
        "I-15",
        story="lost_reply",
        core_seeds=range(10),
    ),
    Mutant(
        "outcomes-forgotten-too-early",
        "a session remembers its latest outcome only: an older request is executed again",
        ("I-15", "X1"),
        edited(
            Session,
            "acknowledge",
            (
                "self.acked_below = max(self.acked_below, below)",
                "self.acked_below = max(self.acked_below, below)\n"
                "    self.outcomes = dict(list(self.outcomes.items())[-1:])",
            ),
        ),
        "I-15",
        core_seeds=range(10),
    ),
    Mutant(
        "acknowledgement-forgotten",
        "below which number all is acknowledged is not kept: a late repetition is executed",
        ("I-15", "X1"),
        edited(Session, "acknowledge", ("self.acked_below = max(self.acked_below, below)", "pass")),
        "I-15",
        story="late_copy_of_a_submit",
    ),
    Mutant(
        "attempt-taken-after-its-refusal",
        "a repeated message of an attempt that was refused is taken (X4)",
        ("X4",),
        edited(
            Replica,
            "_on_submit",
            ("if message.attempt <= self._attempts_seen.get(key, 0):", "if False:"),
        ),
        "X4",
        story="repeated_submit",
    ),
    Mutant(
        "waiters-survive-a-deposition",
        "who waited for an entry is told what became of another one at the same sequence",
        ("I-17", "X4", "D10"),
        edited(Master, "step_down", ("self.origins.clear()", "pass")),
        "D10",
        story="waiters_of_a_deposed_master",
    ),
    Mutant(
        "refused-and-queued",
        "a deposed master refuses what was queued, and appends it when it leads again",
        ("X4",),
        edited(
            Master,
            "step_down",
            (
                "while self._queue:\n        self._refuse(self._queue.popleft()[0],",
                "for origin, _ in self._queue:\n        self._refuse(origin,",
            ),
        ),
        "X4",
        story="refused_is_not_queued",
    ),
    Mutant(
        "busy-session-is-closed",
        "a session is closed although it was used since the master looked (X2)",
        ("X2",),
        together(
            edited(
                SessionTable,
                "close",
                ("session is not None and session.last_time == last_time", "session is not None"),
            ),
        ),
        "X2",
        drill="session table",
    ),
)
