"""What is kept of one trial's probe: a table of all rows, their means, and a figure.

The figure has a panel a metric and a line a timestep, over the layers.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

from harness.config.schema import TrialConfig
from harness.data.images import DataSet
from harness.evaluation.probe.probe import (
    EFFECTIVE_RANK,
    ENTROPY,
    ROUTING_ENTROPY,
    SIMILARITY,
    ProbeRow,
    choose_probe_images,
    probe_attention,
)
from harness.machine.files import write_bytes, write_text
from harness.processes.progress import ProgressListener
from harness.vocabulary import names
from models.backbone import Backbone
from models.objectives import build_objective


def probe_csv(rows: Sequence[ProbeRow]) -> str:
    """All rows with all digits, a column a field of `ProbeRow`; what a row lacks is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(ProbeRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def select(
    rows: Sequence[ProbeRow],
    metric: str,
    *,
    layer: int | None = None,
    timestep: float | None = None,
) -> list[float]:
    """The finite values of a metric; of all layers and timesteps where none is given."""
    return [
        row.value
        for row in rows
        if row.metric == metric
        and layer in (None, row.layer)
        and timestep in (None, row.timestep)
        and math.isfinite(row.value)
    ]


def mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def layers(rows: Sequence[ProbeRow]) -> list[int]:
    """Those that were measured, in order."""
    return sorted({row.layer for row in rows})


def timesteps(rows: Sequence[ProbeRow]) -> list[float]:
    """Those that were measured, in order."""
    return sorted({row.timestep for row in rows})


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


_NAMES = {
    ENTROPY: names.ATTENTION_ENTROPY,
    EFFECTIVE_RANK: names.ATTENTION_EFFECTIVE_RANK,
    SIMILARITY: names.TOKEN_SIMILARITY,
    ROUTING_ENTROPY: names.ROUTING_ENTROPY,
}


def probe_trial(
    network: Backbone,
    config: TrialConfig,
    data: DataSet,
    images: int,
    noise_levels: int,
    report: ProgressListener,
) -> tuple[ProbeRow, ...]:
    """Probe a trained network on the held-out images that all trials are probed on.

    Args:
        network: with EMA weights, on the device to use.
        config: of the trial.
        data: what it was trained on.
        images: how many held-out images.
        noise_levels: how many timesteps.
        report: told after each timestep.
    """
    return probe_attention(
        network,
        build_objective(config.objective),
        choose_probe_images(data.held_out, images),
        noise_levels,
        report,
    )


def probe_metrics(rows: Sequence[ProbeRow]) -> dict[str, float]:
    """The means that are logged: over everything, of each layer, of each timestep.

    A metric that was not measured, such as routing where there are no routers, has none.
    """
    metrics: dict[str, float] = {}
    for metric, name in _NAMES.items():
        measured = [row for row in rows if row.metric == metric]
        if not measured:
            continue
        metrics[name] = mean(select(measured, metric))
        for layer in layers(measured):
            metrics[names.at_layer(name, layer)] = mean(select(measured, metric, layer=layer))
        for timestep in timesteps(measured):
            values = select(measured, metric, timestep=timestep)
            metrics[names.at_timestep(name, timestep)] = mean(values)
    return metrics


def write_probe(rows: Sequence[ProbeRow], folder: Path, name: str) -> tuple[Path, Path]:
    """Write `name.csv` with all rows and `name.png`.

    Args:
        rows: at least one.
        folder: where to.
        name: without suffix.
    """
    table, picture = folder / f"{name}.csv", folder / f"{name}.png"
    write_text(table, probe_csv(rows))
    write_bytes(picture, probe_png(rows))
    return table, picture
