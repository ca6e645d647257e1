"""What every extractor must do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from harness.evaluation.extractors import check_extractor, extractor_names, load_extractor
from harness.evaluation.extractors.base import FeatureExtractor
from models.errors import UserError


@pytest.fixture(scope="module", params=[*extractor_names(), "torch:test_vit"])
def extractor(
    request: pytest.FixtureRequest, inception_weights: Path, timm_weights: Path
) -> FeatureExtractor:
    files = {"inception": inception_weights, "torch:test_vit": timm_weights}
    return load_extractor(request.param, files.get(request.param))


def images(count: int, side: int, channels: int) -> torch.Tensor:
    stream = torch.Generator().manual_seed(side)
    return torch.randint(256, (count, side, side, channels), generator=stream).byte()


def test_says_all_that_its_figures_depend_on(extractor: FeatureExtractor) -> None:
    assert re.fullmatch("[0-9a-f]{64}", extractor.weights_sha256)
    assert extractor.name
    assert extractor.resize
    assert extractor.display


def test_shapes_are_those_announced(extractor: FeatureExtractor) -> None:
    with torch.inference_mode():
        extracted = extractor(images(2, 8, 1))
    assert extracted.features.shape == (2, extractor.feature_size)
    assert extracted.logits.shape == (2, extractor.classes)
    assert extracted.features.dtype == extracted.logits.dtype == torch.float32
    if extractor.spatial_size:
        assert extracted.spatial is not None
        assert extracted.spatial.shape == (2, extractor.spatial_size)
        assert extracted.spatial.dtype == torch.float32
    else:
        assert extracted.spatial is None


def test_grey_images_are_colour_images_of_equal_channels(extractor: FeatureExtractor) -> None:
    grey = images(1, 8, 1)
    with torch.inference_mode():
        ours, colour = extractor(grey), extractor(grey.expand(-1, -1, -1, 3))
    torch.testing.assert_close(ours.features, colour.features, rtol=1e-4, atol=1e-5)


def test_features_do_not_depend_on_the_batch(extractor: FeatureExtractor) -> None:
    batch = images(3, 8, 3)
    with torch.inference_mode():
        together = extractor(batch)
        alone = [extractor(part) for part in batch.split(2)]
    features = torch.cat([part.features for part in alone])
    torch.testing.assert_close(together.features, features, rtol=1e-4, atol=1e-5)
    if together.spatial is not None:
        spatial = torch.cat([part.spatial for part in alone if part.spatial is not None])
        torch.testing.assert_close(together.spatial, spatial, rtol=1e-4, atol=1e-5)


def test_weights_are_frozen(extractor: FeatureExtractor) -> None:
    assert not any(parameter.requires_grad for parameter in extractor.parameters())


def test_training_mode_is_refused(extractor: FeatureExtractor) -> None:
    extractor.train()
    try:
        with pytest.raises(ValueError, match="eval mode"):
            extractor(images(1, 8, 1))
    finally:
        extractor.eval()


def test_a_part_in_training_mode_is_refused(extractor: FeatureExtractor) -> None:
    next(iter(extractor.children())).train()
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


@pytest.mark.parametrize(
    ("name", "hint"),
    [("incepton", "did you mean inception?"), ("base", "expected one of"), ("torch:", "MODEL")],
)
def test_unknown_names_are_refused_with_those_there_are(name: str, hint: str) -> None:
    with pytest.raises(UserError, match=re.escape(hint)) as refused:
        load_extractor(name)
    assert "efficientnet_lite0, inception, torch:MODEL" in str(refused.value)


def test_efficientnet_takes_no_other_weights(timm_weights: Path) -> None:
    with pytest.raises(UserError, match="has the weights of its package"):
        load_extractor("efficientnet_lite0", timm_weights)


def test_missing_weights_are_found_without_loading_any(
    tmp_path: Path, inception_weights: Path, timm_weights: Path
) -> None:
    check_extractor("efficientnet_lite0")
    check_extractor("inception", inception_weights)
    check_extractor("torch:test_vit", timm_weights)
    for name in ("inception", "torch:test_vit"):
        with pytest.raises(UserError, match="no file of weights"):
            check_extractor(name, tmp_path / "nowhere.pth")
    with pytest.raises(UserError, match="needs a file of weights"):
        check_extractor("torch:test_vit")
    with pytest.raises(UserError, match="there is no extractor"):
        check_extractor("inceptoin")
