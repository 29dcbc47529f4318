"""Snapshot files: whole or not there, whatever happens to the writer, the disk and the bytes."""

from __future__ import annotations

import errno
import struct
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from zlib import crc32

import pytest

from clusterconsensus.consensus.types import (
    Configuration,
    Position,
    Seat,
    SnapshotId,
    Standing,
)
from clusterconsensus.errors import (
    DamagedError,
    DiskFullError,
    SnapshotError,
    StorageError,
    WrongDirectoryError,
)
from clusterconsensus.simulation.journals.power import crash_states, whole_writes
from clusterconsensus.simulation.world.disk import Disk, DiskFile, PowerFailure
from clusterconsensus.storage import snapshot_format, snapshots
from clusterconsensus.storage.files import RealFiles
from clusterconsensus.storage.snapshot_files import examine, snapshot_names, snapshot_path
from clusterconsensus.storage.snapshot_format import (
    MORE,
    PIECE_BYTES,
    Kind,
    SnapshotFile,
    SnapshotHead,
    encode,
)
from clusterconsensus.storage.snapshots import SnapshotStore
from tests.storage.model import PATH, after_power_failure, ballot, entries

GOLDEN = Path(__file__).parent / "golden" / "snapshot-v1.snap"
SESSIONS = [b"first", b"", b"third session"]
STATE = bytes(range(256)) * 2


def head(seq: int, instance: int = 2) -> SnapshotHead:
    seat = Seat("a", "d1", "127.0.0.1:1", Standing.VOTER)
    return SnapshotHead(
        cluster="shop",
        cluster_id="c1",
        member_id="a",
        position=Position(ballot(instance), seq),
        configuration_seq=1,
        configuration=Configuration((seat,), 0, b"the beginning"),
        time=1000.5,
        checksum=0xFEED,
        level=2,
    )


def disk() -> Disk:
    files = Disk()
    files.make_directory("/var")
    files.sync_directory("/")
    files.make_directory(PATH)
    files.sync_directory("/var")
    return files


def opened(files: Disk, max_snapshot_bytes: int = 1 << 30) -> SnapshotStore:
    store = SnapshotStore(files, PATH, max_snapshot_bytes=max_snapshot_bytes)
    store.open()
    return store


def seqs(store: SnapshotStore) -> list[int]:
    return [found.seq for found in store.ids]


def file_bytes(seq: int, state: bytes = STATE, sessions: Iterable[bytes] = SESSIONS) -> bytes:
    return b"".join(encode(head(seq), sessions, state))


def source(seq: int, state: bytes = STATE) -> tuple[Disk, SnapshotId]:
    """Another member's disk with a snapshot to send."""
    files = disk()
    return files, opened(files).write(head(seq), SESSIONS, state)


def write_raw(files: Disk, path: str, data: bytes) -> None:
    file = files.create(path)
    file.pwrite(data, 0)
    file.datasync()
    files.sync_directory(PATH)


# -- the format


def test_the_golden_file_is_written_and_read_byte_for_byte() -> None:
    data = b"".join(encode(head(7), SESSIONS, [STATE[:100], STATE[100:]], entries(8, 2, 2)))
    assert data == GOLDEN.read_bytes()
    found, back, totals = examine(RealFiles(), str(GOLDEN))
    assert found.position == Position(ballot(2), 7)
    assert found.size_bytes == len(data)
    assert (totals.sessions, totals.state_bytes, totals.entries) == (3, 512, 2)
    assert back.configuration.initial is None, "the state says it already"
    assert back.configuration.seats == head(7).configuration.seats
    assert (back.checksum, back.time, back.level, back.cluster_id) == (0xFEED, 1000.5, 2, "c1")
    file = SnapshotFile(RealFiles(), str(GOLDEN))
    items = list(file.items())
    assert [content for kind, content in items if kind == Kind.SESSION] == SESSIONS
    assert b"".join(content for kind, content in items if kind == Kind.STATE) == STATE
    kept = [file.entry(content) for kind, content in items if kind == Kind.ENTRY]
    assert kept == list(entries(8, 2, 2))


