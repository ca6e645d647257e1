"""Whether processes and micro-batches can share a batch evenly."""

from __future__ import annotations

from harness.config.sections import TrainConfig
from models.errors import UserError


def check_batch(settings: TrainConfig, processes: int) -> None:
    """Every process and micro-batch gets equally many images of a step.

    Raises:
        UserError: the batch size does not allow it.
    """
    parts = processes * settings.accumulate
    if settings.batch_size % parts:
        raise UserError(
            f"train.batch_size is {settings.batch_size} images over all processes, which "
            f"{processes} process(es) a trial x {settings.accumulate} micro-batch(es) "
            f"(train.accumulate) cannot share evenly: take a multiple of {parts}, or change one of "
            "the two"
        )
