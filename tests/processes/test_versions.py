"""Members of this version and of the one before in one cluster: an upgrade, one member at a time.

The earlier version is the code of a commit of this repository, run from its own source tree. Where
the clone does not hold that commit (a shallow one), there is nothing to run.
"""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tests.processes.children import PATIENCE, ROOT, SOURCE, Child, Group, until

EARLIER = "adae662"
"""The last commit of feature level 1 and journal format 1."""


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source tree of the earlier version."""
    found = subprocess.run(
        ["git", "archive", EARLIER, "src"], cwd=ROOT, capture_output=True, check=False
    )
    if found.returncode:
        pytest.skip(f"this clone does not hold the commit {EARLIER}")
    place = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=io.BytesIO(found.stdout)) as archive:
        archive.extractall(place, filter="data")
    return place / "src"


class Mixed(Group):
    """A group whose members run one version or the other."""

    def __init__(self, base: Path, names: str, old: Path) -> None:
        super().__init__(base, names, 1)
        self.old = old
        self.sources = dict.fromkeys(names, SOURCE)

    async def start(self, name: str) -> Child:
        self._lives[name] += 1
        order = {
            "id": name,
            "address": self.addresses[name],
            "directory": str(self.base / name),
            "parent": os.getpid(),
        }
        with self._log(name) as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "tests.processes.either",
                msgspec.json.encode(order).decode(),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": f"{self.sources[name]}:{ROOT}"},
            )
        child = self.running[name] = Child(self, name, process)
        await asyncio.wait_for(child.ready.wait(), PATIENCE)
        return child

    async def upgrade(self, name: str) -> None:
        """Stop a member in good order and start it with the code of this version."""
        await self.running.pop(name).leave()
        self.sources[name] = SOURCE
        await self.start(name)

    async def add(self, name: str, by: str) -> None:
        await self.running[by].ask("add", id=name, address=self.addresses[name])

    async def count(self, name: str) -> int:
        """One more change through a member; how many there are now."""
        return int((await self.running[name].ask("submit"))["count"])

    async def seen(self, name: str) -> int:
        """How many changes a linearizable read through a member finds."""
        return int((await self.running[name].ask("read"))["count"])

    async def level(self, name: str) -> int:
        return int((await self.running[name].ask("status"))["level"])

    async def is_upgraded(self) -> None:
        """Wait until the master has heard of every member that it runs this version."""
        while True:
            if await self.level(await self.master()) == 2:
                return
            await asyncio.sleep(0.02)

    async def refusal(self, name: str, do: str, **content: str) -> str:
        """What a member answers to what it does not do."""
        try:
            await self.running[name].ask(do, **content)
        except AssertionError as error:
            return str(error)
        raise AssertionError(f"{do} was not refused")


def run(base: Path, names: str, old: Path, story: Callable[[Mixed], Awaitable[Any]]) -> None:
    async def main() -> None:
        group = Mixed(base, names, old)
        try:
            async with asyncio.timeout(50):
                await story(group)
        except BaseException:
            print(group.logs(), file=sys.stderr)
            raise
        finally:
            await group.close()

    asyncio.run(main())


def test_an_old_cluster_is_upgraded_one_member_at_a_time(tmp_path: Path, earlier: Path) -> None:
    async def story(group: Mixed) -> None:
        group.sources.update(dict.fromkeys("abc", earlier))
        for name in "abc":
            await group.start(name)
        await group.running["a"].ask("found")
        for name in "bc":
            await group.add(name, "a")
        expected = 0
        for name in "abc":
            expected += 1
            assert await group.count(name) == expected
        for upgraded in "cba":
            await group.upgrade(upgraded)
            for name in "abc":
                expected += 1
                assert await group.count(name) == expected
            if upgraded == "c":
                # It is new, and knows that the others are not.
                assert await group.level("c") == 1
        await group.is_upgraded()
        await group.running["a"].ask("remove", id="c")
        expected += 1
        assert await group.count("a") == expected

    run(tmp_path, "abc", earlier, story)


def test_a_new_cluster_takes_in_an_old_member_and_waits_with_what_it_does_not_know(
    tmp_path: Path, earlier: Path
) -> None:
    async def story(group: Mixed) -> None:
        group.sources["c"] = earlier
        for name in "abc":
            await group.start(name)
        await group.running["a"].ask("found")
        for name in "bc":
            await group.add(name, "a")
        for expected, name in enumerate("cab", 1):
            assert await group.count(name) == expected
        refusal = await group.refusal("a", "remove", id="b")
        assert "feature level 1" in refusal
        assert "'c'" in refusal
        await group.kill("a")  # b or c leads now, and either understands the other
        assert await group.count("b") == 4
        assert await group.count("c") == 5
        await group.start("a")
        await group.upgrade("c")
        await until(lambda: "c" in group.running)
        assert await group.count("a") == 6
        await group.is_upgraded()
        await group.running["a"].ask("remove", id="c")
        assert await group.count("b") == 7

    run(tmp_path, "abc", earlier, story)


@pytest.mark.parametrize("old", ["a", "bc"])
def test_either_version_takes_the_other_in_and_takes_over_from_it(
    tmp_path: Path, earlier: Path, old: str
) -> None:
    """``a`` founds and leads; ``b`` and ``c``, of the other version, are added, and one of them
    leads when ``a`` dies. Then one of the version of ``a`` follows them."""

    async def story(group: Mixed) -> None:
        group.sources.update(dict.fromkeys(old, earlier))
        for name in "abc":
            await group.start(name)
        await group.running["a"].ask("found")
        for name in "bc":
            await group.add(name, "a")
        assert await group.master("a") == "a"
        for expected, name in enumerate("bac", 1):
            assert await group.count(name) == expected
            assert [await group.seen(reader) for reader in "abc"] == [expected] * 3
        await group.kill("a")
        assert await group.master("b", "c") in "bc"
        assert await group.count("b") == 4
        await group.start("a")
        assert await group.count("a") == 5
        assert [await group.seen(reader) for reader in "abc"] == [5] * 3
        assert await group.level(next(name for name in "abc" if name not in old)) == 1

    run(tmp_path, "abc", earlier, story)