def test_any_flipped_byte_and_any_truncation_is_found() -> None:
    data = GOLDEN.read_bytes()
    files = disk()
    path = f"{PATH}/some.snap"
    for offset in range(len(data)):
        for flip in (0x01, 0x80, 0xFF):
            changed = bytearray(data)
            changed[offset] ^= flip
            write_raw(files, path, bytes(changed))
            with pytest.raises(DamagedError, match=r"some\.snap"):
                examine(files, path)
    for size in range(len(data)):
        write_raw(files, path, data[:size])
        with pytest.raises(DamagedError, match=r"some\.snap"):
            examine(files, path)
    write_raw(files, path, data + b"\0")
    with pytest.raises(DamagedError, match=f"offset {len(data)}: bytes stand behind the end"):
        examine(files, path)


def pieces_of(data: bytes) -> tuple[bytes, list[bytes]]:
    """Cut a file into its head and its pieces."""
    length = int.from_bytes(data[12:16], "little")
    at = 20 + length
    start, found = data[:at], []
    while at < len(data):
        size = 9 + int.from_bytes(data[at + 1 : at + 5], "little")
        found.append(data[at : at + size])
        at += size
    return start, found


def test_a_lost_repeated_swapped_or_foreign_piece_is_found() -> None:
    state = bytes(3 * PIECE_BYTES)  # three equal pieces
    start, pieces = pieces_of(file_bytes(7, state))
    _, others = pieces_of(file_bytes(8, state))
    assert len(pieces) == 7
    files = disk()
    path = f"{PATH}/some.snap"
    wrong = [[*pieces[:place], *pieces[place + 1 :]] for place in range(len(pieces))]
    wrong += [[*pieces[:place], pieces[place], *pieces[place:]] for place in range(len(pieces))]
    wrong += [
        [*pieces[:place], pieces[place + 1], pieces[place], *pieces[place + 2 :]]
        for place in range(len(pieces) - 1)
    ]
    wrong += [[*pieces[:place], others[place], *pieces[place + 1 :]] for place in range(7)]
    for found in wrong:
        write_raw(files, path, start + b"".join(found))
        with pytest.raises(DamagedError):
            examine(files, path)
    write_raw(files, path, start + b"".join(pieces))
    examine(files, path)


def test_the_state_is_cut_the_same_however_it_is_handed_out() -> None:
    state = bytes(range(251)) * 4000
    whole = b"".join(encode(head(7), SESSIONS, state))
    for size in (1000, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, len(state)):
        parts = [state[at : at + size] for at in range(0, len(state), size)]
        assert b"".join(encode(head(7), SESSIONS, [b"", *parts, b""])) == whole
    _, pieces = pieces_of(whole)
    assert max(map(len, pieces)) <= PIECE_BYTES + 9
    assert b"".join(encode(head(7), [], memoryview(b""))) == b"".join(encode(head(7), [], []))


def test_large_sessions_and_entries_are_split_and_joined() -> None:
    files = disk()
    path = f"{PATH}/some.snap"
    for size in (PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES, 3_000_001):
        sessions = [b"s" * size, b"between", b"t" * size]
        large = entries(8, 2, 2, size)
        parts = list(encode(head(7), sessions, b"", large))
        assert max(map(len, parts)) <= PIECE_BYTES + 9
        write_raw(files, path, b"".join(parts))
        file = SnapshotFile(files, path)
        items = list(file.items())
        assert [content for kind, content in items if kind == Kind.SESSION] == sessions
        assert [file.entry(each) for kind, each in items if kind == Kind.ENTRY] == list(large)


def test_a_format_of_the_future_is_refused_and_left_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = disk()
    with monkeypatch.context() as future:
        future.setattr(snapshot_format, "FORMAT_VERSION", 2)
        data = file_bytes(7)
    path = snapshot_path(PATH, 7)
    write_raw(files, path, data)
    with pytest.raises(WrongDirectoryError, match="has format version 2; this program reads"):
        SnapshotStore(files, PATH).open()
    assert files.list_directory(PATH) == [path.rpartition("/")[2]]


