"""A short soak; ``python -m tests.processes.soak --minutes 20`` is a long one."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.processes.soak import soak

SEED = int(os.environ.get("CLUSTERCONSENSUS_SOAK_SEED", "0")) or random.randrange(1, 1_000_000)


@pytest.mark.timeout(170)
def test_a_cluster_that_is_never_left_in_peace_loses_nothing(tmp_path: Path) -> None:
    print(f"seed {SEED}")
    one = soak(tmp_path, SEED, 15.0)
    assert sum(one.done.values()) >= 3
    assert len(one.group.acknowledged) > 100
