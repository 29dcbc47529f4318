"""The documents say what is there: settings, errors, names, rules, links, and the first program."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import os
import re
import signal
import socket
import sys
import textwrap
from asyncio.subprocess import Process
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

import clusterconsensus
from clusterconsensus import ConsensusError, Settings, errors

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [*PAGES, *(ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md"))]

RULE = re.compile(r"\b([DERSLXIMWK]\d{1,2}[a-g]?|[IC]-\d{1,2})\b")
HOLE = re.compile(r"\bA-\d{1,2}[a-z]?\b")
FENCE = re.compile(r"^( *)```python\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
SOLD = re.compile(r"^([abc]) sold apple number (\d+)$")


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


def rows(page: str) -> dict[str, list[str]]:
    """The table rows of a page whose first cell is one name in backticks, by that name."""
    found: dict[str, list[str]] = {}
    for line in read(DOCS / page).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if line.startswith("| `") and re.fullmatch(r"`\w+`", cells[0]):
            assert cells[0] not in found, f"{page} has two rows for {cells[0]}"
            found[cells[0].strip("`")] = cells[1:]
    return found


# -- reference


def unit_of(name: str) -> str:
    if isinstance(getattr(Settings(), name), bool):
        return "yes or no"
    if name.endswith("_per_second"):
        return f"{name.split('_')[-3]} per second"
    return {"max_clock_drift": "fraction"}.get(name, name.rsplit("_", 1)[-1])


def test_every_setting_is_documented_with_its_default_and_unit() -> None:
    documented = rows("settings.md")
    fields = {field.name: field for field in msgspec.structs.fields(Settings)}
    assert documented.keys() == fields.keys()
    for name, (default, unit, meaning) in documented.items():
        assert default.split()[0] == str(fields[name].default), name
        assert unit == unit_of(name), name
        assert meaning, name


def error_classes() -> dict[str, type[ConsensusError]]:
    return {
        name: found
        for name, found in inspect.getmembers(errors, inspect.isclass)
        if issubclass(found, ConsensusError)
    }


def test_every_error_is_documented_with_its_attributes() -> None:
    documented = rows("errors.md")
    classes = error_classes()
    assert documented.keys() == classes.keys()
    for name, (below, code, retryable, outcome) in documented.items():
        found = classes[name]
        assert below == ", ".join(f"`{base.__name__}`" for base in found.__bases__), name
        assert code == f"`{found.code}`", name
        assert retryable == ("yes" if found.retryable else "no"), name
        assert outcome == found.outcome.value, name


def test_error_codes_are_unique() -> None:
    codes = [found.code for found in error_classes().values()]
    assert len(codes) == len(set(codes))


@pytest.mark.parametrize("name", clusterconsensus.__all__)
def test_every_public_name_is_documented(name: str) -> None:
    mention = re.compile(rf"`{re.escape(name)}\b")
    assert any(mention.search(read(page)) for page in PAGES), f"{name} is on no page"


# -- rules


def defined_rules() -> set[str]:
    text = read(DOCS / "protocol.md")
    bold = re.findall(r"\*\*([DERSLXIMWK]\d{1,2}[a-g]?)\b", text)
    cells = re.findall(r"^\| ([DERSLXIMWK]\d{1,2}|[IC]-\d{1,2}) \|", text, re.MULTILINE)
    return {*bold, *cells}


def sources() -> Iterator[Path]:
    return (ROOT / "src").rglob("*.py")


def test_every_rule_that_the_source_cites_is_on_the_protocol_page() -> None:
    defined = defined_rules()
    for path in sources():
        cited = set(RULE.findall(read(path)))
        assert cited <= defined, f"{path} cites {sorted(cited - defined)}"


def test_every_hole_that_the_source_cites_is_on_the_divergence_page() -> None:
    told = set(HOLE.findall(read(DOCS / "divergence.md")))
    for path in sources():
        cited = set(HOLE.findall(read(path)))
        assert cited <= told, f"{path} cites {sorted(cited - told)}"


def test_no_rule_is_missing_from_the_protocol_page() -> None:
    last = {"D": 10, "E": 13, "R": 10, "S": 6, "L": 4, "X": 5, "I": 5, "M": 9, "W": 8, "K": 8}
    expected = {f"{letter}{n}" for letter, end in last.items() for n in range(1, end + 1)}
    expected |= {"I0", *(f"I-{n}" for n in range(1, 23)), *(f"R1{part}" for part in "abcdefg")}
    assert expected <= defined_rules()


# -- pages


def slug(heading: str) -> str:
    plain = re.sub(r"[^\w\- ]", "", heading.replace("`", "")).strip().lower()
    return plain.replace(" ", "-")


def anchors(path: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", read(path), re.MULTILINE)}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.name))
def test_every_relative_link_leads_somewhere(path: Path) -> None:
    for link in LINK.findall(read(path)):
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        assert target.exists(), f"{path.name}: {link}"
        if anchor:
            assert anchor in anchors(target), f"{path.name}: {link}"


def test_the_navigation_lists_every_page() -> None:
    navigation = read(ROOT / "mkdocs.yml").partition("\nnav:")[2]
    listed = re.findall(r"^ +- [^:]+: (\S+\.md)$", navigation, re.MULTILINE)
    assert sorted(listed) == [str(page.relative_to(DOCS)) for page in PAGES]


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.name))
def test_every_example_compiles_and_imports_what_exists(path: Path) -> None:
    for _, code in FENCE.findall(read(path)):
        tree = compile(
            textwrap.dedent(code),
            path.name,
            "exec",
            ast.PyCF_ALLOW_TOP_LEVEL_AWAIT | ast.PyCF_ONLY_AST,
        )
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and node.module == "clusterconsensus":
                for alias in node.names:
                    assert alias.name in clusterconsensus.__all__, f"{path.name}: {alias.name}"


# -- the first program


def first_program() -> str:
    blocks: list[tuple[str, str]] = FENCE.findall(read(ROOT / "README.md"))
    return blocks[0][1]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        bound = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in bound:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in bound]


class Shop:
    """The README's program, as processes."""

    def __init__(self, directory: Path) -> None:
        code = first_program()
        assert "asyncio.sleep(1)" in code
        code = code.replace("asyncio.sleep(1)", "asyncio.sleep(0.02)")
        for old, new in zip((7001, 7002, 7003), free_ports(3), strict=True):
            assert code.count(f"127.0.0.1:{old}") == 1
            code = code.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
        (directory / "shop.py").write_text(code, encoding="utf-8")
        self._directory = directory
        self.processes: dict[str, Process] = {}
        self.sold: list[int] = []

    async def start(self, name: str) -> None:
        with (self._directory / f"{name}.errors").open("ab") as complaints:
            self.processes[name] = await asyncio.create_subprocess_exec(
                sys.executable,
                "shop.py",
                name,
                cwd=self._directory,
                env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
                stdout=asyncio.subprocess.PIPE,
                stderr=complaints,
            )

    async def next(self, name: str) -> int:
        """Wait for the next number that a member sells."""
        output = self.processes[name].stdout
        assert output is not None
        line = (await output.readline()).decode()
        found = SOLD.match(line)
        assert found is not None, f"{name} printed {line!r}"
        assert found[1] == name
        number = int(found[2])
        self.sold.append(number)
        return number

    def complaints(self) -> str:
        """What the processes wrote to their standard error, for whoever reads a failure."""
        files = sorted(self._directory.glob("*.errors"))
        return "\n".join(f"{file.name}:\n{read(file)}" for file in files)

    async def sells_beyond(self, name: str, number: int) -> None:
        while await self.next(name) <= number:
            pass

    async def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself
            process.send_signal(signal.SIGKILL)
        await process.communicate()

    async def close(self) -> None:
        for name in [*self.processes]:
            await self.kill(name)


def test_the_first_program_does_what_the_readme_says(tmp_path: Path) -> None:
    async def run() -> list[int]:
        shop = Shop(tmp_path)
        try:
            for name in "abc":
                await shop.start(name)
            await asyncio.gather(*(shop.sells_beyond(name, 10) for name in "abc"))
            await shop.kill("a")
            more = max(shop.sold) + 20
            await asyncio.gather(*(shop.sells_beyond(name, more) for name in "bc"))
            await shop.start("a")
            await shop.sells_beyond("a", more)
        finally:
            await shop.close()
            print(shop.complaints())  # pytest shows it if the test fails
        return shop.sold

    async def limited() -> list[int]:
        async with asyncio.timeout(50):
            return await run()

    sold = asyncio.run(limited())
    assert len(sold) == len(set(sold)), "a number was sold twice"
