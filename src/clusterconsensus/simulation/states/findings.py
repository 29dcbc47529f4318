"""What the kit has to say, in words for the author of the state machine."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Literal

import msgspec

WIDTH = 100
MAX_SHOWN_CHARACTERS = 200


class Finding(msgspec.Struct, frozen=True):
    """One thing that is wrong, or looks wrong.

    Attributes:
        rule: Which check found it: ``sentinels``, ``determinism``, ``snapshot``, ``install``,
            ``results``, ``raising`` or ``workload``.
        seen: What was seen.
        advice: What to change.
        where: ``file:line`` of the author's code, or "".
        change: The change, or the sequence of steps, that shows it; or "".
        severity: A ``warning`` may be meant that way; an ``error`` will hurt.
    """

    rule: str
    seen: str
    advice: str
    where: str = ""
    change: str = ""
    severity: Literal["error", "warning"] = "error"

    def describe(self) -> str:
        """The finding as a paragraph for a terminal."""
        head = f"{self.severity} ({self.rule})"
        if self.where:
            head += f" at {self.where}"
        lines = [head]
        for label, text in (("seen", self.seen), ("shown by", self.change), ("to do", self.advice)):
            if text:
                lines.append(
                    textwrap.fill(
                        f"{label}: {text}",
                        WIDTH,
                        initial_indent="  ",
                        subsequent_indent="    ",
                        break_on_hyphens=False,
                        break_long_words=False,
                    )
                )
        return "\n".join(lines)


class Findings(msgspec.Struct, frozen=True):
    """The outcome of a whole check.

    Attributes:
        found: Errors first, then warnings.
        checked: What was looked at, one sentence each.
        not_checked: What could not be looked at, and why.
    """

    found: tuple[Finding, ...]
    checked: tuple[str, ...]
    not_checked: tuple[str, ...]

    def __iter__(self) -> Iterator[Finding]:
        return iter(self.found)

    def __len__(self) -> int:
        return len(self.found)

    @property
    def errors(self) -> tuple[Finding, ...]:
        """The findings that are errors."""
        return tuple(finding for finding in self.found if finding.severity == "error")

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """The findings that are warnings."""
        return tuple(finding for finding in self.found if finding.severity == "warning")

    @property
    def ok(self) -> bool:
        """Whether there is no error and nothing was left unchecked."""
        return not self.errors and not self.not_checked

    def describe(self) -> str:
        """All of it for a terminal, the findings before what was checked."""
        parts = [finding.describe() for finding in self.found]
        parts += [f"checked: {text}" for text in self.checked]
        parts += [f"NOT CHECKED: {text}" for text in self.not_checked]
        errors, warnings = len(self.errors), len(self.warnings)
        parts.append(f"{_count(errors, 'error')}, {_count(warnings, 'warning')}")
        return "\n".join(parts)


def _count(number: int, noun: str) -> str:
    return f"{number or 'no'} {noun}{'' if number == 1 else 's'}"


def shown(value: object) -> str:
    """A value in a message: its repr, cut where it gets long."""
    try:
        text = repr(value)
    except Exception as error:
        return f"(its repr raises {type(error).__name__})"
    if len(text) <= MAX_SHOWN_CHARACTERS:
        return text
    return f"{text[:MAX_SHOWN_CHARACTERS]}... ({len(text)} characters)"
