"""The state machine of a simulated member: a handful of named numbers behind the real
``SessionTable``, with snapshots."""

from __future__ import annotations

from dataclasses import dataclass
from zlib import crc32

from clusterconsensus.consensus.messages import Group
from clusterconsensus.consensus.sessions import (
    CloseSessions,
    SessionTable,
    decode_groups,
    decode_requests,
    decode_session_order,
)
from clusterconsensus.consensus.types import Configuration, Entry, EntryKind, Incarnation, Position
from clusterconsensus.simulation.cores.store import Content, Head, Snapshot

STALE = b"stale"


@dataclass(frozen=True)
class Done:
    """A group that was applied: its outcomes, None for each request of an unknown session."""

    seq: int
    place: int
    session: int
    first: int
    outcomes: tuple[bytes | None, ...]


@dataclass(frozen=True)
class Opened:
    """A session entry that was applied."""

    seq: int
    owner: Incarnation
    nonce: int
    session: int


class Machine:
    """Applies entries: sessions first, then a handful of named numbers.

    A change reads ``x=5`` (set), ``x+5`` (add) or ``x!`` (raises); it returns the new value.
    """

    def __init__(self) -> None:
        self.sessions = SessionTable()
        self.values: dict[str, int] = {}
        self.applied = 0
        self.checksum = 0
        self.time = 0.0
        self.executed: list[tuple[int, int, int, str]] = []
        """Each change that was executed: sequence, session, number, text."""
        self.skew = 0
        """Added to every result: a state machine that is not deterministic."""

    def apply(self, entry: Entry) -> list[Done | Opened]:
        if entry.seq != self.applied + 1:
            raise AssertionError(f"{entry} applied after {self.applied} (R8)")
        if entry.time < self.time:
            raise AssertionError(f"replicated time goes back at {entry} (R10)")
        told: list[Done | Opened] = []
        pieces: list[bytes] = []
        if entry.kind == EntryKind.SESSION:
            order = decode_session_order(entry.payload)
            if isinstance(order, CloseSessions):
                self.sessions.close(order)
            else:
                number = self.sessions.open(entry.seq, order, entry.time)
                told.append(Opened(entry.seq, order.owner, order.nonce, number))
        elif entry.kind == EntryKind.CHANGES:
            for place, group in enumerate(decode_groups(entry.payload)):
                outcomes = self._apply_group(entry, group)
                pieces.extend(outcome for outcome in outcomes if outcome is not None)
                told.append(Done(entry.seq, place, group.session, group.first, outcomes))
        self.applied = entry.seq
        self.time = entry.time
        self.checksum = crc32(b"".join(pieces), crc32(entry.crc.to_bytes(4, "big"), self.checksum))
        return told

    def _apply_group(self, entry: Entry, group: Group) -> tuple[bytes | None, ...]:
        session = self.sessions.get(group.session)
        if session is None:
            return (None,) * group.count
        session.acknowledge(group.acked_below)
        session.last_time = entry.time
        outcomes: list[bytes | None] = []
        for number, request in enumerate(decode_requests(group.body), group.first):
            outcome = session.outcomes.get(number)
            if outcome is None and number < session.acked_below:
                outcome = STALE
            elif outcome is None:
                text = request.decode() if isinstance(request, bytes) else ""
                outcome = self._change(text)
                session.outcomes[number] = outcome
                self.executed.append((entry.seq, session.number, number, text))
            outcomes.append(outcome)
        return tuple(outcomes)

    def _change(self, text: str) -> bytes:
        for mark in "=+!":
            name, found, value = text.partition(mark)
            if not found:
                continue
            if mark == "!":
                return b"error"
            before = self.values.get(name, 0) if mark == "+" else 0
            self.values[name] = before + int(value)
            return str(self.values[name] + self.skew).encode()
        raise AssertionError(f"no change: {text!r}")

    def save(self, position: Position, configuration: tuple[int, Configuration]) -> Snapshot:
        """A snapshot of what is applied now.

        Arguments:
            position: The last applied entry.
            configuration: The newest configuration at or below it, behind its sequence.
        """
        if position.seq != self.applied:
            raise AssertionError(f"a snapshot of {position}, applied is {self.applied} (S5)")
        head = Head(position, *configuration, self.time, self.checksum)
        sessions = self.sessions.export()
        return Snapshot.make(Content(head, dict(self.values), sessions, list(self.executed)))

    def install(self, snapshot: Snapshot) -> None:
        """Become what a snapshot holds; nothing of before remains (S4)."""
        content = snapshot.content
        self.sessions.restore(content.sessions)
        self.values = dict(content.values)
        self.executed = list(content.executed)
        self.applied = content.head.position.seq
        self.checksum = content.head.checksum
        self.time = content.head.time
