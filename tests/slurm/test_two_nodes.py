"""A trial over two nodes trains as the same trial in one process does, whatever happens to it."""

from __future__ import annotations

import numpy as np
import psutil
import pytest

from tests.support.slurm.private_cluster import PrivateCluster
from tests.support.slurm.sweep import Sweep
from tests.support.slurm.waiting import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(3600)]

TWO_NODES = ("--detach", "cluster.nodes=2")
RELATIVE_TOLERANCE = 2e-3
"""Of a loss in float32: sums over half batches round differently, and steps carry that on."""


@pytest.fixture(scope="module")
def on_two_nodes(
    cluster: PrivateCluster, undisturbed: Sweep, tmp_path_factory: pytest.TempPathFactory
) -> Sweep:
    """The trial of `undisturbed` over two nodes, undisturbed too."""
    sweep = undisturbed.anew(tmp_path_factory.mktemp("two-nodes") / "runs")
    assert sweep.call("ablation", *TWO_NODES) == 0
    sweep.trial().wait_finished()
    assert sweep.trial().requeues == 0
    cluster.wait_idle()
    return sweep


def second_process(leading: psutil.Process) -> psutil.Process:
    """The process of rank 1 in the job of the one that leads: its children, if any, are younger."""
    wanted = {"SLURM_JOB_ID": leading.environ()["SLURM_JOB_ID"], "SLURM_PROCID": "1"}
    found = [
        process
        for process in psutil.process_iter(["environ"])
        if wanted.items() <= (process.info["environ"] or {}).items()
    ]
    return min(found, key=psutil.Process.create_time)


def test_two_nodes_give_the_loss_curve_of_one_process(
    on_two_nodes: Sweep, undisturbed: Sweep
) -> None:
    trial, alone = on_two_nodes.trial(), undisturbed.trial()
    assert (trial.folder / "log-rank1.txt").exists()
    steps, losses = zip(*sorted(trial.losses()), strict=True)
    expected_steps, expected = zip(*sorted(alone.losses()), strict=True)
    assert steps == expected_steps
    np.testing.assert_allclose(losses, expected, rtol=RELATIVE_TOLERANCE)


def test_both_processes_stop_after_the_same_step_and_go_on_after_a_requeue(
    sweep: Sweep, on_two_nodes: Sweep
) -> None:
    trial = sweep.trial()
    trial.preempt_and_finish("cluster.nodes=2")
    trial.assert_as(on_two_nodes.trial())


def test_a_process_that_is_gone_ends_the_other_and_the_trial_is_requeued(
    sweep: Sweep, on_two_nodes: Sweep
) -> None:
    trial = sweep.trial()
    assert sweep.call("ablation", *TWO_NODES) == 0
    with trial.paused_in_training() as process:
        job, run_id = trial.job, trial.run_id
        second_process(process).kill()
    trial.wait_finished()
    assert "lost touch with the others" in trial.log
    assert (trial.job, trial.run_id, trial.requeues) == (job, run_id, 1)
    trial.assert_as(on_two_nodes.trial())


def test_a_process_that_fails_ends_the_other_and_says_why(
    sweep: Sweep, on_two_nodes: Sweep, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = sweep.runs / on_two_nodes.trial().folder.relative_to(on_two_nodes.runs)
    (folder / "log-rank1.txt").mkdir(parents=True)
    assert sweep.call("ablation", *TWO_NODES) == 0
    job = sweep.trial().job
    wait_for(lambda: sweep.cluster.job_states()[job] == "FAILED")
    capfd.readouterr()
    assert sweep.call("status") == 0
    shown = " ".join(capfd.readouterr().out.split())
    assert "1 trial: 1 failed" in shown
    assert "process 1: IsADirectoryError" in shown
