"""SIGKILL of `harness ablation` at random moments, and the same command again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from harness.machine.environment import ROOT
from harness.vocabulary import names
from tests.support.command import output_of
from tests.support.processes.killed_trials import TINY, Place, read_journal, recorded_metrics

KILLS = 3
VARIANTS = ("dydila", "no_differential", "sana")


def command(folder: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "harness", "ablation", "no_differential", "--scale", "smoke"),
        *("--seeds", "1", "--runs-dir", str(folder / "runs"), *TINY),
    ]


def events_so_far(folder: Path) -> int:
    return sum(len(path.read_bytes()) for path in folder.glob("runs/smoke/*/*/tracking.jsonl"))


@pytest.mark.slow
def test_a_launcher_killed_at_random_moments_leaves_each_trial_run_once(
    undisturbed: Place,
    tmp_path: Path,
    new_store: Callable[[Path], str],
    subprocess_environment: dict[str, Any],
) -> None:
    store = new_store(tmp_path)
    environment = {**subprocess_environment, "MLFLOW_TRACKING_URI": store}
    moments = random.Random(3)
    for _ in range(KILLS):
        launcher = subprocess.Popen(
            command(tmp_path), cwd=ROOT, env=environment, stdout=subprocess.DEVNULL
        )
        # A random number of bytes that trials write from here on, or the end of the command.
        until = events_so_far(tmp_path) + moments.randrange(1, 12_000)
        while events_so_far(tmp_path) < until and launcher.poll() is None:
            time.sleep(0.02)
        if launcher.poll() is None:
            workers = psutil.Process(launcher.pid).children(recursive=True)
            launcher.send_signal(signal.SIGKILL)
            launcher.wait()
            _, alive = psutil.wait_procs(workers, timeout=60)
            assert not alive
    output_of(*command(tmp_path)[3:], store=store)
    trials = {path.parent.name: path for path in tmp_path.glob("runs/smoke/*/*/")}
    assert set(trials) == set(VARIANTS)
    weights = (trials["sana"] / "ema.safetensors").read_bytes()
    assert weights == (undisturbed.trial / "ema.safetensors").read_bytes()
    for trial in trials.values():
        assert [e["event"] for e in read_journal(trial)].count("begin") == 1
        steps = [step for name, step in recorded_metrics(trial) if name == names.TRAIN_LOSS]
        assert steps == list(range(len(steps)))
    size = events_so_far(tmp_path)
    again = output_of(*command(tmp_path)[3:], store=store)
    assert "3 of 3 trials are finished already and are reused" in again
    assert events_so_far(tmp_path) == size
