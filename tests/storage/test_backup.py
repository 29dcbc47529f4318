"""Backups, restoring, and the last resort: what is kept, what is told, and what a crash leaves."""

from __future__ import annotations

import errno
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec
import pytest

from clusterconsensus.cli.inspect import run
from clusterconsensus.consensus.effects import Persist
from clusterconsensus.consensus.log import encode_configuration
from clusterconsensus.consensus.types import (
    MAX_REMOVED,
    NOWHERE,
    Ballot,
    Configuration,
    Entry,
    EntryKind,
    Incarnation,
    Member,
    Position,
    Seat,
    Standing,
)
from clusterconsensus.errors import (
    BrokenInvariantError,
    ConsensusError,
    DamagedError,
    DirectoryInUseError,
    DirectoryNotEmptyError,
    DiskFullError,
    SnapshotError,
    StorageError,
)
from clusterconsensus.simulation.journals.power import crash_states, whole_writes
from clusterconsensus.simulation.world.disk import Disk, PowerFailure
from clusterconsensus.storage.backup import (
    Rebuilt,
    Survey,
    inspect_backup,
    recover,
    restore,
    save,
    survey,
)
from clusterconsensus.storage.history import of_directory, of_file
from clusterconsensus.storage.identity import Identity, open_directory, read_identity
from clusterconsensus.storage.inspect import DAMAGED, WHOLE, inspect
from clusterconsensus.storage.inspect import entries as log_entries
from clusterconsensus.storage.journal import Journal
from clusterconsensus.storage.segments import segment_path
from clusterconsensus.storage.snapshot_files import snapshot_names, snapshot_path
from clusterconsensus.storage.snapshot_format import SnapshotHead, encode
from clusterconsensus.storage.snapshots import SnapshotStore
from tests.storage import model
from tests.storage.model import DISK, PATH, SMALL_BYTES, after_power_failure, ballot, open_journal

FILE = "/var/shop.backup"
NEW = "/var/new"
SESSIONS = [b"one", b"two"]
STATE = b"the state" * 100
MEMBER = Member("n", "127.0.0.1:9")


def configuration(seq: int, *names: str, removed: tuple[str, ...] = ()) -> Entry:
    seats = tuple(Seat(name, DISK, f"{name}:1", Standing.VOTER) for name in names)
    held = Configuration(seats, seq - 1, None, tuple(Incarnation(name) for name in removed))
    return model.entry(seq, 1, encode_configuration(held), EntryKind.CONFIG)


def snapshot(files: Disk, seq: int, instance: int = 1, path: str = PATH) -> None:
    """Take a snapshot as the member would; its configuration is that of sequence 1."""
    store = SnapshotStore(files, path)
    store.open()
    head = SnapshotHead(
        cluster="shop",
        cluster_id="c1",
        member_id="a",
        position=Position(ballot(instance), seq),
        configuration_seq=1,
        configuration=msgspec.msgpack.decode(
            configuration(1, "a", "b", "c").payload, type=Configuration
        ),
        time=1000.0 + seq,
        checksum=99,
        level=2,
    )
    store.write(head, SESSIONS, STATE)


def made(
    *, snapshots: tuple[int, ...] = (), last: int = 12, commit: int = 10, running: bool = False
) -> Disk:
    """A member's directory: entries 1 to ``last``, known to be chosen up to ``commit``."""
    files = Disk()
    files.make_directory("/var")
    files.sync_directory("/")
    directory = open_directory(files, PATH, "shop", "a", DISK)
    journal = open_journal(files)
    directory.found("c1")
    first = configuration(1, "a", "b", "c", removed=("old@d0",))
    journal.append([Persist(1, ballot(1), None, (first, *model.entries(2, 5)), 6)])
    for seq in snapshots:
        snapshot(files, seq)
    journal.append([Persist(2, None, None, model.entries(7, last - 6), commit)])
    if not running:
        files.after_process_crash()
    return files


def content(files: Disk, directory: str) -> dict[str, bytes]:
    return {
        path: bytes(files.content(path).cached)
        for path in files.paths()
        if path.startswith(f"{directory}/")
    }


def seqs(files: Disk, path: str) -> list[int]:
    history, _, _ = of_file(files, path)
    return [entry.seq for entry in history.entries()]


