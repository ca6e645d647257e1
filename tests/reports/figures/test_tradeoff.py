from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import matplotlib.colors
import pytest

from harness.vocabulary import names
from harness.vocabulary.metrics import BY_KEY
from reports.comparison import compare
from reports.figures.tradeoff import draw_tradeoff

FD = BY_KEY["fd"].recorded("efficientnet_lite0")


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
