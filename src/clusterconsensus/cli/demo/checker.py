"""The check at the end: the writers' own lists against what every member holds.

The writers' lists say what was promised; the books say what the cluster has made of it. Nothing
that a member claims about itself enters, so the check cannot be fooled by a member that is wrong in
the same way twice. For every book:

* *lost*: an acknowledged transfer is not in it;
* *applied twice*: any transfer, acknowledged or not, is in it more than once;
* *wrongly refused*: a transfer that was said never to be applied is in it;
* *made up*: a transfer is in it that no writer ever issued;
* the total is what it was at the beginning, and the balances are those that the book's own list of
  transfers leads to;
* and all books are equal.

A transfer of unknown fate may be in the books once, or not: either is right, if all agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from clusterconsensus.cli.demo.bank import Book, book_of
from clusterconsensus.cli.demo.writer import Fate


class JournalError(Exception):
    """The writers' own lists contradict themselves: a defect of the demonstration."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the check has found. The lists hold ids, in order, each once."""

    acknowledged: int
    unknown: int
    refused: int
    lost: tuple[str, ...]
    doubled: tuple[str, ...]
    wrongly_refused: tuple[str, ...]
    made_up: tuple[str, ...]
    total_kept: bool
    balances_right: bool
    members_agree: bool

    @property
    def fault_found(self) -> bool:
        """Whether anything at all is not as it must be."""
        return bool(
            self.lost
            or self.doubled
            or self.wrongly_refused
            or self.made_up
            or not (self.total_kept and self.balances_right and self.members_agree)
        )


def fates_of(records: Iterable[tuple[Fate, str]]) -> dict[str, Fate]:
    """The one fate of each id.

    Raises:
        JournalError: an id has two records.
    """
    fates: dict[str, Fate] = {}
    for fate, transfer_id in records:
        if transfer_id in fates:
            raise JournalError(f"transfer {transfer_id} is recorded twice")
        fates[transfer_id] = fate
    return fates


def check(fates: Mapping[str, Fate], books: Iterable[Book], seed: int) -> Verdict:
    """Compare.

    Arguments:
        fates: What the writers recorded of each transfer they issued.
        books: Every state that was read from a member. At least one.
        seed: The one that the transfers were computed from.

    Raises:
        ValueError: there is no book.
    """
    lost: set[str] = set()
    doubled: set[str] = set()
    wrongly_refused: set[str] = set()
    made_up: set[str] = set()
    total_kept = balances_right = members_agree = True
    acknowledged = {key for key, fate in fates.items() if fate is Fate.ACKNOWLEDGED}
    opening = Book()
    first: Book | None = None
    for book in books:
        if book == first:
            continue  # and so would everything be that is found in it
        if first is None:
            first = book
        else:
            members_agree = False
        lost.update(acknowledged - book.applied.keys())
        doubled.update(key for key, times in book.applied.items() if times > 1)
        wrongly_refused.update(key for key in book.applied if fates.get(key) is Fate.REFUSED)
        made_up.update(book.applied.keys() - fates.keys())
        total_kept = total_kept and book.total == opening.total
        expected = book_of(book.applied.items(), seed)
        balances_right = balances_right and book.balances == expected.balances
    if first is None:
        raise ValueError("there is no book to check")
    return Verdict(
        acknowledged=len(acknowledged),
        unknown=sum(fate is Fate.UNKNOWN for fate in fates.values()),
        refused=sum(fate is Fate.REFUSED for fate in fates.values()),
        lost=tuple(sorted(lost)),
        doubled=tuple(sorted(doubled)),
        wrongly_refused=tuple(sorted(wrongly_refused)),
        made_up=tuple(sorted(made_up)),
        total_kept=total_kept,
        balances_right=balances_right,
        members_agree=members_agree,
    )
