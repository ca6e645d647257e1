"""All figures beside those of other implementations, on the same features: Gaussian ones, pixels of
real digits and of real JPEGs. What differs here is mathematics alone; images come in elsewhere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import scipy.linalg
import torch

from harness.evaluation.metrics.frechet import frechet_distance_of_features
from harness.evaluation.metrics.inception_score import inception_score
from harness.evaluation.metrics.kernel_distance import kernel_distance
from harness.evaluation.metrics.neighbours import neighbour_scores

SEED = 2020
EXACT = 1e-6


class Sets(NamedTuple):
    generated: np.ndarray
    real: np.ndarray

    @property
    def logits(self) -> np.ndarray:
        """A fixed linear classifier of ten classes, neither sure nor undecided."""
        width = self.generated.shape[1]
        classifier = np.random.default_rng(0).normal(size=(width, 10))
        values = (self.generated - self.generated.mean(axis=0)) @ classifier
        scaled: np.ndarray = 2 * values / values.std()
        return scaled

    def moments(self) -> tuple[np.ndarray, ...]:
        return tuple(part for one in self for part in (one.mean(axis=0), np.cov(one, rowvar=False)))

    def tensors(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.from_numpy(self.generated), torch.from_numpy(self.real)


@pytest.fixture(scope="module", params=["gaussian", "digits", "cifar"])
def sets(request: pytest.FixtureRequest) -> Sets:
    """Covariances are of full rank: where they are not, the others lose half of their digits."""
    if request.param == "gaussian":
        random = np.random.default_rng(0)
        mixing = np.eye(24) + 0.3 * random.normal(size=(24, 24))
        return Sets(random.normal(size=(400, 24)) @ mixing + 0.2, random.normal(size=(350, 24)))
    if request.param == "digits":
        pixels = request.getfixturevalue("digits").reshape(-1, 64) / 255
        used = pixels.std(axis=0) > 0.1
        return Sets(0.9 * pixels[:400, used] + 0.05, pixels[400:800, used])
    features = request.getfixturevalue("cifar").features
    return Sets(0.8 * features[::2] + 0.1, features[1::2])


def test_frechet_distance_is_that_of_the_plain_formula(sets: Sets) -> None:
    mean_a, covariance_a, mean_b, covariance_b = sets.moments()
    root = scipy.linalg.sqrtm(covariance_a @ covariance_b).real
    expected = ((mean_a - mean_b) ** 2).sum() + np.trace(covariance_a + covariance_b - 2 * root)
    assert frechet_distance_of_features(*sets) == pytest.approx(expected, rel=EXACT)


def test_frechet_distance_is_torch_fidelitys(sets: Sets) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    statistics = [fid_features_to_statistics(part) for part in sets.tensors()]
    theirs = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert frechet_distance_of_features(*sets) == pytest.approx(theirs, rel=EXACT)


@pytest.mark.filterwarnings("ignore:The `disp` argument is deprecated:DeprecationWarning")
def test_frechet_distance_is_pytorch_fids(sets: Sets) -> None:
    from pytorch_fid.fid_score import calculate_frechet_distance

    theirs = calculate_frechet_distance(*sets.moments())
    assert frechet_distance_of_features(*sets) == pytest.approx(theirs, rel=EXACT)


def test_gaussian_features_have_about_the_distance_of_their_distributions() -> None:
    """Of two normal distributions with the same axes, which is known; 20,000 draws miss little."""
    random = np.random.default_rng(0)
    deviations = np.array([1.0, 0.5, 2.0, 1.5])
    a, b = random.normal(size=(2, 20_000, 4))
    expected = 4 * 0.5**2 + ((deviations - 1) ** 2).sum()
    found = frechet_distance_of_features(a * deviations + 0.5, b)
    assert found == pytest.approx(expected, rel=0.03)


def test_kernel_distance_is_torch_fidelitys(sets: Sets) -> None:
    from torch_fidelity.metric_kid import kid_features_to_metric

    theirs = kid_features_to_metric(
        *sets.tensors(),
        kid_subsets=10,
        kid_subset_size=150,
        kid_kernel="poly",
        kid_kernel_poly_degree=3,
        kid_kernel_poly_gamma=None,
        kid_kernel_poly_coef0=1,
        rng_seed=SEED,
        verbose=False,
    )
    ours = kernel_distance(*sets, subsets=10, subset_size=150, seed=SEED)
    assert ours.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=EXACT)
    assert ours.std == pytest.approx(theirs["kernel_inception_distance_std"], rel=EXACT)


def test_kernel_distance_is_that_of_the_plain_formula(sets: Sets) -> None:
    generated, real = (part[:150] for part in sets)

    def kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        values: np.ndarray = (x @ y.T / x.shape[1] + 1) ** 3
        return values

    within = [kernel(one, one) for one in (generated, real)]
    expected = (
        sum((values.sum() - np.trace(values)) / (150 * 149) for values in within)
        - 2 * kernel(generated, real).mean()
    )
    found = kernel_distance(generated, real, subsets=1, subset_size=150)
    assert found.mean == pytest.approx(expected, rel=EXACT)


def test_inception_score_is_torch_fidelitys(sets: Sets) -> None:
    from torch_fidelity.metric_isc import isc_features_to_metric

    logits = sets.logits
    theirs = isc_features_to_metric(torch.from_numpy(logits), splits=5, rng_seed=SEED)
    ours = inception_score(logits, 5, SEED)
    assert ours.mean == pytest.approx(theirs["inception_score_mean"], rel=EXACT)
    assert ours.std == pytest.approx(theirs["inception_score_std"], rel=EXACT)
    assert 1.5 < ours.mean < 9


def test_inception_score_is_that_of_the_plain_formula(sets: Sets) -> None:
    exponentials = np.exp(sets.logits)
    p = exponentials / exponentials.sum(axis=1, keepdims=True)
    divergences = (p * np.log(p / p.mean(axis=0))).sum(axis=1)
    expected = np.exp(divergences.mean())
    assert inception_score(sets.logits, 1, SEED).mean == pytest.approx(expected, rel=EXACT)


def test_precision_and_recall_are_torch_fidelitys(sets: Sets) -> None:
    from torch_fidelity.metric_prc import prc_features_to_metric

    theirs = prc_features_to_metric(
        *sets.tensors(),
        prc_neighborhood=3,
        prc_batch_size=128,
        save_cpu_ram=True,
        verbose=False,
    )
    ours = neighbour_scores(*sets)
    assert ours.precision == pytest.approx(theirs["precision"], rel=EXACT)
    assert ours.recall == pytest.approx(theirs["recall"], rel=EXACT)
    assert 0 < ours.precision < 1


def test_precision_and_recall_are_those_of_the_plain_formula(sets: Sets) -> None:
    def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        found: np.ndarray = np.linalg.norm(x[:, None] - y[None], axis=2)
        return found

    generated, real = sets
    radii = [np.sort(distances(one, one), axis=1)[:, 3] for one in (generated, real)]
    between = distances(generated, real)
    ours = neighbour_scores(generated, real)
    assert ours.precision == pytest.approx((between <= radii[1]).any(axis=1).mean(), rel=EXACT)
    assert ours.recall == pytest.approx(
        (between <= radii[0][:, None]).any(axis=0).mean(), rel=EXACT
    )
