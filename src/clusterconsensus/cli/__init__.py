"""The command ``clusterconsensus``: the demonstration, and a look into a member's directory."""

from __future__ import annotations

from clusterconsensus.cli.main import main

__all__ = ["main"]
