"""What `run_ranks` calls: trainings in which one process alone meets a loss that is not finite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.loggers.logger import DummyLogger

from harness.config.schema import TrialConfig
from harness.data.datasets import load_data_set
from harness.machine.place import place_from_environment
from harness.processes.meeting import Meeting
from harness.processes.progress import ProgressListener
from harness.processes.signals import StopRequest
from harness.training.train import Training
from tests.support.stand_ins.poisoned import Poisoned


def train_poisoned(
    payload: dict[str, Any], report: ProgressListener, stop: StopRequest
) -> dict[str, list[list[int]]]:
    """Train each case. Returns, by case, the steps that each process left out."""
    found: dict[str, list[list[int]]] = {}
    with Meeting(place_from_environment()) as meeting:
        group = meeting.begin(cuda=False)
        for name, (plain, folder) in payload["cases"].items():
            config = TrialConfig.model_validate(plain)
            data = load_data_set(config.data)
            poisoned = replace(data, train=Poisoned(data.train, payload["bad_images"]))
            summary = Training(
                config,
                poisoned,
                Path(folder),
                torch.device("cpu"),
                "32-true",
                DummyLogger(),
                report,
            ).run()
            skipped = group.gather(list(summary.skipped_steps))
            if skipped is not None:
                found[name] = skipped
    return found
