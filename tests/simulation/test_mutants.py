"""Every deliberate bug is caught, by the rule that it breaks, and leaves no trace.

``python -m pytest tests/simulation/test_mutants.py -k NAME`` runs one of them.
"""

from __future__ import annotations

import re
import sys
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from clusterconsensus.consensus.acceptor import Acceptor
from clusterconsensus.consensus.log import Log
from clusterconsensus.simulation import stories
from clusterconsensus.simulation.cores.story import tell
from clusterconsensus.simulation.mutants import (
    AREAS,
    MUTANTS,
    Mutant,
    StaleMutantError,
    apply,
    kill,
    kill_by_seeds,
    spare,
)
from clusterconsensus.simulation.mutants.kills import EXPECT, rule_of
from clusterconsensus.simulation.mutants.table import edited, replaced, table, together

PROTOCOL = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
STORIES = Path(stories.__file__).parent


def named(name: str) -> Mutant:
    return MUTANTS[name]


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught_by_its_rule(name: str) -> None:
    found = kill(named(name))
    assert found.is_dead, found.how
    assert found.rule == named(name).reported, found.text


def test_unpatched_code_passes_what_kills() -> None:
    """Every story, life, drill and seed that kills, each once."""
    mutants = list(MUTANTS.values())
    for story in sorted({mutant.story for mutant in mutants if mutant.story}):
        passes(replace(CLEAN, story=story))
    for drill in sorted({mutant.drill for mutant in mutants if mutant.drill}):
        passes(replace(CLEAN, drill=drill))
    for number in sorted({number for mutant in mutants for number in mutant.lives or ()}):
        passes(replace(CLEAN, lives=range(number, number + 1)))
    for seed in sorted({seed for mutant in mutants for seed in mutant.core_seeds or ()}):
        passes(replace(CLEAN, core_seeds=range(seed, seed + 1)))
    for seed in sorted({seed for mutant in mutants for seed in mutant.cluster_seeds or ()}):
        passes(replace(CLEAN, cluster_seeds=range(seed, seed + 1)))
    passes(replace(CLEAN, is_order=True))


CLEAN = Mutant("no-bug", "no bug", ("I-1",), nullcontext, "I-1")


def passes(mutant: Mutant) -> None:
    found = spare(mutant)
    assert not found.is_dead, f"{found.how}: {found.text}"


@pytest.mark.parametrize(
    "name",
    [name for name, each in MUTANTS.items() if each.core_seeds is not None and each.story],
)
def test_random_schedules_catch_it_too(name: str) -> None:
    found = kill_by_seeds(named(name))
    assert found.is_dead, found.how


def test_a_rule_is_named_that_exists() -> None:
    for mutant in MUTANTS.values():
        assert mutant.violates, mutant.name
        assert mutant.reported in (*mutant.violates, EXPECT), mutant.name
        for rule in mutant.violates:
            assert re.search(rf"(\*\*|\| |\*){rule}\b", PROTOCOL), f"{mutant.name}: {rule}"


def test_names_are_unique_and_in_kebab_case() -> None:
    assert len(MUTANTS) == sum(len(area.MUTANTS) for area in AREAS)
    assert list(MUTANTS) == sorted(MUTANTS)
    for name, mutant in MUTANTS.items():
        assert mutant.name == name
        assert re.fullmatch(r"[a-z]+(-[a-z]+)*", name)
        assert mutant.what
        assert len(mutant.what) < 100, name


def test_each_invariant_kills_somebody() -> None:
    broken = {rule for mutant in MUTANTS.values() for rule in mutant.violates}
    assert {f"I-{number}" for number in range(1, 23)} <= broken


def test_every_patch_restores_exactly() -> None:
    story = (STORIES / "failover_with_adoption.txt").read_text()
    before = tell(story)
    for name in MUTANTS:
        owners = held()
        with apply(name):
            assert held() != owners, name
        assert held() == owners, name
    assert tell(story) == before


def held() -> dict[str, object]:
    """Every attribute of every class and module that some mutant changes."""
    found: dict[str, object] = {}
    for module_name, module in sorted(sys.modules.items()):
        if not module_name.startswith("clusterconsensus."):
            continue
        for name, value in vars(module).items():
            found[f"{module_name}.{name}"] = value
            if isinstance(value, type) and value.__module__ == module_name:
                for attribute, inner in vars(value).items():
                    found[f"{module_name}.{name}.{attribute}"] = inner
    return found


def test_a_patch_is_restored_after_an_error() -> None:
    original = vars(Acceptor)["refuse_lower"]
    with suppress(ZeroDivisionError), apply("accept-below-promise"):
        assert vars(Acceptor)["refuse_lower"] is not original
        raise ZeroDivisionError
    assert vars(Acceptor)["refuse_lower"] is original


def test_a_mutant_of_changed_source_is_refused() -> None:
    for text in ("this stands nowhere", "local"):
        with (
            pytest.raises(StaleMutantError, match="places read"),
            edited(Acceptor, "refuse_lower", (text, ""))(),
        ):
            pass
    with pytest.raises(StaleMutantError, match="of its own"), replaced(Acceptor, "nothing", 1):
        pass
    with pytest.raises(StaleMutantError, match="not a function"), edited(Acceptor, "__doc__")():
        pass


def test_two_mutants_of_one_name_are_refused() -> None:
    mutant = named("accept-below-promise")
    with pytest.raises(StaleMutantError, match="two mutants"):
        table(mutant, mutant)


def test_a_property_can_be_edited() -> None:
    patch = edited(Log, "first_cached", ("self._first_cached", "self._first_cached + 1"))
    assert Log().first_cached == 1
    with together(patch)():
        assert Log().first_cached == 2
    assert Log().first_cached == 1


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("I-4: b leads in 3:b without 4@2:a", "I-4"),
        ("line 26, settle: I-10: a commits 4, durable only at [] (I-1)", "I-10"),
        ("D5: d halts: 1 applied before it is durable (D5)", "D5"),
        ("replicated time goes back at 7@5:a NOOP (R10)", "R10"),
        ("R6: d halts: commit 8 beyond the log's end 0 (R6)", "R6"),
        ("a leads 2:b", "AssertionError"),
    ],
)
def test_the_rule_is_read_from_the_text(text: str, rule: str) -> None:
    assert rule_of(AssertionError(text + "\nI-22: more")) == rule
