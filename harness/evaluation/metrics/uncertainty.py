"""What a Frechet distance from few samples is worth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from harness.evaluation.frechet_extrapolation import FrechetExtrapolation, extrapolated_frechet
from harness.evaluation.frechet_interval import FrechetInterval, bootstrap_interval
from harness.evaluation.metrics.frechet import Gaussian
from harness.processes.progress import ProgressListener, ignore_progress

ENOUGH_SAMPLES = 10_000
"""From here on the field compares figures without a second thought."""
RESAMPLES = 100
_POINTS = 15


@dataclass(frozen=True)
class Uncertainty:
    """Of one distance."""

    interval: FrechetInterval | None
    """None where it was not asked for."""
    extrapolation: FrechetExtrapolation | None
    """None where there are too few samples for a line."""
    rough: bool
    """Whether the smallest subset of the line has fewer samples than twice the dimensions, so that
    the bias is no line yet."""


def frechet_uncertainty(
    samples: NDArray[np.float32],
    reference: Gaussian,
    *,
    resamples: int = RESAMPLES,
    on_progress: ProgressListener = ignore_progress,
) -> Uncertainty:
    """Draw again, and extrapolate.

    Args:
        samples: (N, D) features.
        reference: what they are compared with.
        resamples: of the interval; below 2 there is none.
        on_progress: told after each subset and resample.
    """
    count, dimensions = samples.shape
    # The line is one only well above D, and needs half of the samples to be fitted to.
    smallest = max(2, count // 10, min(2 * dimensions, count // 2))
    extrapolation = None
    if smallest + _POINTS <= count:
        extrapolation = extrapolated_frechet(
            samples, reference, points=_POINTS, smallest=smallest, on_progress=on_progress
        )
    interval = None
    if resamples >= 2:
        interval = bootstrap_interval(
            samples, reference, resamples=resamples, on_progress=on_progress
        )
    return Uncertainty(interval, extrapolation, rough=smallest < 2 * dimensions)
