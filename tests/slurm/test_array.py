"""An array of real trials, whose launchers race, die and are started again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL

import pytest

from tests.support.slurm.private_cluster import PrivateCluster
from tests.support.slurm.sweep import SCALE, Sweep, Trial
from tests.support.slurm.waiting import wait_for

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(3600)]

TRIALS = [(variant, seed) for variant in ("sana", "softmax") for seed in (0, 1)]


@dataclass(frozen=True)
class FinishedSweep:
    """What is left of four trials and three launchers."""

    sweep: Sweep
    last_output: str
    last_code: int
    jobs_before_repetition: list[str]
    """The names of the sweep's jobs that SLURM saw end until it was complete."""

    @property
    def trials(self) -> list[Trial]:
        return [self.sweep.trial(variant, seed) for variant, seed in TRIALS]


@pytest.fixture(scope="module")
def finished(
    cluster: PrivateCluster,
    experiments: Path,
    store: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[FinishedSweep]:
    """Two launchers start at once and are killed while trials run; a third sees them through."""
    sweep = Sweep(cluster, experiments, tmp_path_factory.mktemp("four"), store, "four")
    cluster.wait_idle()
    with ExitStack() as clean_up:
        clean_up.callback(cluster.cancel_all)
        launchers = [sweep.start("ablation") for _ in range(2)]
        for launcher in launchers:
            clean_up.callback(launcher.kill)
        wait_for(lambda: any(sweep.runs.glob(f"{SCALE}/*/*/status.json")), timeout=1200)
        for launcher in launchers:
            launcher.kill()
            output, _ = launcher.communicate()
            assert launcher.returncode == -SIGKILL, output
        third = sweep.start("ablation")
        clean_up.callback(third.kill)
        output, _ = third.communicate(timeout=3000)
        cluster.wait_idle()
        yield FinishedSweep(sweep, output, third.returncode, _names(sweep))


def _names(sweep: Sweep) -> list[str]:
    ours = {f"harness-{path.name}" for path in (sweep.runs / "slurm").iterdir() if path.is_dir()}
    return [job["Name"] for job in sweep.cluster.ended_jobs() if job["Name"] in ours]


def test_the_launcher_that_is_left_sees_all_trials_to_the_end(finished: FinishedSweep) -> None:
    assert finished.last_code == 0, finished.last_output
    assert "were submitted before" in finished.last_output
    assert all(trial.finished for trial in finished.trials)


def test_no_trial_was_submitted_or_run_twice(finished: FinishedSweep) -> None:
    (submission,) = (path for path in (finished.sweep.runs / "slurm").iterdir() if path.is_dir())
    name = f"harness-{submission.name}"
    floor_and_trials = 1 + len(TRIALS)
    assert finished.jobs_before_repetition.count(name) == floor_and_trials
    assert all(trial.requeues == 0 for trial in finished.trials)
    assert len({trial.run_id for trial in finished.trials}) == len(TRIALS)


def test_the_submitted_jobs_which_hold_the_stores_address_can_be_read_by_nobody_else(
    finished: FinishedSweep,
) -> None:
    (submission,) = (path for path in (finished.sweep.runs / "slurm").iterdir() if path.is_dir())
    pickles = list(submission.glob("*_submitted.pkl"))
    assert pickles
    assert {path.stat().st_mode & 0o077 for path in (submission, *pickles)} == {0}


def test_the_report_compares_all_seeds(finished: FinishedSweep) -> None:
    table = finished.sweep.runs / "reports" / SCALE / "four" / "table.md"
    text = table.read_text()
    assert "sana" in text
    assert "softmax" in text
    assert str(table.parent) in finished.last_output


def test_a_trial_of_an_array_is_bitwise_the_one_that_ran_alone(
    finished: FinishedSweep, undisturbed: Sweep
) -> None:
    assert finished.trials[0].weights_digest() == undisturbed.trial().weights_digest()


def test_the_command_repeated_submits_nothing(
    finished: FinishedSweep, capfd: pytest.CaptureFixture[str]
) -> None:
    assert finished.sweep.call("ablation") == 0
    assert "4 of 4 trials are finished already" in capfd.readouterr().out
    finished.sweep.cluster.wait_idle()
    assert _names(finished.sweep) == finished.jobs_before_repetition


def test_status_shows_every_trial_as_done(
    finished: FinishedSweep, capfd: pytest.CaptureFixture[str]
) -> None:
    assert finished.sweep.call("status") == 0
    shown = capfd.readouterr().out
    assert "4 trials: 4 done" in shown
    for variant, seed in TRIALS:
        assert f"{variant}/seed{seed}" in shown
