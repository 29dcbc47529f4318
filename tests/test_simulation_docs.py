"""The pages about the simulator say what it does: the tutorial is followed, lists are complete."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from clusterconsensus import simulation
from clusterconsensus.simulation.mutants import MUTANTS
from clusterconsensus.simulation.trouble.plan import FAULTS

ROOT = Path(__file__).resolve().parent.parent
TUTORIAL = (ROOT / "docs/simulation.md").read_text(encoding="utf-8")
PROOF = (ROOT / "docs/testing.md").read_text(encoding="utf-8")

WRONG, RIGHT, IN_A_TEST, BY_HAND = re.findall(r"^```python\n(.*?)^```", TUTORIAL, re.M | re.S)
SAID = re.findall(r"^```text\n(.*?)^```", TUTORIAL, re.M | re.S)


def run(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=directory,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT / "src"),
            "COLUMNS": "100",
            "PYTHONHASHSEED": "0",
        },
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def simulate(directory: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = ("simulate", "--state", "shop:Stock", "--workload", "shop:change", *more)
    return run(directory, "-m", "clusterconsensus", *command)


def test_the_wrong_shop_is_caught_with_the_words_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(WRONG, encoding="utf-8")
    ended = simulate(tmp_path)
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout == SAID[0]


def test_the_right_shop_passes(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(RIGHT, encoding="utf-8")
    ended = simulate(tmp_path, "--seeds", "6", "--jobs", "2")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "no errors, no warnings" in ended.stdout
    assert "6 seeds in" in ended.stdout


def test_the_tests_of_the_page_pass(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(RIGHT, encoding="utf-8")
    (tmp_path / "test_shop.py").write_text(IN_A_TEST + BY_HAND, encoding="utf-8")
    ended = run(tmp_path, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "3 passed" in ended.stdout


def test_a_cluster_of_wrong_shops_is_caught_too(tmp_path: Path) -> None:
    """Even without the examination: the members' results differ."""
    code = WRONG.replace("return list(self.reserved)", "return [self.changed]")
    (tmp_path / "shop.py").write_text(code, encoding="utf-8")
    test = IN_A_TEST.replace("    findings = check_state", "    return\n    findings = check_state")
    (tmp_path / "test_shop.py").write_text(test, encoding="utf-8")
    ended = run(tmp_path, "-m", "pytest", "-q", "-p", "no:randomly", "-p", "no:cacheprovider")
    assert ended.returncode == 1
    assert "I-13 (safety)" in ended.stdout
    assert "not deterministic" in ended.stdout


@pytest.mark.parametrize("name", simulation.__all__)
def test_every_public_name_is_on_the_page(name: str) -> None:
    assert f"`{name}`" in TUTORIAL


def test_every_fault_is_on_the_page_as_it_is_listed() -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \| (.*) \|$", PROOF, re.M)
    assert [(name, text) for name, text in listed if name in {f.name for f in FAULTS}] == [
        (fault.name, fault.what) for fault in FAULTS
    ]


def test_the_page_counts_the_deliberate_bugs() -> None:
    assert f"names {len(MUTANTS)} deliberate bugs" in " ".join(PROOF.split())


def test_every_public_name_has_a_docstring() -> None:
    for name in simulation.__all__:
        found = getattr(simulation, name)
        if not isinstance(found, tuple) and name != "Plan":
            assert (found.__doc__ or "").strip(), name