def test_bytes_that_fit_their_checksum_and_make_no_sense(monkeypatch: pytest.MonkeyPatch) -> None:
    files = disk()
    path = f"{PATH}/some.snap"
    cases: list[Callable[[], bytes]] = [
        lambda: b"".join(encode(head(-1), [], b"")),
        lambda: b"".join(
            encode(
                SnapshotHead(
                    cluster="shop",
                    cluster_id="",
                    member_id="a",
                    position=Position(ballot(1), 3),
                    configuration_seq=4,
                    configuration=Configuration(),
                    time=0.0,
                    checksum=0,
                ),
                [],
                b"",
            )
        ),
    ]
    for case in cases:
        write_raw(files, path, case())
        with pytest.raises(DamagedError, match="contradicts itself"):
            examine(files, path)
    with monkeypatch.context() as other:
        other.setattr(snapshot_format, "_encode_head", lambda head: b"\xc1")
        write_raw(files, path, file_bytes(7))
    with pytest.raises(DamagedError, match="the head is damaged"):
        examine(files, path)
    write_raw(files, path, b"#!/bin/sh\n" * 10)
    with pytest.raises(DamagedError, match="is no snapshot"):
        examine(files, path)
    with monkeypatch.context() as other:
        other.setattr(snapshot_format, "PIECE_BYTES", 2 * 1024 * 1024)
        write_raw(files, path, file_bytes(7, bytes(2 * 1024 * 1024)))
    with pytest.raises(DamagedError, match="no piece begins"):
        examine(files, path)


def test_pieces_in_another_order_are_damage_though_their_checksums_fit() -> None:
    files = disk()
    path = f"{PATH}/some.snap"
    start, _ = pieces_of(file_bytes(7))
    crc = int.from_bytes(start[16:20], "little")
    wrong: list[list[tuple[int, bytes]]] = [
        [(Kind.STATE, b"state"), (Kind.SESSION, b"session")],
        [(Kind.ENTRY, b"entry"), (Kind.STATE, b"state")],
        [(Kind.SESSION | MORE, b"half a session"), (Kind.STATE, b"state")],
        [(Kind.SESSION | MORE, b"half a session"), (Kind.END, b"")],
        [(Kind.STATE | MORE, b"state"), (Kind.STATE, b"state")],
        [(Kind.END | MORE, b""), (Kind.END, b"")],
    ]
    for pieces in wrong:
        chain, data = crc, start
        for kind, content in pieces:
            checked = struct.pack("<BI", kind, len(content))
            chain = crc32(content, crc32(checked, chain))
            data += checked + struct.pack("<I", chain) + content
        write_raw(files, path, data)
        with pytest.raises(DamagedError, match="stands where it does not belong"):
            examine(files, path)


# -- writing and reading back


def test_what_was_written_is_read_back() -> None:
    files = disk()
    store = opened(files)
    assert seqs(store) == []
    state = bytes(range(256)) * 5000
    found = store.write(head(7), SESSIONS, [state[:1000], state[1000:]])
    assert store.ids == (found,)
    path = snapshot_path(PATH, 7)
    assert found.size_bytes == files.size(path)
    assert files.list_directory(PATH) == ["snapshot-00000000000000000007.snap"]
    back, sessions, reader = store.load(found)
    assert back == store.head(found)
    assert back.position == head(7).position
    assert sessions == SESSIONS
    assert reader.read(0) == b""
    assert reader.read(10) == state[:10]
    assert reader.read(PIECE_BYTES) == state[10 : PIECE_BYTES + 10]
    assert reader.read() == state[PIECE_BYTES + 10 :]
    assert reader.read() == reader.read(5) == b""
    again = opened(files)
    assert again.ids == (found,)
    assert again.damaged == []


@pytest.mark.parametrize("state", [b"", b"x", bytes(PIECE_BYTES), [], [b"", b"ab", b""]])
def test_states_of_any_kind(state: bytes | list[bytes]) -> None:
    store = opened(disk())
    found = store.write(head(1), [], state)
    _, sessions, reader = store.load(found)
    assert sessions == []
    assert reader.read() == (state if isinstance(state, bytes) else b"".join(state))


def test_it_survives_the_power_failure_after_it_was_written() -> None:
    files = disk()
    found = opened(files).write(head(7), SESSIONS, STATE)
    assert opened(after_power_failure(files)).ids == (found,)


def test_an_older_or_equal_one_never_replaces_a_newer() -> None:
    store = opened(disk())
    found = store.write(head(7), SESSIONS, STATE)
    for seq in (6, 7):
        with pytest.raises(SnapshotError, match="up to 7"):
            store.write(head(seq, 3), [], b"other")
        with pytest.raises(SnapshotError, match="up to 7"):
            store.write(head(seq, 3), [], raising())  # not even asked for
    assert store.ids == (found,)
    assert store.load(found)[2].read() == STATE


class InterruptedWritingError(Exception):
    """Somebody wants the writing to end."""


