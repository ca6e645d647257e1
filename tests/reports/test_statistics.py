from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from scipy import stats

from reports.statistics import (
    PairedDifference,
    Place,
    Verdict,
    holm,
    paired_difference,
    rank,
    summarize,
    verdict,
)

RANDOM = np.random.default_rng(0)


def test_summary_agrees_with_scipy() -> None:
    values = RANDOM.normal(10, 2, size=7).tolist()
    described = stats.describe(values, ddof=1)
    summary = summarize(values)
    assert summary is not None
    assert summary.count == described.nobs
    assert summary.mean == pytest.approx(described.mean)
    assert summary.std == pytest.approx(math.sqrt(described.variance))


def test_one_value_has_no_spread_and_none_has_no_summary() -> None:
    single = summarize([3.0])
    assert single is not None
    assert (single.mean, single.std) == (3.0, None)
    assert summarize([]) is None


def test_values_that_are_not_finite_do_not_count() -> None:
    summary = summarize([1.0, math.nan, 3.0, math.inf])
    assert summary is not None
    assert (summary.count, summary.mean) == (2, 2.0)
    assert summarize([math.nan]) is None


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_paired_difference_follows_the_formulas_of_the_paired_t_test(seeds: int) -> None:
    baseline = dict(enumerate(RANDOM.normal(20, 1, size=seeds)))
    variant = {seed: value + RANDOM.normal(0.5, 0.3) for seed, value in baseline.items()}
    found = paired_difference(variant, baseline)
    differences = [variant[seed] - baseline[seed] for seed in baseline]
    mean = sum(differences) / seeds
    error = math.sqrt(sum((d - mean) ** 2 for d in differences) / (seeds - 1) / seeds)
    half = stats.t(seeds - 1).ppf(0.975) * error
    assert found.count == seeds
    assert found.mean == pytest.approx(mean)
    assert found.standard_error == pytest.approx(error)
    assert found.interval == pytest.approx((mean - half, mean + half))
    assert found.p_value == pytest.approx(2 * stats.t(seeds - 1).sf(abs(mean) / error))


def test_pairs_go_by_seed_and_not_by_position() -> None:
    found = paired_difference({7: 1.0, 3: 5.0, 9: 100.0}, {3: 4.0, 7: 0.0, 1: -50.0})
    assert (found.count, found.mean, found.standard_error) == (2, 1.0, 0.0)


def test_a_value_that_is_not_finite_breaks_its_pair_only() -> None:
    found = paired_difference({0: math.nan, 1: 3.0}, {0: 1.0, 1: 1.0})
    assert (found.count, found.mean) == (1, 2.0)


def test_one_common_seed_gives_a_difference_without_interval() -> None:
    found = paired_difference({0: 3.0}, {0: 1.0})
    assert found == PairedDifference(count=1, mean=2.0)
    assert verdict(found, None) is Verdict.ONE_SEED


def test_no_common_seed_gives_no_difference() -> None:
    found = paired_difference({0: 3.0}, {1: 1.0})
    assert found.mean is None
    assert verdict(found, None) is Verdict.NOTHING_COMMON


@pytest.mark.parametrize(
    ("offset", "p", "expected"), [(0.0, 1.0, Verdict.WITHIN), (2.0, 0.0, Verdict.LARGER)]
)
def test_equal_differences_at_all_seeds_have_no_noise(
    offset: float, p: float, expected: Verdict
) -> None:
    found = paired_difference({0: 1 + offset, 1: 5 + offset}, {0: 1.0, 1: 5.0})
    assert found.p_value == p
    assert verdict(found, p) is expected


def test_the_verdict_is_larger_exactly_where_the_interval_excludes_zero() -> None:
    for _ in range(200):
        baseline = dict(enumerate(RANDOM.normal(size=3)))
        variant = {seed: value + RANDOM.normal(0.6, 0.3) for seed, value in baseline.items()}
        found = paired_difference(variant, baseline)
        p = stats.ttest_rel(list(variant.values()), list(baseline.values())).pvalue
        expected = Verdict.LARGER if p < 0.05 else Verdict.WITHIN
        assert verdict(found, found.p_value) is expected


def test_a_difference_that_fails_holms_correction_says_so() -> None:
    found = PairedDifference(3, 1.0, 0.2, (0.1, 1.9), 0.03)
    assert verdict(found, 0.03) is Verdict.LARGER
    assert verdict(found, 0.09) is Verdict.LARGER_ALONE


def closed_testing(p_values: list[float]) -> list[float]:
    """Holm's adjustment by its definition: the worst Bonferroni test of a set that holds it."""
    indices = range(len(p_values))
    subsets = [
        subset for size in range(1, len(p_values) + 1) for subset in combinations(indices, size)
    ]
    return [
        max(
            min(1.0, len(subset) * min(p_values[other] for other in subset))
            for subset in subsets
            if index in subset
        )
        for index in indices
    ]


@pytest.mark.parametrize("count", [1, 2, 5])
def test_holm_agrees_with_closed_testing(count: int) -> None:
    for _ in range(50):
        p_values = RANDOM.uniform(0, 0.5, size=count).round(2).tolist()
        assert holm(p_values) == pytest.approx(closed_testing(p_values))


def test_holm_leaves_out_what_could_not_be_tested() -> None:
    assert holm([None, 0.02, None, 0.04]) == [None, 0.04, None, 0.04]


def test_best_and_second_follow_the_direction() -> None:
    best, second, other = Place.BEST, Place.SECOND, Place.OTHER
    assert rank([3.0, 1.0, 2.0], lower_is_better=True) == [other, best, second]
    assert rank([3.0, 1.0, 2.0], lower_is_better=False) == [best, other, second]


def test_ties_share_a_place_and_leave_the_next_value_second() -> None:
    best, second, other = Place.BEST, Place.SECOND, Place.OTHER
    places = rank([1.0, 2.0, 1.0, 2.0, 3.0], lower_is_better=True)
    assert places == [best, second, best, second, other]
    assert rank([1.0, 1.0], lower_is_better=True) == [best, best]


def test_missing_values_have_no_place_and_a_single_value_is_not_best() -> None:
    best, second, other = Place.BEST, Place.SECOND, Place.OTHER
    assert rank([None, 2.0, 1.0], lower_is_better=True) == [other, second, best]
    assert rank([None, 2.0], lower_is_better=True) == [other, other]
