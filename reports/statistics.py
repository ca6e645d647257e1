"""What a handful of seeds can say: means, paired differences, verdicts, rankings."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Summary:
    """A variant's figure over its seeds."""

    count: int
    mean: float
    std: float | None
    """Sample standard deviation (divisor n - 1); None for one seed."""


class Verdict(Enum):
    """What may be said about a difference to the baseline.

    The rule: with two or more common seeds, a difference is larger than seed noise where its 95 %
    t-interval excludes 0. Where several variants are compared with one baseline, some interval
    excludes 0 by chance; a difference that passes alone but whose p-value after Holm's correction
    is above 0.05 says so.
    """

    LARGER = "larger than seed noise"
    LARGER_ALONE = "larger than seed noise, but not after Holm's correction"
    WITHIN = "within seed noise"
    ONE_SEED = "one seed: cannot tell"
    NOTHING_COMMON = "no seed in common: cannot tell"


@dataclass(frozen=True)
class PairedDifference:
    """Variant minus baseline, seed by seed. Seeds that only one of the two has are left out."""

    count: int
    mean: float | None
    standard_error: float | None = None
    interval: tuple[float, float] | None = None
    """95 % t-interval of the mean difference, n - 1 degrees of freedom."""
    p_value: float | None = None
    """Two-sided paired t-test."""


class Place(Enum):
    """A figure's place in its column."""

    BEST = "best"
    SECOND = "second"
    OTHER = "other"


def summarize(values: Iterable[float]) -> Summary | None:
    """Mean and sample standard deviation of the finite values; None where there are none."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return None
    std = float(np.std(finite, ddof=1)) if len(finite) > 1 else None
    return Summary(count=len(finite), mean=float(np.mean(finite)), std=std)


def paired_difference(
    variant: Mapping[int, float], baseline: Mapping[int, float]
) -> PairedDifference:
    """Compare by seed: equal seeds share data order and noise, so their difference has less noise.

    Both are seed to value; values that are not finite are left out. From two common seeds on the
    difference has a standard error, interval and p-value. Equal differences at all seeds have no
    noise: interval of width 0, p = 0 (p = 1 if all are 0).
    """
    seeds = sorted(variant.keys() & baseline.keys())
    pairs = np.array([(variant[seed], baseline[seed]) for seed in seeds]).reshape(-1, 2)
    pairs = pairs[np.isfinite(pairs).all(axis=1)]
    differences = pairs[:, 0] - pairs[:, 1]
    count = len(pairs)
    if count < 2:
        return PairedDifference(count, float(differences[0]) if count else None)
    if np.ptp(differences) == 0:
        mean = float(differences[0])
        return PairedDifference(count, mean, 0.0, (mean, mean), 0.0 if mean else 1.0)
    with warnings.catch_warnings():
        # Differences that hardly differ lose digits of their spread, of which none is printed.
        warnings.filterwarnings("ignore", "Precision loss occurred", RuntimeWarning)
        test = stats.ttest_rel(*pairs.T)
    mean, error = float(differences.mean()), float(stats.sem(differences))
    low, high = map(float, test.confidence_interval(CONFIDENCE))
    return PairedDifference(count, mean, error, (low, high), float(test.pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down adjustment (Holm 1979), within one metric across the compared variants.

    It bounds the chance of a single false "larger" among them, needs no independence (all
    variants share one baseline) and is never weaker than Bonferroni's. None stays None and does
    not count as a comparison.
    """
    present = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for position, (p, index) in enumerate(present):
        largest = max(largest, min(1.0, (len(present) - position) * p))
        adjusted[index] = largest
    return adjusted


def verdict(difference: PairedDifference, adjusted_p: float | None) -> Verdict:
    """The rule of `Verdict`, applied. `adjusted_p` comes from `holm`."""
    if difference.count == 0:
        return Verdict.NOTHING_COMMON
    if difference.interval is None:
        return Verdict.ONE_SEED
    low, high = difference.interval
    if low <= 0 <= high:
        return Verdict.WITHIN
    if adjusted_p is not None and adjusted_p > 1 - CONFIDENCE:
        return Verdict.LARGER_ALONE
    return Verdict.LARGER


def rank(rounded: Sequence[float | None], lower_is_better: bool) -> list[Place]:
    """Best and second-best of the values as the table prints them, so that ties share a place.

    Second-best is the next distinct value after the best. A single value has nothing to be best
    of and gets no place.
    """
    present = [value for value in rounded if value is not None]
    if len(present) < 2:
        return [Place.OTHER] * len(rounded)
    order = sorted(set(present), reverse=not lower_is_better)
    places = dict(zip(order, (Place.BEST, Place.SECOND), strict=False))
    return [Place.OTHER if value is None else places.get(value, Place.OTHER) for value in rounded]
