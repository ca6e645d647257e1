"""The EMA weights that had the best value of a metric so far, kept besides the last ones."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from safetensors.torch import save_model
from torch import Tensor

from harness.config.sections import BestBy
from harness.machine.files import atomic_path, write_bytes, write_text
from harness.processes.group import current_group
from models.backbone import Backbone

BEST_WEIGHTS = "best.safetensors"
BEST = "best.json"

LOWER_IS_BETTER: Mapping[BestBy, bool] = {
    "validation_loss": True,
    "fd": True,
    "sfd": True,
    "kd": True,
    "is": False,
    "precision": False,
    "recall": False,
    "density": False,
    "coverage": False,
}


@dataclass(frozen=True)
class Best:
    """Which step's weights are the best."""

    step: int
    metric: str
    value: float


def read_best(folder: Path) -> Best | None:
    """What a training in this folder found best, or None."""
    path = folder / BEST
    if not path.exists():
        return None
    return Best(**json.loads(path.read_text(encoding="utf-8")))


class BestWeights(pl.Callback):
    """Writes `best.safetensors` and `best.json` whenever a validation gives a better value.

    The best weights are part of every checkpoint. So a run that resumes from one goes on with what
    was best then: the weights of steps that came after it belong to a training that never was,
    where a machine does not repeat itself bit by bit. Of equal values the earlier one stays; one
    that is not finite is never the best. On several processes the leading one alone keeps weights.

    Args:
        folder: of the trial.
        metric: to be best by.
    """

    def __init__(self, folder: Path, metric: BestBy) -> None:
        self.folder = folder
        self.metric = metric
        self.best: Best | None = None
        self._weights: Tensor | None = None
        """The bytes of `best.safetensors`, (size,) uint8."""

    def offer(self, step: int, figures: Mapping[BestBy, float], network: Backbone) -> None:
        """Keep the network's weights if they are the best so far.

        Args:
            step: after which they are the EMA weights.
            figures: of one validation, with or without the metric.
            network: with the weights.
        """
        value = figures.get(self.metric)
        if value is None or not self._is_better(value) or not current_group().leads:
            return
        self.best = Best(step, self.metric, value)
        with atomic_path(self.folder / BEST_WEIGHTS) as temporary:
            save_model(network, str(temporary))
            self._weights = torch.from_numpy(np.fromfile(temporary, dtype=np.uint8))
        self._write_description()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.write()

    def write(self) -> None:
        """Make the files agree with the checkpoint that the run resumed from, or with none."""
        if not current_group().leads:
            return
        if self._weights is None:
            (self.folder / BEST).unlink(missing_ok=True)
            (self.folder / BEST_WEIGHTS).unlink(missing_ok=True)
            return
        write_bytes(self.folder / BEST_WEIGHTS, self._weights.numpy().tobytes())
        self._write_description()

    def state_dict(self) -> dict[str, Any]:
        if self.best is None:
            return {}
        return {"best": asdict(self.best), "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self.best = Best(**state_dict["best"])
            self._weights = state_dict["weights"]

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value):
            return False
        if self.best is None:
            return True
        if LOWER_IS_BETTER[self.metric]:
            return value < self.best.value
        return value > self.best.value

    def _write_description(self) -> None:
        assert self.best is not None
        write_text(self.folder / BEST, json.dumps(asdict(self.best), indent=2) + "\n")
