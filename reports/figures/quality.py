"""Plots of an ablation: the validation loss over training, and quality against cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.vocabulary import names
from reports.columns import Column, Kind
from reports.comparison import Comparison
from reports.figures.style import BAND, STYLE, add_legend_below, colors
from reports.load import AblationRuns
from reports.statistics import Summary, summarize

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_SIZE = (4.5, 2.8)
"""Inches without the legend; readable at the width of a column of a page."""
_MARKERS = "osD^vPX*<>"
_WIDE_RANGE = 5
"""From this ratio of the largest to the smallest loss on, the axis is logarithmic."""


def draw_training_curves(curves: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """Validation loss over steps: a line through the mean of the seeds, a band over their range.

    Args:
        curves: columns `variant`, `seed`, `step`, `loss`, at least one row.
        variants: their order.
    """
    import matplotlib as mpl
    import seaborn as sns
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator

    drawn = [variant for variant in variants if (curves["variant"] == variant).any()]
    numbered = curves.assign(variant=curves["variant"].map(drawn.index))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        sns.lineplot(
            numbered,
            x="step",
            y="loss",
            hue="variant",
            style="variant",
            hue_order=range(len(drawn)),
            style_order=range(len(drawn)),
            palette=colors(len(drawn)),
            errorbar=("pi", 100),
            err_kws=BAND,
            legend="full",
            ax=axes,
        )
        axes.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
        seeds = curves.groupby("variant")["seed"].nunique().max()
        spread = " (mean and range of seeds)" if seeds > 1 else ""
        axes.set(xlabel="training step", ylabel=f"validation loss{spread}")
        if 0 < _WIDE_RANGE * curves["loss"].min() <= curves["loss"].max():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        inside = axes.get_legend()
        assert inside is not None
        inside.remove()
        add_legend_below(figure, inside.legend_handles, drawn)
    return figure


def draw_tradeoff(runs: AblationRuns, comparison: Comparison) -> Figure | None:
    """The table's first column of quality against FLOPs a forward pass, means with the standard
    deviation over seeds.

    None where either column is missing, or where all variants cost the same.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    quality = next((c for c in comparison.columns if c.kind is Kind.QUALITY), None)
    cost = next((c for c in comparison.columns if c.key == names.FLOPS), None)
    if quality is None or cost is None:
        return None
    points = {}
    for variant in runs.variants:
        x, y = _summary(runs, variant, cost), _summary(runs, variant, quality)
        if x is not None and y is not None:
            points[variant] = (x.mean, y.mean, y.std)
    if len({point[0] for point in points.values()}) < 2:
        return None
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        palette = colors(len(points))
        handles = [
            axes.errorbar(
                x,
                y,
                yerr=std,
                fmt=_marker(index),
                markersize=5,
                color=palette[index],
                capsize=3,
            )
            for index, (x, y, std) in enumerate(points.values())
        ]
        axes.set(
            xlabel=f"{cost.title} a forward pass",
            ylabel=f"{quality.title}, {quality.direction.value} is better",
        )
        add_legend_below(figure, handles, list(points))
    return figure


def _marker(index: int) -> str:
    """One step further each time that the colours begin anew, so that no pair comes twice."""
    count = len(_MARKERS)
    return _MARKERS[(index + index // count) % count]


def _summary(runs: AblationRuns, variant: str, column: Column) -> Summary | None:
    """In the column's unit."""
    values = runs.values(variant, column.key).values()
    return summarize([value / column.unit for value in values])
