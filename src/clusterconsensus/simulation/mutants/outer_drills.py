"""Drills of what lies around the runtime's parts: joining, calls and replies, frames, channels.

They are for bugs that whole clusters meet too seldom: a power failure in the one moment in which a
member joins, two losses in a row of one request's answer, a flipped bit that goes unnoticed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

from clusterconsensus.codec import MsgpackCodec
from clusterconsensus.consensus.effects import Send
from clusterconsensus.consensus.log import Log
from clusterconsensus.consensus.master import Origin
from clusterconsensus.consensus.messages import Accept, Group, SubmitReply
from clusterconsensus.consensus.types import ZERO, Ballot, Incarnation, Member, Position
from clusterconsensus.errors import ConsensusError, NotAppliedError, OutcomeUnknownError
from clusterconsensus.runtime.driver import Driver
from clusterconsensus.runtime.envelope import Gate, encode_message
from clusterconsensus.runtime.environment import Environment
from clusterconsensus.runtime.mail import Mail
from clusterconsensus.runtime.opening import Opened, open_member
from clusterconsensus.runtime.submits import Submits
from clusterconsensus.settings import Settings
from clusterconsensus.simulation.cluster import Cluster
from clusterconsensus.simulation.journals.model import DIRECTORY, SEGMENT_BYTES
from clusterconsensus.simulation.judges.models import MapState
from clusterconsensus.simulation.mutants.drills import expect
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.simulation.world.loop import World
from clusterconsensus.storage.identity import read_identity
from clusterconsensus.transport import wire
from clusterconsensus.transport.accept import AcceptedConnection, Acceptor
from clusterconsensus.transport.base import Transport
from clusterconsensus.transport.common import Attachment, Counters
from clusterconsensus.transport.common import Environment as Surroundings
from clusterconsensus.transport.wire import FrameError, FrameParser, Hello, Open, preamble

A, B, C = Incarnation("a@d1"), Incarnation("b@d2"), Incarnation("c@d3")
SESSION = 2
START = Position(ZERO, 0)
HEARTBEAT = encode_message(Accept(Ballot(1, A), START, (), 0, 1))


# -- joining


class Held:
    """A worker that does at once what it is called for, unless it is held."""

    def __init__(self) -> None:
        self.held = False
        self._jobs: list[Callable[[], None]] = []

    def call(
        self, function: Callable[[], Any], done: Callable[[Any, Exception | None], None]
    ) -> None:
        def job() -> None:
            done(function(), None)

        if self.held:
            self._jobs.append(job)
        else:
            job()

    def let_go(self) -> None:
        """Do what has gathered."""
        self.held = False
        jobs, self._jobs = self._jobs, []
        for job in jobs:
            job()

    async def aclose(self) -> None:
        return


class Posted:
    """A transport that keeps what is sent: to whom, and the whole message."""

    max_message_bytes = 64 * 1024 * 1024

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []

    def send(self, cluster: str, to: Member, parts: Sequence[bytes]) -> None:
        self.sent.append((to.id, b"".join(parts)))


async def _member(disk: Disk, worker: Held, posted: Posted) -> tuple[Opened, Driver]:
    """Member b, which belongs to no cluster yet."""
    opened = await open_member(
        cluster="shop",
        member=Member("b", "b:1"),
        state=MapState(),
        codec=MsgpackCodec(),
        directory=DIRECTORY,
        settings=Settings(segment_bytes=SEGMENT_BYTES),
        environment=Environment(files=disk, make_worker=lambda name: worker),
        transport=cast(Transport, posted),  # nothing else of it is called
    )
    driver = Driver(opened.parts, lambda event: None, lambda *told: None, lambda error: None)
    opened.attach(driver)
    return opened, driver


async def _joining() -> None:
    disk, worker, posted = Disk(), Held(), Posted()
    opened, driver = await _member(disk, worker, posted)
    master = Gate(Member("a", "a:1"), "d1", "k1")
    heartbeat = master.header("b", opened.directory.identity.disk_id) + HEARTBEAT
    worker.held = True
    for _ in range(2):
        driver.receive([heartbeat])
        driver._turn()
    early = opened.parts.gate.cluster_id or posted.sent
    expect(not early, "D9", "a member takes part before its cluster's id is durable")
    worker.let_go()
    driver.receive([heartbeat])
    driver.stop()
    found = read_identity(disk, DIRECTORY)
    joined = found is not None and found.cluster_id == opened.parts.gate.cluster_id == "k1"
    expect(joined, "D9", f"after joining k1 the directory says {found}")


def joining() -> None:
    """A master takes a member in, whose disk is slow."""
    asyncio.run(_joining())


# -- asking again


async def _unknown(end: Callable[[Submits], None]) -> BaseException | None:
    """What a caller is told that asks again for an unknown outcome while nobody leads."""
    now = 0.0

    def ignore(to: Incarnation, attempt: int, group: Group) -> None:
        return

    submits = Submits(
        Settings(submit_timeout_seconds=5.0),
        lambda: now,
        ignore,
        lambda to, nonce: None,
        lambda: None,
        nonce=1,
    )
    submits.on_leader(B)
    first = submits.submit(b"one", 3, None)
    submits.flush()
    submits.on_session(1, SESSION)
    submits.flush()
    now = 6.0
    submits.on_tick(now)
    error = first.exception()
    number = error.request if isinstance(error, OutcomeUnknownError) else None
    expect(number is not None, "X4", f"a change that was sent ends as {type(error).__name__}")
    submits.on_leader(None)
    submits.on_tick(7.0)  # the attempt is forgotten, not that there was one
    again = submits.retry(number or 0, None)
    now = 12.0
    end(submits)
    return again.exception() if again.done() else None


def asking_again() -> None:
    """Of a request whose outcome is unknown nothing more is learnt: its time is up, or it ends."""
    closed = NotAppliedError("closed")
    ends: dict[str, Callable[[Submits], None]] = {
        "its time is up": lambda submits: submits.on_tick(12.0),
        "the participant is closed": lambda submits: submits.close(closed, "closed"),
    }
    for when, end in ends.items():
        error = asyncio.run(_unknown(end))
        known = isinstance(error, OutcomeUnknownError)
        expect(known, "X4", f"when {when} what was sent once ends as {type(error).__name__}")


# -- the mail


async def _answers() -> None:
    posted = Posted()
    opened, driver = await _member(Disk(), Held(), posted)
    here = opened.parts.gate
    here.cluster_id = "k1"
    friends = {"a": Gate(Member("a", "a:1"), "d1", "k1"), "c": Gate(Member("c", "c:1"), "d3", "k1")}
    for friend in friends.values():
        here.admit(friend.header("b", here.disk_id) + HEARTBEAT)
    driver._mail.on_send(Send((A, C), Accept(Ballot(1, B), START, (), 0, 1)))
    to = [name for name, _ in posted.sent]
    expect(to == ["a", "c"], "E3", f"a message for a and c is sent to {to}")
    other = Gate(Member("a", "a:1"), "another disk", "k1")
    taken = other.admit(posted.sent[0][1])
    expect(taken is None, "I0", "a message for a's disk is taken by another disk of that name")
    driver.replica.master.origins[5] = [Origin(A, 11), Origin(C, 12)]
    driver.on_group(5, 1, SESSION, 1, (b"outcome",))
    name, data = posted.sent[-1]
    arrival = friends[name].admit(data)
    reply = None if arrival is None else arrival.message
    right = name == "c" and isinstance(reply, SubmitReply) and reply.attempt == 12
    expect(right, "X4", f"c's second group is answered to {name} by {reply}")
    driver.stop()


def answers() -> None:
    """A member sends to two others, and tells one of them what came of its group."""
    asyncio.run(_answers())


async def _replies() -> None:
    posted = Posted()
    here = Gate(Member("b", "b:1"), "d2", "k1")
    friend = Gate(Member("a", "a:1"), "d1", "k1")
    attempts: list[int] = []
    submits = Submits(
        Settings(),
        lambda: 0.0,
        lambda to, attempt, group: attempts.append(attempt),
        lambda to, nonce: None,
        lambda: None,
        nonce=1,
    )
    submits.on_leader(B)
    outcomes = [b"first", b"second", b"third"]
    waiting = [submits.submit(outcome, len(outcome), None) for outcome in outcomes]
    submits.flush()
    submits.on_session(1, SESSION)
    submits.flush()
    here.admit(friend.header("b", "d2") + HEARTBEAT)
    mail = Mail("shop", cast(Transport, posted), here, Log(), max_reply_bytes=6)
    mail.reply(A, attempts[-1], outcomes)
    expect(len(posted.sent) > 1, "X4", "a long reply is one message")
    for _, data in posted.sent:
        arrival = friend.admit(data)
        reply = None if arrival is None else arrival.message
        if isinstance(reply, SubmitReply):
            submits.on_reply(reply.attempt, reply.refusal, reply.outcomes, reply.offset)
    found = [future.result() if future.done() else None for future in waiting]
    expect(found == outcomes, "X4", f"the outcomes {outcomes} arrive as {found}")


def replies() -> None:
    """The outcomes of a group do not fit one message."""
    asyncio.run(_replies())


# -- reading


def reading() -> None:
    """Two members, no trouble: what one has written both can read."""
    world = World(1)
    cluster = Cluster(world, MapState, Settings(), MsgpackCodec())

    async def main() -> list[Any]:
        await cluster.found("ab")
        first, other = cluster.machines.values()
        await first.ask(lambda participant: participant.submit(["put", "x", 1]))
        return [
            await machine.ask(lambda participant: participant.read(lambda state: _value(state)))
            for machine in (first, other)
        ]

    try:
        found = cluster.run(main(), until=60.0)
    except ConsensusError as error:
        found = [f"{type(error).__name__}: {error}"]
    expect(found == [1, 1], "I-22", f"a healthy cluster of two reads {found}")


def _value(state: Any) -> Any:
    return state.state.query(["get", "x"])


# -- the wire


def frames() -> None:
    """Three frames arrive whole, in pieces, and with one bit flipped anywhere."""
    sent = [(1, b"first"), (2, b"second"), (1, b"")]
    stream = b"".join((preamble(), *(wire.encode_frame(number, (text,)) for number, text in sent)))
    for size in (1, 7, len(stream)):
        found = _parsed(stream, size)
        expect(found == sent, "I4", f"in pieces of {size} bytes {sent} arrives as {found}")
    for place in range(len(preamble()), len(stream)):
        flipped = bytearray(stream)
        flipped[place] ^= 1 << place % 8
        found = _parsed(bytes(flipped), len(stream))
        expect(found == sent[: len(found)], "I4", f"a flip at {place} is believed: {found}")
    limited = FrameParser(8)
    long = preamble() + wire.encode_frame(1, (b"too long for it",))
    limited.buffer()[: len(long)] = long
    try:
        taken: object = limited.advance(len(long))
    except FrameError:
        return
    expect(False, "K4", f"above the limit of 8 bytes is taken: {taken}")


def _parsed(stream: bytes, size: int) -> list[tuple[int, bytes]]:
    """What a parser makes of a stream that comes in pieces, up to the first fault."""
    parser = FrameParser(1024)
    found: list[tuple[int, bytes]] = []
    for start in range(0, len(stream), size):
        piece = stream[start : start + size]
        parser.buffer()[: len(piece)] = piece
        try:
            found += parser.advance(len(piece))
        except FrameError as error:
            return found + error.frames
    return found


class Heard:
    """Receives for one cluster."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []
        self.lost: list[Member] = []

    def receive(self, messages: Sequence[bytes]) -> None:
        self.messages += messages

    def disconnected(self, member: Member) -> None:
        self.lost.append(member)


