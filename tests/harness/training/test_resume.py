from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning.loggers import CSVLogger

from harness.config.schema import TrialConfig
from harness.config.serialisation import from_yaml_file, to_yaml
from harness.data.datasets import load_data_set
from harness.machine.environment import ROOT
from harness.processes.progress import ignore_progress
from harness.training.checkpoints import resumable_checkpoint, step_of
from harness.training.train import Training, TrainingSummary

SCRIPT = ROOT / "tests/support/processes/train_until_killed.py"
STEPS = 17


@pytest.fixture(scope="module")
def config_file(
    tmp_path_factory: pytest.TempPathFactory, trial_config: Callable[..., TrialConfig]
) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.yaml"
    overrides = [f"train.steps={STEPS}", "train.batch_size=50", "train.checkpoint_every=4"]
    path.write_text(to_yaml(trial_config("dydila", *overrides, "train.validate_every=5")))
    return path


def train_here(config_file: Path, folder: Path) -> TrainingSummary:
    config = from_yaml_file(config_file)
    data, cpu = load_data_set(config.data), torch.device("cpu")
    return Training(config, data, folder, cpu, "32-true", CSVLogger(folder), ignore_progress).run()


def kill_after(step: int, config_file: Path, folder: Path, environment: dict[str, Any]) -> None:
    """Train in a process of its own, and kill it without warning once a step is done."""
    command = [sys.executable, str(SCRIPT), str(config_file), str(folder)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if line.strip() == str(step):
                process.kill()


@pytest.fixture(scope="module")
def undisturbed(config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train_here(config_file, folder)
    return folder


def final_state(folder: Path) -> dict[str, Any]:
    path = resumable_checkpoint(folder / "checkpoints")
    assert path is not None
    assert step_of(path) == STEPS
    return torch.load(path, weights_only=True)


def assert_bitwise_equal(first: Any, second: Any) -> None:
    assert type(first) is type(second)
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second)
    elif isinstance(first, dict):
        assert first.keys() == second.keys()
        for key in first:
            assert_bitwise_equal(first[key], second[key])
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second)
        for one, other in zip(first, second, strict=True):
            assert_bitwise_equal(one, other)
    else:
        assert first == second


def test_killed_and_resumed_run_ends_bitwise_equal_to_an_undisturbed_one(
    undisturbed: Path,
    config_file: Path,
    tmp_path: Path,
    subprocess_environment: dict[str, Any],
) -> None:
    step = random.randrange(5, STEPS - 4)
    kill_after(step, config_file, tmp_path, subprocess_environment)
    assert not (tmp_path / "trained.json").exists()
    resumed_from = train_here(config_file, tmp_path).resumed_from_step
    assert resumed_from is not None
    # The process may have saved once more between telling its step and dying.
    assert resumed_from % 4 == 0
    # It tells its step before it saves, so that step's own checkpoint may be missing.
    assert resumed_from >= (step - 1) // 4 * 4, f"killed after step {step}"
    expected, actual = final_state(undisturbed), final_state(tmp_path)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        assert_bitwise_equal(expected[part], actual[part])
    assert any(key.startswith("ema.") for key in actual["state_dict"])
    weights = (undisturbed / "ema.safetensors").read_bytes()
    assert weights == (tmp_path / "ema.safetensors").read_bytes()


def test_a_finished_run_is_not_trained_again(undisturbed: Path, config_file: Path) -> None:
    before = (undisturbed / "ema.safetensors").stat().st_mtime_ns
    assert train_here(config_file, undisturbed).resumed_from_step is None
    assert (undisturbed / "ema.safetensors").stat().st_mtime_ns == before


def test_a_damaged_checkpoint_is_passed_over_with_a_warning(
    undisturbed: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for source in (undisturbed / "checkpoints").iterdir():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    newest = tmp_path / f"step-{STEPS:08d}.ckpt"
    whole = newest.read_bytes()
    for length in random.sample(range(len(whole)), 5):
        caplog.clear()
        newest.write_bytes(whole[:length])
        chosen = resumable_checkpoint(tmp_path)
        assert chosen is not None
        assert step_of(chosen) == 16
        assert "damaged" in caplog.text
