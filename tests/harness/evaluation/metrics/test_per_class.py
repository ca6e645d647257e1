from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from sklearn.datasets import load_digits

from harness.evaluation.metrics.per_class import per_class_frechet
from tests.support.figures import frechet_distance_of_features

DIGITS = "0123456789"
measure = partial(per_class_frechet, names=DIGITS)


@pytest.fixture(scope="module")
def labels() -> np.ndarray:
    return load_digits().target


@pytest.fixture
def pixels(digits: np.ndarray) -> np.ndarray:
    return (digits.reshape(-1, 64) / 255).astype(np.float32)


def balanced(labels: np.ndarray, count: int) -> np.ndarray:
    """The first `count` rows of each class."""
    return np.sort(np.concatenate([np.flatnonzero(labels == one)[:count] for one in range(10)]))


def test_each_class_is_measured_alone(pixels, labels: np.ndarray) -> None:
    first = balanced(labels[:900], 80)
    a, a_labels = pixels[first], labels[first]
    second = 900 + balanced(labels[900:], 80)
    b, b_labels = pixels[second], labels[second]
    result = measure(a, a_labels, b, b_labels, least=80)
    assert (result.samples, result.reference, result.left_out) == (80, 80, {})
    assert "".join(result.by_class) == DIGITS
    for one, distance in enumerate(result.by_class.values()):
        expected = frechet_distance_of_features(
            a[a_labels == one].astype(np.float64), b[b_labels == one].astype(np.float64)
        )
        assert distance == pytest.approx(expected, rel=1e-9)
    assert result.mean == pytest.approx(sum(result.by_class.values()) / 10, rel=1e-12)


def test_classes_that_were_swapped_show_here_and_not_in_the_whole(pixels, labels) -> None:
    swapped = np.where(labels == 3, 8, np.where(labels == 8, 3, labels))
    result = measure(pixels, labels, pixels, swapped, least=100)
    assert frechet_distance_of_features(pixels, pixels) == pytest.approx(0, abs=1e-9)
    assert set(sorted(result.by_class, key=lambda one: -result.by_class[one])[:2]) == {"3", "8"}


def test_all_classes_are_cut_to_the_smallest_that_is_measured(pixels, labels: np.ndarray) -> None:
    """More images of a class would make its distance smaller, and not its images better."""
    fewer = np.setdiff1d(np.arange(900), np.flatnonzero(labels == 7)[60:])
    result = measure(pixels[fewer], labels[fewer], pixels, labels, least=50)
    assert (result.samples, result.reference) == (60, 174)
    again = measure(pixels[fewer], labels[fewer], pixels, labels, least=50)
    other = measure(pixels[fewer], labels[fewer], pixels, labels, least=50, seed=1)
    assert again == result
    assert other.by_class["0"] != result.by_class["0"]
    whole = frechet_distance_of_features(pixels[fewer][labels[fewer] == 0], pixels[labels == 0])
    assert result.by_class["0"] > whole


def test_classes_with_too_few_images_are_left_out_with_the_reason(pixels, labels) -> None:
    rare = np.flatnonzero(labels == 7)[5:]
    kept = np.setdiff1d(np.arange(900), rare)
    kept = kept[labels[kept] != 4]
    result = measure(pixels[kept], labels[kept], pixels[900:], labels[900:], least=50)
    sevens, fours = (labels[900:] == 7).sum(), (labels[900:] == 4).sum()
    assert result.left_out == {
        "4": f"0 samples and {fours} reference images, but 50 of each are needed",
        "7": f"5 samples and {sevens} reference images, but 50 of each are needed",
    }
    assert set(result.by_class) == set(DIGITS) - {"4", "7"}
    none = measure(pixels, labels, pixels, labels, least=500)
    assert (none.by_class, none.mean, none.samples) == ({}, None, 0)
    assert len(none.left_out) == 10


def test_inputs_that_do_not_fit_are_refused(pixels, labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match="labels .* of reference do not fit"):
        measure(pixels, labels, pixels, labels[1:], least=2)
    with pytest.raises(ValueError, match="64 and 5 dimensions"):
        measure(pixels, labels, pixels[:, :5], labels, least=2)
    with pytest.raises(ValueError, match="at least 2 images a class, not 1"):
        measure(pixels, labels, pixels, labels, least=1)
    broken = pixels.copy()
    broken[11, 2] = np.nan
    with pytest.raises(ValueError, match="samples features: row 11 is not finite"):
        measure(broken, labels, pixels, labels, least=2)
