"""The facts of one member: what only rises, what the disk has confirmed, what is told."""

from __future__ import annotations

import pytest

from clusterconsensus.consensus import effects
from clusterconsensus.consensus.local import MAX_INSTANCE_JUMP, RECENT_SYNCS, Limits, Local
from clusterconsensus.consensus.log import Log, encode_configuration
from clusterconsensus.consensus.types import (
    NOBODY,
    ZERO,
    Ballot,
    Entry,
    EntryKind,
    Position,
    Role,
    SnapshotId,
    Standing,
)
from tests.core.one import FIRST, A, B, C, D, configuration_entry, noop, of_kind

SECOND = Ballot(2, B)


def made(name: str = "a", entries: int = 3) -> Local:
    """A member whose log holds a configuration and NOOPs, all of them durable."""
    log = Log()
    log.append(configuration_entry(1, FIRST, A, B, learner=C))
    for seq in range(2, entries + 1):
        log.append(noop(seq, FIRST))
    log.durable_seq = log.last_seq
    return Local(next(n for n in (A, B, C, D) if n[0] == name), Limits(), log, FIRST, 1, 0, "c1")


@pytest.mark.parametrize("ballot", [ZERO, FIRST])
def test_a_promise_only_rises(ballot: Ballot) -> None:
    local = made()
    with pytest.raises(AssertionError, match="I-5"):
        local.raise_promise(ballot)
    assert local.promised == FIRST
    local.raise_promise(SECOND)
    assert (local.promised, local.max_seen_instance) == (SECOND, 2)
    assert local.promised_durable == FIRST


def test_the_commit_never_goes_back_and_stays_within_the_log() -> None:
    local = made()
    local.advance_commit(3)
    local.advance_commit(2)
    assert local.commit == 3
    with pytest.raises(AssertionError, match="R6"):
        local.advance_commit(4)
    assert local.commit == 3


def test_a_ballot_out_of_all_proportion_is_not_remembered() -> None:
    local = made()
    limit = local.max_seen_instance + MAX_INSTANCE_JUMP
    assert not local.see_ballot(Ballot(limit + 1, B))
    assert local.max_seen_instance == 1
    assert local.see_ballot(Ballot(limit, B))
    assert local.max_seen_instance == limit
    assert local.see_ballot(FIRST)
    assert local.max_seen_instance == limit


def test_a_sync_confirms_everything_up_to_its_ticket_and_nothing_behind() -> None:
    local = made()
    numbers = []
    for seq in (4, 5, 6):
        local.log.append(noop(seq, FIRST))
        numbers.append(local.persist(entries=(noop(seq, FIRST),)))
    local.raise_promise(SECOND)
    last = local.persist(promised=SECOND)
    local.on_persisted(numbers[1])
    assert (local.log.durable_seq, local.promised_durable) == (5, FIRST)
    local.on_persisted(last)
    assert (local.log.durable_seq, local.promised_durable) == (6, SECOND)


def test_what_was_cut_is_not_confirmed_by_an_earlier_sync() -> None:
    local = made()
    local.log.append(noop(4, FIRST))
    earlier = local.persist(entries=(noop(4, FIRST),))
    local.log.truncate(3)
    local.log.append(noop(3, SECOND))
    local.log.append(noop(4, SECOND))
    later = local.persist(truncate_from=3, entries=(noop(3, SECOND), noop(4, SECOND)))
    local.on_persisted(earlier)
    assert local.log.durable_seq == 2
    local.on_persisted(later)
    assert local.log.durable_seq == 4


def test_the_disk_is_waited_for_since_the_oldest_sync_under_way() -> None:
    local = made()
    assert local.disk_waits_seconds() == 0.0
    local.now = 5.0
    first = local.persist(promised=FIRST)
    local.now = 6.0
    local.persist(promised=FIRST)
    local.now = 8.0
    assert local.disk_waits_seconds() == 3.0
    local.on_persisted(first)
    assert local.disk_waits_seconds() == 2.0


def test_a_master_was_heard_for_less_than_one_timeout() -> None:
    local = made()
    assert not local.hears_master()
    local.heard_at, local.now = 10.0, 10.9
    assert local.hears_master()
    local.now = 11.0
    assert not local.hears_master()
    local.role = Role.MASTER
    assert local.hears_master()


@pytest.mark.parametrize(
    ("name", "standing", "role"),
    [
        ("a", Standing.VOTER, Role.FOLLOWER),
        ("c", Standing.LEARNER, Role.LEARNER),
        ("d", None, Role.UNJOINED),
    ],
)
def test_what_a_member_is_by_its_seat(name: str, standing: Standing | None, role: Role) -> None:
    local = made(name)
    assert local.standing is standing
    assert local.is_voter is (standing is Standing.VOTER)
    assert local.role is role


