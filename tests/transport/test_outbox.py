"""The bounded queue of one peer."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from clusterconsensus.transport.common import Counters
from clusterconsensus.transport.outbox import MESSAGE_BYTES, WRITE_BYTES, Outbox


def filled(limit: int, sizes: list[int]) -> tuple[Outbox, Counters]:
    counters = Counters()
    outbox = Outbox(limit, counters)
    for index, size in enumerate(sizes):
        outbox.add(1, size, (bytes([index % 256]) * size,), float(index))
    return outbox, counters


@given(st.lists(st.integers(1, 500), min_size=1, max_size=50), st.integers(1, 5_000))
def test_the_newest_stay_whole_and_within_the_limit(sizes: list[int], limit: int) -> None:
    outbox, counters = filled(limit, sizes)
    kept = len(outbox)
    assert outbox.size <= limit or kept == 1
    assert counters.dropped_queue_full == len(sizes) - kept
    expected = b"".join(bytes([i]) * size for i, size in enumerate(sizes))
    content = outbox.take()
    assert content == expected[len(expected) - sum(sizes[len(sizes) - kept :]) :]
    assert outbox.size == 0
    assert (counters.messages_sent, counters.bytes_sent) == (kept, len(content))


def test_a_closing_survives_the_messages_around_it() -> None:
    outbox, counters = filled(2 * MESSAGE_BYTES + 20, [10])
    outbox.add_control(1, b"close")
    for _ in range(3):
        outbox.add(2, 10, (b"x" * 10,), 0.0)
    assert counters.dropped_queue_full == 2
    assert outbox.take() == b"close" + b"x" * 20


def test_writes_are_cut_between_messages() -> None:
    outbox, _ = filled(10 * WRITE_BYTES, [WRITE_BYTES, WRITE_BYTES])
    assert len(outbox.take()) == WRITE_BYTES
    assert len(outbox.take()) == WRITE_BYTES
    assert outbox.take() == b""


def test_stale_and_closed_channels_messages_go() -> None:
    outbox, counters = filled(10_000, [1, 1, 1])
    outbox.drop_before(2.0)
    assert (len(outbox), counters.dropped_stale) == (1, 2)
    outbox.add(2, 5, (b"other",), 3.0)
    outbox.keep({2})
    assert counters.dropped_not_attached == 1
    assert outbox.size == 5 + MESSAGE_BYTES
    assert outbox.take() == b"other"