def test_the_writer_is_asked_to_pause_between_pieces() -> None:
    store = opened(disk())
    pauses: list[float] = []
    given = 0

    def parts() -> Iterator[bytes]:
        nonlocal given
        for _ in range(64):
            given += 1
            yield bytes(8 * 1024)

    store.write(head(1), SESSIONS, parts(), pauses.append)
    assert 64 * 8 // 32 <= len(pauses) <= 100
    assert all(0.0 <= pause < 10.0 for pause in pauses)
    given = 0

    def stop(seconds: float) -> None:
        raise InterruptedWritingError

    with pytest.raises(InterruptedWritingError):
        store.write(head(2), SESSIONS, parts(), stop)
    assert given <= 8
    assert seqs(store) == [1]


def raising() -> Iterator[bytes]:
    yield b"some"
    raise KeyError("the account")


def numbers() -> Iterator[bytes]:
    yield 7  # type: ignore[misc]  # what a state may do in spite of its types


def nothing() -> bytes:
    return None  # type: ignore[return-value]  # what a state may do in spite of its types


@pytest.mark.parametrize(
    ("sessions", "state", "words"),
    [
        ([], raising(), "the state's snapshot raised KeyError: 'the account'"),
        ([], numbers(), "the state's snapshot gave a int where bytes belong"),
        ([], nothing(), "the state's snapshot cannot be read: TypeError"),
        (raising(), b"", "the sessions raised KeyError"),
    ],
)
def test_a_state_that_fails_costs_nothing_but_the_snapshot(
    sessions: Iterable[bytes], state: Iterable[bytes] | bytes, words: str
) -> None:
    files = disk()
    store = opened(files)
    old = store.write(head(1), SESSIONS, STATE)
    with pytest.raises(SnapshotError, match=words):
        store.write(head(2), sessions, state)
    assert files.list_directory(PATH) == ["snapshot-00000000000000000001.snap"]
    assert store.ids == (old,)
    store.write(head(2), SESSIONS, STATE)


def test_a_full_disk_costs_nothing_but_the_snapshot() -> None:
    files = disk()
    store = opened(files)
    old = store.write(head(1), SESSIONS, STATE)
    for capacity in range(files.size(snapshot_path(PATH, 1)), 2000, 100):
        files.capacity_bytes = capacity
        with pytest.raises(DiskFullError, match=r"snapshot-0*2\.snap: the snapshot cannot be"):
            store.write(head(2), SESSIONS, bytes(2000))
        assert files.list_directory(PATH) == ["snapshot-00000000000000000001.snap"]
    files.capacity_bytes = 1 << 30
    assert store.write(head(2), SESSIONS, bytes(2000)).seq == 2
    assert store.ids[1] == old


@pytest.mark.parametrize(
    "operation", ["create", "pwrite", "datasync", "read", "rename", "sync_directory"]
)
def test_a_disk_error_costs_nothing_but_the_snapshot(operation: str) -> None:
    files = disk()
    store = opened(files)
    old = store.write(head(1), SESSIONS, STATE)
    files.fail_next(operation, OSError(errno.EIO, "input/output error"))
    with pytest.raises(SnapshotError, match="input/output error"):
        store.write(head(2), SESSIONS, STATE)
    assert store.ids == (old,)
    assert files.list_directory(PATH) == ["snapshot-00000000000000000001.snap"]
    new = store.write(head(2), SESSIONS, STATE)
    assert opened(after_power_failure(files)).ids == (new, old)


def test_what_reads_back_other_than_it_was_written_is_not_kept() -> None:
    files = disk()
    store = opened(files)

    def rot(operation: str, path: str) -> None:
        if operation == "datasync":
            # The last write before the sync rots on its way.
            content = files.content(path)
            content.cached[-1] ^= 1

    files.before = rot
    with pytest.raises(SnapshotError, match="of no use"):
        store.write(head(1), SESSIONS, STATE)
    assert files.list_directory(PATH) == []


def test_writing_syncs_as_it_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "SYNC_BYTES", 2 * PIECE_BYTES)
    files = disk()
    store = opened(files)
    unsynced: list[int] = []

    def watch(operation: str, path: str) -> None:
        if operation == "datasync":
            unsynced.append(sum(len(data) for _, data in files.content(path).writes))

    files.before = watch
    store.write(head(1), [], bytes(20 * PIECE_BYTES))
    assert len(unsynced) >= 10
    assert max(unsynced) <= 3 * PIECE_BYTES


# -- opening


