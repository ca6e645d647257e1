"""What all figures of many samples hold in memory, measured in a process of their own."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from harness.machine.environment import ROOT

PROGRAM = ROOT / "tests/support/processes/many_features.py"
GIGABYTE = 10**9
WIDTH = 2048


def measured(environment: dict[str, Any], samples: int, real: int, *metrics: str) -> dict[str, Any]:
    command = [sys.executable, str(PROGRAM), str(samples), str(real), *metrics]
    ran = subprocess.run(
        command, env=environment, check=True, capture_output=True, text=True, timeout=900
    )
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


@pytest.mark.slow
def test_figures_of_50000_samples_stay_under_two_gigabytes(subprocess_environment) -> None:
    found = measured(subprocess_environment, 50_000, 10_000, "fd", "kd", "is")
    assert found["peak"] < 2 * GIGABYTE
    # A copy of the features in float64 alone would be 0.8 GB.
    assert found["peak"] - found["before"] < 0.5 * GIGABYTE


@pytest.mark.slow
def test_precision_and_recall_hold_no_copy_of_the_features(subprocess_environment) -> None:
    """Distances of all pairs of 50,000 take minutes; what they need beside the features is the same
    for any number, up to some tens of megabytes that the allocator gives back late."""
    few, many = (
        measured(subprocess_environment, count, count // 2, "pr") for count in (4_000, 20_000)
    )
    growth = (many["peak"] - many["before"]) - (few["peak"] - few["before"])
    more_features = 4 * WIDTH * (20_000 - 4_000) * 3 // 2
    assert growth < 0.75 * more_features
