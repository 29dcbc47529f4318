"""``python -m clusterconsensus``: the same as the command ``clusterconsensus``."""

from __future__ import annotations

import sys

from clusterconsensus.cli import main

if __name__ == "__main__":
    sys.exit(main())
