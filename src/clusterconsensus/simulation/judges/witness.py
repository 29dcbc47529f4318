"""What is replicated, seen from all members at once: who applied what, and what came of it.

``ClusterGhost`` adds to the invariants over cores what only a whole cluster can show. From the
chosen log it works out by itself, in the plainest way, which change takes effect at which place,
and holds every member's state machine to it: the same changes, each once, in that order (I-15),
with the same results (I-13).

For this each member's state and codec are wrapped in a ``Witness``. The codec puts the number of
the client's operation in front of each encoded change and takes it off again, so that any change of
any user can be recognised wherever it turns up. A snapshot begins with the number of changes that
are in it, so it is known of every copy, wherever it came from, what it claims to hold; and a fresh
state machine of the ghost's own, to which the chosen changes are applied one after another, tells
what it should hold (I-14).
"""

from __future__ import annotations

import contextlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any, NoReturn
from zlib import crc32

from clusterconsensus.consensus.sessions import (
    CloseSessions,
    SessionTable,
    decode_groups,
    decode_requests,
    decode_session_order,
)
from clusterconsensus.consensus.types import (
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    member_id_of,
)
from clusterconsensus.runtime.status import EventHandler
from clusterconsensus.simulation.judges.invariants import (
    BrokenError,
    Ghost,
    Observed,
    decode_configuration,
)
from clusterconsensus.state import Codec, Context, Readable, State, whole

HEAD_BYTES = 6
"""What the witness puts in front of a change: the operation's number and the change's place in
it."""

APPLIED_BYTES = 8
"""What it puts in front of a snapshot: the number of changes in it."""


def operation_of(data: bytes) -> int:
    """The number of the operation that an encoded change belongs to."""
    return int.from_bytes(data[:4], "big")


