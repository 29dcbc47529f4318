"""The snapshot files of a simulated machine, read off the platter.

The ghost believes no member about its snapshots either: a file counts from the moment its bytes and
its name would survive a power failure, and only if it is whole. What it holds is told by the number
of changes that the witness has put in front of the state.
"""

from __future__ import annotations

from typing import NamedTuple

from clusterconsensus.errors import DamagedError
from clusterconsensus.simulation.judges.witness import APPLIED_BYTES
from clusterconsensus.simulation.world.content import Content
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.files import RealFiles
from clusterconsensus.storage.snapshot_format import Kind, SnapshotFile


class Whole(NamedTuple):
    """A snapshot file that is whole: up to where it goes, how many changes it says it holds, and
    the state's content."""

    seq: int
    applied: int
    state: bytes


class _Platter(RealFiles):
    """Reads one file's durable bytes through the port of the file system."""

    def __init__(self, content: Content) -> None:
        self._content = content

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        return bytes(self._content.durable[offset : None if size is None else offset + size])


def read_whole(path: str, content: Content) -> Whole | None:
    """Read a snapshot file as it stands on the platter; None if it is not whole."""
    try:
        file = SnapshotFile(_Platter(content), path)
        state = b"".join(piece for kind, piece in file.items() if kind == Kind.STATE)
    except DamagedError:
        return None
    applied = int.from_bytes(state[:APPLIED_BYTES], "big")
    return Whole(file.head.position.seq, applied, state[APPLIED_BYTES:])


class SnapshotsOnDisk:
    """The whole snapshots of one machine's disk.

    Arguments:
        disk: Whose.
        directory: The member's directory.
    """

    def __init__(self, disk: Disk, directory: str) -> None:
        self._disk = disk
        self._prefix = f"{directory}/snapshot-"
        self._known: dict[str, tuple[Content, int]] = {}
        self._looked_at = -1
        self._newest = 0

    def forget(self) -> None:
        """Something else than the process has changed the disk: read it again."""
        self._known.clear()
        self._looked_at = -1

    def paths(self) -> list[str]:
        """The paths of the durable snapshot files, whole or not, the oldest first."""
        names = self._disk.durable_names
        return sorted(
            path for path in names if path.startswith(self._prefix) and path.endswith(".snap")
        )

    def newest(self) -> int:
        """Up to where the newest whole one goes; 0 if there is none."""
        if self._looked_at != self._disk.operations:
            self._looked_at = self._disk.operations
            self._newest = max(map(self.seq, self.paths()), default=0)
        return self._newest

    def seq(self, path: str) -> int:
        """Up to where a snapshot goes, 0 if it is damaged."""
        content = self._disk.durable_names[path]
        known = self._known.get(path)
        if known is not None and known[0] is content:
            return known[1]
        if content.writes:
            return 0  # not synced yet
        whole = read_whole(path, content)
        seq = 0 if whole is None else whole.seq
        self._known[path] = (content, seq)
        return seq
