"""Metrics over the steps of training, from MLflow's metric history.

How routing went over training: entropies, shares, dead choices, gammas and lambdas.

How good the validation samples were over training: a panel a metric, a line a variant.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from harness.vocabulary import names
from harness.vocabulary.metrics import Direction
from reports.columns import Column, columns_for
from reports.figures.style import BAND, STYLE, Dashes, add_legend_below, colors, line_style
from reports.load import INFINITY_IN_SQL, AblationRuns
from reports.mlflow_store import open_store

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def load_curves(runs: AblationRuns, metrics: Sequence[str]) -> pd.DataFrame:
    """Columns `variant`, `seed`, `metric`, `step`, `value`; finite values of finished trials only.

    A step that a resumed run wrote twice counts once, with the later value.
    """
    import pandas as pd

    logged = [metric for metric in metrics if metric in runs.metrics]
    rows = []
    with open_store(runs.tracking_uri, f"run `{runs.command}` first") as client:
        for trial in runs.trials.to_dict("records"):
            for metric in logged:
                history = client.get_metric_history(trial["run_id"], metric)
                by_step = {
                    point.step: point.value for point in sorted(history, key=lambda p: p.timestamp)
                }
                rows += [
                    (trial["variant"], int(trial["seed"]), metric, step, value)
                    for step, value in sorted(by_step.items())
                    if abs(value) < INFINITY_IN_SQL
                ]
    return pd.DataFrame(rows, columns=["variant", "seed", "metric", "step", "value"])


def load_validation_curves(runs: AblationRuns) -> pd.DataFrame:
    """Columns `variant`, `seed`, `step`, `loss`."""
    curves = load_curves(runs, [names.VALIDATION_LOSS])
    return curves.drop(columns="metric").rename(columns={"value": "loss"})


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
                _draw_validation(axes, mine, column, palette[index], line_style(index))
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


def _draw_validation(
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
