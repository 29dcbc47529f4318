"""The simulated disk: what is seen, what is durable, and what a power failure leaves."""

from __future__ import annotations

import errno
from collections.abc import Callable
from random import Random

import pytest

from clusterconsensus.simulation.journals.power import (
    MOST_WRITES,
    crash_states,
    every_cut,
    whole_writes,
)
from clusterconsensus.simulation.world.content import SECTOR_BYTES, Content, Image
from clusterconsensus.simulation.world.disk import HOLDER, Disk, PowerFailure
from clusterconsensus.storage.files import LockHeldError, WritableFile

A = "/a"
BROKEN = OSError(errno.EIO, "input/output error")


def made(data: bytes = b"0123456789") -> tuple[Disk, WritableFile]:
    """A disk with one durable file, open."""
    disk = Disk()
    file = disk.create(A)
    file.pwrite(data, 0)
    file.datasync()
    disk.sync_directory("/")
    return disk, file


def found(disk: Disk, outcomes: Callable[[Content], list[bytes]] | None = None) -> set[bytes]:
    """What a power failure could leave of the file; ``b"none"`` for no file."""
    return {image.files.get(A, b"none") for image in crash_states(disk, outcomes)}


def test_a_write_is_seen_at_once_and_durable_after_a_sync() -> None:
    disk, file = made()
    file.pwrite(b"ab", 8)
    file.pwrite(b"c", 12)
    assert disk.read(A) == b"01234567ab\0\0c"
    assert disk.read(A, 7, 4) == b"7ab\0"
    assert disk.size(A) == 13
    assert disk.snapshot_image().files[A] == b"0123456789"
    file.datasync()
    assert disk.snapshot_image().files[A] == b"01234567ab\0\0c"
    assert not disk.content(A).writes


def test_the_hooks_tell_what_happens() -> None:
    disk, file = made()
    done: list[tuple[str, str]] = []
    durable: list[tuple[str, int, bytes]] = []
    disk.before = lambda operation, path: done.append((operation, path))
    disk.on_durable = lambda path, offset, data: durable.append((path, offset, data))
    operations = disk.operations
    file.pwrite(b"x", 1)
    file.pwrite(memoryview(b"yz"), 5)
    assert durable == []
    file.datasync()
    assert durable == [(A, 1, b"x"), (A, 5, b"yz")]
    disk.make_directory("/d")
    assert not disk.make_directory("/d")
    disk.create("/d/new").close()
    disk.rename("/d/new", "/d/b")
    disk.lock("/d/lock").release()
    disk.remove("/d/b")
    disk.sync_directory("/d")
    disk.read(A)
    assert done == [
        ("pwrite", A),
        ("pwrite", A),
        ("datasync", A),
        ("make_directory", "/d"),
        ("create", "/d/new"),
        ("rename", "/d/b"),
        ("lock", "/d/lock"),
        ("remove", "/d/b"),
        ("sync_directory", "/d"),
    ]
    assert disk.operations - operations == len(done)
    assert disk.list_directory("/d") == ["lock"]
    assert disk.list_directory("/") == ["a", "d"]


def test_a_process_dies_in_the_middle_of_an_operation() -> None:
    disk, file = made()
    file.pwrite(b"new", 0)
    lock = disk.lock("/lock")

    def before(operation: str, path: str) -> None:
        raise PowerFailure(operation)

    disk.before = before
    with pytest.raises(PowerFailure):
        file.datasync()
    assert disk.dead
    for operation in (
        lambda: disk.read(A),
        lambda: disk.size(A),
        lambda: disk.open(A),
        lambda: disk.create(A),
        lambda: disk.list_directory("/"),
        lambda: disk.is_directory("/"),
        lambda: disk.free_bytes("/"),
        lambda: disk.lock_holder("/lock"),
        lambda: file.pwrite(b"", 0),
    ):
        with pytest.raises(PowerFailure):
            operation()
    file.close()  # what a dying process unwinds does no harm
    disk.fail_next("create", BROKEN)
    disk.after_process_crash()
    assert disk.read(A) == b"new3456789"
    assert disk.snapshot_image().files[A] == b"0123456789"
    assert disk.lock_holder("/lock") == ""
    again = disk.lock("/lock")
    lock.release()
    assert disk.lock_holder("/lock") == HOLDER, "it belongs to the next process"
    with pytest.raises(LockHeldError, match=HOLDER):
        disk.lock("/lock")
    again.release()
    with pytest.raises(PowerFailure):
        file.pwrite(b"late", 0)
    disk.create("/b")
    disk.open(A).datasync()
    assert disk.snapshot_image().files[A] == b"new3456789"


