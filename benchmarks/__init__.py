"""`python -m benchmarks`: measurements of the harness itself, which nothing imports."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median


def spread(ratios: Sequence[float], decimals: int = 2) -> str:
    """The median of ratios, and the smallest and largest, in print."""
    shown = (f"{value:.{decimals}f}" for value in (median(ratios), min(ratios), max(ratios)))
    return "{} ({} to {})".format(*shown)
