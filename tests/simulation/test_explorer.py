"""The explorer: exhausts small spaces, and finds bugs that are planted in the core.

Each planted bug is found within bounds of its own, chosen so that this takes a second; the way to
it is told to the story runner, whose ghost must see the same rule broken at the last command. The
same story must pass with the core as it is.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import msgspec
import pytest

from clusterconsensus.consensus import election
from clusterconsensus.consensus.acceptor import Acceptor
from clusterconsensus.consensus.catchup import CatchUp
from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.election import Candidacy, Election
from clusterconsensus.consensus.events import EndOfTurn, Tick
from clusterconsensus.consensus.local import Local
from clusterconsensus.consensus.master import Master
from clusterconsensus.consensus.messages import Accept, RecoverTell
from clusterconsensus.consensus.quorum import is_majority
from clusterconsensus.consensus.recovery import Recovery
from clusterconsensus.consensus.replica import Replica
from clusterconsensus.consensus.types import Incarnation
from clusterconsensus.simulation.cores.expectations import StoryError
from clusterconsensus.simulation.cores.story import Story, tell
from clusterconsensus.simulation.explorer import Bounds, Progress, explore
from clusterconsensus.simulation.explorer.freezing import PLACES, freeze, thaw
from clusterconsensus.simulation.explorer.moments import LIMITS, normalise
from clusterconsensus.simulation.explorer.space import Act, Move, Played, Space, State
from clusterconsensus.simulation.explorer.telling import counterexample

NOTHING = Bounds(ballots=2, changes=0, crashes=0, hangs=0, losses=0, repeats=0, ticks=0)
TINY = Bounds(ballots=1, changes=1, crashes=0, hangs=1, losses=0, repeats=0, ticks=0)
MANY = Bounds(ballots=4, changes=3, crashes=3, hangs=6, losses=2, repeats=3, ticks=3)


def bounds(**changes: Any) -> Bounds:
    return msgspec.structs.replace(NOTHING, **changes)


# -- spaces


def test_exhausts_a_space_without_a_violation() -> None:
    found = explore(NOTHING)
    assert found.violation is None
    assert found.exhausted
    assert found.states > 10_000
    assert found.transitions > found.states
    assert found.depth > 15
    assert found.moments < found.steps < found.transitions / 10
    for mark in ("candidacies", "masters", "commits", "adoptions", "truncations"):
        assert found.sometimes[mark] > 0, mark


def test_faults_are_reached() -> None:
    found = explore(Bounds(states=40_000))
    assert found.violation is None
    assert not found.exhausted
    assert found.states == 40_000
    for mark in (
        "changes submitted",
        "heartbeats",
        "masters without a majority",
        "messages lost",
        "repeated messages that came late",
        "restarts that lost writes",
        "writes that waited",
    ):
        assert found.sometimes[mark] > 0, mark


@pytest.mark.parametrize(
    "small",
    [
        bounds(members=1, ballots=2, changes=2, crashes=2, hangs=2),
        bounds(members=2, ballots=1, changes=1, crashes=1, hangs=1),
        bounds(members=2, ballots=2, probes=True),
        bounds(ballots=1, changes=1, reorder=True),
        bounds(ballots=1, changes=1, snapshots=1),
        bounds(ballots=1, damages=1),
    ],
    ids=["one", "two", "probes", "reorder", "snapshots", "damages"],
)
def test_other_spaces_are_exhausted(small: Bounds) -> None:
    found = explore(small)
    assert found.violation is None
    assert found.exhausted
    assert found.sometimes["commits"] > 0


def test_snapshots_and_damage_go_together() -> None:
    """Logs are forgotten and lost, snapshots sent and installed, votes come back."""
    found = explore(bounds(ballots=1, changes=1, snapshots=1, damages=1, states=30_000))
    assert found.violation is None
    for mark in ("snapshots", "snapshots installed", "damaged logs", "members whole again"):
        assert found.sometimes[mark] > 0, mark


def test_more_is_reached_out_of_order() -> None:
    in_order = explore(bounds(ballots=1, changes=2))
    out_of_order = explore(bounds(ballots=1, changes=2, reorder=True, states=in_order.states + 1))
    assert in_order.exhausted
    assert out_of_order.states == in_order.states + 1


def test_the_price_decides_only_in_which_order_states_are_found() -> None:
    by_moves = explore(msgspec.structs.replace(TINY, price=0))
    by_price = explore(TINY)
    assert by_moves.exhausted
    assert by_price.exhausted
    assert (by_moves.states, by_moves.transitions) == (by_price.states, by_price.transitions)
    assert by_moves.depth <= by_price.depth


def test_depth_ends_the_search() -> None:
    shallow = explore(msgspec.structs.replace(TINY, depth=4))
    assert shallow.depth == 4
    assert not shallow.exhausted
    assert shallow.states < explore(TINY).states


def test_progress_is_told() -> None:
    told: list[Progress] = []
    found = explore(NOTHING, told.append)
    assert len(told) == found.states // 10_000
    assert [progress.states for progress in told] == sorted(progress.states for progress in told)


@pytest.mark.parametrize(
    "wrong",
    [{"members": 0}, {"members": 8}, {"ballots": -1}, {"losses": 16}, {"states": 0}, {"depth": -1}],
)
def test_bounds_are_checked(wrong: dict[str, int]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        Bounds(**wrong)  # type: ignore[arg-type]  # only whole numbers are tried


COUNTING = """
from clusterconsensus.simulation.explorer import Bounds, explore
for reorder in (False, True):
    found = explore(Bounds(states=3_000, reorder=reorder))
    print(found.states, found.transitions, found.depth, found.moments, found.steps, found.sometimes)
