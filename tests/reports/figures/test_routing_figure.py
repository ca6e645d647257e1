from __future__ import annotations

from typing import Any

import pandas as pd
import pytest

from harness.vocabulary import names
from reports.figures.curves import ROUTING_METRICS, draw_routing_health, load_curves
from reports.load import load_ablation


def curves(*rows: tuple[str, int, str, int, float]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=["variant", "seed", "metric", "step", "value"])


def test_lines_are_means_of_seeds_and_learned_values_have_their_range() -> None:
    figure = draw_routing_health(
        curves(
            ("a", 0, names.ROUTING_USAGE_ENTROPY, 10, 0.5),
            ("a", 1, names.ROUTING_USAGE_ENTROPY, 10, 0.75),
            ("a", 0, names.ROUTING_USAGE_ENTROPY, 20, 0.25),
            ("a", 0, names.GAMMA_MIN, 10, 2.0),
            ("a", 1, names.GAMMA_MIN, 10, 1.0),
            ("a", 0, names.GAMMA_MEAN, 10, 3.0),
            ("a", 1, names.GAMMA_MEAN, 10, 5.0),
            ("a", 0, names.GAMMA_MAX, 10, 4.0),
            ("a", 1, names.GAMMA_MAX, 10, 6.0),
            ("b", 0, names.ROUTING_USAGE_ENTROPY, 10, 0.1),
        ),
        ("b", "a", "not routed"),
    )
    by_title = {axes.get_title(): axes for axes in figure.axes if axes.axison}
    assert len(by_title) == 2, "panels without data are left empty"
    entropy = by_title["usage entropy of a router"]
    assert [line.get_ydata().tolist() for line in entropy.lines] == [[0.1], [0.625, 0.25]]
    (gamma,) = (axes for title, axes in by_title.items() if "gamma" in title)
    (line,), (band,) = gamma.lines, gamma.collections
    assert line.get_ydata().tolist() == [4.0]
    heights = band.get_paths()[0].vertices[:, 1]
    assert (heights.min(), heights.max()) == (1.0, 6.0)
    assert line.get_color() == entropy.lines[1].get_color()
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["b", "a"]


def test_curves_are_read_of_the_metrics_that_were_logged(stored: Any) -> None:
    run_id = stored.trial("a", 0, {})
    for step, value in ((10, 0.5), (20, 0.25)):
        stored.client.log_metric(run_id, names.ROUTING_DEAD, value, step=step)
    stored.client.log_metric(run_id, "routing/layer_00/query_kernel/dead", 9.0, step=10)
    stored.trial("b", 0, {names.FLOPS: 1.0})
    stored.finish("a")
    runs = load_ablation(stored.uri, stored.ablation, stored.scale)
    found = load_curves(runs, ROUTING_METRICS)
    assert found.to_numpy().tolist() == [
        ["a", 0, names.ROUTING_DEAD, 10, 0.5],
        ["a", 0, names.ROUTING_DEAD, 20, 0.25],
    ]


@pytest.mark.parametrize("metric", ROUTING_METRICS)
def test_what_the_figure_is_drawn_from_stays_out_of_tables(metric: str) -> None:
    assert names.is_detail(metric)
