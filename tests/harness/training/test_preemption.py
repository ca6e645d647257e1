from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pytorch_lightning.loggers.logger import DummyLogger

from harness.config.schema import TrialConfig
from harness.data.datasets import load_data_set
from harness.machine.place import choose_device
from harness.processes.progress import Progress, ignore_progress
from harness.processes.signals import StopRequest
from harness.training.train import EMA_WEIGHTS, finished_training, train
from models.errors import Preempted

SETTINGS = (
    "train.steps=12",
    "model.depth=1",
    "train.batch_size=16",
    "train.log_every=1",
    "train.checkpoint_every=100",
    "train.validate_every=5",
)


class LossLogger(DummyLogger):
    """Keeps the training loss of each step."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: dict[int, float] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "train_loss" in metrics:
            assert step is not None
            self.losses[step] = metrics["train_loss"]


def run(
    config: TrialConfig, folder: Path, listener: Any = ignore_progress, stop: Any = None
) -> LossLogger:
    logger = LossLogger()
    device = choose_device(config.train.device)
    data = load_data_set(config.data)
    train(config, data, folder, device, "32-true", logger, listener, stop=stop)
    return logger


def stopped_after(step: int, config: TrialConfig, folder: Path) -> None:
    """Asks for a stop within a step, as a signal would, and expects it after that step."""
    stop = StopRequest()

    def ask(progress: Progress) -> None:
        if progress.done == step:
            stop.reason = "SIGUSR1"

    with pytest.raises(Preempted, match=f"stopped by SIGUSR1 at step {step}"):
        run(config, folder, ask, stop)


def test_a_stopped_training_goes_on_from_that_very_step(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config("sana", *SETTINGS)
    whole = run(config, tmp_path / "whole")
    stopped_after(4, config, tmp_path / "stopped")
    names = {path.name for path in (tmp_path / "stopped" / "checkpoints").glob("*.ckpt")}
    assert names == {"step-00000004.ckpt"}
    assert finished_training(tmp_path / "stopped") is None
    stopped_after(10, config, tmp_path / "stopped")
    rest = run(config, tmp_path / "stopped")
    assert list(whole.losses) == list(range(12))
    assert rest.losses == {step: whole.losses[step] for step in (10, 11)}
    mine, other = (tmp_path / name / EMA_WEIGHTS for name in ("stopped", "whole"))
    assert mine.read_bytes() == other.read_bytes()
    summary = finished_training(tmp_path / "stopped")
    assert summary is not None
    assert summary.resumed_from_step == 10


def test_a_stop_in_the_last_step_ends_the_training_as_usual(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    stop = StopRequest()

    def ask(progress: Progress) -> None:
        if progress.done == 12:
            stop.reason = "SIGTERM"

    run(trial_config("sana", *SETTINGS), tmp_path, ask, stop)
    summary = finished_training(tmp_path)
    assert summary is not None
    assert summary.steps == 12