"""


def test_the_hash_seed_changes_nothing() -> None:
    told = [
        subprocess.run(
            [sys.executable, "-c", COUNTING],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert told[0].startswith("3000 ")
    assert told[0] == told[1]


# -- the same as plain cores


def walk(space: Space, chance: random.Random, length: int) -> tuple[list[Move], State]:
    """Random moves from the start, and where they lead."""
    state = space.start
    moves: list[Move] = []
    for _ in range(length):
        move = chance.choice(list(space.moves(state)) or [("", 0, 0, False)])
        if not move[0]:
            break
        if space.may_hang(state) and chance.random() < 0.5:
            move = (*move[:3], True)
        values = list(state)
        if space.play(values, move, []) is not Played.NOWHERE:
            state = tuple(values)
            moves.append(move)
    return moves, state


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("changes", [{}, {"reorder": True}, {"probes": True}, {"members": 5}])
def test_known_steps_lead_where_plain_steps_lead(changes: dict[str, Any], seed: int) -> None:
    """A random walk, told to the story runner, leaves every member with the same core and disk."""
    space = Space(msgspec.structs.replace(MANY, **changes))
    moves, state = walk(space, random.Random(seed), 80)
    story = Story()
    for line in counterexample(space, "", "", moves).story().splitlines():
        if line.startswith("> "):
            said = story.command(line[2:])
            assert not any("left out" in text for text in said), line
    for place, member_id in enumerate(space.ids):
        moment = space.members.moments[state[place]]
        member = story.member(member_id)
        store = member.store
        disk = moment.disk
        assert (store.promised, tuple(store.entries)) == (disk.promised, disk.log.entries)
        assert (store.commit_hint, len(store.pending)) == (disk.commit_hint, len(disk.pending))
        assert (store.base, store.recovering) == (disk.log.base, disk.lost is not None)
        local = member.local
        assert local.applied == local.apply_asked
        # What the explorer does not follow: the applied state, and the cluster's id.
        local.checksum, local.cluster_id, local.limits = 0, "", LIMITS
        normalise(member.running)
        assert freeze(member.running) == moment.frozen


def test_a_walk_can_fail() -> None:
    """What tells moments apart is everything: a core that differs in one number is another one."""
    space = Space(MANY)
    replica = thaw(space.members.moments[0].frozen)
    replica.local.max_seen_instance += 1
    assert freeze(replica) != space.members.moments[0].frozen


# -- freezing


def cores() -> list[Replica]:
    """Cores in many states: leading, standing, with unsynced writes."""
    space = Space(MANY)
    for seed in range(3):
        walk(space, random.Random(seed), 80)
    return [thaw(moment.frozen) for moment in space.members.moments]


def mutables(replica: Replica) -> dict[int, object]:
    """Everything inside a core that can change, by identity."""
    found: dict[int, object] = {}
    todo: list[object] = [replica]
    while todo:
        value = todo.pop()
        if id(value) in found:
            continue
        if isinstance(value, dict):
            todo += [*value.keys(), *value.values()]
        elif isinstance(value, list | set | deque | tuple):
            todo += value
        elif _is_part(value):
            todo += vars(value).values()
        if isinstance(value, dict | list | set | deque) or _is_part(value) or _can_change(value):
            found[id(value)] = value
    return found


def _is_part(value: object) -> bool:
    """Whether this is one of the core's own objects that are no values."""
    ours = type(value).__module__.startswith("clusterconsensus.consensus")
    return ours and not isinstance(value, msgspec.Struct | Enum)


def _can_change(value: object) -> bool:
    return isinstance(value, msgspec.Struct) and not type(value).__struct_config__.frozen


