"""What can only be judged in the end: durability, equal copies, snapshots, histories.

The judges that watch all the time (``invariants``, ``witness``) have said nothing until here. What
is left is to hold the clients' notes against the log, the log against the disks, and the copies of
the state against each other.
"""

from __future__ import annotations

import io
from typing import Any

from clusterconsensus.simulation.clients import Clients
from clusterconsensus.simulation.cluster import Cluster
from clusterconsensus.simulation.judges.history import NEVER, History, Operation, describe
from clusterconsensus.simulation.judges.invariants import BrokenError
from clusterconsensus.simulation.judges.linearizability import check
from clusterconsensus.simulation.judges.models import Model
from clusterconsensus.simulation.judges.snapshots import read_whole
from clusterconsensus.simulation.lives import Life
from clusterconsensus.state import whole

MAX_CHECK_STEPS = 200_000
"""Steps of the search for an order, for each key; a history that takes more is held against the
log's order instead."""


class Verdicts:
    """Judges one run.

    Arguments:
        cluster: What ran.
        clients: Who asked it.
    """

    def __init__(self, cluster: Cluster, clients: Clients) -> None:
        self.cluster = cluster
        self.clients = clients

    def check(self) -> None:
        """Judge everything.

        Raises:
            BrokenError: the first thing that does not hold.
        """
        cluster, ghost = self.cluster, self.cluster.ghost
        place_all(self.clients.history, ghost.places)
        for life in cluster.lives.values():
            if life.is_up:
                ghost.check_deeply(life)
        if cluster.has_majority():
            self._check_durable()
        self._check_told()
        self._check_states()
        self._check_snapshots()
        self._check_history()

    def _check_durable(self) -> None:
        """Everything acknowledged is on a majority of disks (I-21)."""
        cluster, ghost = self.cluster, self.cluster.ghost
        voters = cluster.voters()
        for operation in self.clients.history.operations:
            if operation.outcome == "ok" and not self.clients.workload.is_read(operation.call):
                place = ghost.places.get(operation.number)
                if place is None:
                    raise BrokenError("I-21", f"{describe(operation)} is not in the log")
        floor = ghost.floor
        if floor:
            held = ghost.holders(voters, floor, ghost.chosen[floor].ballot)
            lost = [name for name in voters if _is_lost(cluster.lives.get(name))]
            if len(held) + len(lost) < len(voters) // 2 + 1:
                raise BrokenError("I-21", f"{floor} was acknowledged and is durable only at {held}")

    def _check_told(self) -> None:
        """Applications know whether they lead."""
        for machine in self.cluster.up:
            participant, told = machine.participant, machine.listener.leads
            if participant is not None and participant.is_master is not told:
                raise BrokenError(
                    "E9" if told else "E8",
                    f"{machine} {'leads no more' if told else 'leads'}, and nobody told its "
                    "application",
                )

    def _check_states(self) -> None:
        """Equal copies; and a copy that is restored from a snapshot is equal too (I-14)."""
        cluster = self.cluster
        by_applied: dict[int, tuple[str, bytes]] = {}
        for machine in cluster.up:
            witness = machine.witness
            if witness is None or machine.is_lost:
                continue
            snapshot = whole(witness.state.snapshot())
            cluster.ghost.on_content(machine.id, witness.applied, snapshot)
            other, known = by_applied.setdefault(witness.applied, (machine.id, snapshot))
            if known != snapshot:
                raise BrokenError(
                    "I-13",
                    f"after the same {witness.applied} changes the snapshots of {other} and "
                    f"{machine} differ",
                )
        for applied, (machine_id, snapshot) in by_applied.items():
            fresh = cluster.make_state()
            fresh.install(io.BytesIO(snapshot))
            if whole(fresh.snapshot()) != snapshot:
                raise BrokenError(
                    "I-14",
                    f"the snapshot that {machine_id} took after {applied} changes is another one "
                    "once it is installed",
                )

    def _check_snapshots(self) -> None:
        """What is on disk for the next start, or for others, is what it says (I-14)."""
        ghost = self.cluster.ghost
        for machine in self.cluster.machines.values():
            if machine.life is None:
                continue
            for path in machine.snapshots.paths():
                found = read_whole(path, machine.disk.durable_names[path])
                if found is not None:
                    ghost.on_label(machine.id, found.seq, found.applied)
                    ghost.on_content(machine.id, found.applied, found.state)

    def _check_history(self) -> None:
        operations = self.clients.history.operations
        wrong = out_of_order(operations)
        model = self.clients.workload.model
        if wrong is None and model is not None:
            verdict = check(operations, model, MAX_CHECK_STEPS)
            if not verdict.ok and verdict.decided:
                for operation in verdict.unplaced:
                    self.clients.mark_wrong(operation)
                raise BrokenError("I-16", verdict.explain())
            if not verdict.decided:
                self.cluster.sometimes["history not decided"] += 1
                wrong = against_model(operations, model, self.cluster.ghost.places)
        if wrong is not None:
            raise BrokenError("I-16", wrong)


def _is_lost(life: Life | None) -> bool:
    return life is None or life.machine.is_lost or life.machine.life is not life


def place_all(history: History, places: dict[int, int]) -> None:
    """Give every operation the place that the log has given it, even those nobody was told of."""
    for operation in history.operations:
        place = places.get(operation.number)
        if place is not None:
            operation.place = float(place)


def out_of_order(operations: list[Operation]) -> str | None:
    """Whether the log contradicts the order in which clients were answered: an operation that had
    returned before another one was called must stand before it (reads: must not see less)."""
    events: list[tuple[int, bool, Operation]] = []
    for operation in operations:
        if operation.place is None or operation.outcome == "not applied":
            continue
        events.append((operation.invoked_step, False, operation))
        if operation.outcome == "ok" and operation.returned_step != NEVER:
            events.append((operation.returned_step, True, operation))
    events.sort(key=lambda event: event[0])
    highest: Operation | None = None
    for _, returns, operation in events:
        place = operation.place
        assert place is not None
        if returns:
            if highest is None or place > (highest.place or 0.0):
                highest = operation
        elif highest is not None and place < (highest.place or 0.0):
            # A read's place stands between changes, so an equal read is not behind another.
            return (
                f"{describe(operation)} stands before {describe(highest)}, which had returned "
                "before it was called"
            )
    return None


def against_model(operations: list[Operation], model: Model, places: dict[int, int]) -> str | None:
    """Whether the results that clients got are those of the specification in the log's order."""
    state = model.initial()
    states: dict[Any, Any] = {}
    for operation in sorted(
        (each for each in operations if each.place is not None and each.matters),
        key=lambda each: (each.place, each.number),
    ):
        key = model.key(operation.call)
        before = states.get(key, state)
        after, expected = model.step(before, operation.call)
        states[key] = after
        found = operation.result
        if operation.outcome == "ok" and _plain(found) != _plain(expected):
            return f"{describe(operation)}: in the log's order it gives {expected!r}"
    return None


def _plain(value: Any) -> Any:
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value
