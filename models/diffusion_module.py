"""The LightningModule: training step, optimizer, EMA. Glue only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.backbone import Backbone
from models.errors import UserError
from models.factors import factor_parameters
from models.load_balance import balance_loss
from models.objectives import TrainingObjective
from models.randomness import generator


class Batch(NamedTuple):
    """Training images and where they stand in the run."""

    images: Tensor
    """(B, C, H, W) in [-1, 1]."""
    labels: Tensor
    """(B,) int64."""
    positions: Tensor
    """(B,) int64: how many images the run had drawn before each; one global batch a step."""


@dataclass(frozen=True)
class Optimization:
    """AdamW, linear warm-up to a constant rate, gradient clipping, EMA."""

    learning_rate: float
    factor_learning_rate: float
    """Of learned exponents and lambdas, as a multiple of the learning rate."""
    warmup_steps: int
    betas: tuple[float, float]
    weight_decay: float
    gradient_clip: float
    """Largest global norm; 0 switches clipping off."""
    ema_decay: float
    label_dropout: float
    batch_size: int
    """Images a step over all processes."""


class NonFiniteLossError(UserError):
    """The loss is NaN or infinite."""


class DiffusionModule(pl.LightningModule):
    """Trains a backbone on an objective and keeps the EMA of its weights.

    Noise, times and label dropout of a step depend on the seed and the step alone, so they are the
    same in every variant and on any number of processes.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: TrainingObjective,
        optimization: Optimization,
        seed: int,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.objective = objective
        self.optimization = optimization
        self.seed = seed
        average = get_ema_multi_avg_fn(optimization.ema_decay)
        self.ema = AveragedModel(backbone, multi_avg_fn=average)
        self.ema.requires_grad_(False).eval()

    @property
    def ema_backbone(self) -> Backbone:
        """The network with averaged weights, for sampling and validation."""
        return cast("Backbone", self.ema.module)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        loss = self.batch_losses(batch).mean()
        if not torch.isfinite(loss):
            raise NonFiniteLossError(
                f"the training loss became {loss.item()} at step {self.global_step}; lower "
                "train.learning_rate or train.gradient_clip, or set train.precision=32-true"
            )
        self.log("train_loss", loss)
        # Kept apart, so that the training loss means the same in every variant.
        balance = balance_loss(self.backbone)
        if balance is None:
            return loss
        self.log("balance_loss", balance)
        return loss + balance

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.optimization
        optimizer = torch.optim.AdamW(
            self._parameter_groups(),
            lr=settings.learning_rate,
            betas=settings.betas,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        warmup = max(settings.warmup_steps, 1)
        schedule = LambdaLR(optimizer, lambda step: min((step + 1) / warmup, 1.0))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """One group, or a second one for factors with a learning rate of their own."""
        settings = self.optimization
        factors = factor_parameters(self.backbone)
        if settings.factor_learning_rate == 1.0 or not factors:
            return [{"params": list(self.backbone.parameters())}]
        apart = {id(parameter) for parameter in factors}
        others = [weight for weight in self.backbone.parameters() if id(weight) not in apart]
        rate = settings.learning_rate * settings.factor_learning_rate
        return [{"params": others}, {"params": factors, "lr": rate}]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        limit = self.optimization.gradient_clip or float("inf")
        norm = torch.nn.utils.clip_grad_norm_(self.backbone.parameters(), limit)
        self.log("gradient_norm", norm)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        # Here rather than at the batch's end, where callbacks come first: a checkpoint they write
        # must hold the average that includes this step.
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.ema.update_parameters(self.backbone)

    def batch_losses(self, batch: Batch) -> Tensor:
        """The loss of each image of a batch, (B,)."""
        size = self.optimization.batch_size
        step = int(batch.positions[0]) // size
        rows = batch.positions.cpu() - step * size
        device = batch.images.device
        shape = (size, *batch.images.shape[1:])
        noise = torch.randn(shape, generator=generator("noise", self.seed, step))[rows].to(device)
        stream = generator("times", self.seed, step)
        times = self.objective.draw_times(size, stream)[rows].to(device)
        dropout = torch.rand(size, generator=generator("label-dropout", self.seed, step))[rows]
        dropped = (dropout < self.optimization.label_dropout).to(device)
        labels = torch.where(dropped, self.backbone.null_label, batch.labels)
        noised = self.objective.add_noise(batch.images, noise, times)
        prediction = self.backbone(noised.images, noised.timesteps, labels)
        return self.objective.loss(prediction.float(), batch.images, noise, times)
