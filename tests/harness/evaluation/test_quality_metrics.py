from __future__ import annotations

import numpy as np
import pytest

from harness.evaluation.features import extract_features
from harness.evaluation.quality import Figure, Quality, evaluate_samples
from harness.evaluation.reference import Reference
from harness.vocabulary import names
from harness.vocabulary.metrics import Measurement
from harness.vocabulary.names import check_name
from tests.support.stand_ins.pixel_extractor import PixelExtractor

DIGITS = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1)).astype(np.uint8)


def measured(name: str, samples: int) -> Quality:
    extractor = PixelExtractor(name)
    features = extract_features(DIGITS[30:], extractor, batch_size=9, device="cpu")
    reference = Reference(features, "f" * 64, name, extractor.weights_sha256)
    return evaluate_samples(
        DIGITS[:samples], reference, extractor, inception_splits=2, batch_size=9, device="cpu"
    )


@pytest.mark.parametrize("name", ["inception", "efficientnet_lite0", "torch:resnet50.a1_in1k"])
def test_every_figure_has_a_name_that_mlflow_takes(name: str) -> None:
    metrics = measured(name, 30).recorded()
    assert len(metrics) == 10
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