def restored(files: Disk, directory: str = NEW, source: str = FILE) -> Rebuilt:
    return restore(
        files,
        source,
        directory,
        cluster="shop2",
        member=MEMBER,
        cluster_id="c2",
        disk_id="d2",
        segment_bytes=SMALL_BYTES,
    )


def recovered(files: Disk, directory: str = NEW) -> Rebuilt:
    return recover(
        files,
        PATH,
        directory,
        cluster="shop2",
        member=MEMBER,
        cluster_id="c2",
        disk_id="d2",
        segment_bytes=SMALL_BYTES,
    )


# -- saving


def test_a_backup_is_the_newest_snapshot_and_what_is_chosen_behind_it() -> None:
    files = made(snapshots=(3, 5))
    before = content(files, PATH)
    touched: set[str] = set()
    files.before = lambda operation, path: touched.add(path)
    report = save(files, PATH, FILE)
    assert touched == {f"{FILE}.new", FILE, "/var"}, "nothing but the file was written"
    assert content(files, PATH) == before
    assert report == inspect_backup(files, FILE)
    assert (report.snapshot_seq, report.first_seq, report.last_seq) == (5, 6, 10)
    assert (report.entries, report.sessions, report.state_bytes) == (5, 2, len(STATE))
    assert (report.cluster, report.cluster_id, report.member_id) == ("shop", "c1", "a")
    assert (report.time, report.level, report.configuration_seq) == (1010.0, 2, 1)
    assert report.members == ["a (a:1) voter", "b (b:1) voter", "c (c:1) voter"]
    assert seqs(files, FILE) == [6, 7, 8, 9, 10]
    assert inspect_backup(after_power_failure(files), FILE) == report


def test_without_a_snapshot_the_backup_is_the_log() -> None:
    files = made()
    report = save(files, PATH, FILE)
    assert (report.snapshot_seq, report.entries, report.last_seq) == (0, 10, 10)
    assert report.configuration_seq == 1
    assert seqs(files, FILE) == list(range(1, 11))
    history, _, _ = of_file(files, FILE)
    assert history.head.position == NOWHERE
    assert list(history.entries()) == list(log_entries(PATH, files))[:10]


def test_a_running_member_can_be_saved() -> None:
    files = made(snapshots=(5,), running=True)
    locks = set(files.locks)
    assert save(files, PATH, FILE).last_seq == 10
    assert files.locks == locks


@pytest.mark.parametrize("reads", range(0, 40, 3))
def test_what_a_running_member_removes_meanwhile_is_read_again(reads: int) -> None:
    files = made(snapshots=(3, 5), running=True)

    class Racing(Disk):
        left = reads

        def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
            self.left -= 1
            if self.left == 0 and path.startswith(PATH):
                raise FileNotFoundError(errno.ENOENT, "no such file", path)
            return super().read(path, offset, size)

    racing = Racing(files.snapshot_image())
    racing.locks = set(files.locks)
    assert save(racing, PATH, FILE).last_seq == 10


def test_of_a_member_that_does_not_run_the_first_failure_is_told() -> None:
    files = made(snapshots=(5,))
    files.flip(segment_path(PATH, 1), 4096 + 300, 1)
    with pytest.raises(DamagedError, match=r"journal-00000001\.log"):
        save(files, PATH, FILE)
    assert FILE not in files.paths()


def test_a_damaged_newest_snapshot_costs_nothing() -> None:
    files = made(snapshots=(3, 5))
    files.flip(snapshot_path(PATH, 5), 300, 1)
    report = save(files, PATH, FILE)
    assert (report.snapshot_seq, report.last_seq) == (3, 10)
    assert seqs(files, FILE) == [4, 5, 6, 7, 8, 9, 10]


@pytest.mark.parametrize(("seq", "instance"), [(20, 1), (12, 2), (11, 3)])
def test_where_log_and_snapshot_differ_the_snapshot_is_right(seq: int, instance: int) -> None:
    files = made()
    snapshot(files, seq, instance)
    report = save(files, PATH, FILE)
    assert (report.snapshot_seq, report.entries, report.last_seq) == (seq, 0, seq)
    assert restored(files).last_seq == seq + 1


