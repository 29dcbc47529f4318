"""Applies what is chosen: sessions first, then the user's state machine (R8, X1).

Applying is cut into slices, so that a long queue of entries or a slow ``apply`` never keeps the
heartbeats from leaving. A slice ends between two requests, never inside an atomic batch.

Everything that applying changes is here, and goes into a snapshot and comes out of one together
(S4, S5): the state, the sessions, the rolling checksum, the replicated time, the sequence. It can
be had only between two entries. Taking it is quick; installing may take long, happens on a worker,
and shows when it is complete.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from zlib import crc32

import msgspec

from clusterconsensus.consensus.sessions import (
    CloseSessions,
    SavedSession,
    Session,
    SessionTable,
    decode_groups,
    decode_requests,
    decode_session_order,
)
from clusterconsensus.consensus.types import Configuration, Entry, EntryKind
from clusterconsensus.errors import BrokenInvariantError, SnapshotError, StorageError
from clusterconsensus.runtime import outcomes
from clusterconsensus.state import Codec, Context, Readable, State

LOOK_AT_CLOCK_EVERY = 32
"""Requests between two looks at the clock, at most: fewer where they turn out to be slow."""

MAX_RESULT_BYTES = 1024 * 1024
"""The largest encoded result; a larger one becomes an error result. Not a setting: every member
must judge alike."""


class ResultTooLargeError(Exception):
    """``apply`` returned more than fits; the submitter gets it as an ``ApplyError``."""


_decode_configuration = msgspec.msgpack.Decoder(Configuration).decode


class Listener(Protocol):
    """Who wants to know what was applied. Called in order, once per group or session entry."""

    def on_group(
        self, seq: int, place: int, session: int, first: int, found: Sequence[bytes | None]
    ) -> None:
        """A group's outcomes, None for each request whose session is not known. ``place`` is the
        group's place in the entry ``seq``."""
        ...

    def on_session(self, seq: int, owner: str, nonce: int, session: int) -> None:
        """A session was opened; ``session`` is 0 where it was refused."""
        ...

    def on_entry(self, seq: int, changes: list[Any], results: list[bytes]) -> None:
        """An entry is applied as a whole; empty lists where nobody asked for them."""
        ...


@dataclass(frozen=True)
class Capture:
    """All that was applied up to ``seq``, at one instant, not yet as bytes (S5).

    ``state`` is what ``State.snapshot`` returned: bytes, or an iterable that another thread may go
    through while applying goes on.
    """

    seq: int
    checksum: int
    time: float
    sessions: list[SavedSession]
    state: bytes | Iterable[bytes]


@dataclass(frozen=True)
class Installed:
    """What ``Applier.install`` has made of a snapshot, beside the state itself."""

    seq: int
    checksum: int
    time: float
    sessions: SessionTable


