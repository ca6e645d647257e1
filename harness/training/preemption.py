"""Stopping a training after a whole step, when the process was asked to."""

from __future__ import annotations

from collections.abc import Callable

import pytorch_lightning as pl

from harness.processes.signals import StopRequest
from models.errors import Preempted


class Preemption(pl.Callback):
    """Saves a checkpoint and raises `Preempted` after the step in which a stop is requested.

    All processes of a training stop after the same step: whether one of them was asked is settled
    by one small reduction a step. The last step is left to end the training. Belongs behind all
    callbacks that record a step, so that what resumes has recorded as much as one that never
    stopped.

    Args:
        stop: what the signals set.
        save: writes a checkpoint of the present step, on all processes.
    """

    def __init__(self, stop: StopRequest, save: Callable[[pl.Trainer], None]) -> None:
        self.stop = stop
        self.save = save

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning's own handler of SIGTERM would start a collective at any moment of a step.
        self.stop.listen_again()

    def on_train_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: object,
        batch: object,
        batch_idx: int,
    ) -> None:
        step = trainer.global_step
        if step < trainer.max_steps and self._asked(trainer):
            self.save(trainer)
            raise Preempted(self.stop.reason or "a signal to another process", f"at step {step}")

    def _asked(self, trainer: pl.Trainer) -> bool:
        if trainer.world_size == 1:
            return self.stop.requested
        return bool(trainer.strategy.reduce_boolean_decision(self.stop.requested, all=False))