class ClusterGhost(Ghost):
    """The invariants over a cluster of whole participants.

    Arguments:
        members: The cluster's table of members.
        failed: Is told of the first broken invariant; members swallow what is raised in them.
    """

    def __init__(
        self, members: Mapping[Incarnation, Observed], failed: Callable[[BrokenError], None]
    ) -> None:
        super().__init__(members)
        self._failed = failed
        self.order: list[tuple[int, int, bytes]] = []
        """Every change that takes effect: its sequence, its index in the entry, itself encoded."""
        self.places: dict[int, int] = {}
        """By the number of an operation: where in ``order`` its (first) change stands."""
        self.results: list[bytes | None] = []
        """What came of each, as whoever applied it first found."""
        self.refused: set[int] = set()
        """Operations of which a client was told that they are not applied and never will be."""
        self.sometimes: Counter[str] = Counter()
        self.replay: Replay | None = None
        """What the state should be after each change; None judges no snapshots."""
        self._contexts: list[tuple[float, int]] = []
        self._sessions = SessionTable()
        self._done: dict[tuple[int, int], Ballot] = {}

    def fail(self, rule: str, text: str) -> NoReturn:
        error = BrokenError(rule, text)
        self._failed(error)
        raise error

    # -- what the chosen log says

    @property
    def configuration(self) -> Configuration:
        """The latest chosen configuration; an empty one before there is any."""
        return self.configurations[-1][1] if self.configurations else Configuration()

    def on_chosen(self, entry: Entry) -> None:
        if entry.kind == EntryKind.CONFIG:
            self._on_chosen_configuration(entry)
        elif entry.kind == EntryKind.SESSION:
            order = decode_session_order(entry.payload)
            if isinstance(order, CloseSessions):
                self._sessions.close(order)
                self.sometimes["sessions closed"] += 1
            else:
                self._sessions.open(entry.seq, order, entry.time)
        elif entry.kind == EntryKind.CHANGES:
            self._on_changes(entry)

    def _on_chosen_configuration(self, entry: Entry) -> None:
        before, after = self.configuration, decode_configuration(entry.payload)
        for name in after.removed:
            if name in before.removed:
                continue
            if after.seat_of_id(member_id_of(name)) is None:
                self.sometimes["member removed"] += 1
            else:
                self.sometimes["replaced"] += 1

    def _on_changes(self, entry: Entry) -> None:
        index = 0
        for group in decode_groups(entry.payload):
            session = self._sessions.get(group.session)
            if session is None:
                self.sometimes["request of a closed session"] += 1
                continue
            session.acked_below = max(session.acked_below, group.acked_below)
            session.last_time = entry.time
            for number, request in enumerate(decode_requests(group.body), group.first):
                before = self._done.get((group.session, number))
                if before is not None:
                    self.sometimes["repeated request"] += 1
                    if before != entry.ballot:
                        self.sometimes["repeated request after a fail-over"] += 1
                elif number >= session.acked_below:
                    self._done[group.session, number] = entry.ballot
                    for data in [request] if isinstance(request, bytes) else request:
                        self._on_change(entry.seq, index, data)
                        self._contexts.append((entry.time, group.session))
                        index += 1

    def _on_change(self, seq: int, index: int, data: bytes) -> None:
        operation = operation_of(data)
        if operation and operation in self.places and not data[4] + data[5]:
            self.fail("I-15", f"operation {operation} takes effect at {seq} and before")
        if operation in self.refused:
            self.fail("X4", f"operation {operation} was not applied, and takes effect at {seq}")
        self.places.setdefault(operation, len(self.order))
        self.order.append((seq, index, data))
        self.results.append(None)

    # -- snapshots

    def count_up_to(self, seq: int) -> int:
        """How many changes take effect up to a sequence."""
        return bisect_left(self.order, (seq + 1,))

    def change(self, place: int) -> tuple[bytes, Context]:
        """The change that takes effect as the ``place``-th, encoded, and what it is told."""
        seq, index, data = self.order[place]
        time, session = self._contexts[place]
        return data, Context(seq, index, time, session)

    def on_label(self, member: str, seq: int, applied: int) -> None:
        """A snapshot says that it holds everything up to a sequence, and holds so many changes
        (I-14)."""
        expected = self.count_up_to(seq)
        if applied != expected:
            self.fail(
                "I-14",
                f"a snapshot of {member} holds {applied} changes; up to {seq} it should be "
                f"{expected}",
            )

    def on_content(self, member: str, applied: int, content: bytes) -> None:
        """What a copy of the state holds after so many changes (I-14)."""
        if applied > len(self.order):
            self.fail("I-14", f"{member} holds {applied} changes, {len(self.order)} are chosen")
        if self.replay is not None and not self.replay.is_right(self, applied, content):
            self.fail(
                "I-14",
                f"the copy of {member} after {applied} changes is not what these changes make of a "
                "fresh state",
            )

    # -- what members and clients say

    def on_apply(self, member: str, place: int, found: tuple[int, int, bytes]) -> None:
        """A member applies something as its ``place``-th change."""
        if place >= len(self.order):
            self.fail("I-10", f"{member} applies sequence {found[0]} before it is chosen")
        if found != self.order[place]:
            expected = self.order[place]
            self.fail(
                "I-15",
                f"{member} applies operation {operation_of(found[2])} at {found[:2]}; next is "
                f"operation {operation_of(expected[2])} at {expected[:2]}",
            )

    def on_result(self, member: str, place: int, result: bytes) -> None:
        """What came of it there."""
        known = self.results[place]
        if known is None:
            self.results[place] = result
        elif known != result:
            seq, index, data = self.order[place]
            self.fail(
                "I-13",
                f"the state machine is not deterministic: change {index} of sequence {seq} "
                f"(operation {operation_of(data)}) gives {result!r} on {member}, and gave "
                f"{known!r} elsewhere",
            )

    def on_answer(self, operation: int, result: bytes | None) -> None:
        """A client is told that its operation was applied (I-17), and (of a single change) what
        came of it, encoded."""
        place = self.places.get(operation)
        if place is None:
            self.fail("I-17", f"operation {operation} is acknowledged and not chosen")
        self.floor = max(self.floor, self.order[place][0])
        if result is not None and self.results[place] not in (None, result):
            self.fail("I-13", f"operation {operation} gave {self.results[place]!r}, not {result!r}")

    def on_refusal(self, operation: int) -> None:
        """A client is told that its operation was not applied and never will be (X4)."""
        self.refused.add(operation)
        if operation in self.places:
            seq = self.order[self.places[operation]][0]
            self.fail("X4", f"operation {operation} was applied at {seq}, and called not applied")


