"""What the variants' attention looks like from layer to layer.

The probe's figures of each layer, one row a trial, layer and metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.vocabulary import names
from reports.figures.style import BAND, STYLE, add_legend_below, colors, line_style
from reports.load import AblationRuns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure


PROBED = {
    names.ATTENTION_ENTROPY: "row entropy / log N",
    names.ATTENTION_EFFECTIVE_RANK: "effective rank",
    names.TOKEN_SIMILARITY: "token similarity",
}
"""Metric to what it is called in a figure."""


def probe_by_layer(runs: AblationRuns) -> pd.DataFrame:
    """Columns `variant`, `seed`, `metric`, `layer`, `value`: means over heads and timesteps.

    Empty where no trial was probed; what is not finite is left out.
    """
    import pandas as pd

    rows = [
        (trial["variant"], int(trial["seed"]), metric, layer, float(trial[key]))
        for metric in PROBED
        for key in runs.metrics
        if (layer := names.layer_of(key, metric)) is not None
        for trial in runs.trials[["variant", "seed", key]].to_dict("records")
        if math.isfinite(trial[key])
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "metric", "layer", "value"])


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
