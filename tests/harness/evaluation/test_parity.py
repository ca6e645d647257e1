"""Our figures beside torch-fidelity's and torchmetrics' own, on the same images.

The trained Inception weights cannot be had everywhere, so torch-fidelity's network has random ones
from a file, which both sides read.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch_fidelity
from PIL import Image
from torch import nn
from torchmetrics.image.fid import FrechetInceptionDistance

from harness.evaluation.extractors import load_extractor
from harness.evaluation.features import Features, extract_features
from harness.evaluation.metrics.frechet import frechet_distance_of_features
from harness.evaluation.metrics.inception_score import inception_score
from harness.evaluation.metrics.kernel_distance import kernel_distance
from harness.evaluation.metrics.neighbours import neighbour_scores
from harness.evaluation.quality import evaluate_samples
from harness.evaluation.reference import Reference
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
        extract_features(images, extractor, batch_size=4, device="cpu")
        for images in (samples, real)
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
    features = extract_features(real, PixelExtractor(), batch_size=64, device="cpu")
    reference = Reference(features, "f" * 64, extractor.name, extractor.weights_sha256)
    quality = evaluate_samples(
        samples, reference, extractor, inception_splits=1, batch_size=64, device="cpu"
    )
    seen = torch.cat(extractor.seen).numpy()
    assert seen.dtype == np.uint8
    assert np.array_equal(seen, samples)
    assert quality.values()["fd"] == pytest.approx(float(metric.compute()), rel=1e-6)


def test_rounding_and_range_of_pixels_reach_the_extractor_unchanged() -> None:
    """All 256 levels: nothing is normalised, truncated or rounded on the way."""
    levels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8, 1)
    extractor = PixelExtractor()
    found = extract_features(levels, extractor, batch_size=3, device="cpu")
    assert isinstance(found, Features)
    assert np.array_equal(torch.cat(extractor.seen).numpy(), levels)
