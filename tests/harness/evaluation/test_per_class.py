from __future__ import annotations

import numpy as np
import pytest
from sklearn.datasets import load_digits

from harness.evaluation.frechet import frechet_distance_of_features
from harness.evaluation.per_class import per_class_frechet


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return load_digits().target


@pytest.fixture
def pixels(digits: np.ndarray) -> np.ndarray:
    return digits.reshape(-1, 64) / 255


def test_each_class_is_measured_alone(pixels, labels: np.ndarray) -> None:
    a, b = pixels[:900], pixels[900:]
    result = per_class_frechet(a, labels[:900], b, labels[900:], least=80)
    assert result.reason is None
    assert list(result.by_class) == list(range(10))
    for one, distance in result.by_class.items():
        expected = frechet_distance_of_features(a[labels[:900] == one], b[labels[900:] == one])
        assert distance == expected
    assert result.mean == pytest.approx(sum(result.by_class.values()) / 10, rel=1e-12)


def test_classes_that_were_swapped_show_here_and_not_in_the_whole(pixels, labels) -> None:
    swapped = np.where(labels == 3, 8, np.where(labels == 8, 3, labels))
    result = per_class_frechet(pixels, labels, pixels, swapped, least=100)
    assert frechet_distance_of_features(pixels, pixels) == pytest.approx(0, abs=1e-9)
    assert {one for one, distance in result.by_class.items() if distance > 1} == {3, 8}


def test_there_is_a_reason_where_a_class_has_too_few_images(pixels, labels: np.ndarray) -> None:
    rare = np.flatnonzero(labels == 7)[5:]
    kept = np.setdiff1d(np.arange(900), rare)
    result = per_class_frechet(pixels[kept], labels[kept], pixels[900:], labels[900:], least=50)
    assert (result.mean, result.by_class) == (None, {})
    there = (labels[900:] == 7).sum()
    assert result.reason == (
        f"1 of 10 classes have fewer than 50 images: class 7 has 5 and {there}"
    )


def test_a_class_that_only_one_side_has_is_a_reason_too(pixels, labels: np.ndarray) -> None:
    others = labels != 4
    result = per_class_frechet(pixels[others], labels[others], pixels, labels, least=2)
    assert result.mean is None
    assert "class 4 has 0 and 181" in str(result.reason)


def test_inputs_that_do_not_fit_are_refused(pixels, labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labels_b .* do not fit"):
        per_class_frechet(pixels, labels, pixels, labels[1:], least=2)
    with pytest.raises(ValueError, match="64 and 5 dimensions"):
        per_class_frechet(pixels, labels, pixels[:, :5], labels, least=2)
    with pytest.raises(ValueError, match="at least 2 images a class, not 1"):
        per_class_frechet(pixels, labels, pixels, labels, least=1)
    broken = pixels.copy()
    broken[11, 2] = np.nan
    with pytest.raises(ValueError, match="features_a: row 11 is not finite"):
        per_class_frechet(broken, labels, pixels, labels, least=2)