def test_the_log_may_begin_behind_the_snapshot() -> None:
    files = made(snapshots=(5,))
    journal = open_journal(files)
    snapshot(files, 20, 2)
    base = Position(ballot(2), 20)
    journal.append([Persist(3, None, None, model.entries(21, 3, 2), 22, base=base)])
    assert save(files, PATH, FILE).last_seq == 22
    assert seqs(files, FILE) == [21, 22]
    # An older snapshot does not reach the log.
    files.flip(snapshot_path(PATH, 20), 300, 1)
    with pytest.raises(DamagedError, match="up to 22 are known to be chosen, but only those up to"):
        save(files, PATH, f"{FILE}2")
    files.flip(snapshot_path(PATH, 5), 300, 1)
    with pytest.raises(DamagedError, match="the log begins behind sequence 20, and there is no"):
        save(files, PATH, f"{FILE}2")


def test_what_cannot_be_saved() -> None:
    files = made()
    with pytest.raises(StorageError, match="/var/nothing cannot be read"):
        save(files, "/var/nothing", FILE)
    files.make_directory("/var/other")
    with pytest.raises(StorageError, match="holds neither an identity nor a journal"):
        save(files, "/var/other", FILE)
    open_directory(files, "/var/empty", "shop", "a", DISK)
    with pytest.raises(SnapshotError, match="/var/empty: holds nothing yet"):
        save(files, "/var/empty", FILE)
    save(files, PATH, FILE)
    with pytest.raises(SnapshotError, match=f"{FILE}: exists already and is not overwritten"):
        save(files, PATH, FILE)
    with pytest.raises(SnapshotError, match=f"{PATH}: exists already"):
        save(files, PATH, PATH)
    with pytest.raises(SnapshotError, match="the backup cannot be written"):
        save(files, PATH, "/nowhere/file")
    files.remove(f"{PATH}/identity")
    with pytest.raises(DamagedError, match="identity is missing"):
        save(files, PATH, f"{FILE}2")


@pytest.mark.parametrize("operation", ["create", "pwrite", "datasync", "rename", "sync_directory"])
def test_a_backup_that_fails_leaves_nothing(operation: str) -> None:
    files = made(snapshots=(5,))
    before = files.paths()
    for number, error in ((errno.EIO, SnapshotError), (errno.ENOSPC, DiskFullError)):
        files.fail_next(operation, OSError(number, "the disk says so"))
        with pytest.raises(error, match="the disk says so"):
            save(files, PATH, FILE)
        if operation != "sync_directory":  # then it is there, or will be
            assert files.paths() == before
        else:
            files.remove(FILE)
    assert save(files, PATH, FILE).last_seq == 10


def test_any_damage_of_a_backup_is_found() -> None:
    files = made(snapshots=(5,))
    report = save(files, PATH, FILE)
    for offset in range(report.size_bytes):
        files.flip(FILE, offset, offset % 8)
        with pytest.raises(DamagedError, match=FILE):
            inspect_backup(files, FILE)
        files.flip(FILE, offset, offset % 8)
    assert inspect_backup(files, FILE) == report
    with pytest.raises(SnapshotError, match="/var/none: cannot be read"):
        inspect_backup(files, "/var/none")


def test_entries_that_make_no_log_are_found() -> None:
    files = made(snapshots=(5,))
    history = of_directory(files, PATH)
    good = model.entry(6)
    wrong = [
        (model.entries(7, 1), "follows sequence 5"),
        ((Entry.make(6, Ballot(0, Incarnation("")), EntryKind.NOOP, 1.0),), "below 1:a before it"),
        ((good, good), "follows sequence 6"),
        ((msgspec.structs.replace(good, crc=good.crc ^ 1),), "is damaged"),
        ((model.entry(6, 1, b"\xc1", EntryKind.CONFIG),), "holds no configuration"),
    ]
    for entries, words in wrong:
        file = files.create(FILE)
        file.pwrite(b"".join(encode(history.head, [], b"", entries)), 0)
        with pytest.raises(DamagedError, match=words):
            inspect_backup(files, FILE)


# -- restoring


