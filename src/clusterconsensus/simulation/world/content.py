"""What a simulated disk is made of: files, changes of names, images of the whole.

A write that nobody has synced may be on the platter or not, or in part: a disk writes sectors, each
whole or not at all, in any order.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

import msgspec

SECTOR_BYTES = 512
"""What a disk writes whole or not at all."""


class Content:
    """A file, whatever its names: what readers see, what is durable, and the writes between."""

    __slots__ = ("cached", "durable", "writes")

    def __init__(self, data: bytes = b"") -> None:
        self.cached = bytearray(data)
        self.durable = bytearray(data)
        self.writes: list[tuple[int, bytes]] = []

    def damage(self, offset: int, data: bytes) -> None:
        """Replace bytes on the platter. Where an unsynced write lies above them, readers do not
        see it, and the next sync repairs it."""
        data = data[: max(0, len(self.durable) - offset)]
        self.durable[offset : offset + len(data)] = data
        self.cached[offset : offset + len(data)] = data
        for at, written in self.writes:
            put(self.cached, at, written)


class Change(msgspec.Struct, frozen=True, eq=False):
    """A change of names: ``removed`` goes, ``added`` refers to ``content``; either may be empty."""

    removed: str
    added: str
    content: Content | None

    def apply(self, names: dict[str, Content]) -> None:
        """Make the change, if what it removes is (still) there."""
        content = self.content
        if self.removed and (content is None or names.get(self.removed) is content):
            names.pop(self.removed, None)
        if self.added and content is not None:
            names[self.added] = content


class Image(msgspec.Struct, frozen=True):
    """What stands on a platter: the directories, and each file's content by its path."""

    directories: tuple[str, ...] = ("/",)
    files: dict[str, bytes] = {}


def put(content: bytearray, offset: int, data: bytes) -> None:
    """Write into a file's content, with zeros where it had ended before ``offset``."""
    if len(content) < offset:
        content.extend(bytes(offset - len(content)))
    content[offset : offset + len(data)] = data


def survivors(offset: int, size: int, chance: Random) -> list[tuple[int, int]]:
    """Which parts of an unsynced write, as start and end within it, are on the platter after all:
    all, none, or some of its sectors, of which a beginning is as likely as anything else."""
    fate = chance.random()
    if fate < 1 / 3:
        return []
    if fate < 2 / 3:
        return [(0, size)]
    first = offset // SECTOR_BYTES
    borders = [
        min(max(sector * SECTOR_BYTES - offset, 0), size)
        for sector in range(first, -(-(offset + size) // SECTOR_BYTES) + 1)
    ]
    sectors = list(pairwise(borders))
    if chance.random() < 0.5:
        return sectors[: int(chance.random() * len(sectors))]
    kept = chance.getrandbits(len(sectors) or 1)
    return [part for place, part in enumerate(sectors) if kept >> place & 1]
