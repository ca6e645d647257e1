from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning.loggers.logger import DummyLogger

from harness.config.schema import TrialConfig
from harness.data.datasets import load_data_set
from harness.processes.progress import ignore_progress
from harness.training import pace
from harness.training.train import finished_training, train
from harness.training.validation import SampleFigures
from models.backbone import Backbone


def test_validation_takes_no_time_of_training(
    trial_config: Callable[..., TrialConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that goes on by one second each time it is read, and by 1,000 in a validation."""
    ticks = count()
    monkeypatch.setattr(pace, "time", SimpleNamespace(perf_counter=lambda: float(next(ticks))))
    config = trial_config(
        "sana",
        "train.steps=14",
        "train.batch_size=8",
        "train.validation_samples=10",
        "train.validation_samples_every=1",
        "model.depth=1",
    )
    steps = []

    def slow(network: Backbone, step: int) -> SampleFigures:
        for _ in range(1000):
            next(ticks)
        steps.append(step)
        return SampleFigures({}, {})

    data, cpu = load_data_set(config.data), torch.device("cpu")
    train(config, data, tmp_path, cpu, "32-true", DummyLogger(), ignore_progress, slow)
    assert steps == list(range(1, 15))
    summary = finished_training(tmp_path)
    assert summary is not None
    assert summary.images_per_second == 8.0
