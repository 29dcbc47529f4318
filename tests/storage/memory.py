"""A disk in memory that knows what a power failure would leave of it.

Every write since a file's last sync, and every change of names since a directory's last sync, is
kept apart from what is durable. ``crash_states`` then gives the disks that could be found after a
power failure at this very moment: any subset of those writes and changes, and any cut of a write.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from itertools import product

from clusterconsensus.storage.files import FileLock, LockHeldError, WritableFile, parent_of

SECTOR_BYTES = 64
"""Smaller than any real one, so that small batches have several."""


class Node:
    """A file's content: what is durable, what was written since, and what a reader sees."""

    def __init__(self, durable: bytes = b"") -> None:
        self.durable = durable
        self.writes: list[tuple[int, bytes]] = []
        self.cached = bytearray(durable)

    def after(self, writes: list[tuple[int, bytes]]) -> bytes:
        content = bytearray(self.durable)
        for offset, data in writes:
            put(content, offset, data)
        return bytes(content)


def put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


class Change:
    """One unsynced change of names: ``removed`` goes, ``added`` refers to ``node``."""

    def __init__(self, removed: str, added: str, node: Node | None) -> None:
        self.removed = removed
        self.added = added
        self.node = node


class MemoryFile:
    def __init__(self, files: MemoryFiles, node: Node) -> None:
        self.files = files
        self.node = node
        self.closed = False

    def pwrite(self, data: bytes | bytearray | memoryview, offset: int) -> None:
        assert not self.closed
        files, node, content = self.files, self.node, bytes(data)
        files.begin("pwrite")
        grows = max(0, offset + len(content) - len(node.cached))
        space = files.free_bytes("")
        if grows and grows > space:
            kept = content[: len(content) - grows + max(0, space)]
            node.writes.append((offset, kept))
            put(node.cached, offset, kept)
            raise OSError(errno.ENOSPC, "no space left on device")
        node.writes.append((offset, content))
        put(node.cached, offset, content)

    def datasync(self) -> None:
        assert not self.closed
        self.files.begin("datasync", self.node)
        self.node.durable = self.node.after(self.node.writes)
        self.node.writes.clear()

    def close(self) -> None:
        self.closed = True


class MemoryLock:
    def __init__(self, files: MemoryFiles, path: str) -> None:
        self.files = files
        self.path = path

    def release(self) -> None:
        self.files.locks.discard(self.path)


class MemoryFiles:
    """``Files`` in memory.

    Attributes:
        before: Called before every operation that changes something.
        fail: If set, asked before every operation that changes something; an error that it returns
            is raised. A sync that fails so forgets what it should have synced, but readers go on
            seeing it, as on Linux.
        capacity_bytes: The size of the disk.
        honest: Whether ``free_bytes`` tells of ``capacity_bytes``.
    """

    def __init__(self) -> None:
        self.directories = {"/"}
        self.durable_directories = {"/"}
        self.names: dict[str, Node] = {}
        self.durable_names: dict[str, Node] = {}
        self.changes: dict[str, list[Change]] = {}
        self.locks: set[str] = set()
        self.before: Callable[[str], None] | None = None
        self.fail: Callable[[str], OSError | None] | None = None
        self.capacity_bytes = 1 << 40
        self.honest = True
        self.operations = 0

    def begin(self, operation: str, synced: Node | None = None) -> None:
        self.operations += 1
        if self.before is not None:
            self.before(operation)
        if self.fail is not None and (error := self.fail(operation)) is not None:
            if synced is not None:
                synced.writes.clear()
            raise error

    def node(self, path: str) -> Node:
        if path not in self.names:
            raise FileNotFoundError(errno.ENOENT, "no such file", path)
        return self.names[path]

    # -- Files

    def make_directory(self, path: str) -> bool:
        if path in self.directories:
            return False
        self.begin("make_directory")
        self.directories.add(path)
        return True

    def is_directory(self, path: str) -> bool:
        return path in self.directories

    def list_directory(self, path: str) -> list[str]:
        if path not in self.directories:
            raise FileNotFoundError(errno.ENOENT, "no such directory", path)
        return sorted(
            name.rpartition("/")[2]
            for name in [*self.names, *(self.directories - {"/"})]
            if parent_of(name) == path
        )

    def sync_directory(self, path: str) -> None:
        self.begin("sync_directory")
        self.durable_directories |= {name for name in self.directories if parent_of(name) == path}
        for change in self.changes.pop(path, []):
            apply(self.durable_names, change)

    def size(self, path: str) -> int:
        return len(self.node(path).cached)

    def read(self, path: str, offset: int = 0, size: int | None = None) -> bytes:
        content = self.node(path).cached
        return bytes(content[offset : None if size is None else offset + size])

    def create(self, path: str) -> WritableFile:
        self.begin("create")
        self._change(Change("", path, Node()))
        return MemoryFile(self, self.names[path])

    def open(self, path: str) -> WritableFile:
        return MemoryFile(self, self.node(path))

    def rename(self, source: str, target: str) -> None:
        node = self.node(source)
        self.begin("rename")
        self._change(Change(source, target, node))

    def remove(self, path: str) -> None:
        self.node(path)
        self.begin("remove")
        self._change(Change(path, "", None))

    def free_bytes(self, path: str) -> int:
        if path and not self.honest:
            return 1 << 40
        return self.capacity_bytes - sum(len(node.cached) for node in self.names.values())

    def lock(self, path: str) -> FileLock:
        if path in self.locks:
            raise LockHeldError("1")
        if path not in self.names:
            self._change(Change("", path, Node()))
        self.locks.add(path)
        return MemoryLock(self, path)

    def lock_holder(self, path: str) -> str:
        return "1" if path in self.locks else ""

    def _change(self, change: Change) -> None:
        apply(self.names, change)
        self.changes.setdefault(parent_of(change.added or change.removed), []).append(change)

    # -- crashes

    def after_process_crash(self) -> None:
        """Only the process has died: readers still see everything, nothing is more durable."""
        self.locks.clear()
        self.before = self.fail = None

    def after_power_failure(self) -> MemoryFiles:
        """The disk with everything unsynced lost."""
        return next(iter(self.crash_states(lambda node: [node.durable])))

    def crash_states(
        self, outcomes: Callable[[Node], list[bytes]] | None = None
    ) -> Iterator[MemoryFiles]:
        """Every disk that a power failure now could leave; the first one with everything unsynced
        lost. ``outcomes`` gives the contents that a file may have."""
        outcomes = outcomes or every_cut
        changes = [change for path in sorted(self.changes) for change in self.changes[path]]
        for kept in product((False, True), repeat=len(changes)):
            names = dict(self.durable_names)
            for keep, change in zip(kept, changes, strict=True):
                if keep:
                    apply(names, change)
            for made in (self.durable_directories, self.directories):
                reached = {p: node for p, node in names.items() if parent_of(p) in made}
                paths = sorted(reached)
                options = [outcomes(reached[path]) for path in paths]
                for contents in product(*options):
                    found = MemoryFiles()
                    found.directories = set(made)
                    found.durable_directories = set(made)
                    found.names = {
                        path: Node(content) for path, content in zip(paths, contents, strict=True)
                    }
                    found.durable_names = dict(found.names)
                    yield found
                if self.durable_directories == self.directories:
                    break


