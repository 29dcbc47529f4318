"""The operating system's files, when the operating system does less than it was asked for."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from clusterconsensus.storage.files import LockHeldError, RealFiles, is_full, parent_of

DATA = bytes(range(256))


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "file")


def is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


@pytest.mark.parametrize("view", [False, True])
def test_a_short_write_is_continued(path: str, view: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    pwrite = os.pwrite
    asked: list[int] = []

    def short(descriptor: int, data: bytes, offset: int) -> int:
        asked.append(offset)
        return pwrite(descriptor, data[:100], offset)

    file = RealFiles().create(path)
    monkeypatch.setattr(os, "pwrite", short)
    file.pwrite(memoryview(DATA) if view else DATA, 10)
    monkeypatch.undo()
    file.close()
    assert RealFiles().read(path) == bytes(10) + DATA
    assert asked == [10, 110, 210]


def test_a_write_without_progress_is_an_error(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = RealFiles().create(path)
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: 0)
    with pytest.raises(OSError, match="no progress"):
        file.pwrite(DATA, 0)
    monkeypatch.undo()
    file.close()


def test_a_short_read_is_continued(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    Path(path).write_bytes(DATA)
    files = RealFiles()
    pread = os.pread
    monkeypatch.setattr(
        os, "pread", lambda descriptor, size, offset: pread(descriptor, min(size, 100), offset)
    )
    assert files.read(path) == DATA
    assert files.read(path, 7) == DATA[7:]
    assert files.read(path, 7, 150) == DATA[7:157]
    assert files.read(path, 200, 1000) == DATA[200:], "fewer at the file's end"
    assert files.read(path, 300) == b""
    assert files.read(path, 300, 5) == b""


@pytest.mark.parametrize("what", ["file", "lock"])
def test_letting_go_twice_closes_nobody_elses_file(path: str, what: str) -> None:
    files = RealFiles()
    let_go = files.create(path).close if what == "file" else files.lock(path).release
    let_go()
    # The lowest free number: most likely the one that was just given back.
    other = os.open(path, os.O_RDWR)
    let_go()
    os.pwrite(other, DATA, 0)
    os.close(other)
    assert files.read(path) == DATA


def test_names_come_and_go(tmp_path: Path, path: str) -> None:
    files = RealFiles()
    assert files.make_directory(f"{tmp_path}/deep")
    assert not files.make_directory(f"{tmp_path}/deep")
    file = files.create(path)
    file.pwrite(DATA, 0)
    file.close()
    again = files.open(path)
    again.pwrite(b"x", 1)
    again.close()
    assert files.size(path) == len(DATA)
    files.rename(path, f"{path}.new")
    assert files.list_directory(str(tmp_path)) == ["deep", "file.new"]
    files.remove(f"{path}.new")
    assert files.list_directory(str(tmp_path)) == ["deep"]
    with pytest.raises(FileNotFoundError):
        files.open(path)


def test_a_lock_tells_its_holder(path: str) -> None:
    files = RealFiles()
    lock = files.lock(path)
    with pytest.raises(LockHeldError) as raised:
        files.lock(path)
    assert raised.value.holder == str(os.getpid())
    lock.release()
    files.lock(path).release()


@pytest.mark.parametrize("step", ["flock", "ftruncate", "pwrite"])
def test_a_lock_that_cannot_be_taken_is_not_kept(
    path: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    real = os.open

    def note(*arguments: object) -> int:
        opened.append(real(*arguments))  # type: ignore[arg-type]  # passed on as they come
        return opened[-1]

    def fail(*arguments: object) -> int:
        raise OSError(errno.ENOLCK, "no locks here")

    monkeypatch.setattr(os, "open", note)
    monkeypatch.setattr(fcntl if step == "flock" else os, step, fail)
    with pytest.raises(OSError, match="no locks here"):
        RealFiles().lock(path)
    monkeypatch.undo()
    assert [is_open(descriptor) for descriptor in opened] == [False]
    RealFiles().lock(path).release()


@pytest.mark.parametrize(
    ("written", "error", "holder"),
    [
        (b"4711\n", None, "4711"),
        (b"4711\n", PermissionError(errno.EPERM, "another user's"), "4711"),
        (b"4711\n", ProcessLookupError(errno.ESRCH, "no such process"), ""),
        (b"", None, ""),
        (b"\xff someone", None, ""),
    ],
)
def test_who_seems_to_hold_a_lock(
    path: str,
    written: bytes,
    error: OSError | None,
    holder: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def kill(process: int, signal: int) -> None:
        assert (process, signal) == (4711, 0), "nobody is to be hurt"
        if error is not None:
            raise error

    Path(path).write_bytes(written)
    monkeypatch.setattr(os, "kill", kill)
    assert RealFiles().lock_holder(path) == holder


def test_a_number_that_no_process_can_have_holds_nothing(path: str) -> None:
    Path(path).write_bytes(b"9" * 40)
    assert RealFiles().lock_holder(path) == ""
    assert RealFiles().lock_holder(f"{path}.missing") == ""


def test_which_errors_mean_a_full_disk() -> None:
    assert is_full(OSError(errno.ENOSPC, "full"))
    assert is_full(OSError(errno.EDQUOT, "no more for you"))
    assert not is_full(OSError(errno.EIO, "broken"))


@pytest.mark.parametrize(
    ("path_given", "parent"),
    [
        ("/a/b", "/a"),
        ("/a/b/", "/a"),
        ("/a", "/"),
        ("/", "/"),
        ("a/b", "a"),
        ("a", "."),
        (".", "."),
    ],
)
def test_the_directory_that_a_path_is_in(path_given: str, parent: str) -> None:
    assert parent_of(path_given) == parent
