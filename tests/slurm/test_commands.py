"""What a user does to a sweep that runs."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.slurm.private_cluster import HIGH_PRIORITY
from tests.support.slurm.sweep import Sweep
from tests.support.slurm.waiting import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(3600)]


def test_a_cancelled_trial_saves_stays_away_and_goes_on_when_it_is_submitted_again(
    sweep: Sweep, undisturbed: Sweep, capfd: pytest.CaptureFixture[str]
) -> None:
    trial = sweep.trial()
    assert sweep.call("ablation", "--detach") == 0
    with trial.paused_in_training():
        job = trial.job
        capfd.readouterr()
        assert sweep.call("status") == 0
        shown = capfd.readouterr().out
        assert "1 trial: 1 running" in shown
        assert job in shown
        assert sweep.call("cancel") == 0
    wait_for(lambda: sweep.cluster.active_jobs() == [])
    assert not trial.finished
    assert sweep.call("ablation", "--detach") == 0
    assert trial.job != job
    trial.wait_finished()
    assert trial.weights_digest() == undisturbed.trial().weights_digest()


def test_a_waiting_job_is_cancelled_and_retry_leaves_it_alone(
    sweep: Sweep, capfd: pytest.CaptureFixture[str]
) -> None:
    cluster = sweep.cluster
    cluster.run("sbatch", "--exclusive", "-N2", "-p", HIGH_PRIORITY, "--output=/dev/null",
                "--wrap", "sleep 600")  # fmt: skip
    assert sweep.call("ablation", "--detach") == 0
    assert len(cluster.active_jobs()) == 2
    capfd.readouterr()
    assert sweep.call("status") == 0
    assert "1 trial: 1 queued" in capfd.readouterr().out
    assert sweep.call("cancel") == 0
    assert len(cluster.active_jobs()) == 1
    assert sweep.call("retry", "--detach") == 0
    assert len(cluster.active_jobs()) == 1


def test_the_printed_script_is_one_that_sbatch_accepts_and_nothing_is_submitted(
    sweep: Sweep, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ("cluster.nodes=2", "cluster.partition=high", "cluster.additional={nice: 10}")
    assert sweep.call("ablation", "--print-sbatch", *options) == 0
    script = capfd.readouterr().out
    assert sweep.cluster.active_jobs() == []
    assert not list(sweep.runs.rglob("*.slurm.json"))
    for line in ("--nodes=2", "--partition=high", "--signal=USR1@120", "--requeue", "--nice=10"):
        assert f"#SBATCH {line}" in script
    file = tmp_path / "script.sh"
    file.write_text(script)
    subprocess.run(["bash", "-n", file], check=True)
    sweep.cluster.run("sbatch", "--test-only", str(file))
