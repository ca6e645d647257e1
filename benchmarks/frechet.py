"""How long a Frechet distance takes from stored statistics, beside the usual matrix square root."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.linalg import sqrtm

from harness.evaluation.metrics.frechet import frechet_distance
from harness.evaluation.metrics.moments import FeatureMoments
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from models.randomness import generator

Statistics = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean (D,) and covariance (D, D)."""

_SAMPLES_PER_DIMENSION = 3
"""Enough for covariances of full rank, which are the slower ones for neither side."""


@dataclass(frozen=True)
class FrechetSpeeds:
    """Seconds of one distance, features and statistics not counted."""

    dimensions: int
    ours: float
    """Median over the rounds."""
    square_root: float
    """Median, with `scipy.linalg.sqrtm` of the covariances' product."""
    ratios: tuple[float, ...]
    """The square root's seconds over ours, a pair a round; above 1 ours is faster."""
    relative_difference: float
    """Between the two results."""


def measure_frechet(
    *,
    dimensions: int,
    rounds: int,
    on_progress: ProgressListener = ignore_progress,
) -> FrechetSpeeds:
    """Compute the same distance both ways, turn by turn, each with the threads its library has.

    Args:
        dimensions: 2048 for Inception features.
        rounds: pairs of measurements, at least 1.
        on_progress: told after each round.
    """
    a, b = _statistics(dimensions, "a"), _statistics(dimensions, "b")
    ours, theirs = [], []
    for done in range(1, rounds + 1):
        seconds, value = _timed(lambda: frechet_distance(*a, *b))
        ours.append(seconds)
        seconds, expected = _timed(lambda: _by_square_root(a, b))
        theirs.append(seconds)
        on_progress(Progress("rounds", done, rounds))
    return FrechetSpeeds(
        dimensions=dimensions,
        ours=statistics.median(ours),
        square_root=statistics.median(theirs),
        ratios=tuple(other / one for one, other in zip(ours, theirs, strict=True)),
        relative_difference=abs(value - expected) / expected,
    )


def _statistics(dimensions: int, name: str) -> Statistics:
    """Of features that depend on one another and differ in variance, as real ones do."""
    stream = generator("frechet-benchmark", name)
    mixing = torch.randn(dimensions, dimensions, generator=stream) / dimensions**0.5
    scales = torch.arange(1, dimensions + 1) ** -0.5
    moments = FeatureMoments(dimensions)
    for _ in range(_SAMPLES_PER_DIMENSION):
        noise = torch.randn(dimensions, dimensions, generator=stream)
        moments.update((noise * scales @ mixing).numpy())
    return moments.mean, moments.covariance


def _timed(compute: Callable[[], float]) -> tuple[float, float]:
    began = time.perf_counter()
    value = compute()
    return time.perf_counter() - began, value


def _by_square_root(a: Statistics, b: Statistics) -> float:
    root = np.real(sqrtm(a[1] @ b[1]))
    shift = a[0] - b[0]
    return float(shift @ shift + np.trace(a[1]) + np.trace(b[1]) - 2 * np.trace(root))