def test_leftovers_are_removed_and_other_files_left() -> None:
    files = disk()
    store = opened(files)
    found = store.write(head(3), SESSIONS, STATE)
    for name in (
        "snapshot-00000000000000000009.snap.new",
        "snapshot-00000000000000000008.received.new",
        "identity.new",
        "journal-00000001.log",
        "notes",
    ):
        write_raw(files, f"{PATH}/{name}", b"some")
    assert opened(files).ids == (found,)
    assert files.list_directory(PATH) == [
        "identity.new",
        "journal-00000001.log",
        "notes",
        "snapshot-00000000000000000003.snap",
    ]


def test_a_damaged_snapshot_is_set_aside_and_the_older_one_serves() -> None:
    files = disk()
    store = opened(files)
    older = store.write(head(3), SESSIONS, STATE)
    newer = store.write(head(5), SESSIONS, STATE)
    assert store.ids == (newer, older)
    assert files.flip(snapshot_path(PATH, 5), 200, 3)
    again = SnapshotStore(files, PATH)
    assert again.open() == [older]
    assert len(again.damaged) == 1
    assert f"{snapshot_path(PATH, 5)}: at offset" in again.damaged[0]
    assert files.list_directory(PATH) == [
        "damaged-00000000000000000005.snap",
        "snapshot-00000000000000000003.snap",
    ]
    assert again.write(head(5), SESSIONS, STATE) == newer
    assert opened(files).damaged == []


@pytest.mark.parametrize("data", [b"", b"CCSNAP\r\n", file_bytes(8)])
def test_a_file_that_is_not_what_its_name_says_is_not_believed(data: bytes) -> None:
    files = disk()
    write_raw(files, snapshot_path(PATH, 7), data)
    store = SnapshotStore(files, PATH)
    assert store.open() == []
    assert snapshot_path(PATH, 7) in store.damaged[0]


def test_a_backup_is_no_snapshot() -> None:
    files = disk()
    data = b"".join(encode(head(7), SESSIONS, STATE, entries(8, 2, 2)))
    write_raw(files, snapshot_path(PATH, 7), data)
    assert SnapshotStore(files, PATH).open() == []


def test_a_directory_that_cannot_be_opened_is_named() -> None:
    with pytest.raises(StorageError, match="/nowhere: the snapshots cannot be opened"):
        SnapshotStore(disk(), "/nowhere").open()
    files = disk()
    write_raw(files, snapshot_path(PATH, 7), b"damaged")
    files.fail_next("rename", OSError(errno.EROFS, "read-only file system"))
    with pytest.raises(StorageError, match="read-only"):
        SnapshotStore(files, PATH).open()


def test_what_the_disk_does_not_give_back_is_damaged() -> None:
    files = disk()
    opened(files).write(head(3), SESSIONS, STATE)
    files.fail_next("read", OSError(errno.EIO, "input/output error"))
    store = SnapshotStore(files, PATH)
    assert store.open() == []
    assert "offset 0: it cannot be read: [Errno 5] input/output error" in store.damaged[0]


# -- on the wire


def send(
    sender: SnapshotStore, receiver: SnapshotStore, snapshot: SnapshotId, size: int = 100
) -> int:
    offset = 0
    while chunk := sender.read_chunk(snapshot, offset, size):
        offset = receiver.receive(snapshot, offset, chunk)
    return offset


def test_a_snapshot_is_received_in_chunks() -> None:
    there, snapshot = source(7)
    sender = opened(there)
    files = disk()
    store = opened(files)
    assert send(sender, store, snapshot) == snapshot.size_bytes
    assert seqs(store) == []
    assert store.finish(snapshot) == sender.head(snapshot)
    assert store.ids == (snapshot,)
    assert store.load(snapshot)[2].read() == STATE
    assert opened(after_power_failure(files)).ids == (snapshot,)
    assert files.list_directory(PATH) == ["snapshot-00000000000000000007.snap"]
    # Whatever comes late changes nothing.
    assert store.receive(snapshot, 0, b"late") == snapshot.size_bytes
    assert store.finish(snapshot) == sender.head(snapshot)
    assert store.load(snapshot)[2].read() == STATE


