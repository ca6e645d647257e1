"""The loss on held-out images, with noise and times that never change.

Held-out images, noise and times are the same at every step, in every variant and for every seed,
so that differences between two figures are differences between two networks.
"""

from __future__ import annotations

from typing import Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from harness.data.images import ImageSet, NoiseOf, unflipped
from harness.processes.group import ALONE, ProcessGroup, current_group
from harness.training.best_weights import BestWeights
from models.backbone import Backbone
from models.diffusion_module import DiffusionModule
from models.objectives import TrainingObjective
from models.randomness import generator

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
    """Of sampled latents: each image has its own, which never changes."""
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
