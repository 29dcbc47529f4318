"""Who a directory is, and who holds it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path
from zlib import crc32

import pytest

from clusterconsensus.errors import (
    BrokenInvariantError,
    DamagedError,
    DirectoryInUseError,
    DiskFullError,
    StorageError,
    StoragePoisonedError,
    WrongDirectoryError,
)
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.files import RealFiles
from clusterconsensus.storage.identity import IDENTITY, open_directory, read_identity
from tests.storage.model import DISK, PATH, after_power_failure, failing, open_journal

HOLDER = """
import sys
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.files import RealFiles
from clusterconsensus.storage.identity import open_directory
directory = open_directory(RealFiles(), sys.argv[1], "shop", "a", "0" * 32)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_new_directory_keeps_its_identity(tmp_path: Path) -> None:
    files, path = RealFiles(), str(tmp_path / "deep" / "er" / "member")
    directory = open_directory(files, f"{path}/", "shop", "a", DISK)
    assert directory.path == path
    assert directory.identity.disk_id == DISK
    assert directory.identity.cluster_id == ""
    directory.close()
    directory.close()
    again = open_directory(files, path, "shop", "a", "other")
    assert again.identity == directory.identity
    open_journal(files, path)
    again.join("c1")
    again.join("c1")
    assert again.identity.cluster_id == "c1"
    assert not again.identity.founder
    with pytest.raises(WrongDirectoryError, match="c1, not to c2"):
        again.join("c2")
    again.close()
    assert read_identity(files, path) == again.identity


def test_a_founder_is_remembered() -> None:
    files = Disk()
    directory = open_directory(files, PATH, "shop", "a", DISK)
    open_journal(files)
    directory.found("c1")
    directory.close()
    after = after_power_failure(files)
    assert open_directory(after, PATH, "shop", "a", "").identity.founder


def test_a_relative_path_is_fine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    directory = open_directory(RealFiles(), "here", "shop", "a", DISK)
    directory.close()
    assert (tmp_path / "here" / IDENTITY).exists()


@pytest.mark.parametrize(
    ("cluster", "member", "found", "expected"),
    [("shop", "b", "'a'", "'b'"), ("other", "a", "'shop'", "'other'")],
)
def test_another_members_directory_is_refused(
    cluster: str, member: str, found: str, expected: str
) -> None:
    files = Disk()
    open_directory(files, PATH, "shop", "a", DISK).close()
    with pytest.raises(WrongDirectoryError) as raised:
        open_directory(files, PATH, cluster, member, DISK)
    assert found in str(raised.value)
    assert expected in str(raised.value)
    assert PATH in str(raised.value)
    open_directory(files, PATH, "shop", "a", DISK)  # and the lock was given back


def test_a_journal_without_identity_is_refused() -> None:
    files = Disk()
    open_directory(files, PATH, "shop", "a", DISK).close()
    open_journal(files)
    del files.names[f"{PATH}/{IDENTITY}"]
    with pytest.raises(DamagedError, match="whose promises it keeps"):
        open_directory(files, PATH, "shop", "a", DISK)


def test_a_member_of_a_cluster_without_journal_is_refused() -> None:
    files = Disk()
    directory = open_directory(files, PATH, "shop", "a", DISK)
    with pytest.raises(BrokenInvariantError, match="journal must be made first"):
        directory.join("c1")
    open_journal(files)
    directory.join("c1")
    directory.close()
    del files.names[f"{PATH}/journal-00000001.log"]
    with pytest.raises(DamagedError, match="what this member promised is lost"):
        open_directory(files, PATH, "shop", "a", DISK)


def test_another_version_is_refused() -> None:
    files = Disk()
    directory = open_directory(files, PATH, "shop", "a", DISK)
    directory.close()
    line = files.read(f"{PATH}/{IDENTITY}").partition(b"\n")[0].replace(b":1,", b":9,") + b"\n"
    files.names[f"{PATH}/{IDENTITY}"].cached[:] = line + f"{crc32(line):08x}\n".encode()
    with pytest.raises(WrongDirectoryError, match=r"version 9.*version 1"):
        open_directory(files, PATH, "shop", "a", DISK)


@pytest.mark.parametrize("operation", ["datasync", "rename", "sync_directory", "pwrite"])
def test_a_failed_write_of_the_identity(operation: str) -> None:
    files = Disk()
    directory = open_directory(files, PATH, "shop", "a", DISK)
    open_journal(files)
    files.before = failing(operation, OSError(errno.EIO, "broken"))
    with pytest.raises(StoragePoisonedError, match="broken"):
        directory.join("c1")
    files.before = None
    with pytest.raises(StoragePoisonedError, match="broken"):
        directory.join("c1")
    directory.close()
    files.after_process_crash()
    again = open_directory(files, PATH, "shop", "a", "")
    assert again.identity.disk_id == DISK
    assert again.identity.cluster_id in ("", "c1")


