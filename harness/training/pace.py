"""How fast training goes, and telling those who watch."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import LambdaCallback

from harness.processes.progress import Progress, ProgressListener

METRIC = "train_images_per_second"
WARM_UP_STEPS = 10
_WINDOW = 1000


def record(trainer: pl.Trainer, metrics: Mapping[str, float], step: int) -> None:
    """Give metrics of a step to the loggers."""
    for logger in trainer.loggers:
        logger.log_metrics(dict(metrics), step=step)


@dataclass(eq=False)
class Pace(pl.Callback):
    """Measures the seconds of each step and reports progress.

    A step lasts from its batch being asked for to its weights being updated. The first ten steps
    of a process are left out. On a GPU, where a step returns before it is done, reading the loss
    each step keeps the clock honest. `restart` belongs at the end of the trainer's callbacks, so
    that validation and checkpoints between two steps do not count.
    """

    batch_size: int
    """Images a step, over all processes."""
    listener: ProgressListener
    log_every: int
    """Steps between two logged figures."""
    durations: deque[float] = field(default_factory=lambda: deque(maxlen=_WINDOW))
    _steps_in_process: int = 0
    _started: float = 0.0

    def __post_init__(self) -> None:
        self.restart = LambdaCallback(on_train_batch_end=self._start_clock)

    @property
    def images_per_second(self) -> float | None:
        """Batch size over the median seconds of the last 1,000 steps; None during the warm-up."""
        if not self.durations:
            return None
        return self.batch_size / statistics.median(self.durations)

    def _start_clock(self, *_: object) -> None:
        self._started = time.perf_counter()

    def on_train_start(self, *_: object) -> None:
        self._start_clock()

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: object
    ) -> None:
        self._steps_in_process += 1
        if self._steps_in_process > WARM_UP_STEPS:
            self.durations.append(time.perf_counter() - self._started)
        step, speed = trainer.global_step, self.images_per_second
        note = f"loss {float(outputs['train_loss']):.3f}" + (
            f"  {speed:,.0f} img/s" if speed else ""
        )
        self.listener(Progress("train", step, trainer.max_steps, note))
        if speed is not None and step % self.log_every == 0:
            record(trainer, {METRIC: speed}, step)

    def state_dict(self) -> dict[str, Any]:
        return {"durations": list(self.durations)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.durations.extend(state_dict["durations"])