def test_repeated_early_and_foreign_pieces() -> None:
    there, snapshot = source(7)
    sender = opened(there)
    store = opened(disk())
    first = sender.read_chunk(snapshot, 0, 100)
    assert store.receive(snapshot, 100, first) == 0
    assert store.receive(snapshot, 0, first) == 100
    assert store.receive(snapshot, 0, first) == 100
    assert store.receive(snapshot, 300, first) == 100
    assert store.receive(snapshot, 100, b"") == 100
    others, newer = source(9, b"other")
    other = opened(others)
    assert store.receive(newer, 50, other.read_chunk(newer, 50, 50)) == 0
    assert store.receive(newer, 0, other.read_chunk(newer, 0, 50)) == 50
    assert store.receive(snapshot, 100, sender.read_chunk(snapshot, 100, 100)) == 0
    with pytest.raises(SnapshotError, match="nothing was received of it"):
        store.finish(newer)
    assert send(sender, store, snapshot) == snapshot.size_bytes
    store.finish(snapshot)


def test_sizes_that_cannot_be_are_refused() -> None:
    files = disk()
    store = opened(files, max_snapshot_bytes=1000)
    large = SnapshotId(Position(ballot(1), 5), 1001, 0)
    with pytest.raises(SnapshotError, match="1001 bytes are not received: at most 1000"):
        store.receive(large, 0, b"some")
    small = SnapshotId(Position(ballot(1), 5), 10, 0)
    assert store.receive(small, 0, b"12345678") == 8
    with pytest.raises(SnapshotError, match="a piece up to 12 was sent"):
        store.receive(small, 8, b"1234")
    assert files.list_directory(PATH) == []
    assert store.receive(small, 0, b"1234567890") == 10
    with pytest.raises(SnapshotError, match="of no use"):
        store.finish(small)
    assert files.list_directory(PATH) == []


def test_what_was_damaged_on_the_way_is_dropped_and_the_transfer_begins_anew() -> None:
    there, snapshot = source(7)
    sender = opened(there)
    files = disk()
    store = opened(files)
    with pytest.raises(SnapshotError, match="nothing was received"):
        store.finish(snapshot)
    for wrong in (
        SnapshotId(snapshot.position, snapshot.size_bytes, snapshot.crc ^ 1),
        SnapshotId(Position(ballot(1), 7), snapshot.size_bytes, snapshot.crc),
        SnapshotId(Position(ballot(2), 8), snapshot.size_bytes, snapshot.crc),
    ):
        data = sender.read_chunk(snapshot, 0, 1 << 20)
        assert store.receive(wrong, 0, data) == snapshot.size_bytes
        with pytest.raises(SnapshotError, match="what was received is not"):
            store.finish(wrong)
        assert store.receive(wrong, 10, b"next") == 0
    store.receive(snapshot, 0, data[:100])
    with pytest.raises(SnapshotError, match=f"100 of {snapshot.size_bytes} bytes were received"):
        store.finish(snapshot)
    store.receive(snapshot, 0, data[:100])
    store.receive(snapshot, 100, bytes(100))
    store.receive(snapshot, 200, data[200:])
    with pytest.raises(SnapshotError, match="of no use"):
        store.finish(snapshot)
    assert files.list_directory(PATH) == []
    assert send(sender, store, snapshot) == snapshot.size_bytes
    store.finish(snapshot)


def test_a_received_one_that_is_not_newer_is_refused() -> None:
    there, snapshot = source(7, b"theirs")
    store = opened(disk())
    own = store.write(head(7), SESSIONS, STATE)
    send(opened(there), store, snapshot)
    with pytest.raises(SnapshotError, match="up to 7"):
        store.finish(snapshot)
    assert store.ids == (own,)
    assert store.load(own)[2].read() == STATE


def test_a_full_disk_while_receiving() -> None:
    there, snapshot = source(7, bytes(10_000))
    sender = opened(there)
    files = disk()
    store = opened(files)
    files.capacity_bytes = 5000
    with pytest.raises(DiskFullError, match="cannot be received: 5000 are free"):
        store.receive(snapshot, 0, sender.read_chunk(snapshot, 0, 100))
    files.honest = False
    with pytest.raises(DiskFullError):
        send(sender, store, snapshot, 1000)
    assert files.list_directory(PATH) == []
    files.capacity_bytes = 1 << 30
    assert store.receive(snapshot, 1000, b"next") == 0
    send(sender, store, snapshot, 1000)
    store.finish(snapshot)


@pytest.mark.parametrize("operation", ["datasync", "read", "rename", "sync_directory"])
def test_a_disk_error_while_finishing_drops_what_was_received(operation: str) -> None:
    there, snapshot = source(7)
    sender = opened(there)
    files = disk()
    store = opened(files)
    send(sender, store, snapshot)
    files.fail_next(operation, OSError(errno.EIO, "input/output error"))
    with pytest.raises(SnapshotError, match="input/output error"):
        store.finish(snapshot)
    assert files.list_directory(PATH) == []
    assert store.receive(snapshot, 5, b"next") == 0
    send(sender, store, snapshot)
    store.finish(snapshot)


