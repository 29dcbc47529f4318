"""The log: contiguous, never cut at or below the commit, configurations never stored twice."""

from __future__ import annotations

import random

import pytest

from clusterconsensus.consensus.log import Log, LogError, well_formed
from clusterconsensus.consensus.types import (
    ZERO,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Position,
)
from tests.core.one import FIRST, A, B, C, D, configuration_entry, noop, seat

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


# -- the base


def compacted() -> Log:
    """Entries 5 to 8, of two ballots; all of it durable."""
    log = make(
        configuration_entry(1, FIRST, A, B),
        configuration_entry(2, FIRST, A, B, C),
        *(noop(seq, FIRST) for seq in (3, 4, 5)),
        *(noop(seq, SECOND) for seq in (6, 7, 8)),
    )
    log.durable_seq = 8
    log.compact(4)
    log.check()
    return log


def test_a_compacted_log_begins_behind_its_base() -> None:
    log = compacted()
    assert (log.base, log.last) == (Position(FIRST, 4), Position(SECOND, 8))
    assert [log.ballot_at(seq) for seq in range(3, 10)] == [
        None,
        FIRST,
        FIRST,
        SECOND,
        SECOND,
        SECOND,
        None,
    ]
    assert (log.run_start(5), log.run_start(7)) == (5, 6)
    assert (log.first_cached, log.is_cached(4), log.is_cached(5)) == (5, False, True)
    assert log.position(4) == log.base
    with pytest.raises(LogError, match="from 5 to 8"):
        log.position(3)
    log.append(noop(9, SECOND))
    log.check()


def test_compacting_keeps_the_newest_configuration_at_or_below_the_base() -> None:
    log = compacted()
    assert log.committed_configuration(4) == (2, log.configuration)
    assert [len(configuration.voters) for configuration in log.configurations()] == [3]
    assert log.voters == (A, B, C)


def test_a_configuration_behind_the_base_does_not_displace_the_one_before_it() -> None:
    """It may be cut off still, and then the one before counts again."""
    log = make(
        configuration_entry(1, FIRST, A, B),
        noop(2, FIRST),
        noop(3, FIRST),
        configuration_entry(4, FIRST, A, B, C),
    )
    log.durable_seq = 4
    log.compact(2)
    assert log.committed_configuration(3)[0] == 1
    log.truncate(4)
    assert log.voters == (A, B)


@pytest.mark.parametrize("seq", [5, 6, 7, 8])
def test_compacting_again_anywhere(seq: int) -> None:
    log = compacted()
    before = {at: log.ballot_at(at) for at in range(seq, 9)}
    bytes_before = log.cached_bytes
    log.compact(seq)
    log.check()
    assert log.base.seq == seq
    assert {at: log.ballot_at(at) for at in range(seq, 9)} == before
    assert log.last == Position(SECOND, 8)
    assert log.cached_bytes < bytes_before
    log.compact(seq - 1)
    assert log.base.seq == seq, "what is gone does not come back"
    log.append(noop(9, SECOND))
    log.check()
    assert log.last == Position(SECOND, 9)


def test_compacting_what_is_not_in_memory() -> None:
    log = compacted()
    log.evict(7, 0)
    log.compact(6)
    log.check()
    assert log.first_cached == 8
    assert [entry.seq for entry in log.slice(8, 100)] == [8]


def test_compacting_never_goes_beyond_what_is_durable() -> None:
    log = compacted()
    log.durable_seq = 6
    with pytest.raises(LogError, match="S6"):
        log.compact(7)
    log.check()
    assert log.base.seq == 4


def test_the_base_is_never_cut() -> None:
    log = compacted()
    for seq in (4, 3):
        with pytest.raises(LogError, match="I-7"):
            log.truncate(seq)
    log.truncate(5)
    assert (log.last, log.durable_seq) == (log.base, 4)
    log.check()
    with pytest.raises(LogError, match="ballot"):
        log.append(noop(5, ZERO))
    log.append(noop(5, FIRST))
    log.check()


