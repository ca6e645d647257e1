"""Validation by samples: every few steps, what the EMA weights draw is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

from harness.config.sections import BestBy
from harness.training.best_weights import BestWeights
from models.backbone import Backbone
from models.diffusion_module import DiffusionModule


@dataclass(frozen=True)
class SampleFigures:
    """How good the samples of one validation are."""

    logged: Mapping[str, float]
    """By the names that the curves bear."""
    by_metric: Mapping[BestBy, float]
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