class Replay:
    """A state machine of the ghost's own: what the chosen changes make of it.

    Arguments:
        make_state: Makes a fresh state.
        codec: Decodes changes.
    """

    def __init__(self, make_state: Callable[[], State], codec: Codec) -> None:
        self._make_state = make_state
        self._codec = codec
        self._state = make_state()
        self._place = 0
        self._known: dict[int, tuple[int, int]] = {}

    def is_right(self, ghost: ClusterGhost, applied: int, content: bytes) -> bool:
        """Whether this is the state's snapshot after so many changes."""
        known = self._known.get(applied)
        if known is None:
            known = self._known[applied] = _digest(self._content(ghost, applied))
        return known == _digest(content)

    def _content(self, ghost: ClusterGhost, applied: int) -> bytes:
        if applied < self._place:
            self._state = self._make_state()
            self._place = 0
        while self._place < applied:
            data, context = ghost.change(self._place)
            self._place += 1
            with contextlib.suppress(Exception):  # an answer like any other
                self._state.apply(self._codec.decode_change(data[HEAD_BYTES:]), context)
        return whole(self._state.snapshot())


def _digest(content: bytes) -> tuple[int, int]:
    return len(content), crc32(content)


class Witness:
    """One run of one member's state and codec, as they are given to its participant.

    Arguments:
        ghost: Whom to tell.
        member: Whose they are.
        state, codec: The user's.
        spend: Keeps the machine busy for so many seconds.
    """

    def __init__(
        self,
        ghost: ClusterGhost,
        member: str,
        state: State,
        codec: Codec,
        spend: Callable[[float], None],
    ) -> None:
        self._ghost = ghost
        self._member = member
        self.state = state
        self.codec = codec
        self._spend = spend
        self.apply_seconds = 0.0
        """How long each ``apply`` keeps the machine busy."""
        self.operation = 0
        """Whose change is encoded next; 0 if nobody said."""
        self.applied = 0
        """How many changes this run has applied."""
        self._encoded = 0
        self._data = b""
        self._place = -1

    def call(self, operation: int) -> None:
        """The next changes that are encoded belong to this operation."""
        self.operation = operation
        self._encoded = 0

    # -- Codec

    def encode_change(self, change: Any) -> bytes:
        data = self.codec.encode_change(change)
        head = self.operation.to_bytes(4, "big") + self._encoded.to_bytes(2, "big")
        self._encoded += 1
        return head + data

    def decode_change(self, data: bytes) -> Any:
        self._data = data
        return self.codec.decode_change(data[HEAD_BYTES:])

    def encode_result(self, result: Any) -> bytes:
        data = self.codec.encode_result(result)
        place, self._place = self._place, -1
        if place >= 0:
            self._ghost.on_result(self._member, place, data)
        return data

    def decode_result(self, data: bytes) -> Any:
        return self.codec.decode_result(data)

    # -- State

    def apply(self, change: Any, context: Context) -> Any:
        if self.apply_seconds:
            self._spend(self.apply_seconds)
        place = self.applied
        self._ghost.on_apply(self._member, place, (context.sequence, context.index, self._data))
        self.applied = place + 1
        self._place = -1
        try:
            result = self.state.apply(change, context)
        except Exception as error:
            name = type(error).__name__.encode("utf-8", "backslashreplace")
            self._ghost.on_result(self._member, place, b"raises " + name)
            raise
        self._place = place
        return result

    def snapshot(self) -> bytes | Iterable[bytes]:
        """The number of changes in it, and then the state's own."""
        head = self.applied.to_bytes(APPLIED_BYTES, "big")
        snapshot = self.state.snapshot()
        return head + snapshot if isinstance(snapshot, bytes) else chain((head,), snapshot)

    def install(self, snapshot: Readable) -> None:
        applied = int.from_bytes(snapshot.read(APPLIED_BYTES), "big")
        self.state.install(snapshot)
        self.applied = applied
        self._place = -1
        self._ghost.on_content(self._member, applied, whole(self.state.snapshot()))


class Listener(EventHandler):
    """One run of one member's event handler: masterships come and go in turns."""

    def __init__(self, ghost: ClusterGhost, member: str) -> None:
        self._ghost = ghost
        self._member = member
        self.leads = False
        """Whether the application was told that it leads."""

    def on_become_master(self) -> None:
        if self.leads:
            self._ghost.fail("E8", f"{self._member} is told twice that it leads")
        self.leads = True

    def on_lose_master(self) -> None:
        if not self.leads:
            self._ghost.fail("E9", f"{self._member} is told that it lost what it never had")
        self.leads = False
