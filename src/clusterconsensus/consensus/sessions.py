"""Sessions: each change applied exactly once, however often it is sent (X1, X2).

A session is opened by an entry; its id is that entry's sequence. Every request in it has a number.
The table below is part of the replicated state: at *apply* time a request whose number is known is
answered with what it gave the first time, and the state machine is not called. A request of a
session that is not (or no longer) in the table is never executed.

Being part of the state, the table is part of every snapshot, whole: a member that begins with one
answers what was repeated as the others do.

Nothing here looks at a clock: the master proposes to close idle sessions, and the entry with its
proposal decides, the same on every member.

Source: Ongaro, *Consensus: Bridging Theory and Practice* (2014), section 6.3.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import msgspec

from clusterconsensus.consensus.messages import Group
from clusterconsensus.consensus.types import Incarnation
from clusterconsensus.errors import SnapshotError

Request = bytes | list[bytes]
"""One encoded change, or several that are applied as one atomic batch."""

encode_groups = msgspec.msgpack.Encoder().encode
decode_groups = msgspec.msgpack.Decoder(list[Group]).decode
encode_requests = msgspec.msgpack.Encoder().encode
decode_requests = msgspec.msgpack.Decoder(list[Request]).decode


def is_well_formed(group: Group) -> bool:
    """Whether a group that came from a peer holds what it says, so that it can be applied."""
    try:
        held = len(decode_requests(group.body))
    except (msgspec.MsgspecError, RecursionError):
        return False
    return held == group.count > 0 and 0 <= group.acked_below <= group.first


class NewSession(msgspec.Struct, frozen=True, array_like=True, tag=1, gc=False):
    """Open a session for ``owner``. The same nonce again opens none; another nonce, from a later
    start of the same member, replaces its earlier session."""

    owner: Incarnation
    nonce: int


class CloseSessions(msgspec.Struct, frozen=True, array_like=True, tag=2, gc=False):
    """Close each ``(session, last_time)`` that has not been used since the master looked."""

    idle: tuple[tuple[int, float], ...]


SessionOrder = NewSession | CloseSessions
"""What a SESSION entry holds."""

encode_session_order = msgspec.msgpack.Encoder().encode
decode_session_order = msgspec.msgpack.Decoder(SessionOrder).decode


class Session:
    """One session. ``outcomes`` maps request numbers to encoded outcomes, for as long as the owner
    has not acknowledged them."""

    __slots__ = ("acked_below", "last_time", "nonce", "number", "outcomes", "owner")

    def __init__(self, number: int, owner: Incarnation, nonce: int, last_time: float) -> None:
        self.number = number
        self.owner = owner
        self.nonce = nonce
        self.last_time = last_time
        self.acked_below = 0
        self.outcomes: dict[int, bytes] = {}

    def acknowledge(self, below: int) -> None:
        """The owner has the outcomes of all requests below this number."""
        outcomes = self.outcomes
        if below - self.acked_below > len(outcomes):
            self.outcomes = {number: held for number, held in outcomes.items() if number >= below}
        else:
            for number in range(self.acked_below, below):
                outcomes.pop(number, None)
        self.acked_below = max(self.acked_below, below)


class SavedSession(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One session at one instant, with outcomes of its own: as it stands in a snapshot."""

    number: int
    owner: Incarnation
    nonce: int
    last_time: float
    acked_below: int
    outcomes: dict[int, bytes]


_encode_saved = msgspec.msgpack.Encoder().encode
_decode_saved = msgspec.msgpack.Decoder(SavedSession).decode


def encode_saved(saved: Iterable[SavedSession]) -> Iterator[bytes]:
    """Each session of a ``SessionTable.save`` as bytes. Meant for another thread, and lazy: what
    is encoded is no longer the table's."""
    return map(_encode_saved, saved)


class SessionTable:
    """All sessions, as the applied log made them."""

    def __init__(self) -> None:
        self._sessions: dict[int, Session] = {}
        self._by_owner: dict[Incarnation, int] = {}

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, number: int) -> Session | None:
        return self._sessions.get(number)

    def save(self) -> list[SavedSession]:
        """A copy of everything, in the order in which the sessions were opened. Cheap: outcomes
        never change, so only what holds them is copied."""
        return [
            SavedSession(
                held.number,
                held.owner,
                held.nonce,
                held.last_time,
                held.acked_below,
                held.outcomes.copy(),
            )
            for held in self._sessions.values()
        ]

    def export(self) -> list[bytes]:
        """The whole table as bytes, one piece a session: equal tables give equal pieces."""
        return list(encode_saved(self.save()))

    def restore(self, pieces: Iterable[bytes]) -> None:
        """Become the table that ``export`` made the pieces from; nothing of the old remains.

        Raises:
            SnapshotError: a piece is no session, or contradicts another one. The table is as it
                was.
        """
        sessions: dict[int, Session] = {}
        by_owner: dict[Incarnation, int] = {}
        for place, piece in enumerate(pieces):
            try:
                saved = _decode_saved(piece)
            except (msgspec.MsgspecError, RecursionError) as error:
                raise SnapshotError(f"session {place} of a snapshot: {error}") from error
            if saved.number in sessions or saved.owner in by_owner:
                raise SnapshotError(
                    f"session {place} of a snapshot, number {saved.number} of {saved.owner}, is "
                    "in it twice"
                )
            session = Session(saved.number, saved.owner, saved.nonce, saved.last_time)
            session.acked_below = saved.acked_below
            session.outcomes = saved.outcomes
            sessions[saved.number] = session
            by_owner[saved.owner] = saved.number
        self._sessions, self._by_owner = sessions, by_owner

    def open(self, seq: int, order: NewSession, time: float) -> int:
        """Apply a ``NewSession`` entry at ``seq``; returns the session's number."""
        held = self._by_owner.get(order.owner)
        if held is not None:
            session = self._sessions[held]
            if session.nonce == order.nonce:
                session.last_time = time
                return held
            if session.nonce > order.nonce:
                return 0  # a late message of an earlier start: no session for it
            del self._sessions[held]
        self._sessions[seq] = Session(seq, order.owner, order.nonce, time)
        self._by_owner[order.owner] = seq
        return seq

    def close(self, order: CloseSessions) -> None:
        """Apply a ``CloseSessions`` entry."""
        for number, last_time in order.idle:
            session = self._sessions.get(number)
            if session is not None and session.last_time == last_time:
                del self._sessions[number]
                del self._by_owner[session.owner]

    def idle(self, before: float, max_sessions: int) -> CloseSessions | None:
        """What a master should close: the sessions last used before a replicated time, and the
        longest idle beyond ``max_sessions``. None if there is nothing to close."""
        ordered = sorted(self._sessions.values(), key=lambda held: (held.last_time, held.number))
        excess = max(0, len(ordered) - max_sessions)
        chosen: Iterable[Session] = (
            held for place, held in enumerate(ordered) if place < excess or held.last_time < before
        )
        pairs = tuple((held.number, held.last_time) for held in chosen)
        return CloseSessions(pairs) if pairs else None