def test_a_killed_process_does_nothing_more() -> None:
    disk, file = made()
    disk.kill()
    with pytest.raises(PowerFailure):
        file.datasync()
    assert disk.paths() == [A]
    assert disk.snapshot_image().files == {A: b"0123456789"}


def test_a_power_failure_keeps_any_part_of_what_is_unsynced() -> None:
    size = 4 * SECTOR_BYTES
    seen: set[bytes] = set()
    for seed in range(1200):
        disk, file = made(bytes(size))
        file.pwrite(b"x" * size, 0)
        disk.after_power_failure(Random(seed))
        data = disk.read(A)
        assert disk.snapshot_image().files[A] == data
        assert not disk.content(A).writes
        sectors = [data[start : start + SECTOR_BYTES] for start in range(0, size, SECTOR_BYTES)]
        assert all(len(set(sector)) == 1 for sector in sectors)
        seen.add(bytes(sector[0] for sector in sectors))
    assert len(seen) == 16, "every subset of the four sectors"


def test_a_torn_write_that_is_not_aligned_is_cut_at_sectors() -> None:
    seen: set[bytes] = set()
    for seed in range(200):
        disk, file = made(bytes(3 * SECTOR_BYTES))
        file.pwrite(b"x" * SECTOR_BYTES, SECTOR_BYTES - 10)
        disk.after_power_failure(Random(seed))
        seen.add(disk.read(A)[SECTOR_BYTES - 10 : 2 * SECTOR_BYTES - 10])
    assert seen == {
        bytes(SECTOR_BYTES),
        b"x" * 10 + bytes(SECTOR_BYTES - 10),
        bytes(10) + b"x" * (SECTOR_BYTES - 10),
        b"x" * SECTOR_BYTES,
    }


def test_a_power_failure_keeps_any_subset_of_names() -> None:
    seen: set[tuple[str, ...]] = set()
    for seed in range(100):
        disk, _ = made()
        disk.create("/b")
        disk.rename(A, "/c")
        disk.make_directory("/d")
        disk.create("/d/e")
        disk.sync_directory("/d")
        disk.after_power_failure(Random(seed))
        seen.add(tuple(sorted([*disk.paths(), *disk.directories])))
        assert disk.list_directory("/") == sorted({path.split("/")[1] for path in seen_of(disk)})
    assert len(seen) == 8
    assert all(("/d" in paths) == ("/d/e" in paths) for paths in seen)
    assert all(("/a" in paths) != ("/c" in paths) for paths in seen)


def seen_of(disk: Disk) -> list[str]:
    return [path for path in [*disk.paths(), *disk.directories] if path != "/"]


def test_a_power_failure_is_decided_by_its_seed_alone() -> None:
    def lose(seed: int) -> Image:
        disk, file = made(bytes(5000))
        for place in range(5):
            file.pwrite(bytes([place + 1]) * 2000, place * 700)
            disk.create(f"/{place}")
        disk.after_power_failure(Random(seed))
        return disk.snapshot_image()

    assert [lose(seed) for seed in range(20)] == [lose(seed) for seed in range(20)]
    assert lose(1) != lose(2)


def test_a_failed_sync_forgets_its_pages_and_readers_do_not_notice() -> None:
    disk, file = made()
    file.pwrite(b"lost", 0)
    disk.fail_next("datasync", BROKEN)
    with pytest.raises(OSError, match="input/output"):
        file.datasync()
    file.datasync()  # succeeds, and proves nothing (C-5)
    assert disk.read(A) == b"lost456789"
    disk.after_power_failure(Random(1))
    assert disk.read(A) == b"0123456789"


