"""Distances against closed forms, a plain matrix square root, torchmetrics and torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn

from harness.evaluation.distances import (
    frechet_distance,
    frechet_distance_of_gaussians,
    inception_style_score,
)

Pair = tuple[np.ndarray, np.ndarray]


def mixed(count: int, width: int, seed: int) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixing = np.random.default_rng(99).normal(size=(width, width)) / width**0.5
    return random.gamma(1.0 + 0.1 * seed, size=(count, width)) @ mixing + 0.05 * seed


@pytest.fixture(params=[np.float32, np.float64])
def pair(request: pytest.FixtureRequest) -> Pair:
    return mixed(500, 64, 0).astype(request.param), mixed(400, 64, 1).astype(request.param)


def plain_formula(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    shift = a.mean(axis=0) - b.mean(axis=0)
    return float(shift @ shift + np.trace(sum(covariances)) - 2 * np.trace(root))


def test_equals_the_plain_formula(pair: Pair) -> None:
    assert frechet_distance(*pair) == pytest.approx(plain_formula(*pair), rel=1e-6)


def test_equals_torch_fidelity(pair: Pair) -> None:
    from torch_fidelity.metric_fid import (
        KEY_METRIC_FID,
        fid_features_to_statistics,
        fid_statistics_to_metric,
    )

    statistics = [fid_features_to_statistics(torch.from_numpy(part).double()) for part in pair]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)[KEY_METRIC_FID]
    assert frechet_distance(*pair) == pytest.approx(theirs, rel=1e-6)


def test_equals_torchmetrics(pair: Pair) -> None:
    from torchmetrics.image.fid import FrechetInceptionDistance

    class Precomputed(nn.Module):
        num_features = 64

        def forward(self, features: Tensor) -> Tensor:
            return features

    metric = FrechetInceptionDistance(feature=Precomputed())
    for features, real in zip(pair, (True, False), strict=True):
        metric.update(torch.from_numpy(features).double(), real=real)
    assert frechet_distance(*pair) == pytest.approx(metric.compute().item(), rel=1e-6)


def test_gaussians_of_known_distance() -> None:
    """For covariances that commute the distance is that of the standard deviations."""
    random = np.random.default_rng(0)
    basis = np.linalg.qr(random.normal(size=(30, 30)))[0]
    variances = random.uniform(0.1, 4, size=(2, 30))
    means = random.normal(size=(2, 30))
    covariances = [basis * variance @ basis.T for variance in variances]
    expected = ((means[0] - means[1]) ** 2).sum() + (
        (variances[0] ** 0.5 - variances[1] ** 0.5) ** 2
    ).sum()
    distance = frechet_distance_of_gaussians(means[0], covariances[0], means[1], covariances[1])
    assert distance == pytest.approx(expected, rel=1e-10)


def test_statistics_and_features_give_the_same(pair: Pair) -> None:
    a, b = (part.astype(np.float64) for part in pair)
    from_statistics = frechet_distance_of_gaussians(
        a.mean(axis=0), np.cov(a, rowvar=False), b.mean(axis=0), np.cov(b, rowvar=False)
    )
    assert frechet_distance(a, b) == pytest.approx(from_statistics, rel=1e-9)


@pytest.mark.parametrize("width", [64, 200, 1280])
def test_stays_exact_where_covariances_are_singular(width: int) -> None:
    """Turning 20 dimensions into a subspace of many changes no distance."""
    a, b = mixed(100, 20, 0), mixed(90, 20, 1)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(width, 20)))[0].T
    assert frechet_distance(a @ turn, b @ turn) == pytest.approx(plain_formula(a, b), rel=1e-8)


def test_a_set_has_no_distance_to_itself_and_a_shift_counts_squared() -> None:
    a = mixed(60, 200, 0)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 0.5) == pytest.approx(200 * 0.25, rel=1e-9)


def test_is_symmetric(pair: Pair) -> None:
    assert frechet_distance(*pair) == pytest.approx(frechet_distance(*pair[::-1]), rel=1e-10)


def test_features_that_cannot_be_compared_are_refused() -> None:
    good = mixed(10, 4, 0)
    with pytest.raises(ValueError, match="4 and 5 dimensions"):
        frechet_distance(good, mixed(10, 5, 0))
    with pytest.raises(ValueError, match="N >= 2"):
        frechet_distance(good[:1], good)
    with pytest.raises(ValueError, match="not finite"):
        frechet_distance(good, np.where(good == good.max(), np.nan, good))
    with pytest.raises(ValueError, match="do not fit"):
        frechet_distance_of_gaussians(good[0], np.eye(3), good[0], np.eye(4))


def logits(count: int = 300, classes: int = 10) -> np.ndarray:
    return 3 * np.random.default_rng(0).normal(size=(count, classes))


def plain_score(values: np.ndarray) -> float:
    p = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    divergence = (p * (np.log(p) - np.log(p.mean(axis=0)))).sum(axis=1)
    return float(np.exp(divergence.mean()))


def test_score_of_one_split_equals_the_plain_formula_and_torchmetrics() -> None:
    from torchmetrics.image.inception import InceptionScore

    values = logits()
    score = inception_style_score(values, splits=1, seed=0)
    assert score.mean == pytest.approx(plain_score(values), rel=1e-9)
    assert score.std == 0
    metric = InceptionScore(feature=nn.Identity(), splits=1)
    metric.update(torch.from_numpy(values))
    assert score.mean == pytest.approx(metric.compute()[0].item(), rel=1e-6)


def test_score_of_several_splits_equals_the_plain_formula_on_each() -> None:
    values = logits(303)
    order = np.random.RandomState(7).permutation(303)
    parts = [values[order[303 * k // 4 : 303 * (k + 1) // 4]] for k in range(4)]
    scores = [plain_score(part) for part in parts]
    score = inception_style_score(values, splits=4, seed=7)
    assert score.mean == pytest.approx(np.mean(scores), rel=1e-9)
    assert score.std == pytest.approx(np.std(scores), rel=1e-6)
    assert score == inception_style_score(values, splits=4, seed=7)
    assert score != inception_style_score(values, splits=4, seed=8)


def test_score_goes_from_one_to_the_number_of_classes() -> None:
    unsure = np.zeros((50, 10))
    assert inception_style_score(unsure, 1, 0).mean == pytest.approx(1)
    sure_and_even = 100 * np.eye(10).repeat(5, axis=0)
    assert inception_style_score(sure_and_even, 1, 0).mean == pytest.approx(10, rel=1e-6)
    sure_of_one = 100 * np.eye(10)[[3] * 50]
    assert inception_style_score(sure_of_one, 1, 0).mean == pytest.approx(1)


def test_float32_logits_are_scored_in_float64() -> None:
    values = logits().astype(np.float32)
    in_float64 = inception_style_score(values.astype(np.float64), 3, 0)
    assert inception_style_score(values, 3, 0) == in_float64


def test_more_splits_than_images_are_refused() -> None:
    with pytest.raises(ValueError, match="5 images cannot be cut into 6 splits"):
        inception_style_score(logits(5), 6, 0)
