"""The journal's files: their names, and how one is made so that using it later is cheap and safe.

A segment is filled with zeros and synced before it is used, so that a later write into it only
replaces blocks that exist: syncing it needs no metadata, and a full disk is noticed here, where
nothing is lost, and not in the middle of a write. It is made under a temporary name, synced,
renamed, and its directory synced (D8, C-6), so a file with a segment's name is always whole.

Making one is work for the disk, so it can be done in slices, between appends.

Segments of a damaged journal that another one has replaced are *set aside* under another name until
the member is whole again.
"""

from __future__ import annotations

import contextlib
import re

from clusterconsensus.errors import DiskFullError, StoragePoisonedError
from clusterconsensus.storage.files import ZEROS, Files, WritableFile, is_full
from clusterconsensus.storage.records import HEADER_BYTES, encode_header

_NAME = re.compile(r"journal-(\d{8})\.log")
_SET_ASIDE = re.compile(r"damaged-(\d{8})\.log")
_TEMPORARY = re.compile(r"journal-\d{8}\.log\.new")


def segment_path(directory: str, number: int) -> str:
    """The path of a segment."""
    return f"{directory}/journal-{number:08}.log"


def segment_numbers(names: list[str]) -> list[int]:
    """The numbers of the segments among the names of a directory, ascending."""
    return sorted(int(found[1]) for name in names if (found := _NAME.fullmatch(name)))


def set_aside_path(directory: str, number: int) -> str:
    """The path of a segment of a damaged journal, once another one has replaced it."""
    return f"{directory}/damaged-{number:08}.log"


def set_aside_segments(names: list[str]) -> list[int]:
    """The numbers of the segments that are set aside, ascending."""
    return sorted(int(found[1]) for name in names if (found := _SET_ASIDE.fullmatch(name)))


def unfinished_segments(names: list[str]) -> list[str]:
    """The names of files that were going to be segments when a crash came."""
    return [name for name in names if _TEMPORARY.fullmatch(name)]


class Making:
    """A segment that is being made.

    Arguments:
        number: Of the segment.
        size_bytes: Of the file, header included.
        content: What stands behind the header from the beginning.

    Raises:
        DiskFullError: from every step; the unfinished file is gone again.
        StoragePoisonedError: from every step; a write or a sync failed.
    """

    def __init__(
        self,
        files: Files,
        directory: str,
        disk_id: str,
        number: int,
        size_bytes: int,
        content: bytes = b"",
    ) -> None:
        self._files = files
        self._directory = directory
        self._disk_id = disk_id
        self._path = segment_path(directory, number)
        self._file: WritableFile | None = None
        self._content = content
        self._filled = HEADER_BYTES
        self.number = number
        self.size_bytes = size_bytes

    def advance(self, slice_bytes: int | None = None) -> bool:
        """Do some of the work, by default all of it; True when the segment can be used."""
        try:
            return self._advance(slice_bytes)
        except OSError as error:
            self.abandon()
            if is_full(error):
                raise DiskFullError(self._full(f"failed: {error}")) from error
            raise StoragePoisonedError(f"{self._path}: cannot be made: {error}") from error

    def _full(self, detail: str) -> str:
        return f"{self._path}: making a journal segment of {self.size_bytes} bytes {detail}"

    def _advance(self, slice_bytes: int | None) -> bool:
        files, temporary = self._files, f"{self._path}.new"
        file = self._file
        if file is None:
            free = files.free_bytes(self._directory)
            if free < self.size_bytes:
                raise DiskFullError(self._full(f"is not possible: {free} bytes are free"))
            file = self._file = files.create(temporary)
            file.pwrite(encode_header(self.number, self.size_bytes, self._disk_id), 0)
            if self._content:
                file.pwrite(self._content, HEADER_BYTES)
                self._filled += len(self._content)
        stop = self.size_bytes
        if slice_bytes is not None:
            stop = min(stop, self._filled + slice_bytes)
        while self._filled < stop:
            count = min(len(ZEROS), stop - self._filled)
            file.pwrite(memoryview(ZEROS)[:count], self._filled)
            self._filled += count
        file.datasync()
        if self._filled < self.size_bytes:
            return False
        self._file = None
        file.close()
        files.rename(temporary, self._path)
        files.sync_directory(self._directory)
        return True

    def abandon(self) -> None:
        """Give up: remove what there is. A leftover is harmless; the next start removes it."""
        if self._file is not None:
            self._file.close()
            self._file = None
            with contextlib.suppress(OSError):
                self._files.remove(f"{self._path}.new")
