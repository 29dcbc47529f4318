"""The states of a whole cluster, and the moves between them.

A state is a flat tuple of small numbers: one for each member's moment, one for what is under way on
each link, one for the late copies, one for how often what has happened, one for the truth. Each
number stands for an interned value, so states are cheap to make, to hash and to keep. What a move
does is looked up; only a step that no member ever took before costs a turn of a real core.

Messages wait on their link until they are delivered or lost: the first of a link, or any one with
``reorder``. One that is repeated leaves a copy that may arrive at any later moment, or never.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum, auto

import msgspec

from clusterconsensus.consensus import events
from clusterconsensus.consensus.log import encode_configuration
from clusterconsensus.consensus.messages import Group, Message
from clusterconsensus.consensus.sessions import encode_requests
from clusterconsensus.consensus.types import (
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Seat,
    Standing,
    incarnation,
)
from clusterconsensus.simulation.explorer.bounds import COUNTED, Bounds
from clusterconsensus.simulation.explorer.checks import Observation, Truth, View
from clusterconsensus.simulation.explorer.moments import (
    BEAT,
    TICK,
    WALL_START,
    Members,
    Step,
    decode,
)

State = tuple[int, ...]
Move = tuple[str, int, int, bool]
"""What happens; to which member, or on which link; which message, or how much is kept; and whether
the disk lets wait what is written."""

_BITS = 4
_SHIFT = {name: _BITS * place for place, name in enumerate(COUNTED)}
_MASK = (1 << _BITS) - 1
_ONE = {name: 1 << shift for name, shift in _SHIFT.items()}
_ON_LINKS = frozenset({"deliver", "late", "repeat", "lose"})


class Played(Enum):
    """Where a move has led."""

    NOWHERE = auto()
    ON = auto()
    WROTE = auto()
    """Something was written, and synced; the disk could have let it wait."""


class Record(msgspec.Struct, frozen=True):
    """A step, in the numbers of a space."""

    after: int
    pushes: tuple[tuple[int, int], ...]
    """Link and message of everything that leaves."""
    observations: tuple[Observation, ...]
    marks: tuple[str, ...]

    def is_idle(self, before: int) -> bool:
        """Whether nothing came of it. A message of which nothing comes may as well stay under way,
        where it blocks no other: whatever can happen without it can happen with it."""
        return self.after == before and not self.pushes and not self.observations


class Act(msgspec.Struct, frozen=True):
    """One thing of those that a move consists of, as a story tells it."""

    verb: str
    place: int
    """The member that acts, or the link that a message leaves."""
    message: int = -1
    record: Record | None = None


def change_text(number: int) -> str:
    """The change that is the ``number``-th to be submitted."""
    return f"x={number}"


class Space:
    """All states of a small cluster.

    Arguments:
        bounds: What may happen how often.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.bounds = bounds
        count = self.count = bounds.members
        self.ids = [chr(ord("a") + place) for place in range(count)]
        names = self.names = [incarnation(i, f"d{n}") for n, i in enumerate(self.ids, 1)]
        ballot = Ballot(1, names[0])
        seats = tuple(
            Seat(member_id, f"d{number}", member_id, Standing.VOTER)
            for number, member_id in enumerate(self.ids, 1)
        )
        payload = encode_configuration(Configuration(seats, 0, None))
        founding = Entry.make(1, ballot, EntryKind.CONFIG, WALL_START, payload)
        self.members = Members(names, (founding,))
        self.messages: list[Message] = []
        self.truths: list[Truth] = []
        self._message_numbers: dict[bytes, int] = {}
        self._truth_numbers: dict[Truth, int] = {}
        self._queues: list[tuple[int, ...]] = [()]
        self._queue_numbers: dict[tuple[int, ...], int] = {(): 0}
        self._pushed: dict[tuple[int, int], int] = {}
        self._taken: dict[tuple[int, int], int] = {}
        self._records: list[dict[tuple[object, ...], Record]] = []
        self._sorts = bounds.reorder
        self._late = count + count * count
        self._used = self._late + 1
        self._truth = self._late + 2
        chosen = ((founding.ballot, founding.crc),)
        truth = self._truth_number(Truth(chosen, ((ballot, 1),)))
        links = [0] * (count * count)
        self.start: State = (*self.members.first, *links, 0, 0, truth)

    # -- interning

    def _message_number(self, data: bytes) -> int:
        number = self._message_numbers.get(data)
        if number is None:
            number = self._message_numbers[data] = len(self.messages)
            self.messages.append(decode(data))
        return number

    def _truth_number(self, truth: Truth) -> int:
        number = self._truth_numbers.get(truth)
        if number is None:
            number = self._truth_numbers[truth] = len(self.truths)
            self.truths.append(truth)
        return number

    def _queue_number(self, queue: tuple[int, ...]) -> int:
        number = self._queue_numbers.get(queue)
        if number is None:
            number = self._queue_numbers[queue] = len(self._queues)
            self._queues.append(queue)
        return number

    def _push(self, queue: int, item: int, *, sort: bool) -> int:
        key = (queue, item if not sort else ~item)
        number = self._pushed.get(key)
        if number is None:
            held = (*self._queues[queue], item)
            number = self._queue_number(tuple(sorted(held)) if sort else held)
            self._pushed[key] = number
        return number

    def _take(self, queue: int, item: int) -> int:
        number = self._taken.get((queue, item))
        if number is None:
            held = list(self._queues[queue])
            held.remove(item)
            number = self._taken[queue, item] = self._queue_number(tuple(held))
        return number

    def _record(self, number: int, *happened: object) -> Record:
        """What a happening makes of a moment; computed once."""
        records = self._records
        while len(records) <= number:
            records.append({})
        record = records[number].get(happened)
        if record is None:
            record = records[number][happened] = self._compute(number, happened)
        return record

    def _compute(self, number: int, happened: tuple[object, ...]) -> Record:
        members = self.members
        place = members.moments[number].place
        step: Step
        match happened:
            case ("sync",):
                step = members.sync(number)
            case ("crash", int(kept)):
                step = members.restart(number, kept)
            case ("snapshot",):
                step = members.keep(number)
            case ("damage",):
                step = members.damage(number)
            case ("submit", int(change)):
                body = encode_requests([change_text(change).encode()])
                step = members.step(number, events.SubmitLocal(change, Group(0, 1, 1, 1, body)))
            case (int(source), int(message)):
                received = events.Received(self.names[source], self.messages[message])
                step = members.step(number, received)
            case (events.Tick() | events.EndOfTurn() as event,):
                step = members.step(number, event)
            case _:
                raise AssertionError(f"unknown happening {happened}")
        pushes = tuple(
            (place * self.count + target, self._message_number(data)) for target, data in step.sends
        )
        return Record(step.after, pushes, step.observations, step.marks)

    @property
    def steps(self) -> int:
        """How many different steps of single members were computed."""
        return sum(map(len, self._records))

    # -- applying

    def _apply(self, values: list[int], place: int, record: Record) -> None:
        """Let a member take a step.

        Raises:
            BrokenRuleError: an invariant does not hold after it.
        """
        values[place] = record.after
        for link, message in record.pushes:
            slot = self.count + link
            values[slot] = self._push(values[slot], message, sort=self._sorts)
        if record.observations:
            moments = self.members.moments
            present = [moments[number] for number in values[: self.count]]
            truth = self.truths[values[self._truth]]
            view = View(truth, present, place, self.names)
            for observation in record.observations:
                observation.check(view)
            if view.truth is not truth:
                values[self._truth] = self._truth_number(view.truth)

    # -- moves

    def moves(self, state: State) -> Iterator[Move]:
        """Everything that may happen next."""
        bounds = self.bounds
        count = self.count
        used = state[self._used]
        left = {
            name: (used >> shift) & _MASK < getattr(bounds, name) for name, shift in _SHIFT.items()
        }
        for link in range(count * count):
            held = self._queues[state[count + link]]
            if not held:
                continue
            for message in sorted(set(held)) if self._sorts else held[:1]:
                yield "deliver", link, message, False
                if left["repeats"]:
                    yield "repeat", link, message, False
                if left["losses"] and not self._sorts:
                    yield "lose", link, message, False
        previous = -1
        for item in self._queues[state[self._late]]:
            if item != previous:
                previous = item
                message, link = divmod(item, count * count)
                yield "late", link, message, False
        moments = self.members.moments
        for place in range(count):
            moment = moments[state[place]]
            unsynced = len(moment.disk.pending)
            if unsynced:
                yield "sync", place, 0, False
            if moment.leads:
                if left["changes"]:
                    yield "submit", place, 0, False
                if left["ticks"]:
                    yield "tick", place, 0, False
                    if moment.can_beat:
                        yield "beat", place, 0, False
            elif left["ballots"] and moment.can_stand:
                yield "stand", place, 0, False
            if left["snapshots"] and moment.can_keep:
                yield "snapshot", place, 0, False
            if left["damages"] and not self._somebody_recovers(state):
                yield "damage", place, 0, False
            if left["crashes"]:
                for kept in range(unsynced + 1):
                    yield "crash", place, kept, False

    def _somebody_recovers(self, state: State) -> bool:
        """More than one loss at a time is more than a cluster of three is asked to survive."""
        moments = self.members.moments
        return any(moments[number].disk.lost is not None for number in state[: self.count])

    def play(self, values: list[int], move: Move, acts: list[Act]) -> Played:
        """Make a move: change ``values`` from a state into the next one.

        Arguments:
            values: The numbers of a state.
            move: One of ``moves``.
            acts: Takes what the move consists of, each act before it is done.

        Returns:
            Where the move leads; ``values`` are worth nothing if nowhere.

        Raises:
            BrokenRuleError: an invariant does not hold after the last of ``acts``.
        """
        verb, where, which, hangs = move
        count = self.count
        place = where
        if verb in _ON_LINKS:
            place = where % count
            waited = bool(self.members.moments[values[place]].disk.pending)
            item = which * count * count + where
            if verb == "late":
                values[self._late] = self._take(values[self._late], item)
            else:
                values[count + where] = self._take(values[count + where], which)
            if verb == "lose":
                acts.append(Act("lose", where, which))
                values[self._used] += _ONE["losses"]
                return Played.ON
            if verb == "repeat":
                values[self._late] = self._push(values[self._late], item, sort=True)
                values[self._used] += _ONE["repeats"]
            record = self._record(values[place], where // count, which)
            blocks = verb == "deliver" and not self._sorts
            if not blocks and verb != "repeat" and record.is_idle(values[place]):
                return Played.NOWHERE
        elif verb == "stand":
            waited = bool(self.members.moments[values[place]].disk.pending)
            values[self._used] += _ONE["ballots"]
            if not self._stand(values, where, acts):
                return Played.NOWHERE
            return self._finish(values, place, acts, waited=waited, hangs=hangs)
        else:
            number = values[place]
            waited = verb != "sync" and bool(self.members.moments[number].disk.pending)
            if verb == "sync":
                record = self._record(number, "sync")
            elif verb == "submit":
                which = 1 + ((values[self._used] >> _SHIFT["changes"]) & _MASK)
                values[self._used] += _ONE["changes"]
                record = self._record(number, "submit", which)
            elif verb == "crash":
                values[self._used] += _ONE["crashes"]
                record = self._record(number, "crash", which)
            elif verb in ("snapshot", "damage"):
                values[self._used] += _ONE[f"{verb}s"]
                record = self._record(number, verb)
            else:
                values[self._used] += _ONE["ticks"]
                record = self._record(number, TICK if verb == "tick" else BEAT)
        acts.append(Act(verb, where, which, record))
        self._apply(values, place, record)
        return self._finish(values, place, acts, waited=waited, hangs=hangs)

    def _finish(
        self, values: list[int], place: int, acts: list[Act], *, waited: bool, hangs: bool
    ) -> Played:
        """Sync what a member wrote, unless its disk hangs."""
        moments = self.members.moments
        if waited or not moments[values[place]].disk.pending:
            return Played.ON
        if hangs:
            values[self._used] += _ONE["hangs"]
            return Played.ON
        while moments[values[place]].disk.pending:
            record = self._record(values[place], "sync")
            acts.append(Act("sync", place, record=record))
            self._apply(values, place, record)
        return Played.WROTE

    def may_hang(self, state: State) -> bool:
        """Whether a disk may let writes wait once more."""
        return (state[self._used] >> _SHIFT["hangs"]) & _MASK < self.bounds.hangs

    def _stand(self, values: list[int], place: int, acts: list[Act]) -> bool:
        """A timer runs out, twice where a candidacy without success must end first; and unless
        probes travel like other messages, the others are asked until a majority agrees."""
        moments = self.members.moments
        asked: list[tuple[int, int]] = []
        for _ in range(2):
            record = self._record(values[place], TICK)
            acts.append(Act("timeout", place, record=record))
            asked = self._set_apart(values, place, record)
            if moments[values[place]].stands:
                break
        else:
            return False
        if self.bounds.probes:
            for link, message in asked:
                slot = self.count + link
                values[slot] = self._push(values[slot], message, sort=self._sorts)
            return True
        while asked and moments[values[place]].probes:
            link, message = asked.pop(0)
            for answer_link, answer in self._ask(values, link, message, "deliver", acts):
                again = self._ask(values, answer_link, answer, "deliver", acts)
                if again:  # told of a higher ballot, it stands for the next one
                    acts += [Act("drop", *late) for late in asked]
                    asked = again
        acts += [Act("drop", *late) for late in asked]
        return not moments[values[place]].probes

    def _ask(
        self, values: list[int], link: int, message: int, verb: str, acts: list[Act]
    ) -> list[tuple[int, int]]:
        """Deliver a message at once, and return what it makes the addressee send."""
        source, target = divmod(link, self.count)
        record = self._record(values[target], source, message)
        acts.append(Act(verb, link, message, record))
        return self._set_apart(values, target, record)

    def _set_apart(self, values: list[int], place: int, record: Record) -> list[tuple[int, int]]:
        """Let a member take a step, without putting what it sends under way."""
        self._apply(values, place, msgspec.structs.replace(record, pushes=()))
        return list(record.pushes)
