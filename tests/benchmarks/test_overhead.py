from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger
from safetensors.torch import load_model

from benchmarks.__main__ import main
from benchmarks.overhead import measure_launching
from benchmarks.steps import BareLoop
from harness.config.schema import TrialConfig
from harness.data.datasets import load_data_set
from harness.machine.environment import ROOT
from harness.processes.progress import ignore_progress
from harness.training.train import Training


@pytest.mark.slow
def test_it_prints_ratios_and_seconds_as_json(subprocess_environment: dict[str, Any]) -> None:
    done = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "overhead", "--variant", "sana"),
            *("--json", "--steps", "20", "--rounds", "2", "--jobs", "3", "--workers", "1"),
            *("--trials", "1", "model.depth=1", "train.batch_size=16"),
        ],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=subprocess_environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["wall_ratios"]) == len(found["cpu_ratios"]) == 2
    assert min(found["wall_ratios"]) <= found["ratio"] <= max(found["wall_ratios"])
    assert found["launch_seconds_a_job"] > 0
    assert found["whole_trial_seconds"] > 0


def test_an_unknown_variant_is_refused_with_those_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["overhead", "--variant", "sanna"]) == 2
    assert "--variant is sanna, but baselines has softmax, sana, dydila" in capsys.readouterr().err


def test_own_work_is_not_counted_as_the_launchers(tmp_path: Path) -> None:
    found = measure_launching(tmp_path, jobs=4, workers=2)
    assert 0 < found.work / 2 < found.wall
    assert 0 < found.a_job < found.wall / 4


def test_it_does_the_trainers_steps_bit_by_bit(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config(
        "dydila", "train.steps=6", "train.batch_size=16", "model.depth=1", "train.warmup_steps=4"
    )
    data = load_data_set(config.data)
    cpu = torch.device("cpu")
    Training(config, data, tmp_path, cpu, "32-true", DummyLogger(), ignore_progress).run()
    loop = BareLoop(config, data.train, cpu, "32-true")
    for batch in loop.batches():
        loop.step(batch)
    trained = BareLoop(config, data.train, cpu, "32-true").network
    load_model(trained, tmp_path / "ema.safetensors")
    for name, weight in loop.ema.module.state_dict().items():
        assert torch.equal(trained.state_dict()[name], weight), name