class Applier:
    """The replicated part of a member's memory: the state, the sessions, the rolling checksum.

    Arguments:
        state: The user's state machine.
        codec: Decodes changes, encodes results.
        listener: Who hears what was applied.
        clock: Seconds, for slices only.
        slice_seconds: How long one slice may take.
    """

    def __init__(
        self,
        state: State,
        codec: Codec,
        listener: Listener,
        clock: Callable[[], float],
        slice_seconds: float,
    ) -> None:
        self.state = state
        self.sessions = SessionTable()
        self.applied = 0
        self.checksum = 0
        self.time = 0.0
        self.applied_bytes = 0
        """The payload of all entries applied by this object."""
        self.installing = False
        """Whether a snapshot is being installed: nothing is applied, and nothing may be asked of
        the state."""
        self._collects = False
        self._codec = codec
        self._listener = listener
        self._clock = clock
        self._slice_seconds = slice_seconds
        self._slice_ends = 0.0
        self._looked_at = 0.0
        self._look_after = 1
        self._unlooked = 0
        self._changes: list[Any] = []
        self._results: list[bytes] = []
        self._running: Iterator[None] | None = None
        self._stops = False

    @property
    def is_between_entries(self) -> bool:
        """Whether the state is what whole entries made it."""
        return self._running is None and not self.installing

    def stop_between_entries(self) -> None:
        """Let the slice in which the next entry ends end with it. Otherwise, under load, each slice
        might end in the middle of one."""
        self._stops = True

    def collect(self, wanted: bool) -> None:
        """Whether ``on_entry`` gets changes and results from now on."""
        self._collects = wanted

    def run(self, entry_at: Callable[[int], Entry], up_to: int) -> bool:
        """Apply entries up to a sequence for one slice; True when that far.

        Raises:
            BrokenInvariantError: an entry does not decode or is of an unknown kind.
            BaseException: what is no answer of ``apply``, such as MemoryError.
        """
        if self.installing:
            raise BrokenInvariantError("applied while a snapshot is being installed")
        self._looked_at = self._clock()
        self._slice_ends = self._looked_at + self._slice_seconds
        while self.applied < up_to:
            if self._running is None:
                self._running = self._apply(entry_at(self.applied + 1))
            for _ in self._running:
                return False
            self._running = None
            if self.applied < up_to and (self._stops or self._clock() >= self._slice_ends):
                return False
        return True

    # -- snapshots

    def capture(self) -> Capture:
        """Everything as it is now. In the event loop; alters nothing.

        Raises:
            SnapshotError: an entry is applied by half, a snapshot is being installed, or
                ``State.snapshot`` raised or returned something else.
        """
        if not self.is_between_entries:
            raise SnapshotError(
                f"no snapshot can be taken in the middle of entry {self.applied + 1}"
                if not self.installing
                else "no snapshot can be taken while another one is being installed"
            )
        self._stops = False
        try:
            state: object = self.state.snapshot()
        except Exception as error:
            raise SnapshotError(
                f"State.snapshot raised {type(error).__name__}: {error}, after sequence "
                f"{self.applied}"
            ) from error
        if not isinstance(state, bytes) and (
            isinstance(state, str | bytearray | memoryview) or not isinstance(state, Iterable)
        ):
            raise SnapshotError(
                f"State.snapshot returned a {type(state).__name__} and neither bytes nor an "
                "iterable of bytes"
            )
        return Capture(self.applied, self.checksum, self.time, self.sessions.save(), state)

    def begin_install(self) -> None:
        """Apply nothing more until ``end_install``. In the event loop. What is left of an entry
        that is applied by half is dropped: the snapshot covers it."""
        self.installing = True
        self._running = None
        self._changes, self._results = [], []

    def install(
        self, seq: int, checksum: int, time: float, sessions: Iterable[bytes], state: Readable
    ) -> Installed:
        """Replace the state by that of a snapshot, between ``begin_install`` and ``end_install``.
        On any thread; may take long.

        Arguments:
            seq: The last sequence in the snapshot.
            checksum: The rolling checksum there (R9).
            time: The replicated time there, in seconds since the Unix epoch (R10).
            sessions: What ``encode_saved`` made of the sessions.
            state: What ``State.snapshot`` returned.

        Raises:
            StorageError: reading the snapshot found damage or failed.
            BrokenInvariantError: the sessions contradict themselves, the state machine raised, or
                the snapshot is older than what is applied (S5). In all cases the member must stop:
                nobody knows what its state holds.
        """
        if not self.installing or seq < self.applied:
            raise BrokenInvariantError(
                f"a snapshot of sequence {seq} is no successor of {self.applied} (S5)"
                if self.installing
                else "a snapshot is installed beside the applying"
            )
        table = SessionTable()
        try:
            table.restore(sessions)
            self.state.install(state)
        except StorageError:
            raise
        except (Exception, SystemExit, KeyboardInterrupt) as error:
            # The last two would end the worker's thread, and nobody would know.
            raise BrokenInvariantError(
                f"the snapshot of sequence {seq} cannot be installed: {type(error).__name__}: "
                f"{error}"
            ) from error
        return Installed(seq, checksum, time, table)

    def end_install(self, installed: Installed) -> None:
        """Be where the snapshot was taken; sessions, checksum, time and sequence change together
        (S4). In the event loop."""
        self.sessions = installed.sessions
        self.checksum = installed.checksum
        self.time = installed.time
        self.applied = installed.seq
        self.installing = False

    # -- entries

    def _apply(self, entry: Entry) -> Iterator[None]:
        """Apply one entry; yields where a slice ends inside it."""
        kind = entry.kind
        pieces: list[bytes] = []
        initial: bytes | None = None
        try:
            if kind == EntryKind.CHANGES:
                yield from self._apply_changes(entry, pieces)
            elif kind == EntryKind.SESSION:
                self._apply_session(entry)
            elif kind == EntryKind.CONFIG:
                initial = _decode_configuration(entry.payload).initial
            elif kind != EntryKind.NOOP:
                raise BrokenInvariantError(f"entry {entry.seq} is of the unknown kind {kind} (K4)")
        except msgspec.MsgspecError as error:
            raise BrokenInvariantError(
                f"the committed entry {entry.seq} does not decode: {error}"
            ) from error
        if initial is not None:
            self.state.install(io.BytesIO(initial))
        self.time = entry.time
        self.checksum = crc32(b"".join(pieces), crc32(entry.crc.to_bytes(4, "big"), self.checksum))
        self.applied = entry.seq
        self.applied_bytes += len(entry.payload)
        changes, results = self._changes, self._results
        if changes:
            self._changes, self._results = [], []
        self._listener.on_entry(entry.seq, changes, results)

    def _apply_session(self, entry: Entry) -> None:
        order = decode_session_order(entry.payload)
        if isinstance(order, CloseSessions):
            self.sessions.close(order)
        else:
            number = self.sessions.open(entry.seq, order, entry.time)
            self._listener.on_session(entry.seq, order.owner, order.nonce, number)

    def _apply_changes(self, entry: Entry, pieces: list[bytes]) -> Iterator[None]:
        index = 0
        for place, group in enumerate(decode_groups(entry.payload)):
            session = self.sessions.get(group.session)
            found: list[bytes | None]
            if session is None:
                found = [None] * group.count
            else:
                found = []
                session.acknowledge(group.acked_below)
                session.last_time = entry.time
                requests = decode_requests(group.body)
                if len(requests) != group.count:
                    raise BrokenInvariantError(
                        f"entry {entry.seq} promises {group.count} requests and holds "
                        f"{len(requests)}"
                    )
                known = session.outcomes
                number = group.first
                for request in requests:
                    outcome = known.get(number)
                    if outcome is None:
                        if number < session.acked_below:
                            outcome = outcomes.STALE
                        elif isinstance(request, bytes):
                            context = Context(entry.seq, index, entry.time, session.number)
                            known[number] = outcome = self._apply_one(request, context)
                            index += 1
                        else:
                            outcome = self._apply_batch(request, entry, index, session)
                            known[number] = outcome
                            index += len(request)
                        self._unlooked += 1
                        if self._unlooked >= self._look_after and self._is_slice_over():
                            yield
                    found.append(outcome)
                    pieces.append(
                        outcome
                        if outcome and outcome[0] == outcomes.RESULT[0]
                        else outcomes.comparable(outcome)
                    )
                    number += 1
            self._listener.on_group(entry.seq, place, group.session, group.first, found)

    def _is_slice_over(self) -> bool:
        """Look at the clock, and decide when to look again."""
        now = self._clock()
        quick = now - self._looked_at < self._slice_seconds / 8
        self._look_after = min(2 * self._look_after, LOOK_AT_CLOCK_EVERY) if quick else 1
        self._looked_at, self._unlooked = now, 0
        return now >= self._slice_ends

    def _apply_batch(
        self, request: Sequence[bytes], entry: Entry, index: int, session: Session
    ) -> bytes:
        parts = [
            self._apply_one(change, Context(entry.seq, index + place, entry.time, session.number))
            for place, change in enumerate(request)
        ]
        return outcomes.batch(parts)

    def _apply_one(self, data: bytes, context: Context) -> bytes:
        """Apply one change; whatever ``apply`` raises as an ordinary exception is its answer."""
        try:
            change = self._codec.decode_change(data)
        except Exception as error:
            raise BrokenInvariantError(
                f"the codec cannot decode change {context.index} of the committed entry "
                f"{context.sequence}: {error}"
            ) from error
        try:
            result = self._codec.encode_result(self.state.apply(change, context))
            if len(result) > MAX_RESULT_BYTES:
                raise ResultTooLargeError(
                    f"a result of {len(result)} bytes exceeds MAX_RESULT_BYTES ({MAX_RESULT_BYTES})"
                )
            outcome = outcomes.RESULT + result
        except MemoryError:
            raise  # this member's trouble, not the change's: the others do not share it (R8)
        except Exception as error:
            outcome = outcomes.failure(error)
        if self._collects:
            self._changes.append(change)
            self._results.append(outcome)
        return outcome
