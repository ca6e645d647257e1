from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from harness.evaluation import quality
from harness.evaluation.extractors import load_extractor
from harness.evaluation.extractors.base import FeatureExtractor
from harness.evaluation.features import Extraction, extract_features
from harness.evaluation.metrics.inception_score import inception_score
from harness.evaluation.metrics.kernel_distance import squared_discrepancy
from harness.evaluation.quality import Figure, Quality, evaluate_samples, real_against_real
from harness.evaluation.reference import Reference
from harness.vocabulary import names
from harness.vocabulary.metrics import Measurement
from harness.vocabulary.names import check_name
from models.randomness import generator
from tests.support.figures import frechet_distance_of_features
from tests.support.stand_ins.pixel_extractor import PixelExtractor

REAL_FINGERPRINT = "0123456789abcdef"


def reference_of(images: np.ndarray, extractor: FeatureExtractor) -> Reference:
    features = extract_features(images, Extraction(extractor, 16, "cpu"))
    return Reference(features, REAL_FINGERPRINT, extractor.name, extractor.weights_sha256)


def measure(
    images: np.ndarray, reference: Reference, extractor: FeatureExtractor, splits: int = 1
) -> Quality:
    return evaluate_samples(
        images, reference, Extraction(extractor, 16, "cpu"), inception_splits=splits
    )


def noisy(images: np.ndarray, amount: float) -> np.ndarray:
    """Normal noise whose standard deviation is that part of the range from black to white."""
    noise = np.random.default_rng(0).normal(scale=amount * 255, size=images.shape)
    return (images + noise).round().clip(0, 255).astype(np.uint8)


def test_figures_are_those_of_features_and_logits(projection, digits: np.ndarray) -> None:
    reference = reference_of(digits[:300], projection)
    quality = measure(digits[300:400], reference, projection, splits=3)
    features = extract_features(digits[300:400], Extraction(projection, 100, "cpu"))
    expected = frechet_distance_of_features(features.features, reference.features.features)
    score = inception_score(features.logits, 3, seed=0)
    assert quality.values()["fd"] == pytest.approx(expected, rel=1e-5)
    assert quality.figures["is"].value == pytest.approx(score.mean, rel=1e-5)
    assert quality.figures["is"].std == pytest.approx(score.std, rel=1e-4)


def test_identity_names_all_that_the_figures_depend_on(projection, digits: np.ndarray) -> None:
    quality = measure(digits[300:400], reference_of(digits[:300], projection), projection, splits=2)
    assert quality.identity == {
        "extractor": "random_projection",
        "extractor_weights_sha256": "ab" * 32,
        "resize": "none",
        "samples": 100,
        "resolution": "8x8",
        "reference_fingerprint": REAL_FINGERPRINT,
        "reference_images": 300,
        "inception_splits": 2,
        "inception_shuffle_seed": 0,
        "kernel_images": 10_000,
        "neighbours": 3,
        "density_neighbours": 5,
        "neighbourhoods": 10_000,
    }


def test_a_trial_compares_all_pairs_of_images(
    projection, digits: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = reference_of(digits[:300], projection)
    features = extract_features(digits[300:400], Extraction(projection, 100, "cpu"))
    expected = squared_discrepancy(features.features, reference.features.features)
    figure = measure(digits[300:400], reference, projection).figures["kd"]
    assert (figure.std, figure.basis) == (None, "over all pairs of images")
    assert figure.value == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(quality, "KERNEL_IMAGES", 80)
    fewer = measure(digits[300:400], reference, projection)
    assert fewer.identity["kernel_images"] == 80
    chosen = [
        part[torch.randperm(len(part), generator=generator("kernel-images"))[:80].numpy()]
        for part in (features.features, reference.features.features)
    ]
    assert fewer.figures["kd"].value == pytest.approx(squared_discrepancy(*chosen), rel=1e-6)


def test_the_floor_measures_as_many_images_as_there_are_samples(
    projection, digits: np.ndarray
) -> None:
    reference = reference_of(digits[:900], projection)
    held_out = reference_of(digits[900:], projection)
    floors = {
        count: real_against_real(
            held_out, (8, 8), reference, projection, samples=count, inception_splits=1
        )
        for count in (30, 300, 5000)
    }
    assert [floor.identity["samples"] for floor in floors.values()] == [30, 300, 897]
    distances = [floor.values()["fd"] for floor in floors.values()]
    assert distances[0] > distances[1] > distances[2]
    whole = measure(digits[900:], reference, projection)
    assert floors[5000].values()["fd"] == pytest.approx(whole.values()["fd"], rel=1e-5)
    assert {**floors[5000].identity} == whole.identity


def test_too_few_images_are_refused_before_any_extraction(projection, digits: np.ndarray) -> None:
    reference = reference_of(digits[:50], projection)
    seen = projection.seen
    with pytest.raises(ValueError, match="3 images are too few for 4 splits"):
        measure(digits[:3], reference, projection, splits=4)
    with pytest.raises(ValueError, match="1 images are too few"):
        measure(digits[:1], reference, projection)
    assert projection.seen == seen


def test_a_reference_from_another_extractor_is_refused(projection, digits: np.ndarray) -> None:
    reference = replace(reference_of(digits[:50], projection), weights_sha256="cd" * 32)
    with pytest.raises(ValueError, match="the reference is from"):
        measure(digits[50:90], reference, projection)
    with pytest.raises(ValueError, match="the reference is from"):
        real_against_real(reference, (8, 8), reference, projection, samples=10, inception_splits=1)


def test_efficientnet_tells_real_digits_from_ever_noisier_ones(digits: np.ndarray) -> None:
    extractor = load_extractor("efficientnet_lite0")
    reference = reference_of(digits[0:80:2], extractor)
    others = digits[1:80:2]
    distances = [
        measure(noisy(others, amount), reference, extractor).values()["fd"]
        for amount in (0, 0.1, 0.2)
    ]
    assert distances == sorted(distances)
    assert distances[2] > 2 * distances[0]


DIGITS = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1)).astype(np.uint8)


def measured(name: str, samples: int) -> Quality:
    extractor = PixelExtractor(name)
    features = extract_features(DIGITS[30:], Extraction(extractor, 9, "cpu"))
    reference = Reference(features, "f" * 64, name, extractor.weights_sha256)
    extraction = Extraction(extractor, 9, "cpu")
    return evaluate_samples(DIGITS[:samples], reference, extraction, inception_splits=2)


@pytest.mark.parametrize("name", ["inception", "efficientnet_lite0", "torch:resnet50.a1_in1k"])
def test_every_figure_has_a_name_that_mlflow_takes(name: str) -> None:
    metrics = measured(name, 30).recorded()
    assert len(metrics) == 9
    for key in metrics:
        check_name(key)
    figures = [key for key in metrics if not names.is_detail(key)]
    assert len(figures) == 8
    if name == "inception":
        assert {"fid", "sfid", "kid", "is", "precision_inception"} <= set(figures)
    else:
        assert all(key.endswith(f"_{name}") for key in figures)


def test_what_the_counts_do_not_allow_is_left_out() -> None:
    quality = measured("inception", 4)
    assert set(quality.left_out) == {Measurement.NEIGHBOURS}
    assert "4 images have too few neighbours" in quality.left_out[Measurement.NEIGHBOURS]
    assert not any(key.startswith(("precision", "recall")) for key in quality.recorded())


def test_a_kernel_distance_comes_with_its_deviation() -> None:
    quality = Quality({"extractor": "x"}, {"kd": Figure(0.5, 0.25)})
    assert quality.recorded() == {"kd_x": 0.5, "kd_x/std": 0.25}
