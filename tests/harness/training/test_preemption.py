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
from harness.training.train import EMA_WEIGHTS, Training, finished_training
from models.errors import Preempted

SETTINGS = (
    "train.steps=12",
    "model.depth=1",
    "train.batch_size=16",
    "train.log_every=1",
    "train.validate_every=5",
)


class LossLogger(DummyLogger):
    """Keeps the training loss of each step, and which checkpoints there were when it was told."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.losses: dict[int, float] = {}
        self.saved: dict[int, set[str]] = {}

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "train_loss" in metrics and step not in self.losses:
            assert step is not None
            self.losses[step] = metrics["train_loss"]
            self.saved[step] = {path.name for path in self.folder.glob("checkpoints/*.ckpt")}


def run(
    config: TrialConfig, logger: LossLogger, listener: Any = ignore_progress, stop: Any = None
) -> LossLogger:
    device = choose_device(config.train.device)
    data = load_data_set(config.data)
    Training(
        config, data, logger.folder, device, "32-true", logger, listener, stop=stop or StopRequest()
    ).run()
    return logger


def stopped_after(step: int, config: TrialConfig, folder: Path) -> LossLogger:
    """Asks for a stop within a step, as a signal would, and expects it after that step."""
    stop, logger = StopRequest(), LossLogger(folder)

    def ask(progress: Progress) -> None:
        if progress.done == step:
            stop.reason = "SIGUSR1"

    with pytest.raises(Preempted, match=f"stopped by SIGUSR1 at step {step}"):
        run(config, logger, ask, stop)
    return logger


def test_a_stopped_training_goes_on_from_that_very_step(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config("sana", *SETTINGS, "train.checkpoint_every=100")
    whole = run(config, LossLogger(tmp_path / "whole"))
    first = stopped_after(4, config, tmp_path / "stopped")
    names = {path.name for path in (tmp_path / "stopped" / "checkpoints").glob("*.ckpt")}
    assert names == {"step-00000004.ckpt"}
    assert finished_training(tmp_path / "stopped") is None
    second = stopped_after(10, config, tmp_path / "stopped")
    rest = run(config, LossLogger(tmp_path / "stopped"))
    assert list(whole.losses) == list(range(12))
    assert [list(part.losses) for part in (first, second, rest)] == [
        list(range(4)),
        list(range(4, 10)),
        [10, 11],
    ]
    assert first.losses | second.losses | rest.losses == whole.losses
    mine, other = (tmp_path / name / EMA_WEIGHTS for name in ("stopped", "whole"))
    assert mine.read_bytes() == other.read_bytes()
    summary = finished_training(tmp_path / "stopped")
    assert summary is not None
    assert summary.resumed_from_step == 10


def test_a_step_is_recorded_before_the_checkpoint_after_which_nobody_repeats_it(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config("sana", *SETTINGS, "train.checkpoint_every=4")
    saved = run(config, LossLogger(tmp_path)).saved
    assert saved[3] == set()
    assert saved[4] == saved[7] == {"step-00000004.ckpt"}
    assert saved[8] == {"step-00000004.ckpt", "step-00000008.ckpt"}


def test_a_stop_in_the_last_step_ends_the_training_as_usual(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    stop = StopRequest()

    def ask(progress: Progress) -> None:
        if progress.done == 12:
            stop.reason = "SIGTERM"

    run(
        trial_config("sana", *SETTINGS, "train.checkpoint_every=100"),
        LossLogger(tmp_path),
        ask,
        stop,
    )
    summary = finished_training(tmp_path)
    assert summary is not None
    assert summary.steps == 12