def test_what_is_below_the_base_matches_by_definition() -> None:
    log = compacted()
    # Even of another ballot: nobody can tell here (C-12); the acceptor compares what it can.
    fresh = (noop(9, SECOND),)
    entries = (noop(4, FIRST), noop(5, FIRST), *(noop(seq, SECOND) for seq in (6, 7, 8)), *fresh)
    assert log.merge(entries, 4) == (None, fresh)
    assert log.merge((noop(3, FIRST), noop(4, FIRST)), 4) == (None, ())
    log.check()


def test_a_log_that_gives_way_to_a_snapshot() -> None:
    log = compacted()
    configuration = Configuration((seat(A), seat(D)), 3)
    base = Position(Ballot(3, C), 6)
    log.reset(base, 5, configuration, 77.0)
    log.check()
    assert (log.base, log.last, log.last_seq, log.durable_seq) == (base, base, 6, 6)
    assert (log.configuration_seq, log.voters, log.last_time) == (5, (A, D), 77.0)
    assert (log.cached_bytes, log.first_cached) == (0, 7)
    assert log.ballot_at(5) is None
    assert log.ballot_at(7) is None
    log.append(configuration_entry(7, Ballot(3, C), A, B))
    assert log.voters == (A, B)
    log.truncate(7)
    assert log.voters == (A, D), "the snapshot's configuration cannot be cut off"
    log.check()


def test_a_log_from_a_journal_and_a_snapshot() -> None:
    """The journal reaches back to the older snapshot, the configuration is the newer one's."""
    known = (4, Configuration((seat(A), seat(B), seat(C)), 2))
    entries = [configuration_entry(3, FIRST, A), configuration_entry(6, SECOND, A, B)]
    log = Log(7, [(3, FIRST), (6, SECOND)], entries, 5.0, Position(FIRST, 2), known)
    log.check()
    assert log.committed_configuration(5) == known
    voters = [log.voters]
    log.truncate(6)
    voters.append(log.voters)
    assert voters == [(A, B), (A, B, C)]
    assert log.ballot_at(2) == FIRST
    empty = Log(2, (), (), 5.0, Position(FIRST, 2), (1, known[1]))
    empty.check()
    assert empty.last == Position(FIRST, 2)


@pytest.mark.parametrize("damage", ["runs", "base", "cache"])
def test_a_broken_base_does_not_pass_the_check(damage: str) -> None:
    log = compacted()
    if damage == "runs":
        log._run_starts[0] = 4
    elif damage == "base":
        log.base = Position(SECOND, 9)
    else:
        log._first_cached = 4
    with pytest.raises(LogError):
        log.check()


def test_any_sequence_of_deeds_keeps_the_invariants() -> None:
    draw = random.Random(6)
    for _ in range(100):
        log = make(noop(1, FIRST))
        commit, ballot = 1, FIRST
        for _ in range(30):
            deed = draw.choice(["append", "append", "cut", "compact", "evict", "reset", "durable"])
            if deed == "append":
                ballot = draw.choice([ballot, Ballot(ballot.instance + 1, A)])
                log.append(noop(log.last_seq + 1, ballot))
            elif deed == "cut" and log.last_seq > commit:
                log.truncate(draw.randint(commit + 1, log.last_seq))
            elif deed == "compact":
                log.compact(draw.randint(0, min(commit, log.durable_seq)))
            elif deed == "evict":
                log.evict(min(commit, log.durable_seq), draw.choice([0, 2_000]))
            elif deed == "reset" and draw.random() < 0.2:
                commit = log.last_seq + draw.randint(-1, 3)
                commit = max(commit, log.base.seq + 1)
                log.reset(Position(ballot, commit), 0, Configuration(), 1.0)
            else:
                log.durable_seq = log.last_seq
                commit = draw.randint(commit, log.last_seq)
            log.check()
            assert log.ballot_at(log.last_seq) == log.last.ballot
            assert log.ballot_at(log.base.seq) == log.base.ballot
