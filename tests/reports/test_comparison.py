from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from scipy import stats

from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY
from reports.comparison import Comparison, compare
from reports.load import Floor
from reports.statistics import Place, Verdict

Build = Callable[..., Any]
FD = BY_KEY["fd"].recorded("efficientnet_lite0")
IS = BY_KEY["is"].recorded("efficientnet_lite0")
SPEED = names.TRAIN_IMAGES_PER_SECOND
FLOOR_IDENTITY = {
    "extractor": "efficientnet_lite0",
    "samples": 500,
    "reference": "digits-train-9f (1500 images)",
}


def column_of(comparison: Comparison, key: str) -> dict[str, tuple[str, Place]]:
    index = [column.key for column in comparison.columns].index(key)
    return {row.label: (row.cells[index].text(), row.cells[index].place) for row in comparison.rows}


def one_metric(key: str, values: dict[str, list[float]]) -> dict[str, Any]:
    return {
        variant: {seed: {key: value} for seed, value in enumerate(by_seed)}
        for variant, by_seed in values.items()
    }


def test_cells_hold_mean_and_sample_standard_deviation(build_runs: Build) -> None:
    runs = build_runs(one_metric(FD, {"a": [1.0, 2.0, 4.0], "b": [5.0, 5.5, 6.0]}))
    assert column_of(compare(runs), FD) == {
        "a": ("2.33 \u00b1 1.53", Place.BEST),
        "b": ("5.50 \u00b1 0.50", Place.SECOND),
    }


def test_one_seed_prints_no_plus_minus(build_runs: Build) -> None:
    runs = build_runs(one_metric(FD, {"a": [1.0], "b": [5.0]}))
    assert [text for text, _ in column_of(compare(runs), FD).values()] == ["1.00", "5.00"]


def test_what_prints_alike_ranks_alike(build_runs: Build) -> None:
    runs = build_runs(one_metric(FD, {"a": [1.001], "b": [1.004], "c": [1.006]}))
    assert column_of(compare(runs), FD) == {
        "a": ("1.00", Place.BEST),
        "b": ("1.00", Place.BEST),
        "c": ("1.01", Place.SECOND),
    }


def test_higher_is_better_where_the_column_says_so(build_runs: Build) -> None:
    runs = build_runs(one_metric(IS, {"a": [1.0], "b": [2.0]}))
    places = [place for _, place in column_of(compare(runs), IS).values()]
    assert places == [Place.SECOND, Place.BEST]


def test_counts_are_not_ranked_and_show_no_spread(build_runs: Build) -> None:
    runs = build_runs(one_metric(names.PARAMETERS, {"a": [1e6, 1e6], "b": [2e6, 2e6]}))
    assert column_of(compare(runs), names.PARAMETERS) == {
        "a": ("1.000", Place.OTHER),
        "b": ("2.000", Place.OTHER),
    }


def test_a_missing_metric_is_two_dashes_and_named(build_runs: Build) -> None:
    figures = {"a": {0: {FD: 1.0}, 1: {FD: math.nan}}, "b": {0: {IS: 2.0}}}
    comparison = compare(build_runs(figures))
    assert column_of(comparison, FD) == {"a": ("1.00", Place.OTHER), "b": ("--", Place.OTHER)}
    assert comparison.gaps == (
        "FD (EfficientNet-Lite0) of a (finite in 1 of 2 seeds)",
        "FD (EfficientNet-Lite0) of b (finite in 0 of 1 seeds)",
        "IS (EfficientNet-Lite0) of a (finite in 0 of 2 seeds)",
    )


def test_a_variant_without_a_finished_trial_keeps_its_row(build_runs: Build) -> None:
    runs = build_runs(one_metric(FD, {"a": [1.0], "b": []}))
    assert column_of(compare(runs), FD)["b"] == ("--", Place.OTHER)


