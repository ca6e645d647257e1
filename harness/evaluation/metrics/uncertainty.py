"""What a Frechet distance from few samples is worth.

Many subsets and resamples of one set of features, measured against one reference.

The Frechet distance of unlimited samples (FID-infinity; Chong and Forsyth 2020).

The distance of N samples is too large by a bias that goes as 1/N and differs between networks, so
that networks can change places with N. A line through the distances of subsets over 1/N meets
1/N = 0 at an estimate without that bias.

How far a Frechet distance depends on which samples happened to be drawn.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg.blas import dsyrk
from torch import Tensor

from harness.evaluation.metrics.frechet import (
    Gaussian,
    Matrix,
    check_widths,
    finite_features,
    gaussian_distance,
    gaussian_of_features,
)
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from models.randomness import generator

_EXACT_SIDE = 512
"""Up to here, singular values are as cheap as they are exact."""


class WeightedFrechet:
    """The Frechet distance of features, each counted a number of times, to a fixed Gaussian.

    The overlap needs no more of the features than their projections on the reference's factor, and
    a feature that is counted w times is one row times the root of w. So the projections are made
    once, and a resample neither copies features nor builds their covariance.

    Of many features in many dimensions, the overlap is the sum of the roots of the eigenvalues of
    the projections' Gram matrix, whose smaller side counts: several times faster than their
    singular values, and exact to 1e-7 of the traces, where the other is to 1e-14.
    """

    def __init__(self, features: Matrix, reference: Gaussian) -> None:
        """Prepare; this holds two float64 copies of the features.

        Args:
            features: (N, D), N at least 2.
            reference: of D dimensions.

        Raises:
            ValueError: too few features, another width or a row that is not finite.
        """
        values = torch.from_numpy(finite_features(features, "features", least=2))
        check_widths(values.shape[1], len(reference.mean))
        centre = values.mean(dim=0)
        self._centred = values - centre
        self._projected = self._centred @ reference.factor.T
        self._squares = self._centred.square().sum(dim=1)
        self._shift = centre - reference.mean
        self._reference_trace = float(reference.factor.square().sum())

    def __len__(self) -> int:
        return len(self._centred)

    def distance(self, counts: Tensor) -> float:
        """Measure.

        Args:
            counts: (N,), integers of at least 0: how often each feature counts. At least two are
                counted in all.
        """
        total = int(counts.sum())
        weights = counts.double()
        mean = weights @ self._centred / total
        trace = (weights @ self._squares - total * mean.square().sum()) / (total - 1)
        used = counts.nonzero()[:, 0]
        rows = self._projected[used] - weights @ self._projected / total
        rows *= (weights[used] / (total - 1)).sqrt().unsqueeze(1)
        shift = (self._shift + mean).square().sum()
        overlap = _sum_of_singular_values(rows)
        return max(0.0, float(shift + trace + self._reference_trace - 2 * overlap))


def _sum_of_singular_values(rows: Tensor) -> Tensor:
    """Of (M, R)."""
    if min(rows.shape) <= _EXACT_SIDE:
        return torch.linalg.svdvals(rows).sum()
    # BLAS counts columns first, so to it the rows are columns: half of the product is enough.
    gram = dsyrk(1.0, rows.numpy().T, trans=int(rows.shape[0] < rows.shape[1]), lower=1)
    values = torch.linalg.eigvalsh(torch.from_numpy(gram))
    return values.clamp_min(0).sqrt().sum()


@dataclass(frozen=True)
class FrechetExtrapolation:
    """The line and what it was fitted to."""

    value: float
    """At 1/N = 0. It can be below zero, by chance."""
    standard_error: float
    """Of `value`, by ordinary least squares: how far the points scatter about the line. As subsets
    overlap, it understates the chance of the draw, for which see `bootstrap_interval`."""
    slope: float
    """The bias is this over N."""
    sizes: tuple[int, ...]
    distances: tuple[float, ...]
    """Of the subsets, in the order of `sizes`."""


def extrapolated_frechet(
    samples: Matrix,
    reference: Gaussian,
    *,
    points: int = 15,
    smallest: int | None = None,
    seed: int = 0,
    on_progress: ProgressListener = ignore_progress,
) -> FrechetExtrapolation:
    """Fit a line to the distances of random subsets, evenly spaced in size.

    The bias is a line in 1/N only where N is well above the dimensions D: choose `smallest` so, or
    the figure means little. The reference's own finite count adds a bias that stays. Chong and
    Forsyth draw the samples from a Sobol sequence besides, which needs the network.

    Args:
        samples: (N, D) features.
        reference: what they are compared with.
        points: subsets, at least 3; the last one is the whole set.
        smallest: images of the first one, at least 2; N / 10 where None, as in the paper.
        seed: of the choice.
        on_progress: told after each subset.

    Raises:
        ValueError: too few points or samples, another width or a row that is not finite.
    """
    weighted = WeightedFrechet(samples, reference)
    count = len(weighted)
    first = max(2, count // 10) if smallest is None else smallest
    if points < 3 or not 2 <= first <= count - points + 1:
        raise ValueError(f"no {points} different sizes of {first} to {count} samples, at least 3")
    sizes = np.linspace(first, count, points).round().astype(np.int64)
    distances = np.empty(points)
    for index, size in enumerate(sizes):
        order = torch.randperm(count, generator=generator("extrapolation", seed, index))
        chosen = torch.zeros(count, dtype=torch.int64)
        chosen[order[: int(size)]] = 1
        distances[index] = weighted.distance(chosen)
        on_progress(Progress("extrapolation", index + 1, points))

    inverse = 1 / sizes
    centred = inverse - inverse.mean()
    spread = (centred**2).sum()
    slope = (centred * distances).sum() / spread
    value = distances.mean() - slope * inverse.mean()
    rest = ((distances - value - slope * inverse) ** 2).sum() / (points - 2)
    error = np.sqrt(rest * (1 / points + inverse.mean() ** 2 / spread))
    return FrechetExtrapolation(
        value=float(value),
        standard_error=float(error),
        slope=float(slope),
        sizes=tuple(int(size) for size in sizes),
        distances=tuple(float(distance) for distance in distances),
    )


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