def check_new(files: Disk, last: int, snapshot_seq: int, directory: str = NEW) -> Journal:
    """A new directory is whole, and belongs to the new member alone."""
    report = inspect(directory, files)
    assert report.verdict == WHOLE
    assert report.identity == Identity(
        cluster="shop2", cluster_id="c2", member_id="n", disk_id="d2", founder=True
    )
    held = open_directory(files, directory, "shop2", "n", "unused")
    journal = Journal.open(files, directory, disk_id="d2", segment_bytes=SMALL_BYTES)
    store = SnapshotStore(files, directory)
    store.open()
    held.close()
    found = journal.recovered
    assert found.last_seq == found.commit_hint == last
    assert found.base.seq == snapshot_seq
    assert [held.seq for held in store.ids] == ([snapshot_seq] if snapshot_seq else [])
    assert found.base == (store.ids[0].position if snapshot_seq else NOWHERE)
    entry = found.configurations[-1]
    assert entry.seq == last
    assert entry.ballot == found.promised
    assert entry.ballot.owner == "n@d2"
    decoded = msgspec.msgpack.decode(entry.payload, type=Configuration)
    assert decoded.voters == decoded.everyone == (Incarnation("n@d2"),)
    assert decoded.seats[0].address == MEMBER.address
    assert decoded.previous_seq == 1
    assert decoded.removed[-3:] == tuple(Incarnation(f"{name}@{DISK}") for name in "abc")
    if not snapshot_seq:
        assert decoded.removed[0] == "old@d0"
    return journal


@pytest.mark.parametrize("snapshots", [(), (3,), (3, 5)])
def test_a_restored_directory_goes_on_where_the_backup_ends(snapshots: tuple[int, ...]) -> None:
    files = made(snapshots=snapshots)
    save(files, PATH, FILE)
    found = restored(files)
    assert found.last_seq == 11
    assert found.given_up == ["a (a:1) voter", "b (b:1) voter", "c (c:1) voter"]
    files = after_power_failure(files)
    at = snapshots[-1] if snapshots else 0
    journal = check_new(files, 11, at)
    kept = list(log_entries(NEW, files))
    assert kept[:-1] == list(log_entries(PATH, files))[at:10]
    assert kept[-1].time == kept[-2].time
    assert kept[-1].ballot.instance == 2
    journal.append([Persist(9, ballot(3), None, model.entries(12, 1, 3))])
    if at:
        store = SnapshotStore(files, NEW)
        head, sessions, state = store.load(store.open()[0])
        assert (head.cluster, head.cluster_id, head.member_id) == ("shop2", "c2", "n")
        assert (head.checksum, head.time, head.level) == (99, 1000.0 + at, 2)
        assert sessions == SESSIONS
        assert state.read() == STATE


def test_a_snapshot_file_can_be_restored_too() -> None:
    files = made(snapshots=(5,))
    assert restored(files, source=snapshot_path(PATH, 5)).last_seq == 6
    check_new(files, 6, 5)
    assert len(list(log_entries(NEW, files))) == 1


def test_large_histories_are_written_in_units() -> None:
    files = made(last=7, commit=7)
    journal = open_journal(files)
    journal.append([Persist(3, None, None, model.entries(8, 60, 1, 50_000), 60)])
    journal.close(67)
    save(files, PATH, FILE)
    assert restored(files).last_seq == 68
    assert list(log_entries(NEW, files))[:-1] == list(log_entries(PATH, files))
    assert inspect(NEW, files).segments[0].batches == 1


def test_removed_incarnations_are_remembered_within_the_limit() -> None:
    files = Disk()
    directory = open_directory(files, PATH, "shop", "a", DISK)
    journal = Journal.open(files, PATH, disk_id=DISK, segment_bytes=1 << 20)
    directory.found("c1")
    removed = tuple(f"gone{number}@d" for number in range(MAX_REMOVED))
    journal.append([Persist(1, ballot(1), None, (configuration(1, "a", removed=removed),), 1)])
    files.after_process_crash()
    recovered(files)
    entry = list(log_entries(NEW, files))[-1]
    decoded = msgspec.msgpack.decode(entry.payload, type=Configuration)
    assert len(decoded.removed) == MAX_REMOVED
    assert decoded.removed[-2:] == (removed[-1], f"a@{DISK}")


