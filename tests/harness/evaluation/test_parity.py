"""Our figures beside torch-fidelity's and torchmetrics' own, on the same images.

The trained Inception weights cannot be had everywhere, so torch-fidelity's network has random ones
from a file, which both sides read. Other tests compare figures on the same features, Gaussian ones
or pixels of real digits and JPEGs, where mathematics alone can differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import scipy.linalg
import torch
import torch_fidelity
from PIL import Image
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from harness.evaluation.extractors import load_extractor
from harness.evaluation.features import Extraction, Features, extract_features
from harness.evaluation.metrics.inception_score import inception_score
from harness.evaluation.metrics.kernel_distance import kernel_distance
from harness.evaluation.metrics.neighbours import neighbour_scores
from harness.evaluation.quality import evaluate_samples
from harness.evaluation.reference import Reference
from tests.support.figures import frechet_distance_of_features
from tests.support.stand_ins.pixel_extractor import PixelExtractor
from tests.support.stand_ins.random_weights import smooth_images, write_random_inception

COUNT = 8


SEED = 2020


@pytest.mark.slow
def test_the_whole_inception_path_gives_torch_fidelitys_figures(tmp_path: Path) -> None:
    weights = write_random_inception(tmp_path / "random.pth")
    samples, real = (smooth_images(COUNT, 32, seed).numpy() for seed in (0, 1))
    for folder, images in (("samples", samples), ("real", real)):
        (tmp_path / folder).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image).save(tmp_path / folder / f"{number}.png")
    theirs = torch_fidelity.calculate_metrics(
        input1=str(tmp_path / "samples"),
        input2=str(tmp_path / "real"),
        feature_extractor_weights_path=str(weights),
        feature_extractor="inception-v3-compat",
        cuda=False,
        isc=True,
        fid=True,
        kid=True,
        prc=True,
        kid_subset_size=COUNT,
        kid_subsets=4,
        isc_splits=2,
        rng_seed=SEED,
        batch_size=4,
        cache=False,
        verbose=False,
    )
    extractor = load_extractor("inception", weights)
    ours, others = (
        extract_features(images, Extraction(extractor, 4, "cpu")) for images in (samples, real)
    )
    fid = frechet_distance_of_features(ours.features, others.features)
    # torch-fidelity takes roots of eigenvalues that are zero up to rounding.
    assert fid == pytest.approx(theirs["frechet_inception_distance"], rel=1e-3)
    kid = kernel_distance(ours.features, others.features, subsets=4, subset_size=COUNT, seed=SEED)
    assert kid.mean == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-3)
    score = inception_score(ours.logits, 2, SEED)
    assert score.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-5)
    assert score.std == pytest.approx(theirs["inception_score_std"], rel=1e-2, abs=1e-7)
    scores = neighbour_scores(ours.features, others.features, density_neighbours=3)
    assert scores.precision == pytest.approx(theirs["precision"])
    assert scores.recall == pytest.approx(theirs["recall"])


class Pixels(nn.Module):
    """What torchmetrics asks of a custom network, and a record of what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.extractor = PixelExtractor()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.extractor(images.permute(0, 2, 3, 1).contiguous()).features


def test_the_extractor_sees_the_very_pixels_and_torchmetrics_gets_the_same_distance(
    digits: np.ndarray,
) -> None:
    samples, real = digits[:200], digits[200:500]
    network = Pixels()
    metric = FrechetInceptionDistance(
        network, normalize=False, antialias=False, input_img_size=(3, 8, 8)
    )
    metric = metric.set_dtype(torch.float64)
    for images, are_real in ((real, True), (samples, False)):
        colour = torch.from_numpy(images).permute(0, 3, 1, 2).expand(-1, 3, -1, -1)
        metric.update(colour, real=are_real)
    extractor = PixelExtractor()
    features = extract_features(real, Extraction(PixelExtractor(), 64, "cpu"))
    reference = Reference(features, "f" * 64, extractor.name, extractor.weights_sha256)
    quality = evaluate_samples(
        samples, reference, Extraction(extractor, 64, "cpu"), inception_splits=1
    )
    seen = torch.cat(extractor.seen).numpy()
    assert seen.dtype == np.uint8
    assert np.array_equal(seen, samples)
    assert quality.values()["fd"] == pytest.approx(float(metric.compute()), rel=1e-6)


def test_rounding_and_range_of_pixels_reach_the_extractor_unchanged() -> None:
    """All 256 levels: nothing is normalised, truncated or rounded on the way."""
    levels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    extractor = PixelExtractor()
    found = extract_features(levels, Extraction(extractor, 3, "cpu"))
    assert isinstance(found, Features)
    assert np.array_equal(torch.cat(extractor.seen).numpy(), levels)


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