class Socket:
    """An accepted socket that nobody reads."""

    def get_extra_info(self, name: str) -> Any:
        return None if name == "peername" else self

    def setsockopt(self, *values: int) -> None:
        return

    def write(self, data: bytes) -> None:
        return

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return False

    def abort(self) -> None:
        return

    write_eof = abort


async def _channels() -> None:
    loop = asyncio.get_running_loop()
    surroundings = Surroundings(loop, "b:1", Settings(), Counters())
    heard = {"shop": Heard(), "bank": Heard()}
    for cluster, receiver in heard.items():
        surroundings.attachments[cluster] = Attachment(
            surroundings, cluster, Member("b", "b:1"), receiver
        )
    connection = AcceptedConnection(Acceptor(surroundings, lambda address: None))
    connection.connection_made(cast(asyncio.BaseTransport, Socket()))
    stream = [preamble(), wire.encode_control(Hello("a:1", 7))]
    for number, cluster in enumerate(heard, 1):
        stream.append(wire.encode_control(Open(number, cluster, "a", "a:1")))
    stream += [wire.encode_frame(1, (b"for shop",)), wire.encode_frame(2, (b"for bank",))]
    for piece in stream:
        connection.get_buffer(-1)[: len(piece)] = piece
        connection.buffer_updated(len(piece))
    found = {cluster: receiver.messages for cluster, receiver in heard.items()}
    right = {"shop": [b"for shop"], "bank": [b"for bank"]}
    expect(found == right, "I4", f"two clusters on one connection get {found}")
    connection.connection_lost(None)
    lost = [len(receiver.lost) for receiver in heard.values()]
    expect(lost == [1, 1], "E13", f"of a broken connection two clusters are told {lost} times")


def channels() -> None:
    """Two clusters share a connection, which then breaks."""
    asyncio.run(_channels())


OUTER_DRILLS: dict[str, Callable[[], None]] = {
    "answers": answers,
    "asking again": asking_again,
    "channels": channels,
    "frames": frames,
    "joining": joining,
    "reading": reading,
    "replies": replies,
}
