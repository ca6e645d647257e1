"""What the variants' attention looks like from layer to layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from reports.figures.style import BAND, STYLE, add_legend_below, colors, line_style
from reports.probe_by_layer import PROBED

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_SIZE = (6.5, 2.3)
"""Inches without the legend; the width of a page's text."""


def draw_attention_probe(probed: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """A panel a metric, a line a variant: the mean of the seeds, with a band over their range.

    Args:
        probed: as `probe_by_layer` gives it, at least one row.
        variants: their order.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    drawn = [variant for variant in variants if (probed["variant"] == variant).any()]
    palette = colors(len(drawn))
    handles = {}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        panels = zip(figure.subplots(1, len(PROBED)), PROBED.items(), strict=True)
        for axes, (metric, title) in panels:
            for index, variant in enumerate(drawn):
                mine = probed[(probed["variant"] == variant) & (probed["metric"] == metric)]
                seeds = mine.groupby("layer")["value"].agg(["mean", "min", "max"])
                (handles[variant],) = axes.plot(
                    seeds.index,
                    seeds["mean"],
                    color=palette[index],
                    linestyle=line_style(index),
                    marker="o",
                    markersize=3,
                )
                axes.fill_between(
                    seeds.index, seeds["min"], seeds["max"], color=palette[index], **BAND
                )
            axes.set(xlabel="layer", title=title)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=7, integer=True))
        add_legend_below(figure, [handles[variant] for variant in drawn], drawn)
    return figure
