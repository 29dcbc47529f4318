"""What the ghost looks at: one member from outside, and what was last seen of one of its runs.

A member has a log, which may begin behind a *base*, and snapshots. What stands at or below the base
is on the disk no more; what a durable snapshot covers is there all the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Protocol

import msgspec

from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.log import LogError
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.types import (
    ZERO,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    Position,
    Role,
)

decode_configuration = msgspec.msgpack.Decoder(Configuration).decode

Voters = tuple[int, tuple[Incarnation, ...]]
"""The voters of a configuration, behind its sequence."""


class BrokenError(AssertionError):
    """An invariant does not hold. ``rule`` is its number, ``text`` what was seen."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(f"{rule}: {text}")
        self.rule = rule
        self.text = text


def rule_of(text: str) -> tuple[str, str]:
    """The rule that a text names, as in "... (I-7)", and the text; "halt" where it names none."""
    found = _RULE.search(text)
    return (found[1] if found else "halt"), text


_RULE = re.compile(r"\(([A-Z]-?\d+)[,)]")


class Observed(Protocol):
    """One member, as the ghost sees it. ``str()`` of it is the member's short name."""

    @property
    def name(self) -> Incarnation: ...

    @property
    def is_up(self) -> bool: ...

    @property
    def running(self) -> Replica: ...

    @property
    def local(self) -> Local: ...

    @property
    def durable_promise(self) -> Ballot:
        """The promise that a power failure now would leave on its disk."""
        ...

    @property
    def durable_base(self) -> Position:
        """What the log that a power failure now would leave begins behind; its ballot is ZERO
        where the disk does not tell it."""
        ...

    @property
    def durable_last(self) -> int:
        """The last sequence of that log, or of its base."""
        ...

    @property
    def durable_snapshot(self) -> int:
        """What the newest durable and valid snapshot covers, 0 without one."""
        ...

    @property
    def recovering(self) -> bool:
        """Whether a power failure now would leave it without a vote (W4)."""
        ...

    def durable_ballot(self, seq: int) -> Ballot | None:
        """The ballot of an entry that a power failure now would leave; None where there is none.
        At or below the base it may be known or not."""
        ...

    def durable_entry(self, seq: int) -> Entry:
        """An entry that is durable, above the base."""
        ...


class Seen:
    """What was last seen of one run of one member."""

    def __init__(self, member: Observed) -> None:
        local = member.local
        log = local.log
        self.promised = local.promised
        self.commit = local.commit
        self.commit_before = local.commit
        """Before the turn whose effects are being performed."""
        self.role = Role.UNJOINED
        self.snapshot = local.snapshot
        self.base = self.log_base = log.base
        """Where ``written`` begins, and where the core's log did when it was last looked at."""
        self.written = [
            log.ballot_at(seq) or ZERO for seq in range(log.base.seq + 1, log.last_seq + 1)
        ]
        """The ballot of each entry behind the base that was given to the disk, durable or not."""
        self.voters: list[Voters] = []
        """The voters of each configuration that is known, ascending."""
        self.cuts: list[tuple[int, int]] = []
        """Cuts that may not be durable yet: ticket, and sequence from which on."""
        self.leaves_recovery = False
        """Whether it asked for its vote to be noted durably (W5)."""
        at = log.last_seq
        while at > 0:
            try:
                at, configuration = log.committed_configuration(at)
            except LogError:
                break  # what was in force before is not known any more
            self.voters.insert(0, (at, configuration.voters))
            at -= 1

    @property
    def voters_in_force(self) -> tuple[Incarnation, ...]:
        """Those of the latest configuration in the log, committed or not (M1)."""
        return self.voters[-1][1] if self.voters else ()

    @property
    def last_seq(self) -> int:
        """The end of what was given to the disk."""
        return self.base.seq + len(self.written)

    def follow(self, batch: Persist, chosen_at: Callable[[int], Voters]) -> None:
        """Keep up with the configurations in the log: in force from the moment they are in it.

        Arguments:
            chosen_at: Gives the newest chosen configuration at or below a sequence: a snapshot
                brings it.
        """
        cut = batch.truncate_from
        while cut is not None and self.voters and self.voters[-1][0] >= cut:
            self.voters.pop()
        if batch.base is not None:
            self.voters = [chosen_at(batch.base.seq)]
        for entry in batch.entries:
            if entry.kind == EntryKind.CONFIG:
                self.voters.append((entry.seq, decode_configuration(entry.payload).voters))

    def ballot_at(self, seq: int) -> Ballot:
        """The ballot of what was given to the disk, or of the base; ZERO where there is nothing."""
        if self.base.seq < seq <= self.last_seq:
            return self.written[seq - self.base.seq - 1]
        return self.base.ballot if seq == self.base.seq else ZERO
