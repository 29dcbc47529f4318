"""Damage at rest: what a disk may do to what had been durable, while nobody looks."""

from __future__ import annotations

from random import Random

from clusterconsensus.simulation.machine import Machine
from clusterconsensus.simulation.world.content import SECTOR_BYTES
from clusterconsensus.storage.records import HEADER_BYTES


def damage(machine: Machine, chance: Random, *, bits: bool = False) -> str:
    """Damage something in the journal at rest that had been durable before the last write, with
    ``bits`` no more than a bit; says what, or nothing where there is nothing to damage."""
    disk, life = machine.disk, machine.life
    if life is None:
        return ""
    places: list[tuple[str, int]] = []
    for path in disk.paths():
        if path.endswith(".log") and "/journal-" in path:
            end = len(bytes(disk.content(path).durable).rstrip(b"\0"))
            if path == life.platter.path:
                end = min(end, life.platter.last_write)
            if end > HEADER_BYTES:
                places.append((path, end))
    if not places:
        return ""
    path, end = places[chance.randrange(len(places))]
    offset = HEADER_BYTES + chance.randrange(end - HEADER_BYTES)
    length = min(SECTOR_BYTES, end - offset)
    how = "a bit flips" if bits else chance.choice(("a bit flips", "zeros", "a misdirected block"))
    if how == "a bit flips":
        disk.flip(path, offset, chance.randrange(8))
    elif how == "zeros":
        disk.overwrite(path, offset, bytes(length))
    else:
        other = HEADER_BYTES + chance.randrange(end - HEADER_BYTES)
        disk.overwrite(path, offset, bytes(disk.content(path).durable[other : other + length]))
    machine.note_damage(path)
    return f"{how} at {path}:{offset}"


def damage_last_write(machine: Machine, chance: Random) -> bool:
    """Damage the last write that is durable; False where there is none."""
    life, disk = machine.life, machine.disk
    if life is None or life.platter.path not in disk.paths():
        return False
    begins, data = life.platter.last_write, disk.content(life.platter.path).durable
    ends = len(bytes(data).rstrip(b"\0"))
    if ends <= begins:
        return False
    machine.note_damage(life.platter.path)
    return disk.flip(life.platter.path, begins + chance.randrange(ends - begins), 0)
