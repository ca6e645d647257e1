"""Validation during training, by the held-out loss and by samples, and the best weights."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as pl
import torch
from safetensors.torch import save_model
from torch import Tensor

from harness.data.images import ImageSet, NoiseOf, unflipped
from harness.machine.files import atomic_path, read_json, write_bytes, write_json
from harness.processes.group import ALONE, ProcessGroup, current_group
from harness.training.pace import record
from harness.vocabulary.metrics import JudgedBy, higher_is_better
from models.backbone import Backbone
from models.diffusion_module import DiffusionModule
from models.objectives.base import TrainingObjective
from models.randomness import generator

METRIC: Literal["validation_loss"] = "validation_loss"
BEST_WEIGHTS = "best.safetensors"
BEST = "best.json"


@dataclass(frozen=True)
class Best:
    """Which step's weights are the best."""

    step: int
    metric: str
    value: float


def read_best(folder: Path) -> Best | None:
    """What a training in this folder found best, or None."""
    path = folder / BEST
    return read_json(path, Best) if path.exists() else None


@dataclass(eq=False)
class BestWeights(pl.Callback):
    """Writes `best.safetensors` and `best.json` whenever a validation gives a better value.

    The best weights are part of every checkpoint. So a run that resumes from one goes on with what
    was best then: the weights of steps that came after it belong to a training that never was,
    where a machine does not repeat itself bit by bit. Of equal values the earlier one stays; one
    that is not finite is never the best. On several processes the leading one alone keeps weights.
    """

    folder: Path
    metric: JudgedBy
    best: Best | None = None
    _weights: Tensor | None = None
    """The bytes of `best.safetensors`, (size,) uint8."""

    def offer(self, step: int, figures: Mapping[JudgedBy, float], network: Backbone) -> None:
        """Keep the EMA weights after a step if they are the best so far; the figures, of one
        validation, may lack the metric."""
        value = figures.get(self.metric)
        if value is None or not self._is_better(value) or not current_group().leads:
            return
        self.best = Best(step, self.metric, value)
        with atomic_path(self.folder / BEST_WEIGHTS) as temporary:
            save_model(network, str(temporary))
            self._weights = torch.from_numpy(np.fromfile(temporary, dtype=np.uint8))
        write_json(self.folder / BEST, self.best, indent=2)

    def on_train_start(self, *_: object) -> None:
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
        write_json(self.folder / BEST, self.best, indent=2)

    def state_dict(self) -> dict[str, Any]:
        if self.best is None:
            return {}
        return {"best": asdict(self.best), "weights": self._weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict:
            self.best = Best(**state_dict["best"])
            self._weights = state_dict["weights"]

    def _is_better(self, value: float) -> bool:
        if not math.isfinite(value) or self.best is None:
            return math.isfinite(value)
        better = operator.gt if higher_is_better(self.metric) else operator.lt
        return better(value, self.best.value)


@torch.no_grad()
def held_out_loss(
    network: Backbone,
    objective: TrainingObjective,
    images: ImageSet,
    batch_size: int,
    device: torch.device,
    group: ProcessGroup = ALONE,
) -> float:
    """Mean loss over held-out images, averaged in float64.

    Images, noise and times are the same at every step, in every variant and for every seed, so that
    differences between two figures are differences between two networks. Times are stratified over
    the objective's training distribution, so that few images suffice. The processes of a group take
    batches in turn; all get the figure that one of them would.
    """
    count = len(images.labels)
    shuffle = torch.randperm(count, generator=generator("validation-times"))
    times = objective.stratified_times(count)[shuffle]
    noise = torch.randn((count, *images.shape), generator=generator("validation-noise"))
    losses: dict[int, Tensor] = {}
    starts = range(0, count, batch_size)
    for start in starts[group.rank :: group.size]:
        index = torch.arange(start, min(start + batch_size, count))
        clean = images.inputs(index, unflipped(index), _noise_of(start)).to(device)
        eps, when = noise[index].to(device), times[index].to(device)
        noised = objective.add_noise(clean, eps, when)
        prediction = network(noised.images, noised.timesteps, images.labels[index].to(device))
        losses[start] = objective.loss(prediction.float(), clean, eps, when).double().cpu()
    parts = group.gather(losses)
    if parts is None:
        return group.broadcast(0.0)
    together = {start: part for found in parts for start, part in found.items()}
    return group.broadcast(float(torch.cat([together[start] for start in starts]).mean()))


def _noise_of(start: int) -> NoiseOf:
    """The noise that latents are sampled with: each image has its own, which never changes."""
    return lambda row: generator("validation-latent", start + row)


@dataclass(frozen=True)
class ValidationFigures:
    """How good a network was in one validation."""

    logged: Mapping[str, float]
    """By the names that the curves bear."""
    by_metric: Mapping[JudgedBy, float]
    """By the names that a configuration calls them."""


Measure = Callable[[Backbone, int], ValidationFigures]
"""Validates a network, in evaluation mode, after a step; called on every process. It must draw from
no random stream that training draws from."""


@dataclass(eq=False)
class Validation(pl.Callback):
    """Measures the EMA weights every `every` steps and after the last one.

    It belongs before the checkpoints in the list of callbacks: the checkpoint of a step is then
    written once it was validated, and a run that was killed during a validation resumes before it.
    """

    measure: Measure
    every: int
    best: BestWeights | None
    """Is offered the weights; None keeps the last ones alone."""
    latest: ValidationFigures | None = None
    """Of the last validation in this process."""

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: object
    ) -> None:
        if trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps:
            self.validate(trainer, pl_module)

    def validate(self, trainer: pl.Trainer, module: pl.LightningModule) -> ValidationFigures:
        """Validate the weights of the present step."""
        assert isinstance(module, DiffusionModule)
        network, step = module.ema_backbone, trainer.global_step
        self.latest = self.measure(network, step)
        record(trainer, self.latest.logged, step)
        if self.best is not None:
            self.best.offer(step, self.latest.by_metric, network)
        return self.latest
