"""Drills of the runtime's parts: applier, submits, reads, writing, opening, envelope."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

from clusterconsensus.codec import MsgpackCodec
from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.messages import Accept, Group, Prepare
from clusterconsensus.consensus.sessions import (
    NewSession,
    encode_groups,
    encode_requests,
    encode_session_order,
)
from clusterconsensus.consensus.types import (
    ZERO,
    Ballot,
    Entry,
    EntryKind,
    Incarnation,
    Member,
    Position,
)
from clusterconsensus.errors import BrokenInvariantError, DiskFullError, OutcomeUnknownError
from clusterconsensus.runtime.applier import Applier
from clusterconsensus.runtime.envelope import Gate, encode_message
from clusterconsensus.runtime.environment import Environment
from clusterconsensus.runtime.opening import open_member
from clusterconsensus.runtime.questions import ReadQuestions
from clusterconsensus.runtime.submits import Submits
from clusterconsensus.runtime.writing import Writing
from clusterconsensus.settings import Settings
from clusterconsensus.simulation.journals.model import DIRECTORY, SEGMENT_BYTES, ballot
from clusterconsensus.simulation.mutants.drills import DrillError, expect
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.state import Context, Readable
from clusterconsensus.storage.identity import open_directory
from clusterconsensus.storage.journal import Journal

A, B = Incarnation("a@d1"), Incarnation("b@d2")
SESSION = 2


# -- applying


class Counter:
    """Counts; tells the time; raises with an address in the text; runs out of memory."""

    def __init__(self) -> None:
        self.count = 0

    def apply(self, change: Any, context: Context) -> Any:
        if change == "time":
            return context.time
        if change == "raise":
            raise ValueError(f"<object at {id(self):#x}>")
        if change == "memory":
            raise MemoryError
        self.count += 1
        return self.count

    def snapshot(self) -> bytes:
        return b""

    def install(self, snapshot: Readable) -> None:
        self.count = len(snapshot.read())


class Deaf:
    """Hears what an applier tells, and keeps nothing of it."""

    def on_group(
        self, seq: int, place: int, session: int, first: int, found: Sequence[bytes | None]
    ) -> None:
        return

    def on_session(self, seq: int, owner: str, nonce: int, session: int) -> None:
        return

    def on_entry(self, seq: int, changes: list[Any], results: list[bytes]) -> None:
        return


def _entry(seq: int, kind: EntryKind, payload: bytes = b"") -> Entry:
    return Entry.make(seq, Ballot(1, A), kind, 1_000.0 + seq, payload)


def _changes(seq: int, acked_below: int, first: int, *texts: str) -> Entry:
    codec = MsgpackCodec()
    body = encode_requests([codec.encode_change(text) for text in texts])
    group = Group(SESSION, acked_below, first, len(texts), body)
    return _entry(seq, EntryKind.CHANGES, encode_groups([group]))


def appliers() -> None:
    """Two members on different clocks apply the same entries, with repetitions among them."""
    log = [
        _entry(1, EntryKind.NOOP),
        _entry(2, EntryKind.SESSION, encode_session_order(NewSession(A, 1))),
        _changes(3, 1, 1, "add", "add"),
        _changes(4, 1, 2, "add"),
        _changes(5, 3, 3, "time", "raise"),
        _changes(6, 3, 1, "add"),
    ]
    found: list[tuple[int, int]] = []
    for clock in (0.0, 1e9):
        state = Counter()
        applier = Applier(state, MsgpackCodec(), Deaf(), lambda clock=clock: clock, 1.0)  # type: ignore[misc]  # mypy cannot infer a lambda with a default
        applier.run(lambda seq: log[seq - 1], len(log))
        if not found:
            expect(state.count == 2, "I-15", f"two additions took effect {state.count} times")
        found.append((state.count, applier.checksum))
    expect(found[0] == found[1], "I-13", f"two members differ: {found}")
    _refuses(applier, _changes(7, 3, 5, "memory"), MemoryError, "R8")
    _refuses(applier, Entry.make(7, Ballot(1, A), 99, 2_000.0), BrokenInvariantError, "K4")  # type: ignore[arg-type]  # a kind of a later version


def _refuses(applier: Applier, entry: Entry, error: type[BaseException], rule: str) -> None:
    try:
        applier.run(lambda seq: entry, entry.seq)
    except error:
        applier._running = None
        return
    raise DrillError(f"{rule}: {entry.seq} was applied where {error.__name__} is due")


# -- submits and reads


class Sent:
    """What a participant has sent, and a clock that it looks at."""

    def __init__(self) -> None:
        self.now = 0.0
        self.groups: list[tuple[int, Group]] = []
        self.sessions = 0

    def send(self, to: Incarnation, attempt: int, group: Group) -> None:
        self.groups.append((attempt, group))

    def open_session(self, to: Incarnation, nonce: int) -> None:
        self.sessions += 1


async def _submits() -> None:
    sent = Sent()
    submits = Submits(
        Settings(submit_timeout_seconds=5.0),
        lambda: sent.now,
        sent.send,
        sent.open_session,
        lambda: None,
        nonce=1,
    )
    submits.on_leader(B)
    lost = submits.submit(b"one", 3, None)
    submits.flush()
    submits.on_session(1, SESSION)
    submits.flush()
    number = sent.groups[-1][1].first
    sent.now = 6.0
    submits.on_tick(sent.now)
    expect(
        isinstance(lost.exception(), OutcomeUnknownError),
        "X4",
        f"a change that was sent and not answered ends as {type(lost.exception()).__name__}",
    )
    other = submits.submit(b"two", 3, None)
    submits.flush()
    below = sent.groups[-1][1].acked_below
    expect(below <= number, "X1", f"request {number} is unknown, all below {below} acknowledged")
    again = submits.retry(number, None)
    submits.flush()
    repeated = sent.groups[-1][1].first
    expect(repeated == number, "X1", f"request {number} is sent again as {repeated}")
    third = submits.submit(b"three", 5, None)
    submits.flush()
    before = len(sent.groups)
    submits.on_outcomes(number, [None])  # the session has expired
    submits.flush()
    submits.on_session(submits.nonce, SESSION + 7)
    submits.flush()
    resent = [group.first for _, group in sent.groups[before:]]
    # Looked at before anything is judged: nobody else asks for these exceptions.
    ends = [future.exception() if future.done() else None for future in (other, again, third)]
    expect(not resent, "X2", f"requests {resent} of an expired session are sent in another one")
    expect(None not in ends, "X2", "a request is left waiting")


def submits() -> None:
    """A change is sent and not answered; it is asked for again; its session expires."""
    asyncio.run(_submits())


async def _questions() -> None:
    asked: list[int] = []
    reads = ReadQuestions(
        Settings(), lambda: 0.0, lambda to, nonce, lease: asked.append(nonce), lambda: None
    )
    reads.on_leader(B)
    future = reads.read(None)
    reads.flush(3)
    reads.on_ready(asked[0], 5, 3)
    expect(not future.done(), "L3", "a read of sequence 5 is served at 3")
    reads.on_applied(5)
    expect(future.done(), "L3", "a read of sequence 5 is not served at 5")


def questions() -> None:
    """A follower is told up to where it must have applied."""
    asyncio.run(_questions())


# -- writing


class SlowWorker:
    """Does what it was called for when it is told to."""

    def __init__(self) -> None:
        self.jobs: list[Callable[[], None]] = []

    def call(
        self, function: Callable[[], Any], done: Callable[[Any, Exception | None], None]
    ) -> None:
        def job() -> None:
            try:
                result = function()
            except Exception as error:
                done(None, error)
            else:
                done(result, None)

        self.jobs.append(job)

    def go_on(self) -> None:
        jobs, self.jobs = self.jobs, []
        for job in jobs:
            job()

    async def aclose(self) -> None:
        self.go_on()


class FailingJournal:
    """A journal that has no space once and then breaks."""

    prepare_due = False

    def __init__(self) -> None:
        self.errors: list[Exception] = []
        self.written: list[int] = []

    def append(self, batches: Sequence[Persist]) -> None:
        if self.errors:
            raise self.errors.pop()
        self.written += [batch.ticket for batch in batches]


async def _writing() -> None:
    worker, journal = SlowWorker(), FailingJournal()
    durable: list[int] = []
    errors: list[Exception] = []
    writing = Writing(
        journal,  # type: ignore[arg-type]  # stands in for the one method that is called
        worker,
        durable.append,
        lambda detail: None,
        errors.append,
    )
    writing.add(Persist(1, None, None, ()))
    writing.flush()
    expect(not durable, "D3", "a write counts as durable when it begins")
    worker.go_on()
    expect(durable == [1], "D3", f"durable are {durable}")
    journal.errors = [DiskFullError("no space")]
    writing.add(Persist(2, None, None, ()))
    writing.flush()
    writing.add(Persist(3, None, None, ()))  # gathers meanwhile
    worker.go_on()
    writing._go_on()  # as after the pause
    worker.go_on()
    expect(journal.written == [1, 2, 3], "W2", f"after a full disk are written {journal.written}")
    journal.errors = [OSError("broken")]
    writing.add(Persist(4, None, None, ()))
    writing.flush()
    worker.go_on()
    expect(len(errors) == 1 and 4 not in durable, "W2", "a write that failed counts as durable")


def writing() -> None:
    """A write takes its time; the disk is full; the disk breaks."""
    asyncio.run(_writing())


# -- opening


class QuickWorker:
    """Does at once what it is called for."""

    def __init__(self, name: str) -> None:
        self.name = name

    def call(
        self, function: Callable[[], Any], done: Callable[[Any, Exception | None], None]
    ) -> None:
        try:
            result = function()
        except Exception as error:
            done(None, error)
        else:
            done(result, None)

    async def aclose(self) -> None:
        return


async def _opening() -> None:
    disk = Disk()
    directory = open_directory(disk, DIRECTORY, "shop", "a", "d1")
    journal = Journal.open(disk, DIRECTORY, disk_id="d1", segment_bytes=SEGMENT_BYTES)
    noops = tuple(Entry.make(seq, ballot(1), EntryKind.NOOP, 1_000.0 + seq) for seq in range(1, 5))
    journal.append([Persist(1, ballot(1), None, noops, 2)])
    journal.close(2)
    directory.close()
    opened = await open_member(
        cluster="shop",
        member=Member("a", "a:1"),
        state=Counter(),
        codec=MsgpackCodec(),
        directory=DIRECTORY,
        settings=Settings(segment_bytes=SEGMENT_BYTES),
        environment=Environment(files=disk, make_worker=QuickWorker),
        transport=None,  # type: ignore[arg-type]  # nothing is sent before it takes part
    )
    applied = opened.parts.applier.applied
    expect(applied == 2, "W7", f"a start applies up to {applied}, known to be chosen is 2")


def opening() -> None:
    """A member starts with a log of which only the beginning is known to be chosen."""
    asyncio.run(_opening())


# -- the envelope


def gate() -> None:
    """Messages come from another cluster, for another disk, and before there is a cluster."""
    here = Gate(Member("b", "b:1"), "d2", "k1")
    friend = Gate(Member("a", "a:1"), "d1", "k1")
    stranger = Gate(Member("a", "a:1"), "d1", "k2")
    prepare = encode_message(Prepare(Ballot(3, A), 0, Position(ZERO, 0)))
    accept = encode_message(Accept(Ballot(3, A), Position(ZERO, 0), (), 0, 1))
    expect(here.admit(friend.header("b", "d2") + prepare) is not None, "I4", "a friend is dropped")
    taken = here.admit(stranger.header("b", "d2") + prepare)
    expect(taken is None, "I4", "a message of another cluster is taken")
    taken = here.admit(friend.header("b", "d9") + prepare)
    expect(taken is None, "I0", "a message for another disk is taken")
    blank = Gate(Member("b", "b:1"), "d2", "")
    taken = blank.admit(friend.header("b", "d2") + prepare)
    expect(taken is None, "I1", "a member without a cluster is asked for a promise")
    taken = blank.admit(friend.header("b", "d2") + accept)
    expect(taken is not None, "I1", "a master cannot take in a member without a cluster")


RUNTIME_DRILLS: dict[str, Callable[[], None]] = {
    "appliers": appliers,
    "gate": gate,
    "opening": opening,
    "questions": questions,
    "submits": submits,
    "writing": writing,
}
