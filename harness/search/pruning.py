"""Stopping a configuration that is worse than the others were at the same step.

What is compared at a step of the k-th seed is the mean validation loss, at that step, over the
seeds up to the k-th. Optuna is told it under the step (k - 1) * longest + step, so that only
figures of the same seeds and the same number of steps are held against each other.

Losses that a trial recorded before, in an earlier command or for another purpose, are told first:
a resumed trial is judged like one that was never interrupted.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from statistics import fmean

import optuna

from harness.processes.signals import StopRequest
from harness.tracking.events import JOURNAL_FILE, Metrics, read_events
from harness.vocabulary.names import VALIDATION_LOSS


class Pruning:
    """The validation losses of one configuration, seed after seed.

    Args:
        trial: Optuna's, which is told the losses and asked whether to stop.
        negate: the study maximises, while a loss is better where it is less.
        longest: the most training steps that a configuration of the search may have.
        stop: of the process; requested once the trial shall stop, and looked at by the training of
            the present seed.
    """

    def __init__(
        self,
        trial: optuna.Trial,
        *,
        negate: bool,
        longest: int,
        stop: StopRequest | None = None,
    ) -> None:
        self._trial = trial
        self._sign = -1.0 if negate else 1.0
        self._longest = longest
        self._curves: list[dict[int, float]] = []
        self._last_step: int | None = None
        self.stop = stop or StopRequest()
        self.where = ""
        """The step and seed at which the configuration was stopped; empty while it is not."""

    def begin_seed(self, folder: Path, last_step: int, *, last_seed: bool) -> bool:
        """Go on to the next seed, and look at what its trial in `folder` has recorded.

        Args:
            folder: of the trial, which need not exist.
            last_step: of its training.
            last_seed: whether no further one follows; then nothing is saved by a stop at its end.

        Returns:
            Whether the configuration shall go on.
        """
        self._curves.append({})
        self._last_step = last_step if last_seed else None
        for step, loss in recorded_losses(folder).items():
            self.listen({VALIDATION_LOSS: loss}, step)
        return not self.where

    def listen(self, metrics: Mapping[str, float], step: int) -> None:
        """Take a step's metrics; requests the stop where the pruner says so."""
        loss = metrics.get(VALIDATION_LOSS)
        curve = self._curves[-1]
        if loss is None or step in curve or not math.isfinite(loss) or self.stop.requested:
            return
        curve[step] = loss
        if not all(step in other for other in self._curves):
            return
        mean = fmean(other[step] for other in self._curves)
        self._trial.report(self._sign * mean, (len(self._curves) - 1) * self._longest + step)
        if step != self._last_step and self._trial.should_prune():
            self.where = f"at step {step} of seed {len(self._curves)}"
            self.stop.reason = "pruning"


def recorded_losses(folder: Path) -> dict[int, float]:
    """The validation losses in the journal of a trial, by step, in their order."""
    losses: dict[int, float] = {}
    path = folder / JOURNAL_FILE
    if path.exists():
        with path.open("rb") as file:
            for event, _ in read_events(file, 0):
                if isinstance(event, Metrics) and VALIDATION_LOSS in event.values:
                    losses.setdefault(event.step, event.values[VALIDATION_LOSS])
    return dict(sorted(losses.items()))