def test_a_failed_sync_may_keep_its_pages() -> None:
    disk, file = made()
    file.pwrite(b"kept", 0)
    disk.fail_next("datasync", BROKEN, drop=False)
    disk.fail_next("datasync", OSError(errno.ENOSPC, "again"), drop=False)
    with pytest.raises(OSError, match="input/output"):
        file.datasync()
    with pytest.raises(OSError, match="again"):
        file.datasync()
    file.datasync()
    assert disk.snapshot_image().files[A] == b"kept456789"


@pytest.mark.parametrize("operation", ["pwrite", "create", "read", "rename", "sync_directory"])
def test_the_next_operation_fails_and_nothing_has_happened(operation: str) -> None:
    disk, file = made()
    disk.create("/b")
    disk.fail_next(operation, BROKEN)
    before = disk.snapshot_image()

    def run() -> None:
        if operation == "pwrite":
            file.pwrite(b"x", 0)
        elif operation == "create":
            disk.create("/c")
        elif operation == "read":
            disk.read(A)
        elif operation == "rename":
            disk.rename(A, "/c")
        else:
            disk.sync_directory("/")

    with pytest.raises(OSError, match="input/output"):
        run()
    assert disk.snapshot_image() == before
    assert disk.paths() == [A, "/b"]
    assert disk.read(A) == b"0123456789"
    run()


def test_a_hook_that_raises_fails_the_operation() -> None:
    disk, file = made()
    file.pwrite(b"lost", 0)

    def before(operation: str, path: str) -> None:
        raise BROKEN

    disk.before = before
    with pytest.raises(OSError, match="input/output"):
        file.datasync()
    assert not disk.dead
    disk.before = None
    file.datasync()
    assert disk.snapshot_image().files[A] == b"0123456789"


def test_a_full_disk_cuts_a_write_short() -> None:
    disk, file = made()
    disk.capacity_bytes = 12
    assert disk.free_bytes("/") == 2
    file.pwrite(b"x", 0)  # it does not grow by this
    with pytest.raises(OSError, match="no space") as raised:
        file.pwrite(b"abcd", 9)
    assert raised.value.errno == errno.ENOSPC
    assert disk.read(A) == b"x12345678abc"
    disk.honest = False
    assert disk.free_bytes("/") > 1000


def test_rot_lies_below_what_is_not_synced() -> None:
    disk, file = made()
    file.pwrite(b"ab", 0)
    assert disk.flip(A, 1, 3)
    assert disk.flip(A, 5, 0)
    assert not disk.flip(A, 10, 0)
    assert disk.read(A) == b"ab23446789"
    assert disk.snapshot_image().files[A] == b"0923446789"
    file.datasync()
    assert disk.snapshot_image().files[A] == b"ab23446789"
    disk.overwrite(A, 8, b"old block")
    assert disk.read(A) == disk.snapshot_image().files[A] == b"ab234467ol"


def test_a_lying_disk() -> None:
    disk, file = made()
    disk.lie = True
    file.pwrite(b"lost", 0)
    file.datasync()
    disk.create("/b")
    disk.sync_directory("/")
    assert disk.snapshot_image().files == {A: b"0123456789"}
    assert disk.read(A) == b"lost456789"


def test_images() -> None:
    disk, file = made()
    disk.make_directory("/d")
    disk.sync_directory("/")
    old = disk.snapshot_image()
    file.pwrite(b"new", 0)
    file.datasync()
    disk.remove(A)
    disk.sync_directory("/")
    disk.restore_image(old)
    assert disk.read(A) == b"0123456789"
    assert disk.is_directory("/d")
    assert Disk(old).snapshot_image() == old == disk.snapshot_image()
    disk.wipe()
    assert disk.paths() == []
    assert disk.snapshot_image() == Image()


