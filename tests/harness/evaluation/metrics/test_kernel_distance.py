from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from harness.evaluation.metrics import kernel_distance as module
from harness.evaluation.metrics.kernel_distance import kernel_distance, squared_discrepancy


def naive(a: np.ndarray, b: np.ndarray) -> float:
    """Pair by pair."""

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    def pairs(points: np.ndarray) -> float:
        return float(np.mean([kernel(x, y) for x, y in itertools.permutations(points, 2)]))

    return pairs(a) + pairs(b) - 2 * float(np.mean([kernel(x, y) for x in a for y in b]))


@pytest.fixture(params=["digits", "cifar"])
def pair(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    if request.param == "cifar":
        features = request.getfixturevalue("cifar").features
        return features[:200], features[200:]
    pixels = request.getfixturevalue("digits").reshape(-1, 64) / 255
    return pixels[:300], 0.9 * pixels[300:650]


def test_equals_the_sum_over_pairs_also_for_unequal_counts(pair) -> None:
    a, b = pair[0][:40], pair[1][:33]
    assert squared_discrepancy(a, b) == pytest.approx(naive(a, b), rel=1e-9)
    assert squared_discrepancy(a, b) == pytest.approx(squared_discrepancy(b, a), rel=1e-12)


@pytest.mark.parametrize("size", [30, 200])
def test_the_same_seed_gives_torch_fidelity_s_figures(pair, size: int) -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    theirs = kid_features_to_metric(
        *(torch.from_numpy(part) for part in pair),
        kid_subsets=7,
        kid_subset_size=size,
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
        rng_seed=5,
        verbose=False,
    )
    ours = kernel_distance(*pair, subsets=7, subset_size=size, seed=5)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-9)
    deviation = theirs["kernel_inception_distance_std"]
    if size == len(pair[0]) == len(pair[1]):
        # All seven are the whole of both sets.
        assert deviation == pytest.approx(0, abs=1e-12)
        assert (ours.std, ours.subsets) == (None, 1)
    else:
        assert ours.std == pytest.approx(deviation, rel=1e-6, abs=1e-12)
        assert ours.subsets == 7
    assert ours.subset_size == size


def test_equals_torchmetrics_where_the_subset_is_the_whole_set(pair) -> None:
    """It draws without a seed, so nothing else compares."""
    from torchmetrics.image.kid import KernelInceptionDistance

    a, b = pair[0][:200], pair[1][:200]
    metric = KernelInceptionDistance(feature=nn.Identity(), subsets=1, subset_size=200)
    metric.update(torch.from_numpy(a), real=True)
    metric.update(torch.from_numpy(b), real=False)
    ours = kernel_distance(a, b, subsets=1)
    assert ours.mean == pytest.approx(metric.compute()[0].item(), rel=1e-6)
    assert ours.subset_size == 200


def test_subsets_are_no_larger_than_the_smaller_set(pair) -> None:
    ours = kernel_distance(pair[0], pair[1][:25], subsets=3)
    assert ours.subset_size == 25
    whole = kernel_distance(pair[0][:25], pair[1][:25], subsets=3)
    assert whole.mean == pytest.approx(naive(pair[0][:25], pair[1][:25]), rel=1e-9)
    assert (whole.std, whole.subsets, whole.subset_size) == (None, 1, 25)
    # Subsets of the larger side differ, so the smaller one being whole is no reason for one alone.
    assert ours.std is not None
    assert ours.std > 0


def test_only_a_block_of_the_kernel_is_in_memory(pair, monkeypatch) -> None:
    at_once = squared_discrepancy(*pair)
    largest = []
    kernel = module._kernel

    def watched(products: torch.Tensor, dimensions: int) -> torch.Tensor:
        largest.append(products.numel())
        return kernel(products, dimensions)

    monkeypatch.setattr(module, "_kernel", watched)
    monkeypatch.setattr(module, "_ENTRIES_AT_ONCE", 1000)
    assert squared_discrepancy(*pair) == pytest.approx(at_once, rel=1e-10)
    assert max(largest) <= 1000


def test_has_no_bias() -> None:
    """Two draws of one distribution are zero apart on average, however few they are."""
    random = np.random.default_rng(0)
    found = [squared_discrepancy(*random.normal(size=(2, 10, 4))) for _ in range(400)]
    error = np.std(found) / 20
    assert abs(np.mean(found)) < 3 * error
    assert min(found) < 0


def test_float32_features_are_summed_in_float64(pair) -> None:
    a, b = (part.astype(np.float32) for part in pair)
    assert squared_discrepancy(a, b) == squared_discrepancy(
        a.astype(np.float64), b.astype(np.float64)
    )


def test_features_that_cannot_be_compared_are_refused(pair) -> None:
    a, b = pair
    with pytest.raises(ValueError, match="N >= 2"):
        kernel_distance(a[:1], b)
    with pytest.raises(ValueError, match="dimensions do not compare"):
        kernel_distance(a, b[:, :5])
    with pytest.raises(ValueError, match="0 subsets"):
        kernel_distance(a, b, subsets=0)
    with pytest.raises(ValueError, match="of 1 images"):
        kernel_distance(a, b, subset_size=1)
    broken = b.copy()
    broken[4] = np.inf
    with pytest.raises(ValueError, match="features_b: row 4 is not finite"):
        kernel_distance(a, broken)