@pytest.mark.parametrize("tag", [names.TAG_DEVICE, names.TAG_SIDE_BY_SIDE, names.TAG_PROCESSES])
def test_speeds_from_different_machines_are_not_ranked(build_runs: Build, tag: str) -> None:
    figures = {"a": {0: {SPEED: 100.0, FD: 1.0}}, "b": {0: {SPEED: 200.0, FD: 2.0}}}
    same = compare(build_runs(figures, tags={("a", 0): {tag: "1"}, ("b", 0): {tag: "1"}}))
    assert column_of(same, SPEED)["b"] == ("200", Place.BEST)
    other = compare(build_runs(figures, tags={("a", 0): {tag: "1"}, ("b", 0): {tag: "2"}}))
    assert column_of(other, SPEED)["b"] == ("200", Place.OTHER)
    assert column_of(other, FD)["a"] == ("1.00", Place.BEST)


def test_differences_are_paired_with_the_baseline_by_seed(build_runs: Build) -> None:
    baseline, variant = [8.0, 9.0, 7.5], [10.5, 11.0, 9.75]
    runs = build_runs(one_metric(FD, {"base": baseline, "b": variant}))
    (row,) = compare(runs).differences
    expected = stats.ttest_rel(variant, baseline)
    assert (row.variant, row.column.key) == ("b", FD)
    assert row.difference.p_value == pytest.approx(expected.pvalue)
    assert row.adjusted_p == row.difference.p_value
    assert row.verdict is Verdict.LARGER


def test_holms_correction_counts_the_variants_of_one_metric(build_runs: Build) -> None:
    values = {"base": [8.0, 9.0], "b": [9.0, 10.2], "c": [9.5, 10.9], "d": [8.1, 8.9]}
    rows = compare(build_runs(one_metric(FD, values))).differences
    smallest = min(rows, key=lambda row: row.difference.p_value or 1)
    assert smallest.adjusted_p == pytest.approx(3 * (smallest.difference.p_value or 0))


def test_speed_and_cost_have_no_seed_noise_to_compare_with(build_runs: Build) -> None:
    figures = {v: {0: {SPEED: 1.0, names.PARAMETERS: 1.0}} for v in ("base", "b")}
    assert compare(build_runs(figures)).differences == ()


def test_without_its_baseline_a_table_has_no_differences(build_runs: Build) -> None:
    runs = build_runs(one_metric(FD, {"a": [1.0], "b": [5.0]}), baseline="gone")
    assert compare(runs).differences == ()


def test_a_floor_measured_alike_is_a_row_and_never_ranked(build_runs: Build) -> None:
    floor = Floor(values={FD: 0.5}, identity=FLOOR_IDENTITY)
    figures = {"a": {0: {FD: 1.0, IS: 3.0}}, "b": {0: {FD: 2.0, IS: 2.0}}}
    comparison = compare(build_runs(figures, floor=floor))
    assert comparison.floor is not None
    assert comparison.floor.label == "real against real"
    assert [cell.text() for cell in comparison.floor.cells] == ["0.50", "--"]
    assert {cell.place for cell in comparison.floor.cells} == {Place.OTHER}
    assert column_of(comparison, FD)["a"][1] is Place.BEST


@pytest.mark.parametrize("field", ["extractor", "samples", "reference"])
def test_a_floor_measured_otherwise_stays_out(build_runs: Build, field: str) -> None:
    floor = Floor(values={FD: 0.5}, identity={**FLOOR_IDENTITY, field: "other"})
    comparison = compare(build_runs(one_metric(FD, {"a": [1.0], "b": [2.0]}), floor=floor))
    assert comparison.floor is None
    assert comparison.why_no_floor is not None
    assert field in comparison.why_no_floor


def test_only_a_probe_that_failed_for_some_seeds_is_a_gap(build_runs: Build) -> None:
    routing = names.ROUTING_ENTROPY
    runs = build_runs(
        {
            "routed": {0: {FD: 1.0, routing: 0.5}, 1: {FD: 1.0, routing: math.nan}},
            "without routers": {0: {FD: 1.0}, 1: {FD: 1.0}},
        }
    )
    comparison = compare(runs)
    assert comparison.gaps == ("routing entropy of routed (finite in 1 of 2 seeds)",)
    assert column_of(comparison, routing)["without routers"] == ("--", Place.OTHER)
