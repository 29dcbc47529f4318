"""What a mutant is, and how one is put into the running program and taken out again.

A *mutant* is a deliberate bug of this library: one line of thought that some other system really
got wrong, as a small patch in memory. It exists to prove that the checks can fail: a suite that
kills nothing is not a suite. Nothing on disk changes, and leaving the context restores every
attribute exactly.

Two helpers make the patches. ``replaced`` puts another value in the place of an attribute.
``edited`` compiles a function anew from its own source with some of its text replaced; each old
text must occur exactly once, so that a function which has changed breaks its mutant loudly instead
of leaving it a bug that is none.

What exists already when a patch is applied keeps its bound methods: make the cluster inside.
"""

from __future__ import annotations
import __future__

import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import FunctionType
from typing import Any

Patch = Callable[[], AbstractContextManager[None]]
"""Makes the context in which a mutant lives."""


class StaleMutantError(Exception):
    """A mutant no longer fits the source that it changes."""


@dataclass(frozen=True)
class Mutant:
    """One deliberate bug and how it is known to die.

    Arguments:
        name: In kebab-case, unique.
        what: The bug, in one line.
        violates: The rules and invariants of ``docs/protocol.md`` that it breaks.
        patch: Puts it in and takes it out.
        reported: The rule that the kill reports: one of ``violates``, or ``expect`` where a story
            expects something else, as it must where what is lost is progress.
        story: The name of a story that holds without it and fails with it.
        core_seeds: Seeds of random schedules of bare cores of which one fails.
        lives: Lives of a journal of which one is disproved at some power failure: 0 to 2 are told
            by hand, the others drawn.
        drill: The name of a drill (``drills``) that fails with it.
        cluster_seeds: Seeds of the simulator of whole clusters of which one fails.
        is_order: It makes the order of things depend on ``PYTHONHASHSEED``: two runs of one seed
            of bare cores differ.
    """

    name: str
    what: str
    violates: tuple[str, ...]
    patch: Patch
    reported: str
    story: str = ""
    core_seeds: range | None = None
    lives: range | None = None
    drill: str = ""
    cluster_seeds: range | None = None
    is_order: bool = False


_MISSING: Any = object()


@contextmanager
def replaced(owner: object, attribute: str, new: object) -> Iterator[None]:
    """Put ``new`` in the place of an attribute of a class or a module, for a while."""
    old = vars(owner).get(attribute, _MISSING)
    if old is _MISSING:
        raise StaleMutantError(f"{owner} has no {attribute} of its own")
    setattr(owner, attribute, new)
    try:
        yield
    finally:
        setattr(owner, attribute, old)


def edited(owner: object, attribute: str, *changes: tuple[str, str]) -> Patch:
    """A patch that replaces text in one function of a class or a module.

    Arguments:
        owner: The class or module.
        attribute: The name of a function, method, property, static or class method.
        changes: Pairs of an old text, which occurs exactly once, and a new one.
    """

    @contextmanager
    def patch() -> Iterator[None]:
        with replaced(owner, attribute, _compiled(owner, attribute, changes)):
            yield

    return patch


def together(*patches: Patch) -> Patch:
    """A patch of several places."""

    @contextmanager
    def patch() -> Iterator[None]:
        with ExitStack() as stack:
            for each in patches:
                stack.enter_context(each())
            yield

    return patch


def instead(owner: object, attribute: str, new: object) -> Patch:
    """A patch that replaces a whole attribute."""
    return lambda: replaced(owner, attribute, new)


def _function(held: object) -> FunctionType:
    if isinstance(held, property):
        held = held.fget
    elif isinstance(held, staticmethod | classmethod):
        held = held.__func__
    if not isinstance(held, FunctionType):
        raise StaleMutantError(f"{held!r} is not a function")
    return held


def _compiled(owner: object, attribute: str, changes: tuple[tuple[str, str], ...]) -> object:
    held = vars(owner).get(attribute)
    function = _function(held)
    source = textwrap.dedent(inspect.getsource(function))
    for old, new in changes:
        if source.count(old) != 1:
            raise StaleMutantError(
                f"{function.__qualname__}: {source.count(old)} places read {old!r}"
            )
        source = source.replace(old, new)
    module = sys.modules[function.__module__]
    made: dict[str, Any] = {}
    code = compile(
        source,
        f"<mutant of {function.__module__}.{function.__qualname__}>",
        "exec",
        flags=__future__.annotations.compiler_flag,
        dont_inherit=True,
    )
    exec(code, vars(module), made)
    return made[function.__name__]


def table(*mutants: Mutant) -> dict[str, Mutant]:
    """Mutants by name, sorted; a name that occurs twice is an error."""
    made: dict[str, Mutant] = {}
    for mutant in sorted(mutants, key=lambda each: each.name):
        if mutant.name in made:
            raise StaleMutantError(f"two mutants are called {mutant.name}")
        made[mutant.name] = mutant
    return made
