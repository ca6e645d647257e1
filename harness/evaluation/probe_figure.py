"""The probe's figure of one network: a panel a metric, a line a timestep, over the layers."""

from __future__ import annotations

import io
from collections.abc import Sequence

from harness.evaluation.probe.probe import EFFECTIVE_RANK, ENTROPY, SIMILARITY, ProbeRow
from harness.evaluation.probe_table import layers, mean, select, timesteps

_PANELS = {
    ENTROPY: "row entropy / log N",
    EFFECTIVE_RANK: "effective rank",
    SIMILARITY: "token similarity",
}
_PANEL_SIZE = (2.6, 2.3)
"""Inches."""
_DOTS_PER_INCH = 200


def probe_png(rows: Sequence[ProbeRow]) -> bytes:
    """Lines are means over the heads, bands their range; early timesteps are dark, late ones light.

    Args:
        rows: of `probe_attention`, at least one.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    steps, places = timesteps(rows), layers(rows)
    colors = mpl.colormaps["viridis"]
    with mpl.rc_context({"font.size": 8, "axes.grid": True, "grid.alpha": 0.3}):
        width, height = _PANEL_SIZE
        figure = Figure(figsize=(width * len(_PANELS), height), layout="constrained")
        panels = zip(figure.subplots(1, len(_PANELS)), _PANELS.items(), strict=True)
        for axes, (metric, title) in panels:
            for index, timestep in enumerate(steps):
                found = [select(rows, metric, layer=layer, timestep=timestep) for layer in places]
                color = colors(0.9 * index / max(len(steps) - 1, 1))
                axes.plot(
                    places,
                    [mean(values) for values in found],
                    marker="o",
                    markersize=3,
                    color=color,
                    label=f"{timestep:.0f}",
                )
                axes.fill_between(
                    places,
                    [min(values, default=float("nan")) for values in found],
                    [max(values, default=float("nan")) for values in found],
                    color=color,
                    alpha=0.12,
                    linewidth=0,
                )
            axes.set(xlabel="layer", title=title)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=8, integer=True))
            axes.spines[["top", "right"]].set_visible(False)
        handles, labels = axes.get_legend_handles_labels()
        figure.legend(
            handles,
            labels,
            title="timestep\n(bands: range of heads)",
            loc="outside right center",
            frameon=False,
        )
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_DOTS_PER_INCH)
    return buffer.getvalue()
