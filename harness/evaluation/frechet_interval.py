"""How far a Frechet distance depends on which samples happened to be drawn."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from harness.evaluation.feature_matrix import Matrix
from harness.evaluation.metrics.frechet import Gaussian, gaussian_distance, gaussian_of_features
from harness.evaluation.weighted_frechet import WeightedFrechet
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from models.randomness import generator


@dataclass(frozen=True)
class FrechetInterval:
    """A distance with its bootstrap interval."""

    value: float
    """Of the samples as they are."""
    low: float
    """The lower percentile over the resamples."""
    high: float
    """The upper one."""
    shift: float
    """Mean over the resamples, less `value`; above zero, see `bootstrap_interval`."""
    standard_error: float
    """Standard deviation over the resamples."""
    confidence: float
    """The share of resamples between `low` and `high`."""
    resamples: int

    @property
    def centred(self) -> tuple[float, float]:
        """The interval moved by the shift, around `value`: the one to print beside it."""
        return self.low - self.shift, self.high - self.shift


def bootstrap_interval(
    samples: Matrix,
    reference: Gaussian,
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
    on_progress: ProgressListener = ignore_progress,
) -> FrechetInterval:
    """Percentiles of the distance over samples drawn again with replacement.

    The interval covers the chance of drawing these samples from this network, with the reference
    and the number of samples as they are. It covers neither the seed of the training, which is
    usually the larger part when variants are compared, nor the choice of the reference, nor the
    bias of a finite number of samples: `value` estimates the mean figure of that number of samples,
    and not the distance from unlimited ones, for which see `extrapolated_frechet`.

    A resample has fewer different images than the set, so it lies farther from the reference: by
    about the bias that the set itself has. With more dimensions than images that shift exceeds the
    spread, and the plain percentiles lie above `value`; `centred` undoes it.

    Each resample costs a singular value decomposition of about N x D.

    Args:
        samples: (N, D) features, N at least 2.
        reference: what they are compared with, from `gaussian_of_features` or `..._of_moments`.
        resamples: how many, at least 2.
        confidence: in (0, 1).
        seed: of the draws; a resample does not depend on how many there are.
        on_progress: told after each resample.

    Raises:
        ValueError: too few samples or resamples, another width or a row that is not finite.
    """
    if resamples < 2 or not 0 < confidence < 1:
        raise ValueError(f"{resamples} resamples at {confidence}: at least 2, within (0, 1)")
    value = gaussian_distance(gaussian_of_features(samples), reference)
    weighted = WeightedFrechet(samples, reference)
    size = len(weighted)
    found = np.empty(resamples)
    for index in range(resamples):
        drawn = torch.randint(size, (size,), generator=generator("bootstrap", seed, index))
        found[index] = weighted.distance(torch.bincount(drawn, minlength=size))
        on_progress(Progress("bootstrap", index + 1, resamples))
    low, high = np.quantile(found, [(1 - confidence) / 2, (1 + confidence) / 2])
    return FrechetInterval(
        value=value,
        low=float(low),
        high=float(high),
        shift=float(found.mean()) - value,
        standard_error=float(found.std(ddof=1)),
        confidence=confidence,
        resamples=resamples,
    )
