"""What every extractor must do."""

from __future__ import annotations

import importlib
import re
from typing import get_args

import pytest
import torch

from harness.config.schema import EvaluateConfig
from harness.evaluation.extractors import extractor_names, load_extractor
from harness.evaluation.extractors.base import FeatureExtractor


@pytest.fixture(scope="module", params=extractor_names())
def extractor(request: pytest.FixtureRequest) -> FeatureExtractor:
    return load_extractor(request.param)


def images(count: int, side: int, channels: int) -> torch.Tensor:
    stream = torch.Generator().manual_seed(side)
    return torch.randint(256, (count, side, side, channels), generator=stream).byte()


def test_names_are_those_of_the_schema() -> None:
    schema = get_args(EvaluateConfig.model_fields["extractor"].annotation)
    assert extractor_names() == tuple(sorted(schema))


def test_says_all_that_its_figures_depend_on(extractor: FeatureExtractor) -> None:
    module = importlib.import_module(type(extractor).__module__)
    assert module.__name__.endswith(f".{extractor.name}")
    assert re.fullmatch("[0-9a-f]{64}", extractor.weights_sha256)
    assert extractor.resize
    assert extractor.display


def test_shapes_are_those_announced(extractor: FeatureExtractor) -> None:
    with torch.inference_mode():
        extracted = extractor(images(2, 8, 1))
    assert extracted.features.shape == (2, extractor.feature_size)
    assert extracted.logits.shape == (2, extractor.classes)
    assert extracted.features.dtype == extracted.logits.dtype == torch.float32


def test_grey_images_are_colour_images_of_equal_channels(extractor: FeatureExtractor) -> None:
    grey = images(2, 8, 1)
    with torch.inference_mode():
        ours, colour = extractor(grey), extractor(grey.expand(-1, -1, -1, 3))
    torch.testing.assert_close(ours.features, colour.features, rtol=1e-4, atol=1e-5)


def test_features_do_not_depend_on_the_batch(extractor: FeatureExtractor) -> None:
    batch = images(8, 8, 3)
    with torch.inference_mode():
        together = extractor(batch).features
        alone = torch.cat([extractor(part).features for part in batch.split(3)])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


def test_weights_are_frozen(extractor: FeatureExtractor) -> None:
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_training_mode_is_refused(extractor: FeatureExtractor) -> None:
    extractor.train()
    try:
        with pytest.raises(ValueError, match="eval mode"):
            extractor(images(1, 8, 1))
    finally:
        extractor.eval()


@pytest.mark.parametrize(
    "wrong", [images(1, 8, 1).float(), images(1, 8, 2), images(1, 8, 3)[0]], ids=lambda t: t.dtype
)
def test_other_images_are_refused(extractor: FeatureExtractor, wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="images must be uint8"):
        extractor(wrong)


def test_unknown_names_raise_key_error() -> None:
    with pytest.raises(KeyError):
        load_extractor("base")