def test_a_clone_is_equal_and_shares_nothing_that_can_change() -> None:
    made = cores()
    assert any(core.local.leads for core in made)
    assert any(core.election.candidacy is not None for core in made)
    assert any(core.local.tickets for core in made)
    for core in made:
        clone = thaw(freeze(core))
        assert freeze(clone) == freeze(core)
        own = mutables(core)
        assert len(own) > 20
        assert {id(getattr(core, name)) for name in ("local", "master")} <= own.keys()
        shared = [value for key, value in mutables(clone).items() if key in own]
        assert not shared


def test_a_clone_behaves_alike_and_leaves_the_first_alone() -> None:
    used = cores()[-1]
    for core in cores():
        before = freeze(core)
        clone = thaw(before)
        refilled = thaw(before, into=used)
        for event in (Tick(), EndOfTurn(1.0)):
            expected = clone.step(event, 5.0, 0.25)
            assert refilled.step(event, 5.0, 0.25) == expected
        assert freeze(core) == before
        assert freeze(refilled) == freeze(clone)
        for event in (Tick(), EndOfTurn(1.0)):
            core.step(event, 5.0, 0.25)
        assert freeze(core) == freeze(clone)


@pytest.mark.parametrize("place", [*PLACES, ""])
def test_what_is_not_known_is_not_cloned(place: str) -> None:
    replica = thaw(Space(TINY).members.moments[0].frozen)
    part: Any = replica
    for name in filter(None, place.split(".")):
        part = getattr(part, name)
    part.novelty = 1
    with pytest.raises(TypeError):
        freeze(replica)


@pytest.mark.parametrize(
    "value", [lambda: None, bytearray(b"x"), object(), OrderedDict(a=object()), (1, [object()])]
)
def test_what_is_of_no_known_kind_is_not_cloned(value: object) -> None:
    replica = thaw(Space(TINY).members.moments[0].frozen)
    replica.master.ballot = value  # type: ignore[assignment]  # the wrong kind is the point
    with pytest.raises(TypeError, match="how to freeze"):
        freeze(replica)


def test_a_part_of_another_core_is_not_cloned() -> None:
    first, second = (thaw(Space(TINY).members.moments[0].frozen) for _ in range(2))
    first.acceptor._local = second.local
    with pytest.raises(TypeError, match="another replica"):
        freeze(first)


# -- planted bugs

Plant = Callable[[pytest.MonkeyPatch], None]


def around(
    patch: pytest.MonkeyPatch, kind: type, name: str, change: Callable[[Any], Callable[[], None]]
) -> None:
    """Run a method with something changed, which is undone behind it."""
    original = getattr(kind, name)

    def changed(self: Any, *arguments: Any) -> Any:
        undo = change(self)
        try:
            return original(self, *arguments)
        finally:
            undo()

    patch.setattr(kind, name, changed)


def takes_what_is_below_the_promise(patch: pytest.MonkeyPatch) -> None:
    def never(self: Acceptor, source: Incarnation, message: Accept) -> bool:
        return False

    patch.setattr(Acceptor, "refuse_lower", never)


def takes_and_says_so(patch: pytest.MonkeyPatch) -> None:
    takes_what_is_below_the_promise(patch)

    def change(acceptor: Any) -> Callable[[], None]:
        local = acceptor._local
        promised, local.promised = local.promised, acceptor._verified_ballot
        return lambda: setattr(local, "promised", promised)

    around(patch, Acceptor, "_acknowledge", change)


def accepting_is_no_promise(patch: pytest.MonkeyPatch) -> None:
    def change(acceptor: Any) -> Callable[[], None]:
        local = acceptor._local
        promised = local.promised
        return lambda: setattr(local, "promised", promised)

    around(patch, Acceptor, "on_accept", change)


def half_is_a_majority(patch: pytest.MonkeyPatch) -> None:
    def half(voters: Sequence[Incarnation], granted: set[Incarnation]) -> bool:
        return sum(voter in granted for voter in voters) >= len(voters) // 2

    patch.setattr(election, "is_majority", half)


def nothing_is_adopted(patch: pytest.MonkeyPatch) -> None:
    def win(self: Any, candidacy: Candidacy) -> bool:
        return is_majority(self._local.log.voters, candidacy.granted)

    patch.setattr(Election, "_adopt", win)


def older_ballots_are_counted(patch: pytest.MonkeyPatch) -> None:
    def change(master: Any) -> Callable[[], None]:
        seq, master._noop_seq = master._noop_seq, 0
        return lambda: setattr(master, "_noop_seq", seq)

    around(patch, Master, "_commit", change)


def the_sync_is_not_waited_for(patch: pytest.MonkeyPatch, kind: type, name: str) -> None:
    def change(part: Any) -> Callable[[], None]:
        log = part._local.log
        durable, log.durable_seq = log.durable_seq, log.last_seq
        return lambda: setattr(log, "durable_seq", durable)

    around(patch, kind, name, change)


