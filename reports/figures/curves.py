"""Metrics over the steps of training, out of MLflow's metric history: validation loss, routing,
validation samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.vocabulary import names
from harness.vocabulary.metrics import Direction
from reports.columns import Column, columns_for
from reports.figures.panels import Panel, draw_panels, over_seeds
from reports.identity import differing_fields, parse_identity
from reports.load import INFINITY_IN_SQL, AblationRuns
from reports.mlflow_store import open_store

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_X_LABEL = "training step"
_WIDE_RANGE = 5
"""From this ratio of the largest to the smallest loss on, the axis is logarithmic."""

_ROUTING_PANELS = {
    "usage entropy of a router": (names.ROUTING_USAGE_ENTROPY,) * 3,
    "entropy of a token's choice": (names.ROUTING_TOKEN_ENTROPY,) * 3,
    "largest share, down to the least": (
        names.ROUTING_MIN_SHARE,
        names.ROUTING_MAX_SHARE,
        names.ROUTING_MAX_SHARE,
    ),
    "dead choices of a router": (names.ROUTING_DEAD,) * 3,
    r"exponents $\gamma$, all layers": (names.GAMMA_MIN, names.GAMMA_MEAN, names.GAMMA_MAX),
    r"factors $\lambda$, all layers": (names.LAMBDA_MIN, names.LAMBDA_MEAN, names.LAMBDA_MAX),
}
"""A panel's title to the metrics of its band's lower edge, its line, and its band's upper edge."""

ROUTING_METRICS = tuple(
    dict.fromkeys(metric for panel in _ROUTING_PANELS.values() for metric in panel)
)
"""What the figure of routing is drawn from."""


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


def draw_training_curves(curves: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """Validation loss over steps; bands are the range of the seeds.

    Args:
        curves: as `load_curves` gives them for `names.VALIDATION_LOSS`, at least one row.
        variants: their order.
    """
    from matplotlib.ticker import LogLocator

    figure = draw_panels([Panel("", over_seeds(curves, "step"))], variants, _X_LABEL, (4.5, 2.8))
    (axes,) = figure.axes
    seeds = curves.groupby("variant")["seed"].nunique().max()
    axes.set_ylabel(f"validation loss{' (mean and range of seeds)' if seeds > 1 else ''}")
    if 0 < _WIDE_RANGE * curves["value"].min() <= curves["value"].max():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    return figure


def draw_routing_health(curves: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """How routing went: entropies, shares, dead choices, gammas and lambdas.

    Lines are means over routers and seeds, or over all learned values. Bands reach over the seeds,
    for learned values from the smallest to the largest one, and for shares from the least chosen
    option to the most chosen one.

    Args:
        curves: as `load_curves` gives them for `ROUTING_METRICS`, at least one row.
        variants: their order.
    """
    panels = []
    for title, metrics in _ROUTING_PANELS.items():
        low, mean, high = (over_seeds(curves[curves["metric"] == key], "step") for key in metrics)
        lines = mean.set_index(["variant", "x"])
        # Older runs did not record the smallest share: their band is that of the line.
        lines.update(low.set_index(["variant", "x"])["low"])
        lines.update(high.set_index(["variant", "x"])["high"])
        panels.append(Panel(title, lines.reset_index()))
    return draw_panels(panels, variants, _X_LABEL)


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
    identities = {
        tag: parse_identity(tag, "the trials' validation samples")
        for tag in runs.tag(names.TAG_VALIDATION_IDENTITY)
    }
    differing = differing_fields(identities)
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
    """A panel a metric, in the units of the table; bands are the range of the seeds.

    Args:
        validated: with at least one row.
        variants: their order.
    """
    curves = validated.curves
    columns = columns_for(
        {str(metric): list(rows["value"]) for metric, rows in curves.groupby("metric")}
    )
    panels = []
    for column in columns:
        measured = curves[curves["metric"] == column.key]
        shown = measured.assign(value=measured["value"] / column.unit)
        panels.append(Panel(_title(column), over_seeds(shown, "step")))
    figure = draw_panels(panels, variants, _X_LABEL)
    figure.suptitle(f"{validated.samples:,} validation samples", fontsize="small")
    return figure


def _title(column: Column) -> str:
    """With the way that is good in words, since not every font has arrows."""
    better = "" if column.direction is Direction.NONE else f"\n({column.direction.value} is better)"
    return f"{column.title}{better}"
