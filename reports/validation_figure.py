"""How good the validation samples were over training: a panel a metric, a line a variant."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.vocabulary import names
from reports.columns import Column, Direction, columns_for
from reports.figures.curves import load_curves
from reports.figures.style import BAND, STYLE, Dashes, add_legend_below, colors, line_style
from reports.load import AblationRuns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PANELS_A_ROW = 3
_WIDTH, _ROW_HEIGHT = 6.5, 1.9
"""Inches without the legend; the width of a page's text."""


@dataclass(frozen=True)
class ValidationCurves:
    """Figures of validation samples over training."""

    curves: pd.DataFrame
    """`variant`, `seed`, `metric` (by the name of the final figure), `step`, `value`."""
    samples: int
    """How many were measured; 0 where there are no curves."""
    fault: str | None
    """Why there are no curves although samples were measured."""


def load_validation_samples(runs: AblationRuns) -> ValidationCurves:
    """The curves of all trials, if they were measured alike.

    Figures of different sample counts, extractors or samplers are different quantities and get no
    common axis.
    """
    identities = [json.loads(tag) for tag in runs.tag(names.TAG_VALIDATION_IDENTITY)]
    fields = sorted({field for identity in identities for field in identity})
    differing = [
        field
        for field in fields
        if len({json.dumps(identity.get(field)) for identity in identities}) > 1
    ]
    by_key = {
        key: named for key in runs.metrics if (named := names.validation_metric_of(key)) is not None
    }
    curves = load_curves(runs, [] if differing else list(by_key))
    if differing:
        fault = f"the trials' validation samples differ in {', '.join(differing)}"
        return ValidationCurves(curves, 0, fault)
    counts = {count for _, count in by_key.values()}
    curves["metric"] = curves["metric"].map(lambda key: by_key[key][0])
    return ValidationCurves(curves, max(counts, default=0), None)


def draw_validation_samples(validated: ValidationCurves, variants: Sequence[str]) -> Figure:
    """Lines through the means of the seeds, bands over their range.

    Args:
        validated: with at least one row.
        variants: their order.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    curves = validated.curves
    drawn = [variant for variant in variants if (curves["variant"] == variant).any()]
    columns = columns_for(
        {str(metric): list(rows["value"]) for metric, rows in curves.groupby("metric")}
    )
    palette = colors(len(drawn))
    rows = -(-len(columns) // _PANELS_A_ROW)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(_WIDTH, rows * _ROW_HEIGHT), layout="constrained")
        figure.suptitle(f"{validated.samples:,} validation samples", fontsize="medium")
        panels = figure.subplots(rows, min(len(columns), _PANELS_A_ROW), squeeze=False)
        for axes in panels.flat[len(columns) :]:
            axes.set_axis_off()
        for axes, column in zip(panels.flat, columns, strict=False):
            measured = curves[curves["metric"] == column.key]
            for index, variant in enumerate(drawn):
                mine = measured[measured["variant"] == variant]
                _draw(axes, mine, column, palette[index], line_style(index))
            axes.set_title(_title(column), fontsize="medium")
            axes.set_xlabel("training step")
            axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        handles = [
            mpl.lines.Line2D([], [], color=palette[index], linestyle=line_style(index))
            for index in range(len(drawn))
        ]
        add_legend_below(figure, handles, drawn)
    return figure


def _title(column: Column) -> str:
    """With the way that is good in words, since not every font has arrows."""
    better = "" if column.direction is Direction.NONE else f"\n({column.direction.value} is better)"
    return f"{column.title}{better}"


def _draw(
    axes: Axes,
    curves: pd.DataFrame,
    column: Column,
    color: tuple[float, float, float],
    dashes: Dashes,
) -> None:
    """One variant; nothing where it has no validation samples. One point is drawn as a dot."""
    by_step = curves.groupby("step")["value"]
    mean = by_step.mean() / column.unit
    if mean.empty:
        return
    marker = "o" if len(mean) == 1 else ""
    axes.plot(mean.index, mean, color=color, linestyle=dashes, marker=marker, markersize=3)
    low, high = by_step.min() / column.unit, by_step.max() / column.unit
    axes.fill_between(low.index, low, high, color=color, **BAND)
