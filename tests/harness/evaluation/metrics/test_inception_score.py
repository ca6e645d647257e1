"""The Inception score against the plain formula, torchmetrics and torch-fidelity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from harness.evaluation.metrics.inception_score import inception_score


def logits(count: int = 300, classes: int = 10) -> np.ndarray:
    return 3 * np.random.default_rng(0).normal(size=(count, classes))


def plain_score(values: np.ndarray) -> float:
    p = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    divergence = (p * (np.log(p) - np.log(p.mean(axis=0)))).sum(axis=1)
    return float(np.exp(divergence.mean()))


def test_score_of_one_split_equals_the_plain_formula_and_torchmetrics() -> None:
    from torchmetrics.image.inception import InceptionScore

    values = logits()
    score = inception_score(values, splits=1, seed=0)
    assert score.mean == pytest.approx(plain_score(values), rel=1e-12)
    assert score.std == 0
    metric = InceptionScore(feature=nn.Identity(), splits=1)
    metric.update(torch.from_numpy(values))
    assert score.mean == pytest.approx(metric.compute()[0].item(), rel=1e-6)


@pytest.mark.parametrize("splits", [1, 4, 10])
def test_the_same_seed_gives_torch_fidelity_s_score(splits: int) -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    values = logits(303)
    theirs = isc_features_to_metric(torch.from_numpy(values), splits=splits, rng_seed=2020)
    score = inception_score(values, splits, seed=2020)
    assert score.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-12)
    assert score.std == pytest.approx(theirs["inception_score_std"], rel=1e-9, abs=1e-12)


def test_score_of_several_splits_equals_the_plain_formula_on_each() -> None:
    values = logits(303)
    order = np.random.RandomState(7).permutation(303)
    parts = [values[order[303 * k // 4 : 303 * (k + 1) // 4]] for k in range(4)]
    scores = [plain_score(part) for part in parts]
    score = inception_score(values, splits=4, seed=7)
    assert score.mean == pytest.approx(np.mean(scores), rel=1e-9)
    assert score.std == pytest.approx(np.std(scores), rel=1e-6)
    assert score == inception_score(values, splits=4, seed=7)
    assert score != inception_score(values, splits=4, seed=8)


def test_score_goes_from_one_to_the_number_of_classes() -> None:
    unsure = np.zeros((50, 10))
    assert inception_score(unsure, 1, 0).mean == pytest.approx(1)
    sure_and_even = 100 * np.eye(10).repeat(5, axis=0)
    assert inception_score(sure_and_even, 1, 0).mean == pytest.approx(10, rel=1e-6)
    sure_of_one = 100 * np.eye(10)[[3] * 50]
    assert inception_score(sure_of_one, 1, 0).mean == pytest.approx(1)


def test_classes_without_any_probability_count_nothing() -> None:
    """A gap of 1,000 leaves a probability of 0.0, for which torch-fidelity gives NaN."""
    two_of_three = 1000 * np.eye(3)[[0, 1] * 20]
    assert inception_score(two_of_three, 1, 0).mean == pytest.approx(2, rel=1e-12)


def test_float32_logits_are_scored_in_float64() -> None:
    values = logits().astype(np.float32)
    in_float64 = inception_score(values.astype(np.float64), 3, 0)
    assert inception_score(values, 3, 0) == in_float64


def test_logits_that_cannot_be_scored_are_refused() -> None:
    with pytest.raises(ValueError, match="5 images cannot be cut into 6 splits"):
        inception_score(logits(5), 6, 0)
    with pytest.raises(ValueError, match="0 images"):
        inception_score(logits(0), 1, 0)
    broken = logits(5)
    broken[3, 0] = np.nan
    with pytest.raises(ValueError, match="logits: row 3 is not finite"):
        inception_score(broken, 1, 0)
