"""The Frechet distance of unlimited samples (FID-infinity; Chong and Forsyth 2020).

The distance of N samples is too large by a bias that goes as 1/N and differs between networks, so
that networks can change places with N. A line through the distances of subsets over 1/N meets
1/N = 0 at an estimate without that bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from harness.evaluation.feature_matrix import Matrix
from harness.evaluation.metrics.frechet import Gaussian
from harness.evaluation.weighted_frechet import WeightedFrechet
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from models.randomness import generator


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
