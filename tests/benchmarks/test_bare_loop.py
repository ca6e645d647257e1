from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from pytorch_lightning.loggers.logger import DummyLogger
from safetensors.torch import load_model

from benchmarks.overhead import BareLoop
from harness.config.schema import TrialConfig
from harness.data.datasets import load_data_set
from harness.processes.progress import ignore_progress
from harness.training.train import train


def test_it_does_the_trainers_steps_bit_by_bit(
    trial_config: Callable[..., TrialConfig], tmp_path: Path
) -> None:
    config = trial_config(
        "dydila", "train.steps=6", "train.batch_size=16", "model.depth=1", "train.warmup_steps=4"
    )
    data = load_data_set(config.data)
    cpu = torch.device("cpu")
    train(config, data, tmp_path, cpu, "32-true", DummyLogger(), ignore_progress)
    loop = BareLoop(config, data.train, cpu, "32-true")
    for batch in loop.batches():
        loop.step(batch)
    trained = BareLoop(config, data.train, cpu, "32-true").network
    load_model(trained, tmp_path / "ema.safetensors")
    for name, weight in loop.ema.module.state_dict().items():
        assert torch.equal(trained.state_dict()[name], weight), name
