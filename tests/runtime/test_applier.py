"""Applying: sessions first, exactly once, in slices, and the same everywhere."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clusterconsensus.codec import MsgpackCodec
from clusterconsensus.consensus.log import encode_configuration
from clusterconsensus.consensus.messages import Group
from clusterconsensus.consensus.sessions import encode_saved
from clusterconsensus.consensus.types import Configuration, Entry, EntryKind
from clusterconsensus.errors import (
    ApplyError,
    BrokenInvariantError,
    DamagedError,
    SnapshotError,
)
from clusterconsensus.runtime import outcomes
from clusterconsensus.runtime.applier import Capture
from clusterconsensus.state import Context, Readable, whole
from tests.runtime.helpers import (
    BALLOT,
    CODEC,
    OWNER,
    Heard,
    Member,
    Recorder,
    Still,
    changes,
    closing,
    group,
    noop,
    request,
    session,
)


def results(found: list[bytes | None]) -> list[Any]:
    """Decoded outcomes; the kind of the error where one stands."""
    unpacked: list[Any] = []
    for outcome in found:
        if outcome is None or outcome == outcomes.STALE:
            unpacked.append(outcome)
            continue
        try:
            if outcome[:1] == outcomes.BATCH:
                unpacked.append(outcomes.unpack_batch(outcome, CODEC.decode_result))
            else:
                unpacked.append(outcomes.unpack(outcome, CODEC.decode_result))
        except ApplyError as error:
            unpacked.append(error.kind)
    return unpacked


def test_changes_reach_the_state_in_order_with_their_context() -> None:
    member = Member()
    one = group(1, 1, request("x"), request("p", "q"))
    other = group(2, 1, request("y"))
    second = session(2, owner=type(OWNER)("p@1"))
    member.feed(session(1), second, changes(3, one, other, time=7.5), noop(4))
    assert member.recorder.applied == ["x", "p", "q", "y"]
    assert member.recorder.contexts == [
        Context(3, 0, 7.5, 1),
        Context(3, 1, 7.5, 1),
        Context(3, 2, 7.5, 1),
        Context(3, 3, 7.5, 2),
    ]
    assert member.heard.sessions == [(1, OWNER, 1, 1), (2, "p@1", 1, 2)]
    assert [(seq, place, number) for seq, place, number, _, _ in member.heard.groups] == [
        (3, 0, 1),
        (3, 1, 2),
    ]
    assert results(member.outcomes[0]) == [1, [2, 3]]
    assert results(member.outcomes[1]) == [4]
    assert (member.applier.applied, member.applier.time) == (4, 5.0)


def test_a_repeated_request_is_answered_from_the_table() -> None:
    """X1, C-59, A-37: applied once, however often and however grouped it arrives."""
    member = Member()
    first = group(1, 1, request("x"), request("y"))
    member.feed(session(1), changes(2, first), changes(3, first))
    regrouped = group(1, 2, request("y"), request("z"))
    member.feed(changes(4, regrouped, group(1, 1, request("x"))))
    assert member.recorder.applied == ["x", "y", "z"]
    assert [results(found) for found in member.outcomes] == [[1, 2], [1, 2], [2, 3], [1]]


def test_a_repeated_failure_is_answered_from_the_table_too() -> None:
    member = Member()
    once = group(1, 1, request("raise"), request("raise", "x"))
    member.feed(session(1), changes(2, once), changes(3, once))
    assert member.recorder.applied == ["raise", "raise", "x"]
    assert member.outcomes[0] == member.outcomes[1]


def test_a_request_of_an_unknown_session_is_never_executed() -> None:
    """X2."""
    member = Member()
    member.feed(session(1), changes(2, group(9, 1, request("x"), request("y"))))
    assert member.recorder.applied == []
    assert member.outcomes == [[None, None]]


def test_a_closed_session_is_unknown() -> None:
    member = Member()
    member.feed(session(1), closing(2, (1, 5.0)), changes(3, group(1, 1, request("x"))))
    assert member.recorder.applied == []
    assert member.outcomes == [[None]]


def test_a_session_that_was_used_since_is_not_closed() -> None:
    member = Member()
    used = changes(2, group(1, 1, request("x")), time=6.0)
    member.feed(session(1), used, closing(3, (1, 5.0)), changes(4, group(1, 2, request("y"))))
    assert member.recorder.applied == ["x", "y"]


def test_a_later_start_of_the_owner_replaces_its_session() -> None:
    member = Member()
    member.feed(session(1, nonce=5), session(2, nonce=5), session(3, nonce=6), session(4, nonce=5))
    assert [number for *_, number in member.heard.sessions] == [1, 1, 3, 0]
    member.feed(changes(5, group(1, 1, request("x")), group(3, 1, request("y"))))
    assert member.recorder.applied == ["y"]


def test_what_the_owner_acknowledged_is_forgotten_and_never_executed_again() -> None:
    member = Member()
    member.feed(session(1), changes(2, group(1, 1, request("x"), request("y"))))
    member.feed(changes(3, group(1, 3, request("z"), acked_below=3)))
    late = group(1, 1, request("x"), request("y"), acked_below=1)
    member.feed(changes(4, late))
    assert member.recorder.applied == ["x", "y", "z"]
    assert member.outcomes[-1] == [outcomes.STALE, outcomes.STALE]
    held = member.applier.sessions.get(1)
    assert held is not None
    assert list(held.outcomes) == [3]


def test_an_exception_is_an_answer_and_the_next_change_is_applied() -> None:
    """R8, C-61."""
    member = Member()
    member.feed(session(1), changes(2, group(1, 1, request("raise"), request("x"))))
    assert results(member.outcomes[0]) == ["ValueError", 2]


def test_a_result_that_cannot_be_encoded_is_an_error_result() -> None:
    member = Member()
    member.feed(session(1), changes(2, group(1, 1, request("unencodable"), request("x"))))
    assert results(member.outcomes[0]) == ["TypeError", 2]


def test_a_batch_holds_the_failure_of_one_of_its_changes() -> None:
    member = Member()
    member.feed(session(1), changes(2, group(1, 1, request("x", "raise", "y"))))
    (found,) = results(member.outcomes[0])
    assert (found[0], found[2]) == (1, 3)
    assert isinstance(found[1], ApplyError)


def test_memory_error_is_no_answer_and_stops() -> None:
    member = Member()
    member.feed(session(1))
    with pytest.raises(MemoryError):
        member.feed(changes(2, group(1, 1, request("memory"))))
    assert member.applier.applied == 1


def test_keyboard_interrupt_is_no_answer_and_stops() -> None:
    class Interrupted(Recorder):
        def apply(self, change: Any, context: Context) -> Any:
            raise KeyboardInterrupt

    member = Member(Interrupted())
    member.feed(session(1))
    with pytest.raises(KeyboardInterrupt):
        member.feed(changes(2, group(1, 1, request("x"))))


def test_a_change_that_does_not_decode_stops() -> None:
    class Refusing(MsgpackCodec):
        def __init__(self) -> None:
            super().__init__(int)

    member = Member(codec=Refusing())
    member.feed(session(1))
    with pytest.raises(BrokenInvariantError, match="change 1 of the committed entry 2"):
        member.feed(changes(2, group(1, 1, request(1), request("x"))))


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (Entry.make(1, BALLOT, EntryKind.NOOP, 5.0), ""),
        (msgspec.structs.replace(noop(1), kind=7), "unknown kind 7"),
        (Entry.make(1, BALLOT, EntryKind.CHANGES, 5.0, b"\xc1"), "entry 1 does not decode"),
        (Entry.make(1, BALLOT, EntryKind.SESSION, 5.0, b"\x91\x09"), "entry 1 does not decode"),
        (Entry.make(1, BALLOT, EntryKind.CONFIG, 5.0, b"\x90\x90"), "entry 1 does not decode"),
    ],
    ids=["good", "kind", "changes", "session", "config"],
)
def test_an_entry_that_is_not_understood_stops(entry: Entry, said: str) -> None:
    """K4: never skipped."""
    member = Member()
    if not said:
        member.feed(entry)
        return
    with pytest.raises(BrokenInvariantError, match=said):
        member.feed(entry)
    assert member.applier.applied == 0


def test_a_group_that_lies_about_its_size_stops() -> None:
    member = Member()
    good = group(1, 1, request("x"))
    with pytest.raises(BrokenInvariantError, match="promises 2 requests and holds 1"):
        member.feed(session(1), changes(2, msgspec.structs.replace(good, count=2)))


def test_the_first_configuration_installs_the_state_to_begin_with() -> None:
    member = Member()
    begun = Configuration((), 0, CODEC.encode_change(["old"]))
    later = Configuration((), 1)
    entries = [
        Entry.make(1, BALLOT, EntryKind.CONFIG, 5.0, encode_configuration(begun)),
        session(2),
        changes(3, group(2, 1, request("x"))),
        Entry.make(4, BALLOT, EntryKind.CONFIG, 5.0, encode_configuration(later)),
    ]
    member.feed(*entries)
    assert member.recorder.applied == ["old", "x"]


def test_changes_and_results_are_collected_only_when_asked_for() -> None:
    member = Member()
    member.feed(session(1), changes(2, group(1, 1, request("x"))))
    assert member.heard.entries == [(1, [], []), (2, [], [])]
    member.applier.collect(True)
    member.feed(changes(3, group(1, 2, request("y"), request("p", "raise")), group(1, 1)))
    seq, given_, encoded = member.heard.entries[-1]
    assert (seq, given_) == (3, ["y", "p", "raise"])
    assert results(list(encoded)) == [2, 3, "ValueError"]
    member.feed(changes(4, group(1, 2, request("y"))))
    assert member.heard.entries[-1] == (4, [], []), "a repetition is no commit"


# -- slices


class Slow(Recorder):
    """A state whose ``apply`` takes time on a clock that stands otherwise."""

    def __init__(self, clock: Still, seconds: float) -> None:
        super().__init__()
        self.clock = clock
        self.seconds = seconds

    def apply(self, change: Any, context: Context) -> Any:
        self.clock.now += self.seconds
        return super().apply(change, context)


def slow(seconds: float) -> tuple[Member, Slow]:
    clock = Still()
    state = Slow(clock, seconds)
    return Member(state, clock=clock, slice_seconds=0.01), state


@pytest.mark.parametrize("seconds", [0.02, 0.5])
def test_a_slow_apply_yields_after_each_request(seconds: float) -> None:
    member, state = slow(seconds)
    member.feed(session(1))
    entry = changes(2, group(1, 1, *(request(n) for n in range(50))))
    assert member.feed(entry) >= 50
    assert state.applied == list(range(50))


def test_a_quick_apply_is_not_cut_to_pieces() -> None:
    member, state = slow(0.0)
    member.feed(session(1))
    assert member.feed(changes(2, group(1, 1, *(request(n) for n in range(500))))) == 1
    assert len(state.applied) == 500


def test_a_slice_takes_about_as_long_as_it_may() -> None:
    member, state = slow(0.0005)
    member.feed(session(1))
    member.log[2] = changes(2, group(1, 1, *(request(n) for n in range(400))))
    longest = 0.0
    finished = False
    while not finished:
        began = member.clock.now
        finished = member.applier.run(member.log.__getitem__, 2)
        longest = max(longest, member.clock.now - began)
    assert longest < 0.03
    assert len(state.applied) == 400


def test_slices_end_where_a_single_request_follows_batches() -> None:
    """Whatever the sizes of batches are, the clock is looked at."""
    member, _ = slow(0.001)
    member.feed(session(1))
    batches = [request(*range(32)) for _ in range(20)]
    assert member.feed(changes(2, group(1, 1, request("x"), *batches))) >= 20


def test_a_slice_never_ends_inside_a_batch() -> None:
    member, state = slow(0.5)
    member.feed(session(1))
    member.log[2] = changes(2, group(1, 1, request("x"), request("p", "q", "r"), request("y")))
    seen = []
    finished = False
    while not finished:
        finished = member.applier.run(member.log.__getitem__, 2)
        seen.append(list(state.applied))
    assert all(("p" in applied) == ("r" in applied) for applied in seen)
    assert len(seen) >= 3


def test_a_slice_ends_between_entries_too() -> None:
    member, _ = slow(0.02)
    one = [changes(2 + n, group(1, 1 + n, request(n))) for n in range(10)]
    assert member.feed(session(1), *one) >= 10


# -- the rolling checksum (R9)


def fed(entries: list[Entry], seconds: float, state: Recorder | None = None) -> Member:
    clock = Still()
    member = Member(state or Slow(clock, seconds), clock=clock, slice_seconds=0.01)
    member.feed(*entries)
    return member


change = st.sampled_from(["x", "raise", "unencodable", 3, ["deep", [1.5]]])
requests = st.lists(change, min_size=1, max_size=3).map(lambda values: request(*values))


@st.composite
def logs(draw: st.DrawFn) -> list[Entry]:
    entries = [session(1)]
    for seq in range(2, draw(st.integers(2, 8))):
        groups: list[Group] = draw(
            st.lists(
                st.builds(
                    lambda number, first, content: group(number, first, *content),
                    st.sampled_from([1, 1, 1, 5]),
                    st.integers(1, 6),
                    st.lists(requests, min_size=1, max_size=4),
                ),
                min_size=1,
                max_size=3,
            )
        )
        entries.append(changes(seq, *groups))
    return entries


@settings(max_examples=60, deadline=None)
@given(logs())
def test_members_that_slice_differently_agree(entries: list[Entry]) -> None:
    quick, slowly = fed(entries, 0.0), fed(entries, 0.02)
    assert quick.applier.checksum == slowly.applier.checksum
    assert quick.outcomes == slowly.outcomes
    assert quick.applier.applied == slowly.applier.applied == len(entries)


def test_each_request_has_one_effect_at_most() -> None:
    """I-15, with groups that overlap in every way."""
    entries = [session(1)]
    for seq, (first, last) in enumerate([(1, 3), (2, 5), (1, 1), (4, 9), (1, 9), (10, 10)], 2):
        content = (request(number) for number in range(first, last + 1))
        entries.append(changes(seq, group(1, first, *content)))
    member = Member()
    member.feed(*entries)
    assert member.recorder.applied == list(range(1, 11))


class Differs(Recorder):
    def __init__(self, answer: Callable[[], Any]) -> None:
        super().__init__()
        self.answer = answer

    def apply(self, change: Any, context: Context) -> Any:
        return self.answer()


def raising(error: Exception) -> Callable[[], Any]:
    def answer() -> Any:
        raise error

    return answer


@pytest.mark.parametrize(
    "other", [lambda: 2, lambda: None, raising(ValueError("x"))], ids=["value", "none", "error"]
)
def test_another_result_shows_in_the_checksum(other: Callable[[], Any]) -> None:
    entries = [session(1), changes(2, group(1, 1, request("x"))), noop(3)]
    one, two = fed(entries, 0, Differs(lambda: 1)), fed(entries, 0, Differs(other))
    assert one.applier.checksum != two.applier.checksum


def test_another_text_of_the_same_error_does_not() -> None:
    entries = [session(1), changes(2, group(1, 1, request("x"), request("p", "q")))]
    one = fed(entries, 0, Differs(raising(ValueError("at 0x1"))))
    assert (
        one.applier.checksum
        == fed(entries, 0, Differs(raising(ValueError("at 0x2")))).applier.checksum
    )
    assert one.applier.checksum != fed(entries, 0, Differs(raising(KeyError("k")))).applier.checksum


def test_another_log_shows_in_the_checksum() -> None:
    seen = {fed([noop(1), noop(2, time=when)], 0).applier.checksum for when in (5.0, 6.0)}
    assert len(seen) == 2


def test_what_raises_in_a_listener_is_not_an_answer() -> None:
    class Failing(Heard):
        def on_entry(self, seq: int, changes: list[Any], results: list[bytes]) -> None:
            raise ValueError("the handler's own")

    member = Member()
    member.applier._listener = Failing()
    with pytest.raises(ValueError, match="the handler's own"):
        member.feed(noop(1))


def test_there_is_nothing_to_do_where_all_is_applied() -> None:
    def never(seq: int) -> Entry:
        raise AssertionError(seq)

    member = Member()
    assert member.applier.run(never, 0)
    entries: Iterator[Entry] = iter([noop(1)])
    assert member.applier.run(lambda seq: next(entries), 1)
    assert member.applier.run(never, 1)


# -- snapshots


def install(member: Member, taken: Capture) -> None:
    """Let a member begin anew with what another one captured."""
    member.applier.begin_install()
    installed = member.applier.install(
        taken.seq,
        taken.checksum,
        taken.time,
        encode_saved(taken.sessions),
        io.BytesIO(whole(taken.state)),
    )
    member.applier.end_install(installed)


@settings(max_examples=60, deadline=None)
@given(logs(), st.integers(0, 8), st.integers(0, 8))
def test_a_member_that_begins_with_a_snapshot_is_like_one_that_applied_all(
    entries: list[Entry], cut: int, behind: int
) -> None:
    """I-14, X1: wherever it is taken, and whatever was there before."""
    whole_log = fed(entries, 0.0)
    cut = min(cut, len(entries))
    source = fed(entries[:cut], 0.0)
    other = fed(entries[: min(cut, behind)], 0.0)
    install(other, source.applier.capture())
    assert other.applier.checksum == source.applier.checksum
    assert other.applier.sessions.export() == source.applier.sessions.export()
    other.feed(*entries[cut:])
    assert other.applier.checksum == whole_log.applier.checksum
    assert other.applier.applied == len(entries)
    assert other.applier.time == whole_log.applier.time
    assert other.applier.state.snapshot() == whole_log.applier.state.snapshot()
    assert other.applier.sessions.export() == whole_log.applier.sessions.export()


def test_a_request_from_before_the_snapshot_is_not_executed_behind_it() -> None:
    """I-15 through a snapshot."""
    source, other = Member(), Member()
    once = group(1, 1, request("x"), request("y"))
    source.feed(session(1), changes(2, once))
    install(other, source.applier.capture())
    other.feed(changes(3, once, group(1, 3, request("z"))))
    assert other.recorder.applied == ["x", "y", "z"]
    assert [results(found) for found in other.outcomes] == [[1, 2], [3]]


def test_a_capture_does_not_change_any_more() -> None:
    member, other = Member(), Member()
    member.feed(session(1), changes(2, group(1, 1, request("x"))))
    taken = member.applier.capture()
    member.feed(changes(3, group(1, 2, request("y"), acked_below=2), time=9.0))
    install(other, taken)
    assert (taken.seq, other.applier.applied, other.applier.time) == (2, 2, 5.0)
    held = other.applier.sessions.get(1)
    assert held is not None
    assert list(held.outcomes) == [1]
    assert other.recorder.applied == ["x"]


def half_way() -> tuple[Member, Slow]:
    """A member in the middle of entry 2, which collects changes."""
    member, state = slow(0.5)
    member.applier.collect(True)
    member.feed(session(1))
    member.log[2] = changes(2, group(1, 1, *(request(n) for n in range(3))))
    member.log[3] = noop(3)
    assert not member.applier.run(member.log.__getitem__, 3)
    return member, state


def test_nothing_is_captured_in_the_middle_of_an_entry() -> None:
    """S5: a snapshot covers exactly what its sequence says."""
    member, state = half_way()
    with pytest.raises(SnapshotError, match="in the middle of entry 2"):
        member.applier.capture()
    member.applier.stop_between_entries()
    state.seconds = 0.0
    assert not member.applier.run(member.log.__getitem__, 3), "the slice goes on behind the entry"
    assert member.applier.capture().seq == 2
    assert member.applier.run(member.log.__getitem__, 3)
    assert member.applier.applied == 3


def test_an_install_drops_the_entry_that_is_applied_by_half() -> None:
    source = Member()
    source.feed(session(1), changes(2, group(1, 1, *(request(n) for n in range(3)))), noop(3))
    member, state = half_way()
    install(member, source.applier.capture())
    assert state.applied == [0, 1, 2]
    member.feed(changes(4, group(1, 4, request("z"))))
    assert state.applied == [0, 1, 2, "z"]
    assert member.heard.entries[-1][1] == ["z"], "nothing of the dropped entry is told later"


def test_an_install_shows_when_it_is_complete() -> None:
    """S4: sequence, checksum, time and sessions change together; nothing is applied meanwhile."""
    source, member = Member(), Member()
    source.feed(session(1), changes(2, group(1, 1, request("x")), time=7.5))
    applier, taken = member.applier, source.applier.capture()
    applier.begin_install()
    state = io.BytesIO(whole(taken.state))
    installed = applier.install(taken.seq, 77, 7.5, encode_saved(taken.sessions), state)
    assert (applier.applied, applier.checksum, applier.time, len(applier.sessions)) == (0, 0, 0, 0)
    assert applier.installing
    with pytest.raises(BrokenInvariantError, match="while a snapshot"):
        member.feed(noop(1))
    with pytest.raises(SnapshotError, match="being installed"):
        applier.capture()
    applier.end_install(installed)
    assert (applier.applied, applier.checksum, applier.time) == (2, 77, 7.5)
    assert len(applier.sessions) == 1
    assert not applier.installing


def test_an_older_snapshot_is_refused() -> None:
    member = Member()
    member.feed(noop(1), noop(2))
    member.applier.begin_install()
    with pytest.raises(BrokenInvariantError, match="no successor of 2"):
        member.applier.install(1, 0, 0.0, [], io.BytesIO())
    member = Member()
    with pytest.raises(BrokenInvariantError, match="beside the applying"):
        member.applier.install(1, 0, 0.0, [], io.BytesIO())


class BadSnapshots(Recorder):
    """A state whose snapshots are not worth much."""

    def __init__(self, taken: Any, installed: BaseException | None = None) -> None:
        super().__init__()
        self.taken = taken
        self.installed = installed

    def snapshot(self) -> Any:
        if isinstance(self.taken, BaseException):
            raise self.taken
        return self.taken

    def install(self, snapshot: Readable) -> None:
        if self.installed is not None:
            raise self.installed


@pytest.mark.parametrize(
    ("taken", "said"),
    [
        (ValueError("no"), "raised ValueError: no, after sequence 1"),
        (MemoryError(), "raised MemoryError"),
        (None, "returned a NoneType"),
        ("text", "returned a str"),
        (bytearray(b"x"), "returned a bytearray"),
        (5, "returned a int"),
    ],
)
def test_a_snapshot_that_cannot_be_taken_changes_nothing(taken: Any, said: str) -> None:
    member = Member(BadSnapshots(taken))
    member.feed(noop(1))
    with pytest.raises(SnapshotError, match=said):
        member.applier.capture()
    member.feed(noop(2))
    assert member.applier.applied == 2


@pytest.mark.parametrize("error", [ValueError("no"), MemoryError(), SystemExit(3)])
def test_a_state_that_does_not_install_stops(error: BaseException) -> None:
    member = Member(BadSnapshots(b"", error))
    member.applier.begin_install()
    with pytest.raises(BrokenInvariantError, match="sequence 3 cannot be installed") as caught:
        member.applier.install(3, 0, 0.0, [], io.BytesIO())
    assert caught.value.__cause__ is error
    assert member.applier.applied == 0


def test_damage_that_is_found_while_installing_is_told_as_such() -> None:
    member = Member(BadSnapshots(b"", DamagedError("bit 5")))
    member.applier.begin_install()
    with pytest.raises(DamagedError, match="bit 5"):
        member.applier.install(3, 0, 0.0, [], io.BytesIO())


def test_sessions_that_contradict_themselves_stop_before_the_state_is_touched() -> None:
    source, member = Member(), Member()
    source.feed(session(1))
    pieces = source.applier.sessions.export()
    member.applier.begin_install()
    with pytest.raises(BrokenInvariantError, match="in it twice"):
        member.applier.install(3, 0, 0.0, pieces * 2, io.BytesIO(b"\xc1"))
