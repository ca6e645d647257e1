"""A trial over two nodes trains as the same trial in one process does."""

from __future__ import annotations

import numpy as np
import pytest

from tests.slurm.sweep import Sweep

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(3600)]

RELATIVE_TOLERANCE = 2e-3
"""Of a loss in float32: sums over half batches round differently, and steps carry that on."""


def test_two_nodes_give_the_loss_curve_of_one_process(sweep: Sweep, undisturbed: Sweep) -> None:
    trial, alone = sweep.trial(), undisturbed.trial()
    assert sweep.call("ablation", "--detach", "cluster.nodes=2") == 0
    trial.wait_finished()
    assert (trial.folder / "log-rank1.txt").exists()
    steps, losses = zip(*sorted(trial.losses()), strict=True)
    expected_steps, expected = zip(*sorted(alone.losses()), strict=True)
    assert steps == expected_steps
    np.testing.assert_allclose(losses, expected, rtol=RELATIVE_TOLERANCE)
