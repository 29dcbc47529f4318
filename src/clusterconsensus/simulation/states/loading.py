"""From a name on a command line to the state machine it means.

``package.module:Name`` is imported as ``python -m`` would: the current directory comes first.
Whatever is wrong with the name or with what it names is a ``LoadError`` that says which part.
"""

from __future__ import annotations

import importlib
import inspect
import os
import random
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from clusterconsensus.codec import MsgpackCodec
from clusterconsensus.state import Codec, State

Workload: TypeAlias = Callable[[random.Random], Any]
"""``workload(chance)`` returns one change, drawn from ``chance`` alone."""

_METHODS = ("apply", "snapshot", "install")
_CODEC_METHODS = ("encode_change", "decode_change", "encode_result", "decode_result")


class LoadError(ValueError):
    """A state or a workload cannot be had; the message names the part that is wrong."""


class LoadedState(msgspec.Struct, frozen=True):
    """A user's state machine, ready to be made.

    Attributes:
        name: As it was given, or the factory's own name.
        factory: Makes an empty state.
        codec: Its codec: the attribute ``codec`` of the factory or of its module, or the default.
    """

    name: str
    factory: Callable[[], State]
    codec: Codec


def load_state(name: str | Callable[[], State]) -> LoadedState:
    """Find a state's factory, and see that what it makes is a state.

    Arguments:
        name: ``package.module:Factory``, or the factory itself.

    Raises:
        LoadError: the module or the attribute is missing, cannot be called, or makes no state.
    """
    if isinstance(name, str):
        factory = _find(name, "state", "package.module:Factory")
    else:
        name, factory = getattr(name, "__qualname__", repr(name)), name
    if not callable(factory):
        raise LoadError(
            f"{name} is of type {type(factory).__name__}, which cannot be called: give a class or "
            "a function that makes a fresh state"
        )
    try:
        state = factory()
    except Exception as error:
        raise LoadError(
            f"{name}() raises {type(error).__name__}: {error}; it is called without arguments"
        ) from error
    for method in _METHODS:
        function = getattr(state, method, None)
        if not callable(function):
            raise LoadError(
                f"{name}() makes a {type(state).__name__} without the method {method}: a state has "
                f"{', '.join(_METHODS)}"
            )
        if inspect.iscoroutinefunction(function):
            raise LoadError(
                f"{method} of {name}() is async: the library calls it without await, in the middle "
                "of its turn"
            )
    return LoadedState(name, factory, _find_codec(name, factory))


def load_workload(name: str | Workload) -> Workload:
    """Find a workload.

    Arguments:
        name: ``package.module:function``, or the function itself.

    Raises:
        LoadError: it is missing or cannot be called; or the name is empty, for nobody but the
            author of a state knows its changes.
    """
    if isinstance(name, str):
        if not name:
            raise LoadError(
                "no workload is given, and there is no default one: nobody but you knows the "
                "changes of your state. Write function(chance: random.Random) that returns a "
                "change, and give its name as package.module:function"
            )
        found = _find(name, "workload", "package.module:function")
    else:
        found = name
    if not callable(found):
        raise LoadError(
            f"the workload {name} is of type {type(found).__name__}, which cannot be called: give "
            "a function(chance: random.Random) that returns a change"
        )
    workload: Workload = found
    return workload


def import_name(found: object) -> str | None:
    """The ``module:name`` under which a fresh process finds an object; None where it has none."""
    module, name = getattr(found, "__module__", None), getattr(found, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(name, str) or module == "__main__":
        return None
    known: Any = sys.modules.get(module)
    for part in name.split("."):
        known = getattr(known, part, None)
    return f"{module}:{name}" if known is found else None


def _find(name: str, what: str, form: str) -> Any:
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise LoadError(f"{name!r} does not name a {what}: write {form}")
    here = os.getcwd()
    if here not in sys.path and "" not in sys.path:
        sys.path.insert(0, here)
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise LoadError(
                f"there is no module {error.name!r}, which {name!r} needs: it is looked for in "
                f"{here} and where Python finds its packages"
            ) from error
        raise LoadError(f"importing {module_name!r} fails: {error}") from error
    except Exception as error:
        raise LoadError(
            f"importing {module_name!r} raises {type(error).__name__}: {error}"
        ) from error
    path = module_name
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise LoadError(f"{path!r} has no attribute {part!r}, which {name!r} asks for")
        found = getattr(found, part)
        path += f".{part}"
    return found


def _find_codec(name: str, factory: Any) -> Codec:
    module = sys.modules.get(getattr(factory, "__module__", None) or "")
    for owner, text in ((factory, name), (module, getattr(module, "__name__", ""))):
        codec = getattr(owner, "codec", None)
        if codec is None:
            continue
        missing = [
            method for method in _CODEC_METHODS if not callable(getattr(codec, method, None))
        ]
        if missing:
            raise LoadError(
                f"the attribute codec of {text} is taken for the state's Codec and has no "
                f"{', '.join(missing)}"
            )
        found: Codec = codec
        return found
    return MsgpackCodec()