def test_where_nothing_is_restored() -> None:
    files = made(snapshots=(5,))
    save(files, PATH, FILE)
    before = content(files, PATH)
    with pytest.raises(DirectoryNotEmptyError, match=f"directory {PATH} is not empty"):
        restored(files, PATH)
    assert content(files, PATH) == before
    with pytest.raises(StorageError, match="/nowhere/new cannot be made"):
        restored(files, "/nowhere/new")
    with pytest.raises(SnapshotError, match="/var/none: cannot be read"):
        restored(files, source="/var/none")
    files.flip(FILE, 400, 2)
    with pytest.raises(DamagedError, match=FILE):
        restored(files)
    assert not files.is_directory(NEW)
    files.flip(FILE, 400, 2)
    files.make_directory(NEW)
    lock = files.lock(f"{NEW}/lock")
    with pytest.raises(DirectoryInUseError, match=f"{NEW} is in use"):
        restored(files)
    lock.release()
    assert restored(files).last_seq == 11, "an empty one is taken"
    with pytest.raises(DirectoryNotEmptyError):
        restored(files)


def test_a_file_without_members_is_not_restored() -> None:
    files = made(snapshots=(5,))
    head = of_directory(files, PATH).head
    bare = msgspec.structs.replace(head, configuration=Configuration(), configuration_seq=0)
    files.create(FILE).pwrite(b"".join(encode(bare, [], STATE)), 0)
    assert inspect_backup(files, FILE).members == []
    with pytest.raises(SnapshotError, match=f"{FILE}: holds nothing that could be restored"):
        restored(files)
    assert not files.is_directory(NEW)


def test_a_disk_that_was_a_member_before_is_refused() -> None:
    files = made()
    save(files, PATH, FILE)
    with pytest.raises(BrokenInvariantError, match="has been a member before"):
        restore(
            files,
            FILE,
            NEW,
            cluster="shop",
            member=Member("a", "a:1"),
            cluster_id="c2",
            disk_id=DISK,
            segment_bytes=SMALL_BYTES,
        )
    assert content(files, NEW) == {}


def test_a_full_disk_leaves_an_empty_directory() -> None:
    files = made(snapshots=(5,))
    save(files, PATH, FILE)
    used = sum(len(data) for data in content(files, "").values())
    for honest in (True, False):
        files.honest = honest
        for spare in range(0, SMALL_BYTES + 1500, 300):
            files.capacity_bytes = used + spare
            with pytest.raises((DiskFullError, StorageError), match=NEW):
                restored(files)
            assert content(files, NEW) == {}
    files.capacity_bytes = 1 << 30
    restored(files)
    check_new(files, 11, 5)


def error_of(call: Callable[[], object]) -> ConsensusError | None:
    """What a call of ours refuses with, None if it does not."""
    try:
        call()
    except ConsensusError as error:
        return error
    return None


def failing_at(operation: int, error: BaseException) -> Callable[[str, str], None]:
    """For ``Disk.before``: one operation fails."""
    left = operation

    def before(operation: str, path: str) -> None:
        nonlocal left
        left -= 1
        if left == -1:
            raise error

    return before


def test_whichever_operation_fails_nothing_half_done_is_left() -> None:
    failures = 0
    while True:
        files = made(snapshots=(5,))
        save(files, PATH, FILE)
        files.before = failing_at(failures, OSError(errno.EIO, "input/output error"))
        error = error_of(partial(restored, files))
        files.before = None
        if error is None:
            break
        failures += 1
        assert "input/output error" in str(error)
        assert content(files, NEW) == {}
        restored(files)
        check_new(files, 11, 5)
    assert failures > 15


def test_a_crash_leaves_a_directory_that_is_finished_or_refused_or_empty() -> None:
    outcomes = {"finished": 0, "refused": 0, "empty": 0}
    operation = 0
    finished = False
    while not finished:
        files = made(snapshots=(5,))
        save(files, PATH, FILE)
        files.before = failing_at(operation, PowerFailure())
        try:
            restored(files)
            finished = True
        except PowerFailure:
            operation += 1
        for image in crash_states(files, whole_writes):
            left = Disk(image)
            if not left.is_directory(NEW):
                outcomes["empty"] += 1
                continue
            if error := error_of(partial(read_identity, left, NEW)):
                assert "identity is missing" in str(error)
                outcomes["refused"] += 1
                continue
            identity = read_identity(left, NEW)
            if identity is None:
                names = left.list_directory(NEW)
                assert snapshot_names(names) == []
                outcomes["empty"] += 1
                continue
            check_new(left, 11, 5)
            outcomes["finished"] += 1
            if len(left.list_directory(NEW)) == 4:
                assert open_directory(left, NEW, "shop2", "n", "x").identity == identity
        if not finished:
            assert operation < 200
    assert operation > 15
    assert outcomes["finished"] >= 1
    assert outcomes["refused"] > 20
    assert outcomes["empty"] > 10


