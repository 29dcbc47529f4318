"""What writers and the supervisor say to a member: one JSON line, answered by one JSON line.

The address is loopback and every program here is started by the same supervisor, so there is
neither authentication nor a version. What matters is what a lost answer means: the question may or
may not have been acted upon. ``Connection.ask`` therefore never repeats anything by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Self

import msgspec

from clusterconsensus.cli.demo.bank import Book, Transfer

HOST = "127.0.0.1"

MAX_LINE_BYTES = 512 * 1024 * 1024
"""The largest line, a whole book at the end of a very long run. Longer ones end the connection."""


class Question(msgspec.Struct, frozen=True, tag=True):
    """Something that is asked of a member."""


class DoTransfer(Question, frozen=True, tag="transfer"):
    """Submit this transfer. Answered by Done, Refused or Unknown."""

    transfer: Transfer


class TellStatus(Question, frozen=True, tag="status"):
    """Answered by Status, without asking anybody else."""


class TellBook(Question, frozen=True, tag="book"):
    """Answered by BookTold: by a linearizable read, or as this member has it by itself."""

    linearizable: bool


class Found(Question, frozen=True, tag="found"):
    """Begin a new cluster with this member. Answered by Done or Refused."""


class Add(Question, frozen=True, tag="add"):
    """Add a member to the cluster. Answered by Done, Refused or Unknown."""

    id: str
    address: str


AnyQuestion = DoTransfer | TellStatus | TellBook | Found | Add


class Answer(msgspec.Struct, frozen=True, tag=True):
    """What a member answers."""


class Done(Answer, frozen=True, tag="done"):
    """It has happened, and a majority holds it."""


class Refused(Answer, frozen=True, tag="refused"):
    """It has not happened and never will."""

    reason: str


class Unknown(Answer, frozen=True, tag="unknown"):
    """Nobody can tell whether it happened, or yet may."""

    reason: str


class Status(Answer, frozen=True, tag="status"):
    """How a member sees itself and the cluster."""

    id: str
    role: str
    ballot: str
    master: str
    last_sequence: int
    commit: int
    applied: int
    members: list[str]
    waiting: int
    """Transfers that this process has accepted and not yet handed to its participant. Always 0
    unless members were told to acknowledge too early."""


class BookTold(Answer, frozen=True, tag="book"):
    """A member's state."""

    book: Book


AnyAnswer = Done | Refused | Unknown | Status | BookTold

_encode = msgspec.json.Encoder().encode
_questions: msgspec.json.Decoder[AnyQuestion] = msgspec.json.Decoder(AnyQuestion)
_answers: msgspec.json.Decoder[AnyAnswer] = msgspec.json.Decoder(AnyAnswer)
decode_question = _questions.decode
decode_answer = _answers.decode


def line_of(message: AnyQuestion | AnyAnswer) -> bytes:
    """A message as a line."""
    return _encode(message) + b"\n"


class Connection:
    """A connection to a member; one question at a time.

    Use ``await Connection.open(port)``, then ``ask``; ``close`` never waits.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, port: int) -> Self:
        """Connect to the member behind a loopback port.

        Raises:
            OSError: nobody listens there.
        """
        return cls(*await asyncio.open_connection(HOST, port, limit=MAX_LINE_BYTES))

    async def ask(self, question: AnyQuestion) -> AnyAnswer:
        """Ask and await the answer.

        **Cancellation**: the answer is lost, and the connection must be closed.

        Raises:
            OSError: the connection broke. Whether the question was acted upon is not known.
        """
        try:
            self._writer.write(line_of(question))
            line = await self._reader.readline()
            if not line.endswith(b"\n"):
                raise ConnectionResetError("the member has closed the connection")
            return decode_answer(line)
        except ValueError as error:  # a line over the limit, or one that is no answer
            raise ConnectionAbortedError(f"the member answered nonsense: {error}") from error

    def close(self) -> None:
        """Give the connection up."""
        with contextlib.suppress(OSError, RuntimeError):
            self._writer.close()


async def ask_once(port: int, question: AnyQuestion, timeout: float) -> AnyAnswer | None:
    """Connect, ask, hang up.

    Arguments:
        port: Of the member.
        question: Must be harmless to lose and to repeat.
        timeout: In seconds, for all of it.

    Returns:
        The answer, or None if there was none in time.
    """
    try:
        async with asyncio.timeout(timeout):
            connection = await Connection.open(port)
            try:
                return await connection.ask(question)
            finally:
                connection.close()
    except (OSError, TimeoutError):
        return None
