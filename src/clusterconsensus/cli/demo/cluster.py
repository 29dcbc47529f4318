"""The member processes as one cluster: how it is founded, watched, and found to be whole again.

Everything here asks and waits; nothing here decides. A wait has a limit, and reaching it ends the
demonstration with a sentence that says what did not come about.
"""

from __future__ import annotations

import asyncio
import random
import signal
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from clusterconsensus.cli.demo.bank import Book
from clusterconsensus.cli.demo.child import MemberOrder
from clusterconsensus.cli.demo.processes import Child, DemoError, ProcessState, free_ports
from clusterconsensus.cli.demo.protocol import (
    HOST,
    Add,
    AnyAnswer,
    AnyQuestion,
    BookTold,
    Done,
    Found,
    Status,
    TellBook,
    TellStatus,
    ask_once,
)

LOOK_SECONDS = 0.05
STATUS_TIMEOUT_SECONDS = 1.0
START_TIMEOUT_SECONDS = 30.0
BACK_TIMEOUT_SECONDS = 30.0
AGREE_TIMEOUT_SECONDS = 60.0
MASTER_TIMEOUT_SECONDS = 20.0
BOOK_TIMEOUT_SECONDS = 60.0
ORDER_TIMEOUT_SECONDS = 20.0

IDS = "abcdefghi"
ROLES_IN_ORDER = ("master", "follower")

FoundT = TypeVar("FoundT")


class ClusterMember:
    """One member: its process and how to reach it."""

    def __init__(self, order: MemberOrder, log: Path, ended: asyncio.Future[str]) -> None:
        self.id = order.id
        self.address = order.address
        self.port = order.port
        self.process = Child(f"member {order.id}", order, log, ended)

    async def status(self) -> Status | None:
        """What it says of itself, None if it does not answer."""
        if self.process.state is not ProcessState.UP:
            return None
        answer = await ask_once(self.port, TellStatus(), STATUS_TIMEOUT_SECONDS)
        return answer if isinstance(answer, Status) else None


async def until(what: str, seconds: float, look: Callable[[], Awaitable[FoundT | None]]) -> FoundT:
    """Look again and again until there is something.

    Arguments:
        what: What is waited for, to complete "... within 5 s: ".
        seconds: How long at most.
        look: Returns what it found, or None.

    Raises:
        DemoError: the time is up.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = await look()
        if found is not None:
            return found
        if time.monotonic() > deadline:
            raise DemoError(f"{what} within {seconds:g} s")
        await asyncio.sleep(LOOK_SECONDS)


class Cluster:
    """All members.

    Arguments:
        directory: Where each gets a directory of its own, and a file for what it says.
        count: How many.
        chance: Chooses the ports.
        unsafe_acknowledge_early: Members are to break their promise.
        ended: Done with a text as soon as a member ends that nobody told to.
    """

    def __init__(
        self,
        directory: Path,
        count: int,
        chance: random.Random,
        unsafe_acknowledge_early: bool,
        ended: asyncio.Future[str],
    ) -> None:
        ports = free_ports(2 * count, chance)
        self.members = [
            ClusterMember(
                MemberOrder(
                    id=name,
                    address=f"{HOST}:{ports[2 * index]}",
                    port=ports[2 * index + 1],
                    directory=str(directory / f"member-{name}"),
                    unsafe_acknowledge_early=unsafe_acknowledge_early,
                ),
                directory / f"member-{name}.log",
                ended,
            )
            for index, name in enumerate(IDS[:count])
        ]

    @property
    def majority_survives_one(self) -> bool:
        """Whether the cluster can go on without one of its members."""
        return len(self.members) >= 3

    async def found(self) -> None:
        """Start all processes; the first begins a new cluster, the others are added to it."""
        await asyncio.gather(*(member.process.start() for member in self.members))
        for member in self.members:
            await until(f"member {member.id} did not come up", START_TIMEOUT_SECONDS, member.status)
        first, *others = self.members
        await self._order(first, Found())
        for other in others:
            await self._order(first, Add(other.id, other.address))
        await self.until_agreed()

    async def _order(self, member: ClusterMember, order: AnyQuestion) -> None:
        answer = await ask_once(member.port, order, ORDER_TIMEOUT_SECONDS)
        if not isinstance(answer, Done):
            raise DemoError(f"member {member.id} did not do {order}: {answer or 'no answer'}")

    async def statuses(self) -> list[Status | None]:
        """What each member says of itself now."""
        return list(await asyncio.gather(*(member.status() for member in self.members)))

    async def master(self) -> ClusterMember:
        """The member that leads.

        Raises:
            DemoError: nobody leads for a long time.
        """

        async def look() -> ClusterMember | None:
            for member, status in zip(self.members, await self.statuses(), strict=True):
                # The others must say so too: one that was just woken may still believe it leads.
                if status is not None and status.role == "master" and await self._heard(status.id):
                    return member
            return None

        return await until("no master was found", MASTER_TIMEOUT_SECONDS, look)

    async def _heard(self, master: str) -> bool:
        heard = sum(
            status is not None and status.master == master for status in await self.statuses()
        )
        return heard > len(self.members) // 2

    async def until_back(self, member: ClusterMember) -> None:
        """Wait until a member follows (or leads) again and holds all that was chosen so far."""
        target = max((status.commit for status in await self.statuses() if status), default=0)

        async def look() -> Status | None:
            status = await member.status()
            if status is None or status.role not in ROLES_IN_ORDER or not status.master:
                return None
            return status if status.applied >= target else None

        await until(f"member {member.id} did not come back", BACK_TIMEOUT_SECONDS, look)

    async def until_agreed(self) -> None:
        """Wait until all members are up, one leads, and all have applied the same log to its end.

        Raises:
            DemoError: they do not, for a long time.
        """
        before: list[tuple[int, str]] = []
        names = [member.id for member in self.members]

        async def look() -> bool | None:
            nonlocal before
            now = [status for status in await self.statuses() if status is not None]
            marks = [(status.applied, status.ballot) for status in now]
            agreed = (
                len(now) == len(self.members)
                and len(set(marks)) == 1
                and sum(status.role == "master" for status in now) == 1
                and all(status.role in ROLES_IN_ORDER for status in now)
                and all(status.last_sequence == status.applied for status in now)
                and all(sorted(status.members) == names for status in now)
                and not any(status.waiting for status in now)
            )
            if agreed and marks == before:  # twice, for the statuses are not of one moment
                return True
            before = marks if agreed else []
            return None

        await until("the members did not agree", AGREE_TIMEOUT_SECONDS, look)

    async def books(self) -> list[Book]:
        """Every member's state: by a linearizable read through it, and as it has it by itself.

        Raises:
            DemoError: a member does not tell.
        """
        books = []
        for member in self.members:
            for linearizable in (True, False):
                answer: AnyAnswer | None = await ask_once(
                    member.port, TellBook(linearizable), BOOK_TIMEOUT_SECONDS
                )
                if not isinstance(answer, BookTold):
                    raise DemoError(
                        f"member {member.id} could not be read: {answer or 'no answer'}"
                    )
                books.append(answer.book)
        return books

    async def restart_all(self) -> None:
        """Kill all members at once, and start them again from what their disks hold."""
        for member in self.members:
            member.process.send_signal(signal.SIGKILL)
        await asyncio.gather(*(member.process.wait() for member in self.members))
        await asyncio.gather(*(member.process.start() for member in self.members))
