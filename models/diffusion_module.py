"""The LightningModule: training step, optimizer, EMA. Glue only.

A step of Lightning is a step of the optimizer, also where the gradient is accumulated over
micro-batches: `training_step` is given the whole batch of its process and goes through the parts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import pytorch_lightning as pl
import torch
from pytorch_lightning.core.optimizer import LightningOptimizer
from pytorch_lightning.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from models.attention.parts.load_balance import balance_loss, is_balanced, option_shares
from models.attention.parts.routing import factor_parameters
from models.backbone import Backbone
from models.distributed import gathered, mean_over_processes, reshard, shard
from models.errors import UserError
from models.objectives.base import TrainingObjective
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
    """Learning rate of exponents and lambdas, as a multiple of the learning rate."""
    warmup_steps: int
    betas: tuple[float, float]
    weight_decay: float
    gradient_clip: float
    """Largest global norm; 0 switches clipping off."""
    ema_decay: float
    label_dropout: float
    batch_size: int
    """Images a step over all processes."""
    ema_start: Literal["first_step", "initial"] = "first_step"
    """The weights that the average starts from: those after the first step, as PyTorch's averaging
    has it, or the initial ones, as DiT has it."""
    accumulate: int = 1
    """Micro-batches that a process goes through in a step."""


class _Noised(NamedTuple):
    """Images and noise (B, C, H, W), times (B,), and labels (B,), some of them dropped."""

    clean: Tensor
    noise: Tensor
    times: Tensor
    labels: Tensor

    def split(self, parts: int) -> list[_Noised]:
        """Micro-batches of equal size."""
        size, rest = divmod(len(self.labels), parts)
        assert rest == 0
        return [_Noised(*part) for part in zip(*(x.split(size) for x in self), strict=True)]


class NonFiniteLossError(UserError):
    """The mean loss of a step, counted from 0, or the norm of its gradient is NaN or infinite."""

    def __init__(self, step: int, loss: float, gradient_norm: float) -> None:
        what, value = "training loss", loss
        if math.isfinite(loss):
            what, value = "norm of the gradient", gradient_norm
        super().__init__(
            f"the {what} became {value} at step {step}; lower train.learning_rate or "
            "train.gradient_clip, set train.precision=32-true, or leave such batches out with "
            "train.on_non_finite=skip"
        )
        self.step = step


class DiffusionModule(pl.LightningModule):
    """Trains a backbone on an objective and keeps the EMA of its weights.

    Noise, times and label dropout of a step depend on the seed and the step alone, so they are the
    same in every variant and on any number of processes.

    Args:
        backbone: freshly initialised.
        objective: noises images and scores predictions.
        optimization: optimizer, schedule and EMA.
        seed: of noise, times and label dropout.
        sharded: whether the processes that train together share out the weights, their gradients,
            the optimizer's state and the EMA among them (FSDP2), rather than each holding all.
    """

    def __init__(
        self,
        backbone: Backbone,
        objective: TrainingObjective,
        optimization: Optimization,
        seed: int,
        sharded: bool = False,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.objective = objective
        self.optimization = optimization
        self.seed = seed
        self.sharded = sharded
        self.skipped_steps: frozenset[int] = frozenset()
        """Steps, counted from 0, in which nothing is updated but the learning rate's schedule."""
        self._train_loss = torch.zeros(())
        average = get_ema_multi_avg_fn(optimization.ema_decay)
        self.ema = AveragedModel(backbone, multi_avg_fn=average)
        self.ema.requires_grad_(False).eval()
        if optimization.ema_start == "initial":
            # The copy that was just made counts as the first average, so the first update is none.
            self.ema.n_averaged.fill_(1)

    @property
    def ema_backbone(self) -> Backbone:
        """The network with averaged weights; where processes share it out, all must ask at once."""
        average = self.ema.module
        assert isinstance(average, Backbone)
        if not self.sharded:
            return average
        copy = Backbone(self.backbone.config, self.seed)
        copy.load_state_dict({name: gathered(part) for name, part in average.state_dict().items()})
        return copy.to(self.device).requires_grad_(False).eval()

    def configure_model(self) -> None:
        """Share the weights out among the processes; Lightning calls it when they are connected."""
        if self.sharded and self.device_mesh is not None:
            mesh = self.device_mesh["data_parallel"]
            shard(self.backbone, mesh)
            assert isinstance(self.ema.module, Backbone)
            shard(self.ema.module, mesh)

    def training_step(self, batch: Batch, batch_index: int) -> dict[str, Tensor]:
        """Go through the micro-batches, leaving the backward pass of the last one to Lightning.

        Returns:
            Its `loss`, and `train_loss`, the mean of the whole batch over all processes.
        """
        count = self.optimization.accumulate
        parts = self._noised(batch).split(count)
        shares = self._option_shares(parts)
        # Here, not after this method, where Lightning does it: it would throw away the gradients of
        # the first micro-batches. See `optimizer_zero_grad`.
        self.backbone.zero_grad()
        losses, balances = torch.zeros(2, device=batch.images.device)
        for number, part in enumerate(parts, start=1):
            loss = self._losses(part).mean() / count
            losses += loss.detach()
            total = loss
            # Kept apart, so that the training loss means the same in every variant.
            balance = balance_loss(self.backbone, shares)
            if balance is not None:
                total = loss + balance / count
                balances += balance.detach() / count
            if number < count:
                with torch.autocast(loss.device.type, enabled=False):
                    total.backward()
        train_loss, mean_balance = mean_over_processes(torch.stack([losses, balances]))
        self._train_loss = train_loss
        self.log("train_loss", train_loss)
        if balance is not None:
            self.log("balance_loss", mean_balance)
        return {"loss": total, "train_loss": train_loss}

    def optimizer_zero_grad(
        self, epoch: int, batch_idx: int, optimizer: torch.optim.Optimizer
    ) -> None:
        """Nothing: `training_step` has done it."""

    def _option_shares(self, parts: list[_Noised]) -> Tensor | None:
        """The options' shares in the whole batch, where routers are balanced over micro-batches.

        They must be known before the first backward pass, so this costs one more forward pass.
        """
        if len(parts) == 1 or not is_balanced(self.backbone):
            return None
        found = []
        with torch.no_grad():
            for part in parts:
                self._losses(part)
                shares = option_shares(self.backbone)
                assert shares is not None
                found.append(shares)
        reshard(self.backbone)
        return mean_over_processes(torch.stack(found).mean(dim=0))

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

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Number the parameters in the optimizer's state as the network does, not group by group.

        FSDP finds them by these numbers (Lightning 2.6), and writes the same ones; without it, only
        their order within the groups counts.
        """
        if self.sharded:
            return
        places = {id(weight): place for place, weight in enumerate(self.backbone.parameters())}
        optimizer = self.trainer.optimizers[0]
        numbers = [
            places[id(weight)] for group in optimizer.param_groups for weight in group["params"]
        ]
        for saved in checkpoint["optimizer_states"]:
            saved["state"] = {numbers[number]: state for number, state in saved["state"].items()}
            for group in saved["param_groups"]:
                group["params"] = [numbers[number] for number in group["params"]]

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        limit = self.optimization.gradient_clip or float("inf")
        norm = gathered(torch.nn.utils.clip_grad_norm_(self.backbone.parameters(), limit))
        # Both at once, since looking makes the CPU wait for a GPU. Both are the same on all
        # processes, which therefore stop alike, before anything is updated.
        if not torch.isfinite(self._train_loss + norm):
            raise NonFiniteLossError(self.global_step, float(self._train_loss), float(norm))
        self.log("gradient_norm", norm)

    def optimizer_step(
        self,
        epoch: int,
        batch_idx: int,
        optimizer: torch.optim.Optimizer | LightningOptimizer,
        optimizer_closure: Callable[[], Any] | None = None,
    ) -> None:
        if self.global_step in self.skipped_steps:
            # Lightning wants the closure called; the gradients that it leaves are used by nothing.
            assert optimizer_closure is not None
            optimizer_closure()
            return
        # Here rather than at the batch's end, where callbacks come first: a checkpoint they write
        # must hold the average that includes this step.
        super().optimizer_step(epoch, batch_idx, optimizer, optimizer_closure)
        self.ema.update_parameters(self.backbone)

    def batch_losses(self, batch: Batch) -> Tensor:
        """The loss of each image of a batch, (B,)."""
        return self._losses(self._noised(batch))

    def _losses(self, noised: _Noised) -> Tensor:
        clean, noise, times, labels = noised
        mixed = self.objective.add_noise(clean, noise, times)
        prediction = self.backbone(mixed.images, mixed.timesteps, labels)
        return self.objective.loss(prediction.float(), clean, noise, times)

    def _noised(self, batch: Batch) -> _Noised:
        """A batch with the noise, times and dropped labels of its step."""
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
        return _Noised(batch.images, noise, times, labels)
