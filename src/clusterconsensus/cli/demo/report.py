"""What is left of a run: one struct, printed as JSON or, in ``view``, as a table."""

from __future__ import annotations

import msgspec

from clusterconsensus.cli.demo.checker import Verdict
from clusterconsensus.cli.demo.plan import FaultKind

NOTHING_LOST = 0
FAULT_FOUND = 1
COULD_NOT_RUN = 3

MAX_EXAMPLES = 10


class Failover(msgspec.Struct, frozen=True, kw_only=True):
    """One fault, and how long the cluster needed to take a write again."""

    kind: FaultKind
    victim: str
    seconds: float
    """From the fault to the acknowledgement of a transfer that was issued after it."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a run. The field names are those of ``--json``."""

    members: int
    seed: int
    writing_seconds: float
    acknowledged: int
    changes_per_second: float
    unknown: int
    refused: int
    lost: int
    doubled: int
    wrongly_refused: int
    made_up: int
    total_kept: bool
    balances_right: bool
    members_agree: bool
    failovers: list[float]
    faults: list[Failover]
    lost_examples: list[str]
    doubled_examples: list[str]
    directory: str | None
    """Where the members' directories and the writers' lists were kept, null if they were not."""
    ok: bool

    @property
    def exit_status(self) -> int:
        return NOTHING_LOST if self.ok else FAULT_FOUND


def report_of(
    verdict: Verdict,
    *,
    members: int,
    seed: int,
    writing_seconds: float,
    faults: list[Failover],
    directory: str | None,
) -> Report:
    """Put a verdict and the story of its run together."""
    return Report(
        members=members,
        seed=seed,
        writing_seconds=round(writing_seconds, 3),
        acknowledged=verdict.acknowledged,
        changes_per_second=round(verdict.acknowledged / writing_seconds, 1),
        unknown=verdict.unknown,
        refused=verdict.refused,
        lost=len(verdict.lost),
        doubled=len(verdict.doubled),
        wrongly_refused=len(verdict.wrongly_refused),
        made_up=len(verdict.made_up),
        total_kept=verdict.total_kept,
        balances_right=verdict.balances_right,
        members_agree=verdict.members_agree,
        failovers=[round(fault.seconds, 4) for fault in faults],
        faults=faults,
        lost_examples=list(verdict.lost[:MAX_EXAMPLES]),
        doubled_examples=list(verdict.doubled[:MAX_EXAMPLES]),
        directory=directory,
        ok=not verdict.fault_found,
    )
