from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import matplotlib.colors
import pytest

from harness.vocabulary import names
from reports.figures.curves import PROBED, draw_attention_probe, probe_by_layer

ENTROPY, RANK = names.ATTENTION_ENTROPY, names.ATTENTION_EFFECTIVE_RANK


def trial(first: float, second: float) -> dict[str, float]:
    """Two layers of every metric, the mean over them, and a timestep."""
    figures: dict[str, float] = {}
    for metric in PROBED:
        figures[metric] = (first + second) / 2
        figures[names.at_timestep(metric, 240.4)] = 0.123
        figures[names.at_layer(metric, 0)] = first
        figures[names.at_layer(metric, 1)] = second
    return figures


def test_rows_are_those_of_single_layers(build_runs: Callable[..., Any]) -> None:
    runs = build_runs({"a": {0: trial(0.5, 0.25), 1: trial(0.75, math.nan)}, "b": {0: {"x": 1.0}}})
    probed = probe_by_layer(runs)
    mine = probed[probed["metric"] == ENTROPY].drop(columns="metric")
    assert mine.to_numpy().tolist() == [["a", 0, 0, 0.5], ["a", 1, 0, 0.75], ["a", 0, 1, 0.25]]
    assert set(probed["metric"]) == set(PROBED)


def test_a_layers_key_is_told_from_others() -> None:
    assert names.layer_of(names.at_layer(ENTROPY, 7), ENTROPY) == 7
    assert names.layer_of(names.at_layer(ENTROPY, 123), ENTROPY) == 123
    for other in (ENTROPY, names.at_layer(RANK, 7), names.at_timestep(ENTROPY, 7.0), "layer_07"):
        assert names.layer_of(other, ENTROPY) is None


def test_runs_without_a_probe_give_no_rows(build_runs: Callable[..., Any]) -> None:
    assert probe_by_layer(build_runs({"a": {0: {names.FLOPS: 1.0}}})).empty


def test_the_line_is_the_mean_and_the_band_the_range_of_the_seeds(
    build_runs: Callable[..., Any],
) -> None:
    runs = build_runs(
        {"$x$": {0: trial(0.5, 0.25), 1: trial(0.75, 0.5)}, "_b": {0: trial(0.1, 0.2)}}
    )
    figure = draw_attention_probe(probe_by_layer(runs), ("_b", "missing", "$x$"))
    assert [axes.get_title() for axes in figure.axes] == list(PROBED.values())
    for axes in figure.axes:
        single, several = axes.lines
        assert single.get_ydata().tolist() == [0.1, 0.2]
        assert several.get_xdata().tolist() == [0, 1]
        assert several.get_ydata().tolist() == [0.625, 0.375]
        band = axes.collections[1]
        heights = band.get_paths()[0].vertices[:, 1]
        assert (heights.min(), heights.max()) == (0.25, 0.75)
        assert matplotlib.colors.same_color(band.get_facecolor()[0][:3], several.get_color())
        assert single.get_linestyle() != several.get_linestyle()
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["_b", "$x$"]


@pytest.mark.parametrize("count", [1, 12])
def test_the_legend_stays_within_the_figure(build_runs: Callable[..., Any], count: int) -> None:
    variants = [f"a_rather_long_variant_{index}" for index in range(count)]
    runs = build_runs({variant: {0: trial(0.5, 0.25)} for variant in variants})
    figure = draw_attention_probe(probe_by_layer(runs), variants)
    figure.draw_without_rendering()
    (legend,) = figure.legends
    box = legend.get_window_extent()
    assert 0 <= box.x0 < box.x1 <= figure.bbox.width
    assert box.y1 <= min(axes.get_window_extent().y0 for axes in figure.axes)
    styles = {(line.get_color(), line.get_linestyle()) for line in figure.axes[0].lines}
    assert len(styles) == count
