"""Clients of a simulated cluster: they call, wait, give up, ask again or elsewhere, and write down
what they were told.

A client is not a part of any member: when the member it asked goes down, it does not know what
became of its call. It then goes on under a new name, because what it left behind may still take
effect, while its old self waits for ever. A call whose outcome is unknown is asked for again inside
its session, if the member lives and the client has the patience.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any, Literal

from clusterconsensus.errors import (
    ApplyError,
    ConsensusError,
    InvalidChangeError,
    Outcome,
    OutcomeUnknownError,
    ReadFailedError,
)
from clusterconsensus.participant import Participant
from clusterconsensus.simulation.cluster import Cluster
from clusterconsensus.simulation.judges.history import History, Operation
from clusterconsensus.simulation.judges.witness import Witness
from clusterconsensus.simulation.machine import GoneError, Machine
from clusterconsensus.simulation.workloads import Workload

Mode = Literal["linearizable", "lease", "local"]
Asking = Callable[[Participant[Any]], Awaitable[Any]]


@dataclass
class Habits:
    """How a client behaves.

    Attributes:
        pause_seconds: Between two calls, on average.
        patience_seconds: How long a call may take; short ones end as unknown.
        wanders: How likely it is that the next call goes to another member.
        asks_again: How likely it is that an unknown outcome is asked for again.
        burst: How many calls it makes at once.
    """

    pause_seconds: float = 0.2
    patience_seconds: float = 5.0
    wanders: float = 0.3
    asks_again: float = 0.5
    burst: int = 1


class Clients:
    """All clients of one cluster.

    Arguments:
        cluster: Whom they ask.
        workload: What they ask.
        habits: How.
        chance: Everything they leave to chance.
    """

    def __init__(
        self, cluster: Cluster, workload: Workload, habits: Habits, chance: Random
    ) -> None:
        self.cluster = cluster
        self.workload = workload
        self.habits = habits
        self.history = History()
        self._chance = chance
        self._stopped = False
        self._tasks: list[asyncio.Task[None]] = []
        self._lives = 0
        self._shown: dict[int, int] = {}
        self._acknowledged: list[tuple[float, int]] = []
        """When it was first known of how many changes that they have taken effect."""
        self.clocks_stand = False
        """Whether a machine's clock may stand still: then nothing is known of the age of what it
        has."""

    def start(self, count: int) -> None:
        """Let these many clients begin."""
        for number in range(count):
            chance = Random(f"{self.cluster.world.seed}/client {number}")
            self._tasks.append(
                asyncio.get_running_loop().create_task(self._live(f"c{number + 1}", chance))
            )

    def stop(self) -> None:
        """No new calls from now on."""
        self._stopped = True

    async def ended(self) -> None:
        """Wait until every client has ended its last call."""
        for task in self._tasks:
            await task

    async def _live(self, name: str, chance: Random) -> None:
        habits, life = self.habits, 1
        home = None
        await asyncio.sleep(chance.random() * habits.pause_seconds)
        while not self._stopped:
            machines = list(self.cluster.machines.values())
            if home is None or chance.random() < habits.wanders:
                home = machines[chance.randrange(len(machines))]
            count = 1 if chance.random() < 0.7 else habits.burst
            calls = [
                self.call(f"{name}.{life}" if life > 1 else name, home, chance, place)
                for place in range(count)
            ]
            outcomes = list(await asyncio.gather(*calls))
            for operation in tuple(outcomes):
                if operation.outcome == "unknown" and chance.random() < self.cluster.insists:
                    # The same once more, as applications do: it may well be done twice.
                    machine = machines[chance.randrange(len(machines))]
                    call = operation.call
                    again = self.call(f"{name}.{life}'", machine, chance, 0, call)
                    outcomes.append(await again)
                    self.cluster.sometimes["asked somebody else, too"] += 1
            if any(operation.outcome == "unknown" for operation in outcomes):
                life += 1
                home = None
            await asyncio.sleep(chance.random() * 2 * habits.pause_seconds)

    async def call(
        self, name: str, machine: Machine, chance: Random, place: int = 0, again: Any = None
    ) -> Operation:
        """Make one call at one member (the same one ``again``, if it is given), and write down
        what comes of it."""
        workload = self.workload
        call = workload.next(chance) if again is None else again
        reads = workload.is_read(call)
        mode = self._mode(chance) if reads else "linearizable"
        patience = self.habits.patience_seconds * (0.2 + 1.6 * chance.random())
        asks_again = chance.random() < self.habits.asks_again
        client = name if place == 0 else f"{name}/{place}"
        if mode == "local":
            return await self._read_locally(client, machine, call, patience, chance)
        operation = self.begin(client, machine, call)
        if reads:
            await self.settle(operation, machine.ask(self._read(operation, patience, mode)))
        else:
            submit = self.submit(operation, machine, patience, asks_again)
            await self.settle(operation, machine.ask(submit))
        return operation

    def _mode(self, chance: Random) -> Mode:
        """How a read is to be proven."""
        draw = chance.random()
        if draw < 0.15:
            return "local"
        return "lease" if draw < 0.6 and self.cluster.settings.lease_reads else "linearizable"

    async def _read_locally(
        self, client: str, machine: Machine, call: Any, patience: float, chance: Random
    ) -> Operation:
        """Read one member's copy, not older than so many seconds. That is no operation of the
        history: what it must see is checked here."""
        cluster, workload = self.cluster, self.workload
        timeout = cluster.settings.election_timeout_seconds
        stale = chance.choice((0.2, 1.0, 3.0)) * timeout
        operation = Operation(0, client, call, cluster.world.now, 0)
        # The member counts by its own clock; one that stood still has not counted at all.
        slowest = min(0.7, machine.clock.rate)
        until = cluster.world.now - stale / slowest - 0.1 * timeout
        place = bisect_left(self._acknowledged, (until, 0)) - 1
        floor = self._acknowledged[place][1] if place >= 0 else 0
        judged = not self.clocks_stand or cluster.settings.lease_reads
        seen: list[int] = []

        async def read(participant: Participant[Any]) -> Any:
            def query(witness: Witness) -> Any:
                seen.append(witness.applied)
                return workload.query(witness.state, call)

            return await participant.read(
                query, consistency="local", max_staleness_seconds=stale, timeout=patience
            )

        try:
            await machine.ask(read)
        except (GoneError, ConsensusError):
            operation.outcome = "not applied"
            return operation
        operation.outcome = "ok"
        cluster.sometimes["local read"] += 1
        if judged and seen[0] < floor:
            cluster.ghost.fail(
                "L4",
                f"{machine} serves a read that is {stale:g} s old at most from {seen[0]} changes; "
                f"{floor} were acknowledged before",
            )
        return operation

    def begin(self, client: str, machine: Machine, call: Any) -> Operation:
        now = self.cluster.world.now
        operation = self.history.begin(client, call, now)
        recorder = self.cluster.recorder
        if recorder is not None:
            self._shown[operation.number] = recorder.invoked(now, client, machine.id, _said(call))
        return operation

    def _end(self, operation: Operation, outcome: Any, result: Any = None) -> None:
        now = self.cluster.world.now
        self.history.end(operation, now, outcome, result)
        self.cluster.trace.note(now, f"#{operation.number} {outcome}")
        self.cluster.sometimes[f"call {outcome}"] += 1
        recorder = self.cluster.recorder
        if recorder is not None:
            shown = self._shown[operation.number]
            recorder.returned(shown, now, outcome, repr(result) if outcome == "ok" else "")

    def mark_wrong(self, operation: Operation) -> None:
        """This operation shows what is wrong, for the recording."""
        recorder = self.cluster.recorder
        if recorder is not None and operation.number in self._shown:
            recorder.is_wrong(self._shown[operation.number])

    async def settle(self, operation: Operation, answer: asyncio.Future[Any]) -> None:
        """Wait for the answer and say what it means."""
        ghost = self.cluster.ghost
        reads = self.workload.is_read(operation.call)
        try:
            result = await answer
        except GoneError as error:
            # No process was asked, or it has died: a read is over, a change may live.
            self._end(operation, "unknown" if error.asked and not reads else "not applied")
        except ApplyError as error:
            ghost.on_answer(operation.number, None)
            self._end(operation, "ok", ("raises", error.kind))
        except OutcomeUnknownError:
            self._end(operation, "unknown")
        except (ReadFailedError, InvalidChangeError):
            self._end(operation, "not applied")
        except ConsensusError as error:
            if error.outcome is Outcome.NOT_APPLIED:
                self._end(operation, "not applied")
            else:
                self._end(operation, "unknown")
        else:
            if not reads:
                ghost.on_answer(operation.number, self._encoded(result))
            self._end(operation, "ok", result)
            if not reads:
                self._acknowledge(ghost.places[operation.number] + 1)
        if not reads:
            if operation.outcome == "not applied":
                ghost.on_refusal(operation.number)
            place = ghost.places.get(operation.number)
            operation.place = None if place is None else float(place)

    def _acknowledge(self, count: int) -> None:
        """The first so many changes have taken effect, and somebody was told so."""
        highest = self._acknowledged[-1][1] if self._acknowledged else 0
        if count > highest:
            self._acknowledged.append((self.cluster.world.now, count))

    def _encoded(self, result: Any) -> bytes | None:
        """A result as the members compare it; None if the codec cannot encode it again."""
        try:
            return self.cluster.codec.encode_result(result)
        except Exception:
            return None

    def _read(self, operation: Operation, patience: float, mode: Mode) -> Asking:
        """A read, for ``Machine.ask``."""
        workload, cluster = self.workload, self.cluster

        async def read(participant: Participant[Any]) -> Any:
            began = cluster.world.now

            def query(witness: Witness) -> Any:
                operation.place = witness.applied - 0.5
                return workload.query(witness.state, operation.call)

            result = await participant.read(query, consistency=mode, timeout=patience)
            if mode == "lease":
                cluster.sometimes["lease read"] += 1
                # Without a message to anybody no time passes.
                alone = participant.is_master and cluster.world.now == began
                cluster.sometimes["lease read served"] += alone
            return result

        return read

    def submit(
        self, operation: Operation, machine: Machine, patience: float, asks_again: bool
    ) -> Asking:
        """A submit, for ``Machine.ask``: with ``asks_again`` an unknown outcome is asked for once
        more, inside its session."""
        sometimes, witness = self.cluster.sometimes, machine.witness
        retry_seconds = self.cluster.settings.retry_seconds

        async def submit(participant: Participant[Any]) -> Any:
            if witness is not None:
                witness.call(operation.number)
            try:
                return await participant.submit(operation.call, timeout=patience)
            except OutcomeUnknownError as error:
                sometimes["outcome unknown"] += 1
                if error.request is None or not asks_again:
                    raise
                if operation.number % 3 == 0:
                    # Not at once: whatever the member forgets in time, it has forgotten by then.
                    await asyncio.sleep(1.5 * retry_seconds)
                result = await participant.retry(error, timeout=2 * patience)
                sometimes["unknown outcome learnt by asking again"] += 1
                return result

        return submit


def _said(call: Any) -> str:
    if isinstance(call, tuple) and call and isinstance(call[0], str):
        return f"{call[0]}({', '.join(map(repr, call[1:]))})"
    return repr(call)
