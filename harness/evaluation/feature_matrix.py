"""What all figures ask of the features they are given, and in which words they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.floating[Any]]

_ROWS_AT_ONCE = 4096
"""Whose finiteness is looked at in one go, so that no mask of all of them is made."""


def check_features(features: Matrix, name: str, *, least: int) -> None:
    """See that features can be measured, without a copy of them.

    Args:
        features: (N, D), a row an image.
        name: of the features, for the message.
        least: images needed, N at the least.

    Raises:
        ValueError: another shape, too few rows or one that is not finite, which is named.
    """
    if features.ndim != 2 or len(features) < least:
        raise ValueError(f"{name}: (N >= {least}, D) values are needed, not {features.shape}")
    _check_finite(features, name)


def finite_features(features: Matrix, name: str, *, least: int) -> NDArray[np.float64]:
    """The features in float64; those that are so already are not copied.

    Args:
        features: (N, D), a row an image.
        name: of the features, for the message.
        least: images needed, N at the least.

    Raises:
        ValueError: another shape, too few rows or one that is not finite, which is named.
    """
    check_features(features, name, least=least)
    return np.ascontiguousarray(features, dtype=np.float64)


def finite_rows(values: Matrix, name: str) -> NDArray[np.float64]:
    """An array of any shape in float64, contiguous.

    Raises:
        ValueError: a row that is not finite, which is named.
    """
    _check_finite(values, name)
    return np.ascontiguousarray(values, dtype=np.float64)


def check_widths(a: int, b: int) -> None:
    """Compare the dimensions of two sets.

    Raises:
        ValueError: they differ.
    """
    if a != b:
        raise ValueError(f"features of {a} and {b} dimensions do not compare")


def _check_finite(values: Matrix, name: str) -> None:
    bad: list[int] = []
    for start in range(0, len(values), _ROWS_AT_ONCE):
        finite = np.isfinite(values[start : start + _ROWS_AT_ONCE])
        if not finite.all():
            rows = np.flatnonzero(~finite.reshape(len(finite), -1).all(axis=1))
            bad += (start + rows).tolist()
    if bad:
        raise ValueError(f"{name}: row {bad[0]} is not finite, the first of {len(bad)} such rows")