def test_no_space_for_the_identity() -> None:
    files = Disk()
    files.capacity_bytes = 50
    with pytest.raises(DiskFullError):
        open_directory(files, PATH, "shop", "a", DISK)
    files.capacity_bytes = 1 << 30
    assert open_directory(files, PATH, "shop", "a", DISK).identity.disk_id == DISK


def test_a_path_that_cannot_be_used(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be opened"):
        open_directory(RealFiles(), str(tmp_path / "file"), "shop", "a", DISK)


def test_a_directory_is_held_by_one(tmp_path: Path) -> None:
    files, path = RealFiles(), str(tmp_path)
    directory = open_directory(files, path, "shop", "a", DISK)
    with pytest.raises(DirectoryInUseError, match=f"{path} is in use by process {os.getpid()}"):
        open_directory(files, path, "shop", "a", DISK)
    assert files.lock_holder(f"{path}/lock") == str(os.getpid())
    directory.close()
    assert files.lock_holder(f"{path}/lock") == ""
    open_directory(files, path, "shop", "a", DISK).close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, None])
def test_the_lock_dies_with_its_process(tmp_path: Path, how: signal.Signals | None) -> None:
    path = str(tmp_path / "member")
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(DirectoryInUseError) as raised:
            open_directory(RealFiles(), path, "shop", "a", DISK)
        assert path in str(raised.value)
        assert str(holder.pid) in str(raised.value)
        if how is not None:
            holder.send_signal(how)
        else:
            holder.stdin.close()
        holder.wait(20)
    finally:
        holder.kill()
        holder.wait()
        holder.stdin.close()
        holder.stdout.close()
    directory = open_directory(RealFiles(), path, "shop", "a", DISK)
    assert directory.identity.disk_id == "0" * 32
    directory.close()


def test_nobody_is_without_a_name() -> None:
    files = Disk()
    with pytest.raises(BrokenInvariantError, match="disk's id is never empty"):
        open_directory(files, PATH, "shop", "a", "")
    directory = open_directory(files, PATH, "shop", "a", DISK)  # and the lock was given back
    open_journal(files)
    with pytest.raises(BrokenInvariantError, match="cluster's id is never empty"):
        directory.join("")
    assert directory.identity.cluster_id == ""
    directory.join("c1")


@pytest.mark.parametrize("operation", ["make_directory", "lock"])
def test_no_space_for_the_directory(operation: str) -> None:
    files = Disk()
    files.before = failing(operation, OSError(errno.ENOSPC, "full"))
    with pytest.raises(DiskFullError, match="full"):
        open_directory(files, PATH, "shop", "a", DISK)
    files.before = None
    open_directory(files, PATH, "shop", "a", DISK)


def test_an_identity_that_cannot_be_made_durable_is_not_believed() -> None:
    """It may stand in the page cache only: a crash came before the directory was synced (C-6)."""
    files = Disk()
    open_directory(files, PATH, "shop", "a", DISK).close()
    files.before = failing("sync_directory", OSError(errno.EIO, "broken"))
    with pytest.raises(StoragePoisonedError, match=r"cannot be made durable: .*broken"):
        open_directory(files, PATH, "shop", "a", "")
    files.before = None
    assert open_directory(files, PATH, "shop", "a", "").identity.disk_id == DISK


def test_an_identity_that_cannot_be_read() -> None:
    files = Disk()
    open_directory(files, PATH, "shop", "a", DISK).close()
    files.fail_next("read", OSError(errno.EIO, "broken"))
    with pytest.raises(StorageError, match=r"cannot be read: .*broken"):
        open_directory(files, PATH, "shop", "a", "")
    assert read_identity(files, PATH) is not None
    with pytest.raises(StorageError, match="cannot be read"):
        read_identity(files, "/nowhere")


def test_an_identity_that_reads_back_otherwise_is_not_used() -> None:
    class Forgetful(Disk):
        def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
            data = super().read(path, offset, size)
            return bytes(len(data)) if path.endswith(".new") else data

    files = Forgetful()
    with pytest.raises(StoragePoisonedError, match="reads back other"):
        open_directory(files, PATH, "shop", "a", DISK)
    assert IDENTITY not in files.list_directory(PATH)


def test_a_path_that_leads_nowhere_ends_the_search_for_its_beginning() -> None:
    files = Disk()
    files.directories.clear()
    with pytest.raises(StorageError, match="cannot be opened"):
        open_directory(files, PATH, "shop", "a", DISK)


def test_a_well_sealed_identity_of_another_shape_is_damage() -> None:
    files = Disk()
    open_directory(files, PATH, "shop", "a", DISK).close()
    line = b'{"format_version":1,"cluster":5}\n'
    files.names[f"{PATH}/{IDENTITY}"].cached[:] = line + f"{crc32(line):08x}\n".encode()
    with pytest.raises(DamagedError, match="identity is damaged"):
        open_directory(files, PATH, "shop", "a", DISK)