def test_after_a_restart_receiving_begins_anew() -> None:
    there, snapshot = source(7)
    sender = opened(there)
    files = disk()
    opened(files).receive(snapshot, 0, sender.read_chunk(snapshot, 0, 100))
    files.after_process_crash()
    store = opened(files)
    assert files.list_directory(PATH) == []
    assert store.receive(snapshot, 100, sender.read_chunk(snapshot, 100, 100)) == 0
    store.receive(snapshot, 0, sender.read_chunk(snapshot, 0, 100))
    store.close()
    assert files.list_directory(PATH) == []


def test_a_snapshot_may_be_written_while_another_is_received() -> None:
    there, snapshot = source(7)
    sender = opened(there)
    store = opened(disk())
    data = sender.read_chunk(snapshot, 0, 1 << 20)
    store.receive(snapshot, 0, data[:100])
    own = store.write(head(5), SESSIONS, b"own")
    store.receive(snapshot, 100, data[100:])
    store.finish(snapshot)
    assert store.ids == (snapshot, own)


# -- keeping, checking, losing


def test_only_what_is_kept_stays() -> None:
    files = disk()
    store = opened(files)
    held = [store.write(head(seq), SESSIONS, STATE) for seq in range(1, 6)]
    store.set_aside(held[3])
    assert seqs(store) == [5, 3, 2, 1]
    assert "damaged-00000000000000000004.snap" in files.list_directory(PATH)
    store.keep([held[4], held[2]])
    assert store.ids == (held[4], held[2])
    assert files.list_directory(PATH) == [
        "snapshot-00000000000000000003.snap",
        "snapshot-00000000000000000005.snap",
    ]
    assert opened(after_power_failure(files)).ids == store.ids
    for gone in (held[0], held[3]):
        assert store.read_chunk(gone, 0, 100) == b""
        assert list(store.verify(gone, 100)) == []
        with pytest.raises(SnapshotError, match="there is no snapshot"):
            store.load(gone)
        with pytest.raises(SnapshotError, match="there is no snapshot"):
            store.head(gone)


def test_a_file_that_vanishes_while_it_is_read() -> None:
    files = disk()
    store = opened(files)
    state = bytes(3_000_000)
    found = store.write(head(1), [], state)
    _, _, reader = store.load(found)
    store.keep([])
    with pytest.raises(SnapshotError, match="was removed while it was read"):
        reader.read()
    again = store.write(head(2), [], state)
    files.remove(snapshot_path(PATH, 2))
    with pytest.raises(SnapshotError, match="the snapshot is gone"):
        store.load(again)
    assert store.read_chunk(again, 0, 10) == b""


def test_errors_of_removing_are_told() -> None:
    files = disk()
    store = opened(files)
    held = [store.write(head(seq), SESSIONS, STATE) for seq in (1, 2)]
    files.fail_next("remove", OSError(errno.EIO, "input/output error"))
    with pytest.raises(SnapshotError, match="an old snapshot cannot be removed"):
        store.keep(held[1:])
    assert store.ids == (held[1],)
    files.fail_next("rename", OSError(errno.EIO, "input/output error"))
    with pytest.raises(SnapshotError, match="cannot be set aside"):
        store.set_aside(held[1])
    assert seqs(store) == []


def test_scrubbing_finds_damage_at_run_time() -> None:
    files = disk()
    store = opened(files)
    found = store.write(head(1), SESSIONS, bytes(range(250)) * 10_000)
    slices = list(store.verify(found, 300_000))
    assert sum(slices) == found.size_bytes
    assert len(slices) > 3
    path = snapshot_path(PATH, 1)
    files.flip(path, 2_000_000, 1)
    with pytest.raises(DamagedError, match=rf"{path}: at offset \d+: a piece does not fit"):
        list(store.verify(found, 300_000))
    with pytest.raises(DamagedError, match="offset"):
        store.load(found)
    assert store.read_chunk(found, 0, 10) == b"CCSNAP\r\n\1\0"
    files.fail_next("read", OSError(errno.EIO, "input/output error"))
    assert store.read_chunk(found, 0, 10) == b""
    assert store.read_chunk(found, -1, 10) == b""
    store.set_aside(found)
    store.set_aside(found)
    assert seqs(store) == []


