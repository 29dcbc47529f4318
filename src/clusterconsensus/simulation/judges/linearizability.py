"""Is there an order in which everything that the clients saw makes sense (I-16)?

A history is linearizable if its operations can be put in one order such that each gives, in the
model, the result that its client was told, and whatever was over before something else began also
comes before it. An operation of unknown outcome fits anywhere after its invocation, with any
result, or is left out. The search is Wing and Gong's: take one of the operations that nothing which
is left must precede, let the model make the step, go on, and come back if that leads nowhere. With
Lowe's memory it never looks twice at the same set of operations in the same state. What the calls
and returns that are left look like is a doubly linked list, which an operation is lifted out of and
put back into in constant time. If the model has keys, each key is searched by itself: a history is
linearizable exactly if each of its parts is (P-compositionality).

Four rules make the search short. Each is right because any order that it passes over can be
rearranged into one that it does not:

* a read that fits now is taken now, and nothing else is tried in its place: it alters no state;
* an unknown operation that would alter nothing now is not taken now, but for where a hint has it;
* of unknown operations with equal calls, the one that was called first is taken first;
* a read of unknown outcome is left out.

Operations of unknown outcome are what makes a search long: each may be anywhere. So it first looks
for an order that has one at a time of them between others, then two, then any number. Only the last
of these searches can find that there is no order. Hints (``Operation.place``) only say which to try
first; if there are any, they are tried without that limit.

Sources: Wing and Gong, *Testing and Verifying Concurrent Objects* (1993); Lowe, *Testing for
Linearizability* (2017); Horn and Kroening, *Faster Linearizability Checking via
P-Compositionality* (2015).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import Any, NamedTuple

import msgspec

from clusterconsensus.simulation.judges.history import Operation, describe
from clusterconsensus.simulation.judges.models import Model

DEFAULT_MAX_STEPS = 300_000
"""Some seconds, and some hundred megabytes at the worst."""
_SHOWN = 8
"""How many operations of a kind an explanation shows."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What the check has found.

    Arguments:
        ok: Whether there is an order.
        decided: False if the search ended at ``max_steps``; ``ok`` is then False and means nothing.
        key: Of which key ``prefix`` and the following are; None if the model has none, or if all
            is well.
        prefix: If all is well, a right order of everything, key after key. Otherwise the right
            beginning that explains the most results.
        unplaced: Operations of known outcome one of which would have to come next. The first is
            the one that returned first.
        maybe: Operations of unknown outcome that might come next.
        state: The model's state after ``prefix``.
        steps: How often the model was asked for a step.
        model: What it was checked against.
    """

    ok: bool
    decided: bool
    key: Hashable | None
    prefix: tuple[Operation, ...]
    unplaced: tuple[Operation, ...]
    maybe: tuple[Operation, ...]
    state: Any
    steps: int
    model: Any

    def explain(self) -> str:
        """The verdict for people, in a few lines."""
        if self.ok:
            return f"linearizable: {len(self.prefix)} operations, {self.steps} steps"
        of_key = "" if self.key is None else f", key {self.key!r}"
        if self.decided:
            lines = [f"not linearizable{of_key}: no order explains what the clients were told"]
        else:
            lines = [f"not decided{of_key}: {self.steps} steps were not enough"]
        lines.append(f"the longest order found has {len(self.prefix)} operations; it ends with")
        lines += _shown([describe(operation) for operation in self.prefix[-_SHOWN:]])
        lines.append(f"and leaves the state {self.state!r}. Next would have to come")
        lines += _shown([self._objection(operation) for operation in self.unplaced])
        if self.maybe:
            lines.append("and these, of unknown outcome, might come before it:")
            lines += _shown([describe(operation) for operation in self.maybe])
        return "\n".join(lines)

    def _objection(self, operation: Operation) -> str:
        _, result = self.model.step(self.state, _frozen(operation.call))
        if result == _frozen(operation.result):
            return f"{describe(operation)}: it fits, but was not tried any more"
        return f"{describe(operation)}: here it would give {result!r}"


def check(
    operations: Iterable[Operation], model: Model, max_steps: int = DEFAULT_MAX_STEPS
) -> Verdict:
    """Look for an order that explains a history.

    Arguments:
        operations: All of it. What was not applied is left out: it must have had no effect.
        model: What the clients believed to talk to.
        max_steps: After how many steps of the model to give up, for each key.

    Returns:
        The verdict; of the first key that is wrong, or else of the first that is not decided.
    """
    parts: dict[Hashable | None, list[Operation]] = {}
    for operation in operations:
        if not operation.matters:
            continue
        if operation.outcome != "ok" and model.is_read(operation.call):
            continue
        parts.setdefault(model.key(operation.call), []).append(operation)
    if None in parts and len(parts) > 1:
        parts = {None: [operation for part in parts.values() for operation in part]}
    steps = 0
    order: list[Operation] = []
    undecided: Verdict | None = None
    for key, part in parts.items():
        verdict = _check_part(key, part, model, max_steps)
        steps += verdict.steps
        if verdict.ok:
            order += verdict.prefix
        elif verdict.decided:
            return msgspec.structs.replace(verdict, steps=steps)
        elif undecided is None:
            undecided = verdict
    if undecided is not None:
        return msgspec.structs.replace(undecided, steps=steps)
    return Verdict(
        ok=True,
        decided=True,
        key=None,
        prefix=tuple(order),
        unplaced=(),
        maybe=(),
        state=None,
        steps=steps,
        model=model,
    )


def _check_part(
    key: Hashable | None, operations: list[Operation], model: Model, max_steps: int
) -> Verdict:
    """Check what stands by itself: more and more unknown operations in a row, then any number."""
    unknown = sum(operation.outcome != "ok" for operation in operations)
    hinted = any(operation.place is not None for operation in operations)
    search = _Search(operations, model)
    found = False
    steps = 0
    for max_run in () if hinted else (1, 2):
        if max_run < unknown:
            found = search.run(max_run, max_steps // 4)
            steps += search.steps
            if found or (search.decided and not search.cut):
                break
    else:
        found = search.run(unknown, max_steps - steps)
        steps += search.steps
    prefix, state, left = search.best
    ordered = search.operations
    unplaced = [ordered[index] for index in left if search.known[index]]
    unplaced.sort(key=lambda operation: operation.returned_step)
    return Verdict(
        ok=found,
        decided=search.decided,
        key=key,
        prefix=tuple(ordered[index] for index in prefix),
        unplaced=tuple(unplaced),
        maybe=tuple(ordered[index] for index in left if not search.known[index]),
        state=state,
        steps=steps,
        model=model,
    )


class _Frame(NamedTuple):
    """An operation that was taken, and what to go back to if that leads nowhere."""

    taken: int
    state: Any
    linearized: int
    candidates: list[int]
    position: int
    run: int


class _Search:
    """A depth-first search, without recursion. Operations are numbered in the order in which to
    try them; sets of them are the bits of an int.

    Arguments:
        operations: What stands by itself.
        model: What it is checked against.
    """

    def __init__(self, operations: Sequence[Operation], model: Model) -> None:
        self.model = model
        places = _places(operations)
        self.operations = sorted(
            operations, key=lambda operation: _rank(operation, model, places[operation.number])
        )
        self.known = [operation.outcome == "ok" for operation in self.operations]
        self.steps = 0
        self.decided = True
        self.cut = False
        """Whether ``max_run`` kept anything from being tried."""
        self.best: tuple[list[int], Any, list[int]] = ([], model.initial(), [])
        """The longest order of all runs, the state after it, and what could come next there."""
        self._best_rank = (-1, 0)
        self._calls = [_frozen(operation.call) for operation in self.operations]
        self._results = [_frozen(operation.result) for operation in self.operations]
        self._reads = [model.is_read(operation.call) for operation in self.operations]
        self._hinted = [places[operation.number] is not None for operation in self.operations]
        self._twins = self._find_twins()

    def run(self, max_run: int, max_steps: int) -> bool:
        """Whether there is an order in which at most so many unknown operations follow each other.
        If ``max_steps`` are not enough, ``decided`` is False."""
        self._link()
        self.steps = 0
        self.decided = True
        self.cut = False
        step = self.model.step
        known, calls, results, reads = self.known, self._calls, self._results, self._reads
        hinted = self._hinted
        stack: list[_Frame] = []
        state: Any = self.model.initial()
        linearized = 0
        run = 0
        left = sum(known)
        all_known = left
        candidates = self._candidates(linearized)
        position = 0
        seen: set[tuple[int, Any]] = set()
        while left:
            if position == len(candidates):
                self._note(all_known - left, stack, state, candidates)
                if not stack:
                    return False
                taken, state, linearized, candidates, position, run = stack.pop()
                self._put_back(taken)
                left += known[taken]
                continue
            index = candidates[position]
            position += 1
            if not known[index] and run == max_run:
                self.cut = True
                continue
            if self.steps == max_steps:
                self._note(all_known - left, stack, state, candidates)
                self.decided = False
                return False
            self.steps += 1
            after, result = step(state, calls[index])
            if known[index]:
                if result != results[index]:
                    continue
                if reads[index]:
                    position = len(candidates)  # no need to try anything else
            elif after == state and not hinted[index]:
                continue
            configuration = (linearized | 1 << index, after)
            if configuration in seen:
                continue
            seen.add(configuration)
            stack.append(_Frame(index, state, linearized, candidates, position, run))
            self._lift(index)
            linearized, state = configuration
            left -= known[index]
            run = 0 if known[index] else run + 1
            candidates = self._candidates(linearized)
            position = 0
        self.best = ([frame.taken for frame in stack], state, [])
        return True

    def _note(self, count: int, stack: list[_Frame], state: Any, candidates: list[int]) -> None:
        """The search turns back here: has it explained more than ever, or with fewer unknown?"""
        if (count, -len(stack)) > self._best_rank:
            self._best_rank = count, -len(stack)
            self.best = ([frame.taken for frame in stack], state, candidates)

    def _candidates(self, linearized: int) -> list[int]:
        """What may come next: whatever was called before the first return that is left."""
        following, twins = self._following, self._twins
        found: list[int] = []
        node = following[0]
        while node & 1:
            index = node >> 1
            twin = twins[index]
            if twin < 0 or linearized >> twin & 1:
                found.append(index)
            node = following[node]
        found.sort()
        return found

    def _find_twins(self) -> list[int]:
        """For each unknown operation the one before it with an equal call; -1 if there is none."""
        twins = [-1] * len(self.operations)
        last: dict[Any, int] = {}
        for index, call in enumerate(self._calls):  # those of equal calls are in order: _places
            if not self.known[index]:
                twins[index] = last.get(call, -1)
                last[call] = index
        return twins

    def _link(self) -> None:
        """Make the list of calls and returns by step: a ring in which 0 is the end, ``2 * i + 1``
        the call of operation i and ``2 * i + 2`` its return."""
        events: list[tuple[int, int, int]] = []
        for index, operation in enumerate(self.operations):
            events.append((operation.invoked_step, 0, 2 * index + 1))
            if self.known[index]:
                events.append((operation.returned_step, 1, 2 * index + 2))
        events.sort()
        self._following = [0] * (2 * len(self.operations) + 1)
        self._preceding = self._following.copy()
        before = 0
        for _, _, node in events:
            self._following[before] = node
            self._preceding[node] = before
            before = node
        self._preceding[0] = before

    def _lift(self, index: int) -> None:
        following, preceding = self._following, self._preceding
        for node in (2 * index + 1, 2 * index + 2) if self.known[index] else (2 * index + 1,):
            following[preceding[node]] = following[node]
            preceding[following[node]] = preceding[node]

    def _put_back(self, index: int) -> None:
        """Undo the latest ``_lift`` that is not undone, which was of this operation."""
        following, preceding = self._following, self._preceding
        for node in (2 * index + 2, 2 * index + 1) if self.known[index] else (2 * index + 1,):
            following[preceding[node]] = node
            preceding[following[node]] = node


def _places(operations: Sequence[Operation]) -> dict[int, float | None]:
    """The hints by number. Of unknown operations with equal calls the one called first is taken
    first, so it gets the first of their hints; whose it was makes no difference to the state."""
    places = {operation.number: operation.place for operation in operations}
    equal: dict[Any, list[Operation]] = {}
    for operation in operations:
        if operation.outcome != "ok":
            equal.setdefault(_frozen(operation.call), []).append(operation)
    for same in equal.values():
        same.sort(key=lambda operation: operation.invoked_step)
        held = sorted(operation.place for operation in same if operation.place is not None)
        for position, operation in enumerate(same):
            places[operation.number] = held[position] if position < len(held) else None
    return places


def _rank(operation: Operation, model: Model, place: float | None) -> tuple[int, float, int]:
    """What to try first: reads; then by hint; then what returned first; then the unknown."""
    if model.is_read(operation.call):
        return 0, 0.0, operation.number
    if place is not None:
        return 1, place, operation.number
    if operation.outcome == "ok":
        return 2, 0.0, operation.returned_step
    return 3, 0.0, operation.invoked_step


def _frozen(value: Any) -> Any:
    """Lists become tuples, as models have them: a result that has travelled has lists."""
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(part) for part in value)
    return value


def _shown(lines: list[str]) -> list[str]:
    more = [f"  and {len(lines) - _SHOWN} more"] if len(lines) > _SHOWN else []
    return [f"  {line}" for line in lines[:_SHOWN]] + more