def apply(names: dict[str, Node], change: Change) -> None:
    if change.removed and (change.node is None or names.get(change.removed) is change.node):
        names.pop(change.removed, None)
    if change.added and change.node is not None:
        names[change.added] = change.node


def every_cut(node: Node) -> list[bytes]:
    """Every content a file may have: any subset of its unsynced writes, each of them whole, cut at
    any byte (from either side), or with any run of sectors lost or alone kept."""
    writes = node.writes
    choices: set[tuple[tuple[int, bytes], ...]] = set()
    found: dict[bytes, None] = {node.durable: None}
    for kept in product((False, True), repeat=min(len(writes), 6)):
        whole = [write for write, keep in zip(writes, kept, strict=False) if keep]
        found[node.after(whole)] = None
    for place, (offset, data) in enumerate(writes):
        # A long run of zeros is the same wherever it is cut, but for the file's size.
        step = 1 if len(data) <= 1024 else 256 if data.strip(b"\0") else 2048
        pieces = [(0, cut) for cut in range(0, len(data), step)]
        pieces += [(cut, len(data)) for cut in range(0, len(data), step)]
        sectors = [
            (max(start - offset, 0), min(start - offset + SECTOR_BYTES, len(data)))
            for start in range(
                offset - offset % SECTOR_BYTES, offset + len(data), max(SECTOR_BYTES, step)
            )
        ]
        pieces += sectors
        for before in ([], writes[:place]):
            for start, end in pieces:
                choices.add((*before, (offset + start, data[start:end])))
            for start, end in sectors:
                choices.add((*before, (offset, data[:start]), (offset + end, data[end:])))
            # Every run of sectors that alone was kept, or alone was lost.
            for first, (start, _) in enumerate(sectors):
                for _, end in sectors[first + 1 :]:
                    choices.add((*before, (offset + start, data[start:end])))
                    choices.add((*before, (offset, data[:start]), (offset + end, data[end:])))
    for choice in sorted(choices):
        found[node.after(list(choice))] = None
    return list(found)


def whole_writes(node: Node) -> list[bytes]:
    """The contents a file may have if writes are lost or kept as a whole, or cut in the middle."""
    found: dict[bytes, None] = {node.durable: None}
    for kept in product((False, True), repeat=min(len(node.writes), 6)):
        writes = [write for write, keep in zip(node.writes, kept, strict=False) if keep]
        found[node.after(writes)] = None
        if writes:
            offset, data = writes[-1]
            found[node.after([*writes[:-1], (offset, data[: len(data) // 2])])] = None
    return list(found)
