"""A small ablation on the private cluster: real trials, each some seconds long."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from mlflow import MlflowClient
from safetensors.torch import load_file

from harness.cli.main import main
from harness.machine.environment import EXPERIMENTS, ROOT
from harness.trial.spec import RESULT
from harness.vocabulary.names import TRAIN_LOSS
from tests.support.slurm.private_cluster import PrivateCluster
from tests.support.slurm.waiting import wait_for

SCALE = "seconds"
STEPS = 300
CHECKPOINT_EVERY = 50
_SCALE_FILE = f"""
about: trials of some seconds
extends: smoke.yaml
model: {{depth: 1, width: 32, heads: 2}}
train:
  steps: {STEPS}
  batch_size: 8
  validate_every: 100
  checkpoint_every: {CHECKPOINT_EVERY}
  log_every: 10
  device: cpu
evaluate: {{probe_images: 1}}
"""
_FOUR_TRIALS = """
question: Do sweeps survive?
baseline: sana
seeds: [0, 1]
variants:
  sana: {attention: {name: sana}}
  softmax: {attention: {name: softmax}}
"""
_ONE_TRIAL = """
question: Does a trial survive?
baseline: sana
seeds: [0]
variants:
  sana: {attention: {name: sana}}
"""
_CLUSTER_FILE = """
about: the private cluster
extends: slurm.yaml
cpus_per_task: 1
poll_seconds: 1
"""


def write_experiments(folder: Path) -> None:
    """The shipped YAML files, this scale and cluster, and the ablations `four` and `one`."""
    shutil.copytree(EXPERIMENTS, folder)
    (folder / "scale" / f"{SCALE}.yaml").write_text(_SCALE_FILE)
    (folder / "cluster" / "private.yaml").write_text(_CLUSTER_FILE)
    (folder / "ablation" / "four.yaml").write_text(_FOUR_TRIALS)
    (folder / "ablation" / "one.yaml").write_text(_ONE_TRIAL)


@dataclass(frozen=True)
class Sweep:
    """An ablation in a runs folder of its own."""

    cluster: PrivateCluster
    experiments: Path
    runs: Path
    store: str
    name: str

    @property
    def variables(self) -> dict[str, str]:
        return {
            **self.cluster.variables,
            "MLFLOW_TRACKING_URI": self.store,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(ROOT),
        }

    def start(self, command: str, *more: str) -> subprocess.Popen[str]:
        """The command as a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "harness", *self._arguments(command, *more)],
            env={**os.environ, **self.variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=ROOT,
        )

    def call(self, command: str, *more: str) -> int:
        """The command in this process, which has imported all that it needs; its exit code."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in self.variables.items():
                patch.setenv(name, value)
            return main(self._arguments(command, *more))

    def anew(self, runs: Path) -> Sweep:
        """The same ablation in another folder, where nothing has run; only the features of real
        images, which are no part of a trial, are there."""
        no_records = shutil.ignore_patterns("*.slurm*")
        shutil.copytree(self.runs / "references", runs / "references", ignore=no_records)
        return replace(self, runs=runs)

    def trial(self, variant: str = "sana", seed: int = 0) -> Trial:
        return Trial(self, variant, seed)

    def _arguments(self, command: str, *more: str) -> list[str]:
        where = ["--cluster", "private"]
        folders = ["--runs-dir", str(self.runs), "--experiments-dir", str(self.experiments)]
        return [command, self.name, "--scale", SCALE, *where, *folders, *more]


@dataclass(frozen=True)
class Trial:
    """One trial of a sweep, as its files and MLflow show it."""

    sweep: Sweep
    variant: str
    seed: int

    @property
    def folder(self) -> Path:
        (found,) = (self.sweep.runs / SCALE / self.variant).glob(f"seed{self.seed}-*")
        return found

    @property
    def job(self) -> str:
        """SLURM's id, as its own commands take it."""
        return str(self._json("result.slurm.json")["job"])

    @property
    def requeues(self) -> int:
        return int(self._json("result.slurm-task.json")["requeues"])

    @property
    def finished(self) -> bool:
        return (self.folder / RESULT).exists()

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text(errors="replace")

    @property
    def run_id(self) -> str:
        return str(self._json("tracking.json")[self.sweep.store]["run_id"])

    def weights_digest(self) -> str:
        """Equal only for weights that are bitwise equal."""
        digest = hashlib.sha256()
        for name, tensor in sorted(load_file(self.folder / "ema.safetensors").items()):
            digest.update(name.encode() + tensor.numpy().tobytes())
        return digest.hexdigest()

    def losses(self) -> list[tuple[int, float]]:
        """Steps and training losses in MLflow, in the order in which they were recorded."""
        client = MlflowClient(self.sweep.store)
        history = client.get_metric_history(self.run_id, TRAIN_LOSS)
        return [(metric.step, metric.value) for metric in history]

    def assert_as(self, other: Trial) -> None:
        """That both ended with the same weights and recorded the same losses, to the last bit."""
        assert self.weights_digest() == other.weights_digest()
        assert sorted(self.losses()) == sorted(other.losses())

    def preempt_and_finish(self, *more: str) -> None:
        """Submit the trial, tell its job to stop, and wait until it ended in its second turn."""
        assert self.sweep.call("ablation", "--detach", *more) == 0
        with self.paused_in_training():
            job, run_id = self.job, self.run_id
            self.sweep.cluster.run("scancel", "--signal=USR1", job)
        self.wait_finished()
        assert (self.job, self.run_id, self.requeues) == (job, run_id, 1)

    def wait_finished(self) -> None:
        def over() -> bool:
            states = self.sweep.cluster.job_states()
            assert self.finished or states.get(self.job) != "FAILED", self.log[-2000:]
            return self.finished and states.get(self.job) not in ("RUNNING", "COMPLETING")

        wait_for(over, timeout=1200)

    @contextmanager
    def paused_in_training(self) -> Iterator[psutil.Process]:
        """Stops the trial's process between two steps, past its first checkpoints, so that whatever
        happens to it in this context finds it there, on fast machines and slow ones."""
        first = f"checkpoints/step-{2 * CHECKPOINT_EVERY:08d}.sha256"
        wait_for(lambda: any(self.sweep.runs.glob(f"{SCALE}/*/*/{first}")), timeout=1200)
        process = psutil.Process(self._json("status.json")["pid"])
        process.suspend()
        assert self._json("status.json")["stage"] == "train"
        assert not (self.folder / "trained.json").exists(), "too late: the training is over"
        try:
            yield process
        finally:
            if process.is_running():
                process.resume()

    def _json(self, name: str) -> dict[str, Any]:
        content: dict[str, Any] = json.loads((self.folder / name).read_text())
        return content
