"""Real signals to `harness ablation` in the middle of training, and the same command again."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.machine.environment import EXPERIMENTS, ROOT
from harness.processes.status import read_status
from tests.support.processes.killed_trials import TINY

STEPS = 200
SETTINGS = (
    *(f"train.steps={STEPS}", "train.checkpoint_every=10000", "train.validate_every=1000"),
    *("train.batch_size=16", "train.log_every=100", "cluster.workers=1"),
    *(word for word in TINY if not word.startswith("train.")),
)
ABLATION = """
question: Is a trial that was stopped the same as one that was not?
baseline: sana
seeds: [0]
variants:
  sana:
    attention: {name: sana}
"""


@pytest.fixture
def start(
    tmp_path: Path, subprocess_environment: dict[str, Any]
) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts the command as the leader of a process group, which a terminal's Ctrl-C is sent to."""
    experiments = tmp_path / "experiments"
    shutil.copytree(EXPERIMENTS, experiments)
    (experiments / "ablation" / "one.yaml").write_text(ABLATION)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    started = []

    def start(processes: int, folder: Path = tmp_path) -> subprocess.Popen[str]:
        running = subprocess.Popen(
            [
                *(sys.executable, "-m", "harness", "ablation", "one", "--scale", "smoke"),
                *("--runs-dir", str(folder / "runs"), "--experiments-dir", str(experiments)),
                *(f"cluster.processes_per_trial={processes}", "cluster.threads_per_worker=2"),
                *SETTINGS,
            ],
            cwd=ROOT,
            env={**subprocess_environment, "MLFLOW_TRACKING_URI": store},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # A test run in the background of a script ignores Ctrl-C, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        started.append(running)
        return running

    yield start
    for running in started:
        running.kill()
        running.communicate()


def read_until(running: subprocess.Popen[str], pattern: str) -> None:
    """Returns when the command prints a line that the pattern is found in."""
    assert running.stdout is not None
    seen = []
    for line in running.stdout:
        seen.append(line)
        if re.search(pattern, line):
            return
    raise AssertionError("".join(seen))


def checkpoint_steps(trial: Path) -> list[int]:
    return sorted(int(path.stem[5:]) for path in trial.glob("checkpoints/step-*.ckpt"))


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_saves_the_present_step_and_the_command_goes_on_bitwise_from_there(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, processes: int
) -> None:
    step = 0
    # To the command alone, then to the whole group, as Ctrl-C in a terminal.
    for number, tens in ((signal.SIGTERM, "[2-4]"), (signal.SIGINT, "[5-7]")):
        running = start(processes)
        read_until(running, rf"  train  {tens}\d%")
        family = psutil.Process(running.pid).children(recursive=True)
        assert len(family) == (1 if processes == 1 else 3)
        (os.killpg if number == signal.SIGINT else os.kill)(running.pid, number)
        output, _ = running.communicate(timeout=300)
        assert running.returncode == 128 + number, output
        assert "1 running job(s) save and stop; again to end at once" in output
        assert f"sana/seed0  stopped by {number.name} at step" in output
        assert "the same command resumes" in output
        (trial,) = tmp_path.glob("runs/smoke/sana/*")
        status = read_status(trial)
        assert status is not None
        assert status.state == "stopped"
        assert int(status.reason.rpartition("at step ")[2]) > step
        step = int(status.reason.rpartition("at step ")[2])
        assert checkpoint_steps(trial)[-1] == step
        assert not psutil.wait_procs(family, timeout=10)[1]
    finished = start(processes)
    output, _ = finished.communicate(timeout=600)
    assert finished.returncode == 0, output
    assert json.loads((trial / "trained.json").read_text())["resumed_from_step"] == step
    undisturbed = start(processes, tmp_path / "undisturbed")
    undisturbed.communicate(timeout=600)
    (other,) = tmp_path.glob("undisturbed/runs/smoke/sana/*/ema.safetensors")
    assert (trial / "ema.safetensors").read_bytes() == other.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_second_signal_ends_at_once(
    start: Callable[..., subprocess.Popen[str]], tmp_path: Path, processes: int
) -> None:
    running = start(processes)
    read_until(running, r"  train  [2-4]\d%")
    family = psutil.Process(running.pid).children(recursive=True)
    # What cannot run cannot save, however long one waits.
    for process in family:
        process.suspend()
    os.killpg(running.pid, signal.SIGINT)
    time.sleep(2)
    assert running.poll() is None
    os.killpg(running.pid, signal.SIGINT)
    time.sleep(1)
    for process in family:
        if process.is_running():
            process.resume()
    output, _ = running.communicate(timeout=60)
    assert running.returncode == 130, output
    assert not psutil.wait_procs(family, timeout=10)[1]
    (trial,) = tmp_path.glob("runs/smoke/sana/*")
    if processes == 1:
        # Those of a trial on several have three seconds, as orphans of a worker that was killed.
        assert checkpoint_steps(trial) == []
