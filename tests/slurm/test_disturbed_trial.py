"""Whatever happens to a trial's job, the trial ends as if nothing had."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from tests.support.slurm.private_cluster import HIGH_PRIORITY
from tests.support.slurm.sweep import CHECKPOINT_EVERY, STEPS, Sweep
from tests.support.slurm.waiting import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(3600)]

USR1_BIT = 1 << 9
"""In the masks of /proc/PID/status: signal n is bit n - 1."""


def was_signalled(process: psutil.Process) -> bool:
    """Whether the signal waits for the paused process, or has ended it: SLURM may wake it too."""
    try:
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return True
    masks = dict(line.split(":", 1) for line in lines)
    return bool((int(masks["SigPnd"], 16) | int(masks["ShdPnd"], 16)) & USR1_BIT)


def test_the_preemption_signal_saves_and_requeues(sweep: Sweep, undisturbed: Sweep) -> None:
    trial = sweep.trial()
    trial.preempt_and_finish()
    trial.assert_as(undisturbed.trial())


def test_a_job_of_higher_priority_takes_the_node_and_the_trial_goes_on_afterwards(
    sweep: Sweep, undisturbed: Sweep
) -> None:
    trial = sweep.trial()
    assert sweep.call("ablation", "--detach") == 0
    with trial.paused_in_training():
        run_id = trial.run_id
        urgent = sweep.cluster.run(
            "sbatch", "--parsable", "--exclusive", "-N2", "-p", HIGH_PRIORITY,
            "--output=/dev/null", "--wrap", "sleep 3",
        ).strip()  # fmt: skip
    wait_for(lambda: sweep.cluster.job_states()[urgent] == "COMPLETED")
    assert not trial.finished
    trial.wait_finished()
    assert (trial.run_id, trial.requeues) == (run_id, 1)
    trial.assert_as(undisturbed.trial())


def test_a_trial_saves_before_its_time_is_over_and_goes_on(
    sweep: Sweep, undisturbed: Sweep
) -> None:
    trial = sweep.trial()
    assert sweep.call("ablation", "--detach", "cluster.signal_seconds=30") == 0
    with trial.paused_in_training() as process:
        run_id = trial.run_id
        # Only now, so that a slow machine comes this far as well.
        minutes = sweep.cluster.seconds_run(trial.job) // 60 + 2
        sweep.cluster.run("scontrol", "update", f"JobId={trial.job}", f"TimeLimit={minutes}")
        wait_for(lambda: was_signalled(process), timeout=300)
    trial.wait_finished()
    assert trial.run_id == run_id
    assert trial.requeues >= 1
    trial.assert_as(undisturbed.trial())


def test_a_killed_process_loses_no_more_than_the_steps_since_its_checkpoint(
    sweep: Sweep, undisturbed: Sweep, capfd: pytest.CaptureFixture[str]
) -> None:
    trial = sweep.trial()
    assert sweep.call("ablation", "--detach") == 0
    with trial.paused_in_training() as process:
        job, run_id = trial.job, trial.run_id
        saved = max(trial.folder.glob("checkpoints/step-*.sha256")).stem
        process.kill()
    wait_for(lambda: sweep.cluster.job_states()[job] == "FAILED")
    capfd.readouterr()
    assert sweep.call("status") == 0
    assert "1 trial: 1 failed" in capfd.readouterr().out
    assert sweep.call("retry", "--detach") == 0
    assert trial.job != job
    trial.wait_finished()
    assert trial.run_id == run_id
    assert f"{saved}.ckpt" in trial.log
    assert 2 * CHECKPOINT_EVERY <= int(saved.removeprefix("step-")) < STEPS
    trial.assert_as(undisturbed.trial())


def test_the_trial_of_a_node_that_dies_goes_on_on_the_other(
    sweep: Sweep, undisturbed: Sweep
) -> None:
    trial = sweep.trial()
    assert sweep.call("ablation", "--detach") == 0
    with trial.paused_in_training():
        job, run_id = trial.job, trial.run_id
        node = sweep.cluster.node_of(job)
        sweep.cluster.kill_node(node)
    wait_for(lambda: sweep.cluster.job_states()[job] == "PENDING")
    wait_for(lambda: sweep.cluster.job_states()[job] == "RUNNING")
    assert sweep.cluster.node_of(job) != node
    sweep.cluster.start_node(node)
    trial.wait_finished()
    assert (trial.job, trial.run_id) == (job, run_id)
    trial.assert_as(undisturbed.trial())
