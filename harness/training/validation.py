"""Validation during training, by the loss on held-out images and by samples, and the best weights.

Held-out images, noise and times are the same at every step, in every variant and for every seed,
so that differences between two figures are differences between two networks. Samples of the EMA
weights are drawn and measured every few steps. The EMA weights that had the best value of a metric
so far are kept besides the last ones.
"""

from __future__ import annotations

import math
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
from harness.vocabulary.metrics import JudgedBy, higher_is_better
from models.backbone import Backbone
from models.diffusion_module import DiffusionModule
from models.objectives import TrainingObjective
from models.randomness import generator

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
    if not path.exists():
        return None
    return read_json(path, Best)


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

    def __init__(self, folder: Path, metric: JudgedBy) -> None:
        self.folder = folder
        self.metric = metric
        self.best: Best | None = None
        self._weights: Tensor | None = None
        """The bytes of `best.safetensors`, (size,) uint8."""

    def offer(self, step: int, figures: Mapping[JudgedBy, float], network: Backbone) -> None:
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
        if higher_is_better(self.metric):
            return value > self.best.value
        return value < self.best.value

    def _write_description(self) -> None:
        assert self.best is not None
        write_json(self.folder / BEST, self.best, indent=2)


METRIC: Literal["validation_loss"] = "validation_loss"


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

    Times are stratified over the objective's training distribution, so that few images suffice.
    The processes of a group take batches in turn; all get the figure that one of them would.
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


class Validation(pl.Callback):
    """Logs the held-out loss of the EMA weights every `every` steps and after the last one, and
    offers them to `best`, where there is one."""

    def __init__(
        self, images: ImageSet, every: int, batch_size: int, best: BestWeights | None = None
    ) -> None:
        self.images = images
        self.every = every
        self.batch_size = batch_size
        self.best = best
        self._latest: tuple[int, float] | None = None

    def loss_after(self, step: int) -> float | None:
        """The loss after a step, if it was the last one validated in this process."""
        if self._latest is None or self._latest[0] != step:
            return None
        return self._latest[1]

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        if trainer.global_step % self.every == 0:
            self._validate(trainer, pl_module)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._validate(trainer, pl_module)

    def _validate(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        step = trainer.global_step
        if self.loss_after(step) is not None:
            return
        assert isinstance(module, DiffusionModule)
        network = module.ema_backbone
        with trainer.precision_plugin.forward_context():
            loss = held_out_loss(
                network,
                module.objective,
                self.images,
                self.batch_size,
                module.device,
                current_group(),
            )
        self._latest = (step, loss)
        for logger in trainer.loggers:
            logger.log_metrics({METRIC: loss}, step=step)
        if self.best is not None:
            self.best.offer(step, {METRIC: loss}, network)


@dataclass(frozen=True)
class SampleFigures:
    """How good the samples of one validation are."""

    logged: Mapping[str, float]
    """By the names that the curves bear."""
    by_metric: Mapping[JudgedBy, float]
    """By the names that a configuration calls them."""


SampleMeasure = Callable[[Backbone, int], SampleFigures]
"""Draws and measures samples of a network, in evaluation mode, after a step. It must draw from no
random stream that training draws from."""


class SampleValidation(pl.Callback):
    """Measures samples of the EMA weights every `every` steps and after the last one.

    It belongs before the checkpoints in the list of callbacks: a checkpoint then says that its
    step was validated, and a run that was killed during a validation resumes before it.

    Args:
        measure: called on every process.
        every: steps between two validations.
        best: is offered the weights; None keeps the last ones alone.
    """

    def __init__(self, measure: SampleMeasure, every: int, best: BestWeights | None) -> None:
        self.measure = measure
        self.every = every
        self.best = best
        self._latest = 0

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step == self._latest or (step % self.every and step != trainer.max_steps):
            return
        assert isinstance(pl_module, DiffusionModule)
        network = pl_module.ema_backbone
        figures = self.measure(network, step)
        self._latest = step
        for logger in trainer.loggers:
            logger.log_metrics(dict(figures.logged), step=step)
        if self.best is not None:
            self.best.offer(step, figures.by_metric, network)

    def state_dict(self) -> dict[str, Any]:
        return {"latest": self._latest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._latest = state_dict["latest"]