def test_another_file_under_the_same_name_is_damage() -> None:
    files = disk()
    store = opened(files)
    found = store.write(head(1), SESSIONS, STATE)
    write_raw(files, snapshot_path(PATH, 1), file_bytes(1, b"other"))
    with pytest.raises(DamagedError, match="no longer"):
        list(store.verify(found, 1000))
    with pytest.raises(DamagedError, match="no longer"):
        store.load(found)


def test_damage_behind_the_check_is_found_while_the_state_is_read() -> None:
    files = disk()
    store = opened(files)
    found = store.write(head(1), SESSIONS, bytes(4_000_000))
    _, _, reader = store.load(found)
    files.flip(snapshot_path(PATH, 1), 3_500_000, 1)
    with pytest.raises(DamagedError, match="a piece does not fit"):
        reader.read()


def test_memory_is_bounded(tmp_path: Path) -> None:
    store = SnapshotStore(RealFiles(), str(tmp_path))
    store.open()
    piece = bytes(10_000)
    tracemalloc.start()
    found = store.write(head(1), [], (piece for _ in range(5_000)))
    _, _, reader = store.load(found)
    size = 0
    while data := reader.read(50_000):
        size += len(data)
    for _ in store.verify(found, 1 << 20):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size == 50_000_000
    assert peak < 8_000_000


# -- crashes


def check_states(files: Disk, must: set[int], may: set[int]) -> int:
    """Open every disk that a power failure now may leave."""
    count = 0
    for image in crash_states(files, whole_writes):
        count += 1
        left = Disk(image)
        store = SnapshotStore(left, PATH)
        found_seqs = {found.seq for found in store.open()}
        assert store.damaged == []
        assert must <= found_seqs <= must | may
        for found in store.ids:
            assert store.load(found)[2].read() == STATE
        names = left.list_directory(PATH)
        assert sorted(snapshot_names(names)) == names
    return count


def dying_after(operations: int) -> Callable[[str, str], None]:
    """For ``Disk.before``: the power fails before the next operation but so many."""
    left = operations

    def before(operation: str, path: str) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise PowerFailure

    return before


def at_every_operation(act: Callable[[Disk], None], must: set[int], may: set[int]) -> int:
    """Let the power fail before each operation of an act, and after it."""
    states = operations = 0
    while True:
        files = disk()
        opened(files).write(head(1), SESSIONS, STATE)
        files.before = dying_after(operations)
        try:
            act(files)
        except PowerFailure:
            states += check_states(files, must, may)
            operations += 1
            continue
        return states + check_states(files, must | may, set())


def test_a_crash_while_writing_leaves_all_or_nothing() -> None:
    def act(files: Disk) -> None:
        opened(files).write(head(2), SESSIONS, STATE)

    assert at_every_operation(act, {1}, {2}) > 100


def test_a_crash_while_receiving_leaves_all_or_nothing() -> None:
    there, snapshot = source(2)
    sender = opened(there)

    def act(files: Disk) -> None:
        store = opened(files)
        send(sender, store, snapshot, 150)
        store.finish(snapshot)

    assert at_every_operation(act, {1}, {2}) > 50


def test_a_crash_while_removing_never_takes_the_newest() -> None:
    def act(files: Disk) -> None:
        store = opened(files)
        store.keep([store.write(head(3), SESSIONS, STATE)])

    files = disk()
    states = operations = 0
    while True:
        files = disk()
        opened(files).write(head(1), SESSIONS, STATE)
        files.before = dying_after(operations)
        try:
            act(files)
        except PowerFailure:
            operations += 1
            for image in crash_states(files, whole_writes):
                states += 1
                assert opened(Disk(image)).ids, "always one"
            continue
        break
    assert states > 100
    assert seqs(opened(after_power_failure(files))) == [3]


def test_the_crash_checks_would_notice(monkeypatch: pytest.MonkeyPatch) -> None:
    def act(files: Disk) -> None:
        opened(files).write(head(2), SESSIONS, STATE)

    with monkeypatch.context() as broken:
        broken.setattr(DiskFile, "datasync", lambda file: None)
        with pytest.raises(AssertionError):
            at_every_operation(act, {1}, {2})
    with monkeypatch.context() as broken:
        broken.setattr(Disk, "sync_directory", lambda disk, path: None)
        with pytest.raises((AssertionError, OSError, StorageError)):
            at_every_operation(act, {1}, {2})
