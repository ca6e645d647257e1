from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import matplotlib.colors
import numpy as np
import pandas as pd
import pytest

from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY
from reports.comparison import compare
from reports.figures.quality import draw_tradeoff, draw_training_curves

FD = BY_KEY["fd"].recorded("efficientnet_lite0")
HOSTILE = ("$x$", "_hidden", "a name that is far too long to stand beside others " * 2)


def curves(variants: tuple[str, ...], seeds: int, scale: float = 1.0) -> pd.DataFrame:
    random = np.random.default_rng(0)
    return pd.DataFrame(
        [
            (variant, seed, step, scale + random.uniform(0, 0.3))
            for variant in variants
            for seed in range(seeds)
            for step in (0, 50, 100)
        ],
        columns=["variant", "seed", "step", "loss"],
    )


def test_the_line_is_the_mean_and_the_band_the_range_of_the_seeds() -> None:
    frame = curves(("b", "a"), seeds=3)
    (axes,) = draw_training_curves(frame, ("b", "missing", "a")).axes
    for variant, line, band in zip(("b", "a"), axes.lines, axes.collections, strict=False):
        by_step = frame[frame["variant"] == variant].groupby("step")["loss"]
        assert line.get_ydata() == pytest.approx(by_step.mean().to_numpy())
        assert line.get_xdata().tolist() == [0, 50, 100]
        heights = band.get_paths()[0].vertices[:, 1]
        assert heights.max() == pytest.approx(by_step.max().max())
        assert heights.min() == pytest.approx(by_step.min().min())
        assert matplotlib.colors.same_color(band.get_facecolor()[0][:3], line.get_color())
    assert "range of seeds" in axes.get_ylabel()


def test_one_seed_claims_no_range() -> None:
    (axes,) = draw_training_curves(curves(("a",), seeds=1), ("a",)).axes
    assert axes.get_ylabel() == "validation loss"


def test_only_a_wide_range_gets_a_logarithmic_axis() -> None:
    flat, steep = curves(("a",), 1), curves(("a",), 1)
    steep.loc[0, "loss"] = 20.0
    assert draw_training_curves(flat, ("a",)).axes[0].get_yscale() == "linear"
    assert draw_training_curves(steep, ("a",)).axes[0].get_yscale() == "log"


def test_the_legend_holds_literal_names_in_order() -> None:
    figure = draw_training_curves(curves(HOSTILE, seeds=2), HOSTILE)
    (legend,) = figure.legends
    assert [" ".join(text.get_text().split()) for text in legend.get_texts()] == [
        name.strip() for name in HOSTILE
    ]
    assert not any(text.get_parse_math() for text in legend.get_texts())
    assert figure.axes[0].get_legend() is None
    figure.canvas.draw()
    assert legend.get_window_extent().width < figure.bbox.width


def test_the_tradeoff_shows_quality_against_cost(build_runs: Callable[..., Any]) -> None:
    figures = {
        "$a$": {0: {FD: 8.0, names.FLOPS: 2e9}, 1: {FD: 10.0, names.FLOPS: 2e9}},
        "b": {0: {FD: 5.0, names.FLOPS: 3e9}},
        "c": {0: {FD: 5.0}},
    }
    runs = build_runs(figures)
    figure = draw_tradeoff(runs, compare(runs))
    assert figure is not None
    (axes,) = figure.axes
    points = [container[0].get_xydata()[0].tolist() for container in axes.containers]
    assert points == [[2.0, 9.0], [3.0, 5.0]]
    assert axes.get_xlabel() == "GFLOPs a forward pass"
    assert axes.get_ylabel() == "FD (EfficientNet-Lite0), lower is better"
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["$a$", "b"]


def test_no_two_of_many_variants_look_alike(build_runs: Callable[..., Any]) -> None:
    figures = {f"v{i}": {0: {FD: 8.0 + i, names.FLOPS: (2 + i) * 1e9}} for i in range(30)}
    runs = build_runs(figures)
    figure = draw_tradeoff(runs, compare(runs))
    assert figure is not None
    lines = [container[0] for container in figure.axes[0].containers]
    assert (
        len({(line.get_marker(), matplotlib.colors.to_hex(line.get_color())) for line in lines})
        == 30
    )


@pytest.mark.parametrize(
    "figures",
    [
        {"a": {0: {FD: 8.0}}, "b": {0: {FD: 9.0}}},
        {"a": {0: {FD: 8.0, names.FLOPS: 2e9}}, "b": {0: {FD: 9.0, names.FLOPS: 2e9}}},
        {"a": {0: {names.FLOPS: 2e9}}, "b": {0: {names.FLOPS: 3e9}}},
    ],
)
def test_there_is_no_tradeoff_without_two_costs(
    build_runs: Callable[..., Any], figures: dict[str, Any]
) -> None:
    runs = replace(build_runs(figures))
    assert draw_tradeoff(runs, compare(runs)) is None
