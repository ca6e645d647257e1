"""How routing went over training: entropies, shares, dead choices, gammas and lambdas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from harness.vocabulary import names
from reports.figures.style import BAND, STYLE, Dashes, add_legend_below, colors, line_style

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIZE = (6.5, 3.6)
"""Inches without the legend; the width of a page's text."""


class _Panel(NamedTuple):
    """A line through `mean`, and a band from the smallest `low` to the largest `high`."""

    title: str
    low: str
    mean: str
    high: str


def _one(title: str, metric: str) -> _Panel:
    """The band is over the seeds."""
    return _Panel(title, metric, metric, metric)


_PANELS = (
    _one("usage entropy of a router", names.ROUTING_USAGE_ENTROPY),
    _one("entropy of a token's choice", names.ROUTING_TOKEN_ENTROPY),
    _Panel(
        "largest share, down to the least",
        names.ROUTING_MIN_SHARE,
        names.ROUTING_MAX_SHARE,
        names.ROUTING_MAX_SHARE,
    ),
    _one("dead choices of a router", names.ROUTING_DEAD),
    _Panel(r"exponents $\gamma$, all layers", names.GAMMA_MIN, names.GAMMA_MEAN, names.GAMMA_MAX),
    _Panel(r"factors $\lambda$, all layers", names.LAMBDA_MIN, names.LAMBDA_MEAN, names.LAMBDA_MAX),
)
ROUTING_METRICS = tuple(dict.fromkeys(metric for panel in _PANELS for metric in panel[1:]))
"""What the figure is drawn from."""


def draw_routing_health(curves: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """A panel a figure, a line a variant.

    Lines are means over routers and seeds, or over all learned values; bands reach over the seeds,
    for learned values from the smallest to the largest one, and for shares from the least chosen
    option to the most chosen one.

    Args:
        curves: columns `variant`, `seed`, `metric`, `step`, `value`, at least one row.
        variants: their order.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    drawn = [variant for variant in variants if (curves["variant"] == variant).any()]
    palette = colors(len(drawn))
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        grid = figure.subplots(2, 3, sharex=True)
        for axes, panel in zip(grid.flat, _PANELS, strict=True):
            for index, variant in enumerate(drawn):
                mine = curves[curves["variant"] == variant]
                _draw(axes, mine, panel, palette[index], line_style(index))
            if not axes.lines:
                axes.set_axis_off()
                continue
            axes.set_title(panel.title, fontsize="medium")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        for axes in grid[-1]:
            axes.set_xlabel("training step")
        handles = [
            mpl.lines.Line2D([], [], color=palette[index], linestyle=line_style(index))
            for index in range(len(drawn))
        ]
        add_legend_below(figure, handles, drawn)
    return figure


def _draw(
    axes: Axes,
    curves: pd.DataFrame,
    panel: _Panel,
    color: tuple[float, float, float],
    dashes: Dashes,
) -> None:
    """One variant; nothing where it lacks the metric, such as gammas of a fixed kernel."""
    by_step = {
        metric: curves[curves["metric"] == metric].groupby("step")["value"]
        for metric in {panel.low, panel.mean, panel.high}
    }
    middle = by_step[panel.mean].mean()
    if middle.empty:
        return
    axes.plot(middle.index, middle, color=color, linestyle=dashes)
    low, high = by_step[panel.low].min(), by_step[panel.high].max()
    # Older runs did not record the smallest share.
    low = by_step[panel.mean].min() if low.empty else low
    axes.fill_between(low.index, low, high, color=color, **BAND)
