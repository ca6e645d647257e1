"""How far a Frechet distance depends on which images happened to be drawn, and on how many.

Drawing the samples again with replacement shows the chance of the draw (`bootstrap_interval`). The
distance of N samples is besides too large by a bias that goes as 1/N and differs between networks,
so that networks can change places with N; the reference's own number of images adds another one. A
line through the distances of parts of both sides over 1/N meets 1/N = 0 at an estimate without
either (`extrapolated_frechet`; Chong and Forsyth 2020 shrink the samples alone).
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

ENOUGH_SAMPLES = 10_000
"""From here on the field compares figures without a second thought."""

_EXACT_SIDE = 512
"""Up to here, singular values are as cheap as they are exact."""


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


@dataclass(frozen=True)
class FrechetExtrapolation:
    """The distance of unlimited images, and the line that it comes from."""

    value: float
    """At 1/N = 0. It can be below zero, by chance: then no distance can be told from zero."""
    standard_error: float
    """Of `value`: of both sides' draws, by the bootstrap, and of the line, by least squares."""
    sizes: tuple[int, ...]
    """Samples of each point."""
    distances: tuple[float, ...]
    """Of the points, in the order of `sizes`."""


@dataclass(frozen=True)
class Uncertainty:
    """Of one distance."""

    interval: FrechetInterval
    extrapolation: FrechetExtrapolation | None
    """None where either side has too few images for a line, or no features of single images."""


def frechet_uncertainty(
    samples: NDArray[np.float32],
    reference: Gaussian,
    reference_features: NDArray[np.float32] | None,
    *,
    resamples: int,
    on_progress: ProgressListener = ignore_progress,
) -> Uncertainty:
    """Draw samples (N, D) again, and extrapolate where the reference's features (M, D) allow it."""
    interval = bootstrap_interval(samples, reference, resamples=resamples, on_progress=on_progress)
    extrapolation = None
    if reference_features is not None and _can_extrapolate(samples, reference_features):
        extrapolation = extrapolated_frechet(
            samples, reference_features, resamples=resamples, on_progress=on_progress
        )
    return Uncertainty(interval, extrapolation)


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

    Args:
        samples: (N, D) features, N at least 2.
        reference: what they are compared with.
        resamples: at least 2; each costs a singular value decomposition of about N x D.
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
    size = len(samples)
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


def extrapolated_frechet(
    samples: Matrix,
    reference: Matrix,
    *,
    resamples: int = 100,
    points: int = 8,
    seed: int = 0,
    on_progress: ProgressListener = ignore_progress,
) -> FrechetExtrapolation:
    """Fit a line to the distances of random parts of both sides, from a half to the whole.

    Both sides shrink by the same factor, so both biases go as 1/N. Between two Gaussians the mean
    estimate misses the known distance by less than a third of its standard error from N = 4 D on,
    and value plus or minus one standard error holds it in about two of three draws.

    Args:
        samples: (N, D) features, N at least 2 D.
        reference: (M, D) features of real images, M at least 2 D.
        resamples: of each side, at least 2, for the standard error.
        points: parts of the line, at least 3; the last one is the whole.
        seed: of the choice.
        on_progress: told after each part and resample.

    Raises:
        ValueError: too few images, points or resamples, different widths, or a row that is not
            finite.
    """
    sides = [
        finite_features(side, name, least=2)
        for side, name in ((samples, "samples"), (reference, "reference"))
    ]
    check_widths(sides[0].shape[1], sides[1].shape[1])
    if not _can_extrapolate(*sides) or points < 3:
        raise ValueError(
            f"no line of {points} points through {len(samples)} samples and {len(reference)} real "
            f"images of {sides[0].shape[1]} dimensions: 3 points and {2 * sides[0].shape[1]} "
            "images are needed"
        )
    shares = np.linspace(0.5, 1, points)
    sizes, distances = [], np.empty(points)
    for index, share in enumerate(shares):
        parts = []
        for side, name in zip(sides, ("samples", "reference"), strict=True):
            stream = generator(f"extrapolation-{name}", seed, index)
            order = torch.randperm(len(side), generator=stream)
            parts.append(side[order[: round(share * len(side))].numpy()])
        sizes.append(len(parts[0]))
        distances[index] = gaussian_distance(*map(gaussian_of_features, parts))
        on_progress(Progress("extrapolation", index + 1, points))

    inverse = 1 / shares
    centred = inverse - inverse.mean()
    spread = (centred**2).sum()
    slope = (centred * distances).sum() / spread
    value = distances.mean() - slope * inverse.mean()
    rest = ((distances - value - slope * inverse) ** 2).sum() / (points - 2)
    of_line = rest * (1 / points + inverse.mean() ** 2 / spread)
    of_draws = 0.0
    for side, other in (sides, sides[::-1]):
        found = bootstrap_interval(
            side, gaussian_of_features(other), resamples=resamples, on_progress=on_progress
        )
        of_draws += found.standard_error**2
    return FrechetExtrapolation(
        value=float(value),
        standard_error=float(np.sqrt(of_line + of_draws)),
        sizes=tuple(sizes),
        distances=tuple(distances.tolist()),
    )


def _can_extrapolate(samples: Matrix, reference: Matrix) -> bool:
    """Whether the bias is a line in 1/N: with fewer images than twice the dimensions it is not."""
    return min(len(samples), len(reference)) >= 2 * samples.shape[1]


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
        """Prepare; this holds two float64 copies of the features (N, D), N at least 2.

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

    def distance(self, counts: Tensor) -> float:
        """Measure; `counts` (N,) are integers of at least 0, in all at least 2."""
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
    if min(rows.shape) <= _EXACT_SIDE:
        return torch.linalg.svdvals(rows).sum()
    # BLAS counts columns first, so to it the rows are columns: half of the product is enough.
    gram = dsyrk(1.0, rows.numpy().T, trans=int(rows.shape[0] < rows.shape[1]), lower=1)
    values = torch.linalg.eigvalsh(torch.from_numpy(gram))
    return values.clamp_min(0).sqrt().sum()