# -- recovering


def test_a_whole_directory_is_recovered_with_what_may_not_have_been_chosen() -> None:
    files = made(snapshots=(5,))
    before = content(files, PATH)
    found = survey(files, PATH)
    assert found == Survey(
        directory=PATH,
        cluster="shop",
        cluster_id="c1",
        member_id="a",
        disk_id=DISK,
        snapshot_seq=5,
        last_seq=12,
        last_instance=1,
        last_owner=f"a@{DISK}",
        known_seq=10,
        unknown=2,
        missing_seq=0,
        damage=[],
        recovering=False,
        time=1012.0,
        configuration_seq=1,
        given_up=["a (a:1) voter", "b (b:1) voter", "c (c:1) voter"],
    )
    made_of_it = recovered(files)
    assert content(files, PATH) == before
    assert made_of_it.last_seq == 13
    check_new(files, 13, 5)


def test_the_new_ballot_is_above_every_promise() -> None:
    files = made()
    open_journal(files).append([Persist(3, ballot(77, "z"))])
    recovered(files)
    assert inspect(NEW, files).promised_instance == 78


def damaged(snapshots: tuple[int, ...] = ()) -> Disk:
    """Damage in the middle of the log: sequence 30 of 40 in several segments."""
    files = made(snapshots=snapshots)
    journal = open_journal(files)
    for seq in range(13, 41):
        journal.append([Persist(3, None, None, model.entries(seq, 1, 1, 500), seq)])
    files.after_process_crash()
    for path in files.paths():
        place = bytes(files.content(path).cached).find(bytes([31]) * 500)
        if place > 0:
            files.flip(path, place, 1)
    return files


@pytest.mark.parametrize("snapshots", [(), (5,)])
def test_of_a_damaged_directory_what_is_whole_before_the_damage_is_kept(
    snapshots: tuple[int, ...],
) -> None:
    files = damaged(snapshots)
    found = survey(files, PATH)
    assert (found.last_seq, found.known_seq, found.unknown) == (29, 29, 0)
    assert len(found.damage) == 1
    assert f"{PATH}/journal-" in found.damage[0]
    assert recovered(files).last_seq == 30
    check_new(files, 30, snapshots[0] if snapshots else 0)


def test_a_snapshot_behind_the_damage_is_worth_more_than_the_log() -> None:
    files = damaged()
    snapshot(files, 35)
    found = survey(files, PATH)
    assert (found.snapshot_seq, found.last_seq) == (35, 35)
    assert len(found.damage) == 1
    recovered(files)
    check_new(files, 36, 35)


def test_chosen_entries_that_are_missing_are_told() -> None:
    files = made(snapshots=(5,), commit=12)
    # The journal begins anew behind a snapshot that is damaged.
    snapshot(files, 20, 2)
    base = Position(ballot(2), 20)
    open_journal(files).append([Persist(3, None, None, model.entries(21, 3, 2), 22, base=base)])
    files.after_process_crash()
    files.flip(snapshot_path(PATH, 20), 300, 1)
    found = survey(files, PATH)
    assert (found.snapshot_seq, found.last_seq, found.known_seq) == (5, 5, 5)
    assert found.missing_seq == 22
    assert snapshot_path(PATH, 20) in found.damage[0]
    assert recovered(files).last_seq == 6


def test_entries_behind_another_history_are_not_taken_for_damage() -> None:
    files = made()
    snapshot(files, 11, 3)
    found = survey(files, PATH)
    assert (found.last_seq, found.unknown, found.damage) == (11, 0, [])


def test_an_entry_that_was_damaged_before_it_was_written_ends_the_history() -> None:
    files = made(last=12, commit=12)
    good = model.entry(13)
    bad = msgspec.structs.replace(good, crc=good.crc ^ 1)
    open_journal(files).append([Persist(3, None, None, (bad, *model.entries(14, 2)), 12)])
    files.after_process_crash()
    found = survey(files, PATH)
    assert found.last_seq == 12
    assert "the entry of sequence 13 was damaged before it was written" in found.damage[0]
    assert recovered(files).last_seq == 13


