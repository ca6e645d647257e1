"""Whole searches in processes of their own, at a size that takes seconds a training."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil
import pytest
from mlflow import MlflowClient

from harness.config.load import load_ablation
from harness.machine.environment import EXPERIMENTS, ROOT
from harness.vocabulary import names

TINY = [
    *("model.depth=1", "train.batch_size=16", "train.validate_every=5", "train.checkpoint_every=5"),
    *("evaluate.samples=20", "evaluate.probe_images=0", "sample.steps=3"),
    "cluster.threads_per_worker=1",
]


def command(folder: Path, trials: int, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "harness", "search", "s", "--scale", "smoke"),
        *("--trials", str(trials), "--runs-dir", str(folder / "runs")),
        *("--experiments-dir", str(folder / "experiments"), *TINY, *more),
    ]


def environment(folder: Path) -> dict[str, str]:
    return {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}"}


def write_search(folder: Path, text: str) -> None:
    """The shipped experiments and a search file."""
    shutil.copytree(EXPERIMENTS, folder / "experiments")
    (folder / "experiments" / "search" / "s.yaml").write_text(text, encoding="utf-8")


def run(folder: Path, trials: int, *more: str) -> str:
    done = subprocess.run(
        command(folder, trials, *more),
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment(folder),
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "runs" / "searches" / "smoke" / "s" / "trials.csv").open() as file:
        return list(csv.DictReader(file))


def wait_for(pattern: str, folder: Path, process: subprocess.Popen[str]) -> Path:
    deadline = time.monotonic() + 900
    while not (found := sorted(folder.glob(pattern))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return found[0]


def workers_of(process: subprocess.Popen[str]) -> Sequence[psutil.Process]:
    children = psutil.Process(process.pid).children(recursive=True)
    return [child for child in children if "harness.processes.worker" in " ".join(child.cmdline())]


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_workers_and_launchers_lose_and_repeat_nothing(
    tmp_path: Path, new_store: Callable[[Path], str]
) -> None:
    new_store(tmp_path)
    write_search(
        tmp_path,
        "question: Where should lambda start?\nbase: baselines/dydila\n"
        "space:\n  attention.gamma_init: {low: 1, high: 4}\n"
        "  attention.lambda_init: {low: 0, high: 1}\n"
        "objective: {seeds: [0, 1]}\npruner: none\nsampler: random\n",
    )
    more = ("train.steps=40", "--workers", "2")
    launcher = subprocess.Popen(
        command(tmp_path, 2, *more),
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=environment(tmp_path),
    )
    checkpoint = wait_for("runs/smoke/s/*/checkpoints/step-*.sha256", tmp_path, launcher)
    killed = checkpoint.parents[1]
    psutil.Process(json.loads((killed / "status.json").read_text())["pid"]).kill()
    wait_for("runs/smoke/s/seed1-*/checkpoints/step-*.sha256", tmp_path, launcher)
    left = workers_of(launcher)
    launcher.send_signal(signal.SIGKILL)
    launcher.wait()
    psutil.wait_procs(left, timeout=60)
    finished_before = {
        path: path.stat().st_mtime_ns for path in tmp_path.glob("runs/smoke/s/*/ema.safetensors")
    }

    output = run(tmp_path, 2, *more)
    found = rows(tmp_path)
    replaced = {int(n) for row in found for n in row["takes_the_place_of"].split()}
    counted = [row for row in found if int(row["trial"]) not in replaced]
    assert [row["state"] for row in counted] == ["COMPLETE"] * 2
    assert {row["state"] for row in found if row not in counted} == {"FAIL"}
    assert "2 trials: 2 complete" in output

    # Every configuration and seed has one folder, went on where it was, and was trained once.
    trainings = list(tmp_path.glob("runs/smoke/s/*/trained.json"))
    assert len(trainings) == 4
    assert json.loads((killed / "trained.json").read_text())["resumed_from_step"] is not None
    for path, modified in finished_before.items():
        assert path.stat().st_mtime_ns == modified

    again = run(tmp_path, 2, *more)
    assert "0 of 2 to run" in again
    assert rows(tmp_path) == found

    store = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = store.get_experiment_by_name("smoke")
    assert experiment is not None
    runs = store.search_runs([experiment.experiment_id])
    (parent,) = [it for it in runs if it.data.tags[names.TAG_KIND] == names.KIND_SEARCH]
    children = [it for it in runs if it.data.tags[names.TAG_KIND] == names.KIND_TRIAL]
    assert len(children) == 4
    assert parent.info.status == "FINISHED"
    for child in children:
        assert child.info.status == "FINISHED"
        assert child.data.tags[names.TAG_PARENT] == parent.info.run_id
        assert child.data.tags[names.TAG_SEARCH] == "s"
        assert child.data.tags[names.TAG_SEARCH_TRIAL].isdecimal()
    artifacts = {file.path for file in store.list_artifacts(parent.info.run_id)}
    assert {"best.yaml", "s_best.yaml", "trials.csv", "slice.png"} <= artifacts
    values = store.get_metric_history(parent.info.run_id, names.VALIDATION_LOSS)
    recorded = {str(point.step): point.value for point in values}
    assert recorded == {row["trial"]: float(row["validation_loss"]) for row in counted}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_hopeless_configuration_is_stopped_early_and_a_larger_number_goes_on(
    tmp_path: Path, new_store: Callable[[Path], str]
) -> None:
    new_store(tmp_path)
    write_search(
        tmp_path,
        "question: Which learning rate?\nbase: {attention.name: sana}\n"
        "space: {train.learning_rate: {low: 1e-12, high: 2e-3, log: true}}\n"
        "objective: {seeds: [0]}\npruner: {name: median, startup_trials: 1}\nsampler: random\n",
    )
    more = ("train.steps=20", "--workers", "1")
    first = run(tmp_path, 1, *more)
    assert "1 trials: 1 complete" in first
    output = run(tmp_path, 4, *more)
    assert "1 trials: 1 complete; 3 of 4 to run" in output
    found = rows(tmp_path)
    base, *others = found
    assert (base["state"], float(base["train.learning_rate"])) == ("COMPLETE", 2e-3)
    pruned = [row for row in others if row["state"] == "PRUNED"]
    assert pruned
    store = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = store.get_experiment_by_name("smoke")
    assert experiment is not None
    for row in pruned:
        assert float(row["train.learning_rate"]) < 2e-3
        (child,) = store.search_runs(
            [experiment.experiment_id], f"tags.`{names.TAG_SEARCH_TRIAL}` = '{row['trial']}'"
        )
        assert child.info.status == "KILLED"
        assert child.data.tags[names.TAG_ENDED_BECAUSE] == "stopped by pruning at step 5"
        history = store.get_metric_history(child.info.run_id, names.VALIDATION_LOSS)
        assert [point.step for point in history] == [5]

    # The best configuration is that of an ablation which finds its trainings finished.
    best = tmp_path / "runs" / "searches" / "smoke" / "s" / "s_best.yaml"
    shutil.copy(best, tmp_path / "experiments" / "ablation")
    ablation = load_ablation(
        "s_best",
        scale="smoke",
        seeds=1,
        overrides=[],
        experiments_dir=tmp_path / "experiments",
    )
    for trial in ablation.trials:
        assert (tmp_path / "runs" / "smoke" / "s" / trial.folder.name / "result.json").exists()
