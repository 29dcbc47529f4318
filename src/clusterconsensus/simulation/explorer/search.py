"""The search: every state that can be reached, each once, the nearest first.

How far a state is counts in moves, and what does not happen by itself (a change, a fault, a
master's look at the clock) costs some more (``Bounds.price``). So the search finds violations with
few moves and few faults first, and what it finds is not much longer than it must be. Where the
space is larger than the limit of states, this also spends them well: the product of all faults is
so large that going by moves alone would end before anybody leads twice.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable

import msgspec

from clusterconsensus.simulation.explorer.bounds import Bounds
from clusterconsensus.simulation.explorer.checks import BrokenRuleError
from clusterconsensus.simulation.explorer.space import Act, Move, Played, Space, State
from clusterconsensus.simulation.explorer.telling import Counterexample, counterexample

PROGRESS_STATES = 10_000
"""After how many new states ``on_progress`` is called."""


class Progress(msgspec.Struct, frozen=True):
    """How far an exploration has come."""

    states: int
    """Distinct states found."""
    transitions: int
    """Moves taken."""
    depth: int
    """Moves from the start to the state found last."""
    seconds: float


class Exploration(msgspec.Struct, frozen=True):
    """What an exploration has found."""

    bounds: Bounds
    states: int
    """Distinct states found."""
    transitions: int
    """Moves taken, those that led to known states included."""
    depth: int
    """The most moves that a state found is away from the start."""
    exhausted: bool
    """Whether there are no more states within the bounds."""
    seconds: float
    moments: int
    """Distinct states of single members."""
    steps: int
    """Turns of real cores that were computed; all others were known by then."""
    sometimes: dict[str, int]
    """How many of the moves that led to new states did something that should happen at times."""
    violation: Counterexample | None

    @property
    def states_per_second(self) -> float:
        return self.states / self.seconds if self.seconds else 0.0


def explore(bounds: Bounds, on_progress: Callable[[Progress], None] | None = None) -> Exploration:
    """Go through every interleaving of a small cluster, until something is wrong.

    Arguments:
        bounds: What may happen how often, and when to stop.
        on_progress: Told now and then how far it is.

    Returns:
        The counts, and a short way to a violation if there is one. The same bounds give the
        same, whatever the machine and the hash seed; but for the seconds.
    """
    return _Search(bounds, on_progress).run()


class _Search:
    def __init__(self, bounds: Bounds, on_progress: Callable[[Progress], None] | None) -> None:
        self.bounds = bounds
        self.space = Space(bounds)
        self.on_progress = on_progress
        self.began = time.perf_counter()
        self.transitions = 0
        self.depth = 0
        self.numbers: dict[State, int] = {self.space.start: 0}
        self.reached_by: list[tuple[int, Move]] = [(0, ("", 0, 0, False))]
        """For each state the one before, and the move from there."""
        self.moves = [0]
        """For each state how many moves it is away from the start."""
        self.costs = [0]
        """For each state how far it is."""
        self.waiting: dict[int, list[State]] = {0: [self.space.start]}
        """By how far they are, the states whose moves were not taken yet."""
        self.sometimes: Counter[str] = Counter()

    def run(self) -> Exploration:
        complete = True
        while self.waiting:
            cost = min(self.waiting)
            for state in self.waiting.pop(cost):
                number = self.numbers[state]
                if self.costs[number] != cost:
                    continue  # a shorter way to it was found meanwhile
                if self.moves[number] == self.bounds.depth:
                    complete = False
                    continue
                violation = self._expand(state, number)
                if violation is not None:
                    return self._result(exhausted=False, violation=violation)
                if self._is_full():
                    return self._result(exhausted=False, violation=None)
        return self._result(exhausted=complete, violation=None)

    def _is_full(self) -> bool:
        return len(self.numbers) >= self.bounds.states

    def _expand(self, state: State, number: int) -> Counterexample | None:
        """Take every move from a state."""
        space = self.space
        for move in space.moves(state):
            try:
                played = self._take(state, number, move)
                if played is Played.WROTE and space.may_hang(state) and not self._is_full():
                    move = (*move[:3], True)
                    self._take(state, number, move)
            except BrokenRuleError as error:
                way = self._way(number, move)
                self.depth = max(self.depth, len(way))
                return counterexample(space, error.rule, error.text, way)
            if self._is_full():
                break
        return None

    def _take(self, state: State, origin: int, move: Move) -> Played:
        """Take one move, and note the state that it leads to."""
        values = list(state)
        acts: list[Act] = []
        self.transitions += 1
        played = self.space.play(values, move, acts)
        if played is Played.NOWHERE:
            return played
        found = tuple(values)
        number = self.numbers.get(found)
        if number is None:
            number = self.numbers[found] = len(self.numbers)
            self.reached_by.append((origin, move))
            self.moves.append(0)
            self.costs.append(0)
            self._mark(move, acts)
        cost = self.costs[origin] + 1
        if move[0] in _PRICED:
            cost += self.bounds.price
        if move[3]:
            cost += self.bounds.price
        if number and not 0 < self.costs[number] <= cost:
            self.reached_by[number] = (origin, move)
            self.costs[number] = cost
            moves = self.moves[number] = self.moves[origin] + 1
            self.depth = max(self.depth, moves)
            self.waiting.setdefault(cost, []).append(found)
            if number % PROGRESS_STATES == 0 and self.on_progress is not None:
                self.on_progress(Progress(number, self.transitions, moves, self._seconds()))
        return played

    def _mark(self, move: Move, acts: list[Act]) -> None:
        sometimes = self.sometimes
        if move[0] in _VERBS:
            sometimes[_VERBS[move[0]]] += 1
        if move[3]:
            sometimes["writes that waited"] += 1
        for act in acts:
            if act.record is not None:
                for mark in act.record.marks:
                    sometimes[mark] += 1

    def _way(self, number: int, last: Move) -> tuple[Move, ...]:
        moves = [last]
        while number:
            number, move = self.reached_by[number]
            moves.append(move)
        return tuple(reversed(moves))

    def _seconds(self) -> float:
        return time.perf_counter() - self.began

    def _result(self, *, exhausted: bool, violation: Counterexample | None) -> Exploration:
        return Exploration(
            bounds=self.bounds,
            states=len(self.numbers),
            transitions=self.transitions,
            depth=self.depth,
            exhausted=exhausted,
            seconds=self._seconds(),
            moments=len(self.space.members.moments),
            steps=self.space.steps,
            sometimes=dict(sorted(self.sometimes.items())),
            violation=violation,
        )


_PRICED = frozenset({"submit", "crash", "lose", "repeat", "tick", "beat", "snapshot", "damage"})
_VERBS = {
    "late": "repeated messages that came late",
    "lose": "messages lost",
    "stand": "candidacies",
    "submit": "changes submitted",
    "beat": "heartbeats",
    "tick": "masters without a majority",
    "damage": "damaged logs",
}
