"""The state machine of the demonstration: a bank that can tell when something went wrong.

Every transfer has an id of its own. The bank counts how often it has applied each id and moves the
money every time, so a transfer that a consensus library applies twice is seen twice: as a count of
two, and as balances that no longer fit. Accounts may be overdrawn: the balances then depend only on
*which* transfers were applied and not on their order, so they can be computed again from the ids.

What a transfer does is computed from its id and the seed. The check at the end thus knows what each
id had to do without believing any member.
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

import msgspec

from clusterconsensus import Context
from clusterconsensus.state import Readable

ACCOUNTS = 12
OPENING_BALANCE = 1_000
MAX_AMOUNT = 100


class Transfer(msgspec.Struct, frozen=True, array_like=True):
    """Money from one account to another: a change."""

    id: str
    source: int
    target: int
    amount: int


def transfer_of(transfer_id: str, seed: int) -> Transfer:
    """What an id stands for: the same for the writer that issues it and for the check."""
    number = crc32(f"{seed} {transfer_id}".encode())
    number, source = divmod(number, ACCOUNTS)
    number, distance = divmod(number, ACCOUNTS - 1)
    target = (source + 1 + distance) % ACCOUNTS
    return Transfer(transfer_id, source, target, 1 + number % MAX_AMOUNT)


class Book(msgspec.Struct):
    """What a bank knows: the balances, and how often each transfer was applied."""

    balances: list[int] = msgspec.field(default_factory=lambda: [OPENING_BALANCE] * ACCOUNTS)
    applied: dict[str, int] = msgspec.field(default_factory=dict)

    @property
    def total(self) -> int:
        """All money there is. Transfers only move it."""
        return sum(self.balances)

    def enter(self, transfer: Transfer) -> int:
        """Do a transfer, whether or not it was done before, and return how often it is done now."""
        times = self.applied.get(transfer.id, 0) + 1
        self.applied[transfer.id] = times
        self.balances[transfer.source] -= transfer.amount
        self.balances[transfer.target] += transfer.amount
        return times

    def copy(self) -> Book:
        """A book of its own, which later transfers leave as it is."""
        return Book(list(self.balances), dict(self.applied))


def book_of(applied: Iterable[tuple[str, int]], seed: int) -> Book:
    """The book that a bank must have after these transfers, each so many times."""
    book = Book()
    for transfer_id, times in applied:
        for _ in range(times):
            book.enter(transfer_of(transfer_id, seed))
    return book


class Bank:
    """The replicated state machine: three methods, as every ``State`` has them."""

    def __init__(self) -> None:
        self.book = Book()

    def apply(self, change: Transfer, context: Context) -> int:
        """Do one transfer; its result is how often this id is done now, which should be 1."""
        return self.book.enter(change)

    def snapshot(self) -> bytes:
        return msgspec.msgpack.encode(self.book)

    def install(self, snapshot: Readable) -> None:
        self.book = msgspec.msgpack.decode(snapshot.read(), type=Book)