def test_errors_of_use() -> None:
    disk, file = made()
    for operation in (
        lambda: disk.read("/b"),
        lambda: disk.open("/b"),
        lambda: disk.rename("/b", "/c"),
        lambda: disk.remove("/b"),
        lambda: disk.create("/d/b"),
        lambda: disk.list_directory("/d"),
        lambda: disk.make_directory("/d/e"),
    ):
        with pytest.raises(FileNotFoundError):
            operation()
    file.close()
    with pytest.raises(OSError, match="closed"):
        file.pwrite(b"", 0)


def test_every_subset_and_cut_is_enumerated() -> None:
    disk, file = made(b"....")
    file.pwrite(b"ab", 0)
    file.pwrite(b"cd", 1)
    whole = {b"....", b"ab..", b".cd.", b"acd."}
    torn = {b"a...", b".b..", b".c..", b"..d.", b"ac..", b"abd.", b".cd."}
    assert found(disk) == whole | torn
    assert found(disk, whole_writes) == whole | {b"a...", b".c..", b"ac.."}
    images = list(crash_states(disk))
    assert images[0].files[A] == b"....", "the first has nothing unsynced"
    assert len(images) == len(found(disk)), "each once"


def test_up_to_eight_unsynced_writes_are_enumerated() -> None:
    disk, file = made(bytes(MOST_WRITES))
    for place in range(MOST_WRITES):
        file.pwrite(b"x", place)
    assert len(found(disk)) == 1 << MOST_WRITES
    file.pwrite(b"x", 0)
    with pytest.raises(ValueError, match=f"at most {MOST_WRITES}"):
        found(disk)


def test_runs_of_sectors_may_be_lost_or_alone_kept() -> None:
    content = Content(bytes(256))
    content.writes.append((0, b"x" * 256))
    contents = set(every_cut(content))
    assert b"x" * 64 + bytes(128) + b"x" * 64 in contents
    assert bytes(64) + b"x" * 128 + bytes(64) in contents
    assert b"x" * 100 + bytes(156) in contents
    assert bytes(100) + b"x" * 156 in contents


def test_every_subset_of_names_is_enumerated() -> None:
    disk, _ = made()
    file = disk.create("/new")
    file.pwrite(b"new", 0)
    file.datasync()
    disk.rename("/new", A)
    disk.make_directory("/d")
    disk.create("/d/b")
    images = list(crash_states(disk, whole_writes))
    names = {(*sorted(image.files), *image.directories) for image in images}
    assert names == {
        (A, "/"),
        (A, "/new", "/"),
        (A, "/", "/d"),
        (A, "/new", "/", "/d"),
        (A, "/d/b", "/", "/d"),
        (A, "/d/b", "/new", "/", "/d"),
    }
    assert {image.files[A] for image in images} == {b"0123456789", b"new"}
    assert len(images) == 9


def test_what_is_drawn_is_among_what_is_enumerated() -> None:
    def write() -> Disk:
        disk, file = made(bytes(100))
        file.pwrite(b"a" * 60, 10)
        file.pwrite(b"b" * 60, 40)
        disk.rename(A, "/b")
        disk.lock("/lock")
        return disk

    possible = list(crash_states(write()))
    drawn = []
    for seed in range(100):
        disk = write()
        disk.after_power_failure(Random(seed))
        drawn.append(disk.snapshot_image())
    assert all(image in possible for image in drawn)
    assert len({tuple(sorted(image.files.items())) for image in drawn}) > 8


def test_a_rename_that_survives_alone_leaves_the_file_that_it_did_not_mean() -> None:
    disk, _ = made(b"old")
    disk.create(A)
    disk.rename(A, "/b")
    names = {tuple(image.files.items()) for image in crash_states(disk)}
    assert names == {
        ((A, b"old"),),
        ((A, b""),),
        ((A, b"old"), ("/b", b"")),
        (("/b", b""),),
    }


def test_a_directory_is_not_found_without_its_parent() -> None:
    disk = Disk()
    disk.make_directory("/d")
    disk.make_directory("/d/e")
    assert {image.directories for image in crash_states(disk)} == {
        ("/",),
        ("/", "/d"),
        ("/", "/d", "/d/e"),
    }