def test_without_identity_or_journal_the_rest_still_serves() -> None:
    files = made(snapshots=(5,))
    files.remove(f"{PATH}/identity")
    found = survey(files, PATH)
    assert (found.last_seq, found.disk_id, found.member_id) == (12, "", "a")
    assert "identity is missing" in found.damage[0]
    assert recovered(files).last_seq == 13
    files = made(snapshots=(5,))
    files.remove(segment_path(PATH, 1))
    found = survey(files, PATH)
    assert found.last_seq == 5
    assert "holds no journal" in found.damage[0]
    assert recovered(files).last_seq == 6


def test_a_member_that_was_being_repaired_is_told() -> None:
    files = made()
    open_journal(files).append([Persist(3, recovering=True)])
    files.after_process_crash()
    assert survey(files, PATH).recovering
    assert not inspect(PATH, files).damage
    recovered(files)
    assert not inspect(NEW, files).recovering


def test_of_a_living_member_nothing_is_recovered() -> None:
    files = made(running=True)
    for call in (survey, lambda files, path: recovered(files)):
        with pytest.raises(DirectoryInUseError, match="its member lives"):
            call(files, PATH)
    assert not files.is_directory(NEW)


def test_of_nothing_nothing_is_recovered() -> None:
    files = Disk()
    files.make_directory("/var")
    open_directory(files, PATH, "shop", "a", DISK).close()
    with pytest.raises(DamagedError, match="nothing can be recovered: it has never belonged"):
        survey(files, PATH)
    with pytest.raises(StorageError, match="cannot be read"):
        survey(files, "/nowhere")
    files = made()
    files.flip(segment_path(PATH, 1), 10, 1)
    with pytest.raises(DamagedError, match=r"nothing can be recovered: .*the header"):
        survey(files, PATH)


# -- inspecting directories


def test_inspecting_a_directory_lists_its_snapshots() -> None:
    files = made(snapshots=(3, 5))
    report = inspect(PATH, files)
    assert report.verdict == WHOLE
    assert [(held.seq, held.instance, held.damage) for held in report.snapshots] == [
        (5, 1, ""),
        (3, 1, ""),
    ]
    assert report.snapshots[0].size_bytes == files.size(snapshot_path(PATH, 5))
    files.flip(snapshot_path(PATH, 5), 300, 1)
    report = inspect(PATH, files)
    assert report.verdict == DAMAGED
    assert report.damage == [report.snapshots[0].damage]
    assert f"{snapshot_path(PATH, 5)}: at offset" in report.damage[0]
    assert (report.snapshots[0].seq, report.snapshots[1].damage) == (5, "")


def test_a_log_that_no_snapshot_reaches_is_damage() -> None:
    files = made()
    snapshot(files, 20, 2)
    base = Position(ballot(2), 20)
    open_journal(files).append([Persist(3, None, None, model.entries(21, 3, 2), 22, base=base)])
    assert inspect(PATH, files).verdict == WHOLE
    files.remove(snapshot_path(PATH, 20))
    report = inspect(PATH, files)
    assert report.verdict == DAMAGED
    assert "begins behind sequence 20, and there is no whole snapshot" in report.damage[0]


def test_snapshots_that_cannot_be_read_are_told_or_passed_over() -> None:
    files = made(snapshots=(5,))
    path = snapshot_path(PATH, 5)
    for error, count in (
        (PermissionError(errno.EACCES, "permission denied", path), 1),
        (FileNotFoundError(errno.ENOENT, "removed meanwhile", path), 0),
    ):

        class Refusing(Disk):
            refusal = error

            def size(self, path: str) -> int:
                if path.endswith(".snap"):
                    raise self.refusal
                return super().size(path)

        report = inspect(PATH, Refusing(files.snapshot_image()))
        assert len(report.damage) == len(report.snapshots) == count
        assert all("permission denied" in damage for damage in report.damage)


def test_the_command_shows_snapshots(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = made(snapshots=(3, 5))
    for path in files.paths():
        (tmp_path / path.rpartition("/")[2]).write_bytes(files.content(path).cached)
    assert run(str(tmp_path), False, False) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "snapshot up to 5, ballot 1 of a, " in shown
    file = tmp_path / "snapshot-00000000000000000005.snap"
    file.write_bytes(file.read_bytes()[:-1])
    assert run(str(tmp_path), False, False) == 1
    assert "damaged" in capsys.readouterr().out
