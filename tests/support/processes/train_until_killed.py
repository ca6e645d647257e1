"""Trains in a process of its own: `train_until_killed.py CONFIG FOLDER`; prints a line a step."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from pytorch_lightning.loggers import CSVLogger

from harness.config.serialisation import from_yaml_file
from harness.data.datasets import load_data_set
from harness.training.train import Training

torch.set_num_threads(1)
config = from_yaml_file(Path(sys.argv[1]))
folder = Path(sys.argv[2])
summary = Training(
    config,
    load_data_set(config.data),
    folder,
    torch.device("cpu"),
    "32-true",
    CSVLogger(folder),
    lambda progress: print(progress.done, flush=True),
).run()
print("resumed from", summary.resumed_from_step, flush=True)
