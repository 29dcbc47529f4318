"""Writing a file so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn


def check_place(path: Path, option: str, refuse: Callable[[str], NoReturn]) -> None:
    """See before a long run that a file can be written behind it."""
    directory = path.parent
    if path.is_dir():
        refuse(f"{option}: {path} is a directory")
    if not directory.is_dir():
        refuse(f"{option}: there is no directory {directory}")
    if not os.access(directory, os.W_OK):
        refuse(f"{option}: {directory} cannot be written to")


def write_text(path: Path, text: str) -> None:
    """Write a file anew; until the last moment the old one stays.

    Raises:
        OSError: it cannot be written; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    try:
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
