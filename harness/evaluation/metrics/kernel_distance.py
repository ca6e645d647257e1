"""The kernel distance (KID, where the features are Inception's; Binkowski et al. 2018).

It is the squared maximum mean discrepancy under the kernel `(x . y / D + 1)^3`, by the estimator
without bias. Unlike the Frechet distance, its expectation does not depend on the number of images,
and it can be a little below zero where two sets are alike.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from harness.evaluation.metrics.frechet import Matrix, check_features, check_widths

_DEGREE = 3
_OFFSET = 1.0
_ENTRIES_AT_ONCE = 2**22
"""Of the kernel matrix in memory: 32 MiB."""


class KernelDistance(NamedTuple):
    """The squared discrepancy over random subsets."""

    mean: float
    std: float | None
    """Population standard deviation over the subsets: the spread of a figure from `subset_size`
    images. It is not the error of the mean, since subsets overlap. None where a subset is all of
    both sets, so that there is only one."""
    subsets: int
    subset_size: int
    """Images of each set that a subset really had."""


def kernel_distance(
    features_a: Matrix,
    features_b: Matrix,
    *,
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> KernelDistance:
    """The unbiased squared discrepancy, averaged over random subsets of both sets.

    The subsets are torch-fidelity's, so the same seed gives the same ones there.

    Args:
        features_a: (N, D), N at least 2.
        features_b: (M, D), M at least 2.
        subsets: how many.
        subset_size: images of each set in a subset; at most the smaller set.
        seed: of the choice.

    Raises:
        ValueError: too few features, different widths or a row that is not finite.
    """
    _check(features_a, features_b)
    a, b = features_a, features_b
    size = min(subset_size, len(a), len(b))
    if subsets < 1 or size < 2:
        raise ValueError(f"{subsets} subsets of {size} images: at least 1 of 2 is needed")
    if size == len(a) == len(b):
        return KernelDistance(squared_discrepancy(a, b), None, 1, size)
    random = np.random.RandomState(seed)
    found = []
    for _ in range(subsets):
        rows_a = random.choice(len(a), size, replace=False)
        rows_b = random.choice(len(b), size, replace=False)
        found.append(squared_discrepancy(a[rows_a], b[rows_b]))
    return KernelDistance(float(np.mean(found)), float(np.std(found)), subsets, size)


def squared_discrepancy(features_a: Matrix, features_b: Matrix) -> float:
    """The unbiased squared discrepancy of all pairs of images at once, for sets of any sizes.

    There is no choice of subsets in it, so it scatters least about its expectation, which is that
    of `kernel_distance`. The time grows with the square of the sets, of at least 2 features each.

    Raises:
        ValueError: too few features, different widths or a row that is not finite.
    """
    _check(features_a, features_b)
    a, b = (
        torch.from_numpy(np.ascontiguousarray(features, dtype=np.float64))
        for features in (features_a, features_b)
    )
    between = _kernel_sum(a, b) / (len(a) * len(b))
    return _mean_of_pairs(a) + _mean_of_pairs(b) - 2 * between


def _check(features_a: Matrix, features_b: Matrix) -> None:
    check_features(features_a, "features_a", least=2)
    check_features(features_b, "features_b", least=2)
    check_widths(features_a.shape[1], features_b.shape[1])


def _mean_of_pairs(a: Tensor) -> float:
    """Over pairs of different images, which is what leaves no bias."""
    selves = float(_kernel(a.square().sum(dim=1), a.shape[1]).sum())
    return (_kernel_sum(a, a) - selves) / (len(a) * (len(a) - 1))


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    rows = max(1, _ENTRIES_AT_ONCE // len(b))
    return sum(float(_kernel(part @ b.T, a.shape[1]).sum()) for part in a.split(rows))


def _kernel(products: Tensor, dimensions: int) -> Tensor:
    return (products / dimensions + _OFFSET) ** _DEGREE
