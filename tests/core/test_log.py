"""The log: contiguous, never cut at or below the commit, configurations never stored twice."""

from __future__ import annotations

import random

import pytest

from clusterconsensus.consensus.log import Log, LogError, well_formed
from clusterconsensus.consensus.types import ZERO, Ballot, Entry, EntryKind, Position
from tests.core.one import FIRST, A, B, C, D, configuration_entry, noop

SECOND = Ballot(2, B)


def make(*entries: Entry) -> Log:
    log = Log()
    for entry in entries:
        log.append(entry)
    log.check()
    return log


def test_an_empty_log() -> None:
    log = Log()
    assert log.last == Position(ZERO, 0)
    assert log.ballot_at(0) == ZERO
    assert log.ballot_at(1) is None
    assert log.voters == ()
    assert log.committed_configuration(0)[0] == 0


def test_entries_follow_each_other() -> None:
    log = make(noop(1, FIRST))
    with pytest.raises(LogError, match="cannot follow"):
        log.append(noop(3, FIRST))
    log.append(noop(2, SECOND))
    with pytest.raises(LogError, match="ballot"):
        log.append(noop(3, FIRST))


def test_ballots_are_known_by_runs() -> None:
    log = make(noop(1, FIRST), noop(2, FIRST), noop(3, SECOND))
    assert [log.ballot_at(seq) for seq in range(5)] == [ZERO, FIRST, FIRST, SECOND, None]
    assert log.run_start(2) == 1
    assert log.run_start(3) == 3
    assert log.position(2) == Position(FIRST, 2)
    with pytest.raises(LogError):
        log.position(4)


def test_the_latest_configuration_counts_until_it_is_cut() -> None:
    log = make(configuration_entry(1, FIRST, A, B, C), configuration_entry(2, FIRST, A, B, C, D))
    assert list(log.voters) == [A, B, C, D]
    assert log.committed_configuration(1)[0] == 1
    log.truncate(2)
    assert list(log.voters) == [A, B, C]
    assert log.configuration_seq == 1
    log.check()


def test_merging_keeps_what_is_the_same() -> None:
    log = make(noop(1, FIRST), noop(2, FIRST), noop(3, FIRST))
    assert log.merge((noop(1, FIRST), noop(2, FIRST)), 0) == (None, ())
    assert log.last_seq == 3


def test_merging_cuts_at_the_first_difference() -> None:
    log = make(noop(1, FIRST), noop(2, FIRST), noop(3, FIRST))
    log.durable_seq = 3
    fresh = (noop(2, SECOND),)
    assert log.merge((noop(1, FIRST), *fresh), 1) == (2, fresh)
    assert log.last == Position(SECOND, 2)
    assert log.durable_seq == 1
    log.check()


def test_merging_never_replaces_what_is_committed() -> None:
    log = make(noop(1, FIRST), noop(2, FIRST))
    with pytest.raises(LogError, match="committed"):
        log.merge((noop(2, SECOND),), 2)


def test_eviction_keeps_ballots_and_what_is_needed() -> None:
    log = make(*(noop(seq, FIRST) for seq in range(1, 11)))
    log.evict(6, 0)
    assert log.first_cached == 7
    assert not log.is_cached(6)
    assert log.ballot_at(3) == FIRST
    log.check()
    log.truncate(5)
    assert log.last_seq == 4
    assert log.first_cached == 5
    log.check()


def test_a_slice_holds_at_least_one_entry_and_not_much_more_than_asked() -> None:
    entries = [Entry.make(s, FIRST, EntryKind.CHANGES, 1.0, b"x" * 100) for s in range(1, 6)]
    log = make(*entries)
    assert [entry.seq for entry in log.slice(2, 1)] == [2]
    assert [entry.seq for entry in log.slice(2, 400)] == [2, 3]
    assert [entry.seq for entry in log.slice(2, 10_000, 3)] == [2, 3, 4]
    assert log.slice(6, 100) == ()


def test_a_log_from_a_journal() -> None:
    config = configuration_entry(1, FIRST, A, B)
    log = Log(3, [(1, FIRST), (3, SECOND)], [config], 5.0)
    assert log.last == Position(SECOND, 3)
    assert log.durable_seq == 3
    assert log.voters == (A, B)
    assert not log.is_cached(3)
    log.append(noop(4, SECOND))
    log.check()


@pytest.mark.parametrize(
    "entries",
    [
        (noop(3, FIRST),),
        (noop(2, Ballot(9, A)),),
        (noop(2, SECOND), noop(3, FIRST)),
        (noop(2, SECOND), noop(2, SECOND)),
        (Entry(2, SECOND, 0, 1.0, b"", 12345),),
        (Entry.make(2, SECOND, EntryKind.CONFIG, 1.0, b"\xff"),),
    ],
)
def test_what_cannot_be_part_of_a_log(entries: tuple[Entry, ...]) -> None:
    assert not well_formed(Position(FIRST, 1), entries, SECOND)


def test_what_can() -> None:
    assert well_formed(Position(FIRST, 1), (noop(2, FIRST), noop(3, SECOND)), SECOND)
    assert well_formed(Position(FIRST, 1), (), SECOND)


def test_any_sequence_of_merges_keeps_the_invariants() -> None:
    draw = random.Random(5)
    ballots = [Ballot(number, A) for number in range(1, 6)]
    for _ in range(200):
        log = make(noop(1, ballots[0]))
        commit = 1
        for _ in range(12):
            first = draw.randint(2, log.last_seq + 1)
            before = log.ballot_at(first - 1)
            assert before is not None
            choices = [ballot for ballot in ballots if ballot >= before]
            ballot = draw.choice(choices)
            entries = [noop(first + place, ballot) for place in range(draw.randint(0, 3))]
            try:
                log.merge(entries, commit)
            except LogError:
                assert any(entry.seq <= commit for entry in entries)
            log.check()
            if draw.random() < 0.2:
                commit = draw.randint(commit, log.last_seq)


@pytest.mark.parametrize("damage", ["an entry", "a stray entry", "ballots", "durable"])
def test_a_broken_log_does_not_pass_its_check(damage: str) -> None:
    log = make(noop(1, FIRST), noop(2, SECOND), noop(3, SECOND))
    log.evict(1, 0)
    log.check()
    if damage == "an entry":
        log._entries[4] = log._entries.pop(3)
    elif damage == "a stray entry":
        log._entries[1] = noop(1, FIRST)
    elif damage == "ballots":
        log._run_ballots.reverse()
    else:
        log.durable_seq = 4
    with pytest.raises(LogError):
        log.check()
