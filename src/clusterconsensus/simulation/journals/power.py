"""Every disk that a power failure may leave.

``Disk.after_power_failure`` draws one of them; here they are enumerated, so that a check can open
each one. What is unsynced at that moment is: directories that were made, changes of names, and
writes into files. Any subset of each may have survived, whatever the order in which they were made,
and any write of that subset may be torn. A torn write is cut at any byte, from either side, or
has any run of sectors lost, or alone kept.

That is exhaustive for one torn write among up to eight, and it grows with two to the power of
their number; where that is too much, ``whole_writes`` takes each write as a whole, and cuts only
the last one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product

from clusterconsensus.simulation.world.content import Content, Image, put
from clusterconsensus.simulation.world.disk import Disk
from clusterconsensus.storage.files import parent_of

MOST_WRITES = 8
"""How many unsynced writes of one file are enumerated."""

SMALL_SECTOR_BYTES = 64
"""Smaller than any real sector, so that small writes have several."""

Outcomes = Callable[[Content], list[bytes]]
"""What may be found of a file. The first one is that nothing unsynced has survived."""


def crash_states(disk: Disk, outcomes: Outcomes | None = None) -> Iterator[Image]:
    """Every image that a power failure now could leave on a disk, the first with everything
    unsynced lost.

    Arguments:
        outcomes: What may be found of one file: ``every_cut`` (without it) or ``whole_writes``.

    Raises:
        ValueError: more than ``MOST_WRITES`` writes of one file are unsynced.
    """
    outcomes = outcomes or every_cut
    for directories, names in _names(disk):
        paths = sorted(names)
        for contents in product(*[outcomes(names[path]) for path in paths]):
            yield Image(directories, dict(zip(paths, contents, strict=True)))


def _names(disk: Disk) -> Iterator[tuple[tuple[str, ...], dict[str, Content]]]:
    """Every choice of directories and names, each once."""
    made = sorted(disk.directories - disk.durable_directories)
    changes = [change for path in sorted(disk.changes) for change in disk.changes[path]]
    seen: set[tuple[tuple[str, ...], tuple[tuple[str, int], ...]]] = set()
    for survived in product((False, True), repeat=len(changes)):
        all_names = dict(disk.durable_names)
        for change, kept in zip(changes, survived, strict=True):
            if kept:
                change.apply(all_names)
        for also in product((False, True), repeat=len(made)):
            reached = set(disk.durable_directories)
            for path, kept in zip(made, also, strict=True):
                if kept and parent_of(path) in reached:
                    reached.add(path)
            directories = tuple(sorted(reached))
            names = {path: held for path, held in all_names.items() if parent_of(path) in reached}
            key = (directories, tuple((path, id(names[path])) for path in sorted(names)))
            if key not in seen:
                seen.add(key)
                yield directories, names


def every_cut(content: Content) -> list[bytes]:
    """Every content a file may have: any subset of its unsynced writes, one of them torn in any
    way, or none."""
    found: dict[bytes, None] = {}
    for kept in _subsets(content):
        found[_after(content, [write for write in kept if write is not None])] = None
    for place, (offset, data) in enumerate(content.writes):
        tears = _tears(offset, data)
        for kept in _subsets(content):
            if kept[place] is None:
                continue
            before = [write for write in kept[:place] if write is not None]
            behind = [write for write in kept[place + 1 :] if write is not None]
            for parts in tears:
                torn = [(offset + start, data[start:end]) for start, end in parts]
                found[_after(content, [*before, *torn, *behind])] = None
    return list(found)


def whole_writes(content: Content) -> list[bytes]:
    """The contents a file may have if each write is lost or kept as a whole, and the last one that
    is kept may be cut in the middle."""
    found: dict[bytes, None] = {}
    for kept in _subsets(content):
        writes = [write for write in kept if write is not None]
        found[_after(content, writes)] = None
        if writes:
            offset, data = writes[-1]
            found[_after(content, [*writes[:-1], (offset, data[: len(data) // 2])])] = None
    return list(found)


def _subsets(content: Content) -> Iterator[list[tuple[int, bytes] | None]]:
    """The unsynced writes with None for each that is lost; first, all lost."""
    writes = content.writes
    if len(writes) > MOST_WRITES:
        raise ValueError(f"{len(writes)} unsynced writes; at most {MOST_WRITES} are enumerated")
    for survived in product((False, True), repeat=len(writes)):
        yield [write if kept else None for write, kept in zip(writes, survived, strict=True)]


def _tears(offset: int, data: bytes) -> list[tuple[tuple[int, int], ...]]:
    """Which parts of a torn write, as start and end within it, may have survived."""
    size = len(data)
    # A long run of zeros is the same wherever it is cut, but for the file's size.
    step = 1 if size <= 1024 else 256 if data.strip(b"\0") else 2048
    found: dict[tuple[tuple[int, int], ...], None] = {}
    for cut in range(0, size, step):
        found[((0, cut),)] = None
        found[((cut, size),)] = None
    first = offset - offset % SMALL_SECTOR_BYTES
    sectors = [
        (max(start - offset, 0), min(start - offset + SMALL_SECTOR_BYTES, size))
        for start in range(first, offset + size, max(SMALL_SECTOR_BYTES, step))
    ]
    for place, (start, _) in enumerate(sectors):
        for _, end in sectors[place:]:
            found[((start, end),)] = None
            found[((0, start), (end, size))] = None
    return list(found)


def _after(content: Content, writes: list[tuple[int, bytes]]) -> bytes:
    found = bytearray(content.durable)
    for offset, data in writes:
        # Of a part without bytes nothing is left, not even the file's size.
        if data:
            put(found, offset, data)
    return bytes(found)