def test_a_role_is_told_when_anything_in_it_is_new() -> None:
    local = made()

    def told(role: Role, ballot: Ballot, master: str) -> int:
        local.effects.clear()
        local.change_role(role, ballot, type(A)(master), "because")
        return len(of_kind(local.effects, effects.RoleChanged))

    assert told(Role.FOLLOWER, SECOND, B) == 1
    assert told(Role.FOLLOWER, SECOND, B) == 0
    assert told(Role.FOLLOWER, Ballot(3, B), B) == 1
    assert told(Role.FOLLOWER, Ballot(3, B), C) == 1
    assert told(Role.FOLLOWER, Ballot(4, B), NOBODY) == 1
    assert told(Role.FOLLOWER, Ballot(5, B), NOBODY) == 0, "without a master its ballot is nothing"
    assert local.master_ballot == Ballot(3, B)
    assert told(Role.CANDIDATE, Ballot(5, B), NOBODY) == 1


def test_a_log_that_was_given_up_is_confirmed_by_no_earlier_sync() -> None:
    local = made()
    local.log.append(noop(4, FIRST))
    earlier = local.persist(promised=SECOND, entries=(noop(4, FIRST),))
    local.raise_promise(SECOND)
    base = Position(SECOND, 2)
    local.log.reset(base, 1, local.log.configuration, 1.0)
    later = local.persist(base=base)
    (given_up,) = [e for e in of_kind(local.effects, effects.Persist) if e.ticket == later]
    assert given_up.base == base
    local.log.append(noop(3, SECOND))
    local.log.append(noop(4, SECOND))
    last = local.persist(entries=(noop(3, SECOND), noop(4, SECOND)))
    local.on_persisted(earlier)
    assert local.log.durable_seq == 2
    local.on_persisted(later)
    assert (local.log.durable_seq, local.promised_durable) == (2, SECOND)
    local.on_persisted(last)
    assert local.log.durable_seq == 4


def test_a_promise_on_its_way_is_confirmed_though_the_log_was_given_up() -> None:
    local = made()
    local.raise_promise(SECOND)
    number = local.persist(promised=SECOND)
    local.log.reset(Position(SECOND, 9), 1, local.log.configuration, 1.0)
    local.persist(base=Position(SECOND, 9))
    local.on_persisted(number)
    assert local.promised_durable == SECOND


def test_the_latest_syncs_are_remembered() -> None:
    local = made()
    for count in range(RECENT_SYNCS + 4):
        local.now = 10.0 * count
        number = local.persist(promised=FIRST)
        local.now += count
        local.on_persisted(number)
    assert list(local.recent_syncs) == [float(count) for count in range(4, RECENT_SYNCS + 4)]


@pytest.mark.parametrize(
    ("commit", "told", "removed", "role"),
    [
        (1, False, False, Role.LEARNER),
        (2, False, True, Role.REMOVED),
        (1, True, True, Role.REMOVED),
    ],
)
def test_who_was_removed_is_removed_for_good(
    commit: int, told: bool, removed: bool, role: Role
) -> None:
    """By the newest committed configuration, or because somebody said so; not by one that is not
    committed and may be cut off (M8)."""
    log = Log()
    log.append(configuration_entry(1, FIRST, A, B, C))
    successor = log.configuration.without_seat(A, 1)
    log.append(Entry.make(2, FIRST, EntryKind.CONFIG, 1.0, encode_configuration(successor)))
    log.durable_seq = 2
    local = Local(A, Limits(), log, FIRST, commit, 0, "c1")
    local.told_removed = told
    assert (local.removed, local.passive_role()) == (removed, role)
    assert local.standing is None


def test_a_member_that_is_removed_says_so_when_that_is_committed() -> None:
    log = Log()
    log.append(configuration_entry(1, FIRST, A, B, C))
    log.durable_seq = 1
    local = Local(A, Limits(), log, FIRST, 1, 0, "c1")
    roles = [local.role]
    successor = log.configuration.without_seat(A, 1)
    log.append(Entry.make(2, FIRST, EntryKind.CONFIG, 1.0, encode_configuration(successor)))
    local.finish_turn()
    roles.append(local.role)
    local.advance_commit(2)
    local.finish_turn()
    roles.append(local.role)
    assert roles == [Role.FOLLOWER, Role.LEARNER, Role.REMOVED]
    log_of_another = made("d")
    assert log_of_another.role is Role.UNJOINED


def test_a_new_member_is_not_recovering_and_has_no_snapshot() -> None:
    local = made()
    assert (local.recovering, local.snapshot, local.cluster_level) == (False, None, 1)
    snapshot = SnapshotId(Position(FIRST, 1), 10, 1)
    local = Local(A, Limits(), local.log, FIRST, 1, 0, "c1", snapshot, True)
    assert (local.recovering, local.snapshot) == (True, snapshot)
