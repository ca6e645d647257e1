"""Quality against cost: a point a variant."""

from __future__ import annotations

import matplotlib as mpl
from matplotlib.figure import Figure

from harness.vocabulary import names
from reports.columns import Kind
from reports.comparison import Comparison
from reports.figures.panels import COLORS, STYLE, add_legend_below
from reports.load import AblationRuns
from reports.statistics import summarize

_SIZE = (4.5, 2.8)
"""Inches without the legend; readable at the width of a column of a page."""
_MARKERS = "osD^vPX*<>"


def draw_tradeoff(runs: AblationRuns, comparison: Comparison) -> Figure | None:
    """The table's first column of quality against FLOPs a forward pass, means with the standard
    deviation over seeds.

    None where either column is missing, or where all variants cost the same.
    """
    quality = next((c for c in comparison.columns if c.kind is Kind.QUALITY), None)
    cost = next((c for c in comparison.columns if c.key == names.FLOPS), None)
    if quality is None or cost is None:
        return None
    points = {}
    for variant in runs.variants:
        x, y = (
            summarize(value / column.unit for value in runs.values(variant, column.key).values())
            for column in (cost, quality)
        )
        if x is not None and y is not None:
            points[variant] = (x.mean, y.mean, y.std)
    if len({x for x, _, _ in points.values()}) < 2:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        handles = []
        for index, point in enumerate(points.values()):
            color = COLORS[index % len(COLORS)]
            # A step further each time that the colours begin anew, so that no pair comes twice.
            marker = _MARKERS[(index + index // len(_MARKERS)) % len(_MARKERS)]
            handles.append(axes.errorbar(*point, fmt=marker, markersize=5, color=color, capsize=3))
        axes.set(
            xlabel=f"{cost.title} a forward pass",
            ylabel=f"{quality.title}, {quality.direction.value} is better",
        )
        add_legend_below(figure, handles, list(points))
    return figure
