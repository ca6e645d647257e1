"""Plots of an ablation: the validation loss over training, and quality against cost."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from harness.tracking import names
from reports.columns import Column, Kind
from reports.load import AblationRuns
from reports.statistics import Summary, summarize
from reports.tables import Comparison

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_SIZE = (4.5, 2.8)
"""Inches without the legend; readable at the width of a column of a page."""
_LINE_HEIGHT = 0.17
_STYLE: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 8,
    "grid.alpha": 0.3,
    "legend.frameon": False,
}
_MARKERS = "osD^vPX*<>"
_LEGEND_WIDTH = 75
"""Characters side by side below the axes."""
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
    with mpl.rc_context(_STYLE):
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
            palette=_colors(len(drawn)),
            errorbar=("pi", 100),
            err_kws={"alpha": 0.18, "linewidth": 0},
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
        _add_legend_below(figure, inside.legend_handles, drawn)
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
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.subplots()
        colors = _colors(len(points))
        handles = [
            axes.errorbar(
                x,
                y,
                yerr=std,
                fmt=_MARKERS[index % len(_MARKERS)],
                markersize=5,
                color=colors[index],
                capsize=3,
            )
            for index, (x, y, std) in enumerate(points.values())
        ]
        axes.set(
            xlabel=f"{cost.title} a forward pass",
            ylabel=f"{quality.title}, {quality.direction.value} is better",
        )
        _add_legend_below(figure, handles, list(points))
    return figure


def _summary(runs: AblationRuns, variant: str, column: Column) -> Summary | None:
    """In the column's unit."""
    values = runs.values(variant, column.key).values()
    return summarize([value / column.unit for value in values])


def _colors(count: int) -> list[tuple[float, float, float]]:
    """Colours that the colour-blind tell apart; from ten on they repeat."""
    import seaborn as sns

    return list(sns.color_palette("colorblind", count))


def _add_legend_below(figure: Figure, handles: Sequence[Any], labels: Sequence[str]) -> None:
    """A legend below the axes, for which the figure grows. `handles` are lines or error bars."""
    wrapped = [textwrap.fill(label, _LEGEND_WIDTH // 2) for label in labels]
    widest = max(len(line) for label in wrapped for line in label.split("\n"))
    columns = min(len(labels), max(1, _LEGEND_WIDTH // (widest + 7)))
    tallest = max(label.count("\n") + 1 for label in wrapped)
    lines = tallest * -(-len(labels) // columns)
    figure.set_size_inches(_SIZE[0], _SIZE[1] + lines * _LINE_HEIGHT)
    # Numbers stand for names, since matplotlib reads "$" and a leading "_" in labels as commands.
    legend = figure.legend(
        handles,
        [str(index) for index in range(len(labels))],
        loc="outside lower center",
        ncols=columns,
    )
    for text, label in zip(legend.get_texts(), wrapped, strict=True):
        text.set_parse_math(False)
        text.set_text(label)
