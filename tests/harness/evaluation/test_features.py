from __future__ import annotations

from typing import final

import numpy as np
import pytest
import torch

from harness.evaluation.extractors.base import Extracted, FeatureExtractor
from harness.evaluation.features import Extraction, extract_features
from harness.evaluation.metrics import frechet
from harness.processes.progress import Progress
from models.errors import UserError


def test_rows_are_those_of_the_images_in_order(projection, digits: np.ndarray) -> None:
    seen: list[Progress] = []
    extraction = Extraction(projection, 4, "cpu", on_progress=seen.append)
    result = extract_features(digits[:10], extraction)
    assert len(result) == 10
    assert result.features.dtype == result.logits.dtype == np.float32
    pixels = digits[:10].reshape(10, 64).astype(np.float64) / 127.5 - 1
    expected = pixels @ projection.projection.numpy().astype(np.float64)
    np.testing.assert_allclose(result.features, expected, atol=1e-5)
    assert seen == [Progress("features", done, 10) for done in (4, 8, 10)]


def test_batches_change_nothing(projection, digits: np.ndarray) -> None:
    one, all_at_once = (
        extract_features(digits[:9], Extraction(projection, size, "cpu")) for size in (1, 9)
    )
    np.testing.assert_allclose(one.features, all_at_once.features, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(one.logits, all_at_once.logits, rtol=1e-5, atol=1e-5)


def test_images_that_are_views_are_read_right(projection, digits: np.ndarray) -> None:
    channels_first = np.ascontiguousarray(digits[:6].transpose(0, 3, 1, 2))
    view = channels_first.transpose(0, 2, 3, 1)[::2]
    straight = extract_features(digits[:6:2], Extraction(projection, 4, "cpu"))
    result = extract_features(view, Extraction(projection, 4, "cpu"))
    assert np.array_equal(result.features, straight.features)


def test_a_subset_keeps_rows_together(projection, digits: np.ndarray) -> None:
    result = extract_features(digits[:6], Extraction(projection, 6, "cpu"))
    some = result.subset(np.array([4, 1]))
    assert np.array_equal(some.features, result.features[[4, 1]])
    assert np.array_equal(some.logits, result.logits[[4, 1]])


def test_no_images_are_refused(projection, digits: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no images"):
        extract_features(digits[:0], Extraction(projection, 4, "cpu"))


def test_features_that_are_not_finite_are_an_error(projection, digits: np.ndarray) -> None:
    projection.classifier[0, 0] = torch.inf
    with pytest.raises(UserError, match="random_projection gave features that are not finite"):
        extract_features(digits[:4], Extraction(projection, 4, "cpu"))


class Watched:
    """Images that say which rows were asked for."""

    def __init__(self, images: np.ndarray, fail_at: int | None = None) -> None:
        self.images, self.fail_at = images, fail_at
        self.asked: list[tuple[int, int]] = []

    @property
    def shape(self) -> tuple[int, ...]:
        return self.images.shape

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> np.ndarray:
        self.asked.append((rows.start, rows.stop))
        if rows.start == self.fail_at:
            raise OSError("gone")
        return self.images[rows]


def test_images_are_read_once_in_order_a_batch_at_a_time(projection, digits: np.ndarray) -> None:
    watched = Watched(digits[:10])
    extract_features(watched, Extraction(projection, 4, "cpu"))
    assert watched.asked == [(0, 4), (4, 8), (8, 10)]


def test_images_that_cannot_be_read_are_an_error(projection, digits: np.ndarray) -> None:
    with pytest.raises(OSError, match="gone"):
        extract_features(Watched(digits[:10], 4), Extraction(projection, 4, "cpu"))


@final
class Spatial(FeatureExtractor):
    """An extractor with spatial features: every second pixel of an 8x8 image."""

    name = display = "spatial"
    weights_sha256 = "cd" * 32
    resize = "none"
    feature_size, classes, spatial_size = 1, 2, 32

    def extract(self, images: torch.Tensor) -> Extracted:
        pixels = images.float().flatten(1)
        return Extracted(pixels[:, :1], pixels[:, :2], pixels[:, ::2])


def test_spatial_features_are_kept_as_moments(
    digits: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frechet, "ROWS_AT_ONCE", 7)
    found = extract_features(digits[:50], Extraction(Spatial().eval(), 4, "cpu"))
    spatial = digits[:50].reshape(50, 64)[:, ::2].astype(np.float64)
    assert found.spatial is not None
    assert found.spatial.count == 50
    np.testing.assert_allclose(found.spatial.mean, spatial.mean(axis=0), atol=1e-10)
    np.testing.assert_allclose(found.spatial.covariance, np.cov(spatial.T), atol=1e-9)
    assert found.subset(np.array([0, 1])).spatial is None