def accepted_before_the_sync(patch: pytest.MonkeyPatch) -> None:
    the_sync_is_not_waited_for(patch, Acceptor, "_acknowledge")


def own_copy_before_the_sync(patch: pytest.MonkeyPatch) -> None:
    the_sync_is_not_waited_for(patch, Master, "_commit")


def the_noop_is_not_waited_for(patch: pytest.MonkeyPatch) -> None:
    def change(master: Any) -> Callable[[], None]:
        master.started = True
        return lambda: None

    around(patch, Master, "end_of_turn", change)


def promises_are_not_written(patch: pytest.MonkeyPatch) -> None:
    original = Local.persist

    def persist(self: Local, **what: Any) -> int:
        number = original(self, **what)
        batch = self.effects[-1]
        assert isinstance(batch, Persist)
        self.effects[-1] = msgspec.structs.replace(batch, promised=None)
        return number

    patch.setattr(Local, "persist", persist)


def a_promise_is_said_before_the_sync(patch: pytest.MonkeyPatch) -> None:
    def change(acceptor: Any) -> Callable[[], None]:
        local = acceptor._local
        durable, local.promised_durable = local.promised_durable, local.promised
        return lambda: setattr(local, "promised_durable", durable)

    around(patch, Acceptor, "_answer_prepare", change)


def whoever_recovers_votes(patch: pytest.MonkeyPatch) -> None:
    def change(acceptor: Any) -> Callable[[], None]:
        local = acceptor._local
        recovering, local.recovering = local.recovering, False
        return lambda: setattr(local, "recovering", recovering)

    around(patch, Acceptor, "on_probe", change)
    around(patch, Acceptor, "on_prepare", change)


def whole_too_early(patch: pytest.MonkeyPatch) -> None:
    original = Recovery.on_tell

    def on_tell(self: Recovery, source: Incarnation, message: RecoverTell) -> None:
        original(self, source, msgspec.structs.replace(message, last_seq=1))

    patch.setattr(Recovery, "on_tell", on_tell)


def too_much_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    def compact(self: CatchUp, discard_seq: int) -> None:
        self._local.log.compact(self._local.log.durable_seq)

    patch.setattr(CatchUp, "_compact", compact)


PLANTED: list[tuple[Plant, Bounds, str]] = [
    (takes_what_is_below_the_promise, NOTHING, "I-1"),
    (takes_and_says_so, NOTHING, "I-5"),
    (accepting_is_no_promise, NOTHING, "I-5"),
    (half_is_a_majority, NOTHING, "E5"),
    (nothing_is_adopted, NOTHING, "I-4"),
    (older_ballots_are_counted, NOTHING, "I-10"),
    (the_noop_is_not_waited_for, bounds(ballots=1, hangs=1), "D6"),
    (accepted_before_the_sync, bounds(ballots=1, hangs=1), "D3"),
    (own_copy_before_the_sync, bounds(ballots=1, changes=1, hangs=1), "I-10"),
    (promises_are_not_written, bounds(ballots=1), "D1"),
    (a_promise_is_said_before_the_sync, bounds(ballots=1, hangs=1), "D2"),
    (whoever_recovers_votes, bounds(damages=1), "I-19"),
    (whole_too_early, bounds(ballots=1, changes=1, damages=1), "W5"),
    (too_much_is_forgotten, bounds(ballots=1, changes=1, snapshots=1), "S6"),
]


@pytest.mark.parametrize(
    ("plant", "within", "rule"), PLANTED, ids=[plant.__name__ for plant, _, _ in PLANTED]
)
def test_a_planted_bug_is_found_and_told(
    plant: Plant, within: Bounds, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        plant(patch)
        violation = explore(within).violation
        assert violation is not None
        assert violation.rule == rule
        story = violation.story()
        last = story.count("\n")
        with pytest.raises(StoryError, match=rf"^line {last}, .*: {rule}: "):
            tell(story)
    tell(story)


def test_planted_bugs_are_found_among_all_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    nothing_is_adopted(monkeypatch)
    violation = explore(Bounds()).violation
    assert violation is not None
    assert violation.rule == "I-4"
    assert len(violation.moves) < 15


def test_a_story_names_messages_that_are_not_the_first() -> None:
    """Out of order, a message is named by its kind or its place on its link."""
    space = Space(bounds(reorder=True))
    values = list(space.start)
    moves: list[Move] = [("stand", 0, 0, False)]
    space.play(values, moves[0], acts := list[Act]())
    assert [act.verb for act in acts] == ["timeout", "deliver", "deliver", "drop", "sync"]
    told = counterexample(space, "I-0", "nothing", moves)
    assert told.moves == (
        ("timeout a", "deliver a->b probe", "deliver b->a probereply", "drop a->c probe", "sync a"),
    )
    assert told.story().startswith("# I-0: nothing\n")
