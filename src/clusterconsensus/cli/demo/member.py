"""A member process: one participant with the bank, and a loopback port for those who use it.

This is what an application that embeds the library looks like: it starts a participant on its
directory and hands changes to it. Everything else here is the small server that lets writers in
other processes do so too. What it answers is exactly what the participant says: *done* for a
result, *refused* for an error that says the change was not applied, *unknown* for the rest.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys

from clusterconsensus import (
    ConsensusError,
    Member,
    MsgpackCodec,
    Outcome,
    Participant,
    Settings,
    TcpTransport,
)
from clusterconsensus.cli.demo.bank import Bank, Book, Transfer
from clusterconsensus.cli.demo.child import MemberOrder
from clusterconsensus.cli.demo.protocol import (
    HOST,
    MAX_LINE_BYTES,
    Add,
    AnyAnswer,
    AnyQuestion,
    BookTold,
    Done,
    DoTransfer,
    Found,
    Refused,
    Status,
    TellBook,
    TellStatus,
    Unknown,
    decode_question,
    line_of,
)

CLUSTER = "bank"
STOPPED_BY_ITSELF = 70

EARLY_SECONDS = 0.2
MAX_EARLY = 10_000


class EarlyAcknowledger:
    """Breaks the promise of durability on purpose, so that a test can see the check fail.

    A transfer is acknowledged as soon as it stands in this queue; only later is it handed to the
    participant. Whatever still waits when the process is killed was acknowledged and is lost.
    """

    def __init__(self, participant: Participant[Bank]) -> None:
        self._participant = participant
        self._queue: asyncio.Queue[Transfer] = asyncio.Queue(MAX_EARLY)
        self._handing_over = 0

    @property
    def waiting(self) -> int:
        """How many acknowledged transfers no majority holds yet."""
        return self._queue.qsize() + self._handing_over

    async def submit(self, transfer: Transfer) -> None:
        """Return at once, unless the queue is full."""
        await self._queue.put(transfer)

    async def run(self) -> None:
        """Hand over what has gathered, again and again."""
        while True:
            await asyncio.sleep(EARLY_SECONDS)
            changes = [self._queue.get_nowait() for _ in range(self._queue.qsize())]
            self._handing_over = len(changes)
            outcomes = (self._participant.submit(change) for change in changes)
            await asyncio.gather(*outcomes, return_exceptions=True)
            self._handing_over = 0


class MemberServer:
    """Answers questions about, and for, one participant.

    Arguments:
        participant: Started.
        early: Acknowledges too early in its place, None for an honest member.
    """

    def __init__(self, participant: Participant[Bank], early: EarlyAcknowledger | None) -> None:
        self._participant = participant
        self._early = early

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection: a question, its answer, the next question."""
        with contextlib.suppress(OSError):  # whoever asked has gone; nobody waits for the answer
            try:
                while line := await reader.readline():
                    writer.write(line_of(await self.answer(decode_question(line))))
                    await writer.drain()
            finally:
                writer.close()

    async def answer(self, question: AnyQuestion) -> AnyAnswer:
        """Do what is asked, and turn an error into what it says of the outcome."""
        try:
            return await self._answer(question)
        except ConsensusError as error:
            reason = f"{type(error).__name__}: {error}"
            if error.outcome is Outcome.NOT_APPLIED:
                return Refused(reason)
            return Unknown(reason)

    async def _answer(self, question: AnyQuestion) -> AnyAnswer:
        participant = self._participant
        match question:
            case DoTransfer(transfer=transfer):
                submitter = participant if self._early is None else self._early
                await submitter.submit(transfer)
                return Done()
            case TellStatus():
                return self._status()
            case TellBook(linearizable=False):
                return BookTold(participant.state.book)
            case TellBook():
                return BookTold(await participant.read(_copy_of_book))
            case Found():
                await participant.init_master()
                return Done()
            case Add(id=member_id, address=address):
                await participant.add_participant(Member(id=member_id, address=address))
                return Done()

    def _status(self) -> Status:
        status = self._participant.status()
        return Status(
            id=status.member.id,
            role=str(status.role),
            ballot=str(status.ballot),
            master="" if status.master is None else status.master.id,
            last_sequence=status.last_sequence,
            commit=status.commit_sequence,
            applied=status.applied_sequence,
            members=[seat.id for seat in status.members],
            waiting=0 if self._early is None else self._early.waiting,
        )


def _copy_of_book(bank: Bank) -> Book:
    return bank.book.copy()


async def _run(order: MemberOrder) -> int:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with Participant(
        cluster=CLUSTER,
        member=Member(id=order.id, address=order.address),
        state=Bank(),
        directory=order.directory,
        transport=TcpTransport(order.address),
        settings=Settings(),
        codec=MsgpackCodec(change_type=Transfer, result_type=int),
    ) as participant:
        early = EarlyAcknowledger(participant) if order.unsafe_acknowledge_early else None
        handing_over = None if early is None else asyncio.create_task(early.run())
        server = MemberServer(participant, early)
        listener = await asyncio.start_server(
            server.serve, HOST, order.port, limit=MAX_LINE_BYTES, reuse_address=True
        )
        stopping = asyncio.create_task(stop.wait())
        closed = asyncio.create_task(participant.wait_closed())
        await asyncio.wait((stopping, closed), return_when=asyncio.FIRST_COMPLETED)
        listener.close()
        if handing_over is not None:
            handing_over.cancel()
        if not closed.done():
            closed.cancel()
            return 0
        stopping.cancel()
        print(f"the participant has stopped: {closed.exception()}", file=sys.stderr)
        return STOPPED_BY_ITSELF


def run(order: MemberOrder) -> None:
    """Be a member until SIGTERM. Ends the process with status 70 if the participant stops."""
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        stream=sys.stderr,
    )
    sys.exit(asyncio.run(_run(order)))
