"""``python -m tests.processes.soak``: a cluster of real processes that is never left in peace.

Five members write all the time, while one after the other is killed, stopped, restarted, removed
and added again with an empty directory, replaced, demoted and promoted, handed the mastership, or
has a bit of its journal or of a snapshot flipped. Snapshots are taken every few hundred entries, so
that compaction, transfers of snapshots and recovery happen all the time.

One thing at a time: after each the cluster must go on, every member of it. In the end all copies
must be equal, nothing that was acknowledged may be lost or applied twice, and what the clients were
told must make sense in some order. Everything is bounded in time; ``--seed`` repeats the choices.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.processes.children import Child, Group, check

NAMES = "abcde"
MAX_CHANGES = 20_000_000
SETTLE_SECONDS = 40.0

Deed = Callable[["Soak", str], Awaitable[None]]


class Soak:
    """One run."""

    def __init__(self, base: Path, seed: int) -> None:
        self.group = Group(base, NAMES, seed, compacts=True, lanes=1)
        self.chance = random.Random(seed)
        self.at = "form"
        """What is being done, and to whom."""
        self.done: Counter[str] = Counter()
        self.max_disk_bytes = 0
        self.max_resident_bytes = 0

    def directory(self, name: str) -> Path:
        return self.group.base / name

    async def run(self, seconds: float) -> None:
        """Form a cluster, trouble it for so long, and judge what is left.

        Raises:
            AssertionError: something is wrong.
        """
        group = self.group
        ends = time.monotonic() + seconds
        try:
            await group.form()
            await group.progress()
            deeds = list(DEEDS)
            while time.monotonic() < ends and len(group.acknowledged) < MAX_CHANGES:
                if not deeds:
                    deeds = list(DEEDS)
                deed = deeds.pop(self.chance.randrange(len(deeds)))
                name = self.chance.choice(NAMES)
                if deed is kill and self.chance.random() < 0.5:
                    name = await group.master()
                self.at = f"{deed.__name__} {name}"
                async with asyncio.timeout(SETTLE_SECONDS):
                    await deed(self, name)
                    await group.progress()
                    await self.all_vote()
                self.done[deed.__name__] += 1
                self.measure()
            check(group, await group.finish())
        except BaseException:
            print(group.logs()[-20_000:], file=sys.stderr)
            print(f"while: {self.at}", file=sys.stderr)
            for child in group.running.values():
                print(child.name, await self.status(child), file=sys.stderr)
            raise
        finally:
            await group.close()

    async def status(self, child: Child) -> object:
        """What a member says of itself, as far as it does."""
        try:
            async with asyncio.timeout(3.0):
                return await child.ask("status")
        except (TimeoutError, ConnectionError) as error:
            return repr(error)

    async def all_vote(self) -> None:
        """Wait until nobody is recovering."""
        while True:
            found = [await child.ask("status") for child in self.group.running.values()]
            if not any(status["recovering"] for status in found):
                return
            await asyncio.sleep(0.02)

    def measure(self) -> None:
        """Note how much of the disk and of the memory the members take."""
        for name in NAMES:
            size = 0
            for file in self.directory(name).iterdir():
                with contextlib.suppress(FileNotFoundError):  # compacted in this very moment
                    size += file.stat().st_size
            self.max_disk_bytes = max(self.max_disk_bytes, size)
        resident = [child.resident_bytes() for child in self.group.running.values()]
        self.max_resident_bytes = max(self.max_resident_bytes, *resident)

    async def other(self, name: str) -> str:
        """Some other member that runs."""
        return self.chance.choice([held for held in self.group.running if held != name])


async def kill(soak: Soak, name: str) -> None:
    group = soak.group
    await group.kill(name)
    await group.progress(*(held for held in NAMES if held != name))
    await group.restart(name)


async def stop(soak: Soak, name: str) -> None:
    child = soak.group.running[name]
    child.signal(signal.SIGSTOP)
    try:
        await soak.group.progress(*(held for held in NAMES if held != name))
        await asyncio.sleep(soak.chance.random())
    finally:
        child.signal(signal.SIGCONT)


async def restart(soak: Soak, name: str) -> None:
    child = soak.group.running.pop(name)
    await child.ask("rest")
    assert await child.leave() == 0
    await soak.group.restart(name)


async def transfer(soak: Soak, name: str) -> None:
    via = soak.group.running[await soak.other("")]
    await via.ask("transfer", id=name)


async def take_and_give_the_vote(soak: Soak, name: str) -> None:
    via = soak.group.running[await soak.other(name)]
    await via.ask("demote", id=name)
    await via.ask("promote", id=name)


async def remove_and_add(soak: Soak, name: str) -> None:
    group = soak.group
    via = group.running[await soak.other(name)]
    await via.ask("remove", id=name)
    await group.kill(name)
    shutil.rmtree(soak.directory(name))
    await group.start(name)
    await via.ask("add", id=name, address=group.addresses[name])
    await group.running[name].ask("write")


async def lose_the_disk(soak: Soak, name: str) -> None:
    group = soak.group
    via = group.running[await soak.other(name)]
    await group.kill(name)
    shutil.rmtree(soak.directory(name))
    await group.start(name)
    await via.ask("replace", id=name, address=group.addresses[name])
    await group.running[name].ask("write")


async def flip_a_journal(soak: Soak, name: str) -> None:
    await flip(soak, name, "journal-*.log")


async def flip_a_snapshot(soak: Soak, name: str) -> None:
    await flip(soak, name, "snapshot-*.snap")


async def flip(soak: Soak, name: str, pattern: str) -> None:
    """Damage a file of a member that is down, but the one in use, and start it again."""
    group = soak.group
    await group.kill(name)
    files = sorted(soak.directory(name).glob(pattern))[:-1]
    if files:
        path = soak.chance.choice(files)
        content = bytearray(path.read_bytes())
        used = len(content.rstrip(b"\0"))
        content[soak.chance.randrange(min(4_096, used - 1), used)] ^= 1 << soak.chance.randrange(8)
        path.write_bytes(content)
    await group.restart(name)


DEEDS: tuple[Deed, ...] = (
    kill,
    stop,
    restart,
    transfer,
    take_and_give_the_vote,
    remove_and_add,
    lose_the_disk,
    flip_a_journal,
    flip_a_snapshot,
    kill,
)


def soak(base: Path, seed: int, seconds: float) -> Soak:
    """Run one soak in a directory and return what was done.

    Raises:
        AssertionError: something is wrong.
    """
    one = Soak(base, seed)
    asyncio.run(one.run(seconds))
    return one


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.processes.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1, 1_000_000))
    arguments = parser.parse_args()
    print(f"seed {arguments.seed}, {arguments.minutes} minutes", flush=True)
    base = Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        one = soak(base, arguments.seed, arguments.minutes * 60)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    for name, count in sorted(one.done.items()):
        print(f"{count:6d}  {name}")
    print(f"{len(one.group.acknowledged):,} changes acknowledged, none lost, none twice")
    print(f"at most {one.max_disk_bytes / 2**20:.1f} MiB on the disk of a member")
    print(f"at most {one.max_resident_bytes / 2**20:.1f} MiB resident in a member")


if __name__ == "__main__":
    main()
