"""Tells every story of ``clusterconsensus.simulation.stories`` and compares it with its output.

``REWRITE_STORIES=1 pytest tests/core/test_stories.py`` records it anew; the ``expect`` lines hold
or fail all the same.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from clusterconsensus.simulation import stories
from clusterconsensus.simulation.cores.expectations import StoryError
from clusterconsensus.simulation.cores.story import tell

STORIES = Path(stories.__file__).parent


@pytest.mark.parametrize("path", sorted(STORIES.glob("*.txt")), ids=lambda path: path.stem)
def test_story(path: Path) -> None:
    recorded = path.read_text()
    told = tell(recorded)
    if os.environ.get("REWRITE_STORIES") == "1":
        path.write_text(told)
    else:
        assert told == recorded


def test_there_are_stories() -> None:
    assert len(list(STORIES.glob("*.txt"))) > 30


@pytest.mark.parametrize(
    "line",
    [
        "expect master a",
        "expect commit a 9",
        "expect said something",
        "expect client a x=1 gives 1",
        "fly a",
        "deliver a->b accept",
    ],
)
def test_what_does_not_hold_fails(line: str) -> None:
    with pytest.raises(StoryError, match="line 2"):
        tell(f"> cluster a b c\n> {line}\n")


def test_every_story_has_a_header_and_expects_something() -> None:
    for path in sorted(STORIES.glob("*.txt")):
        text = path.read_text()
        assert text.startswith("# "), path
        assert "> expect " in text, path
