"""Line figures: out of MLflow's metric history over the steps of training (validation loss,
routing, validation samples), and of the attention probe over layers.

Each is None where it would hold no line, and takes the variants in their order.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from harness.vocabulary import names
from harness.vocabulary.metrics import Direction
from reports.columns import columns_for
from reports.figures.panels import PAGE_WIDTH, Panel, draw_panels, over_seeds
from reports.identity import differing_fields, parse_identity
from reports.load import INFINITY_IN_SQL, AblationRuns, open_store

_X_LABEL = "training step"
_WIDE_RANGE = 5
"""From this ratio of the largest to the smallest loss on, the axis is logarithmic."""

_ROUTING_PANELS = {
    "usage entropy of a router": (names.ROUTING_USAGE_ENTROPY,) * 3,
    "entropy of a token's choice": (names.ROUTING_TOKEN_ENTROPY,) * 3,
    "largest share, down to the least": (names.ROUTING_MIN_SHARE, *(names.ROUTING_MAX_SHARE,) * 2),
    "dead choices of a router": (names.ROUTING_DEAD,) * 3,
    r"exponents $\gamma$, all layers": (names.GAMMA_MIN, names.GAMMA_MEAN, names.GAMMA_MAX),
    r"factors $\lambda$, all layers": (names.LAMBDA_MIN, names.LAMBDA_MEAN, names.LAMBDA_MAX),
}
"""A panel's title to the metrics of its band's lower edge, its line, and its band's upper edge."""

ROUTING_METRICS = tuple(
    dict.fromkeys(metric for panel in _ROUTING_PANELS.values() for metric in panel)
)
"""What the figure of routing is drawn from."""

PROBED = {
    names.ATTENTION_ENTROPY: "row entropy / log N",
    names.ATTENTION_EFFECTIVE_RANK: "effective rank",
    names.TOKEN_SIMILARITY: "token similarity",
}
"""Metric of the probe to what it is called in a figure."""


def load_curves(runs: AblationRuns, metrics: Sequence[str]) -> pd.DataFrame:
    """Columns `variant`, `seed`, `metric`, `step`, `value`; finite values of finished trials only.

    A step that a resumed run wrote twice counts once, with the later value.
    """
    rows = []
    with open_store(runs.tracking_uri, runs.ablation, runs.scale) as client:
        for trial in runs.trials.to_dict("records"):
            for metric in filter(runs.metrics.__contains__, metrics):
                history = client.get_metric_history(trial["run_id"], metric)
                history = sorted(history, key=lambda point: point.timestamp)
                by_step = {point.step: point.value for point in history}
                rows += [
                    (trial["variant"], int(trial["seed"]), metric, step, value)
                    for step, value in sorted(by_step.items())
                    if abs(value) < INFINITY_IN_SQL
                ]
    return pd.DataFrame(rows, columns=["variant", "seed", "metric", "step", "value"])


def draw_training_curves(curves: pd.DataFrame, variants: Sequence[str]) -> Figure | None:
    """Validation loss over steps, as `load_curves` gives it; bands are the range of the seeds."""
    figure = draw_panels([Panel("", over_seeds(curves, "step"))], variants, _X_LABEL, (4.5, 2.8))
    if figure is None:
        return None
    (axes,) = figure.axes
    seeds = curves.groupby("variant")["seed"].nunique().max()
    axes.set_ylabel(f"validation loss{' (mean and range of seeds)' if seeds > 1 else ''}")
    if 0 < _WIDE_RANGE * curves["value"].min() <= curves["value"].max():
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("")
    return figure


def draw_routing_health(curves: pd.DataFrame, variants: Sequence[str]) -> Figure | None:
    """How routing went: entropies, shares, dead choices, gammas and lambdas.

    Lines are means over routers and seeds, or over all learned values. Bands reach over the seeds,
    for learned values from the smallest to the largest one, and for shares from the least chosen
    option to the most chosen one. `curves` are those of `ROUTING_METRICS`.
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
    if differing:
        fault = f"the trials' validation samples differ in {', '.join(differing)}"
        return ValidationCurves(load_curves(runs, []), 0, fault)
    named = {key: found for key in runs.metrics if (found := names.validation_metric_of(key))}
    curves = load_curves(runs, list(named))
    curves["metric"] = [named[key][0] for key in curves["metric"]]
    return ValidationCurves(curves, max((count for _, count in named.values()), default=0), None)


def draw_validation_samples(validated: ValidationCurves, variants: Sequence[str]) -> Figure | None:
    """A panel a metric, in the units of the table; bands are the range of the seeds."""
    by_metric = {str(metric): rows for metric, rows in validated.curves.groupby("metric")}
    panels = []
    for column in columns_for({key: list(rows["value"]) for key, rows in by_metric.items()}):
        rows = by_metric[column.key]
        shown = rows.assign(value=rows["value"] / column.unit)
        # In words, since not every font has arrows.
        way = "" if column.direction is Direction.NONE else f"({column.direction.value} is better)"
        panels.append(Panel(f"{column.title}\n{way}".rstrip(), over_seeds(shown, "step")))
    figure = draw_panels(panels, variants, _X_LABEL)
    if figure is not None:
        figure.suptitle(f"{validated.samples:,} validation samples", fontsize="small")
    return figure


def probe_by_layer(runs: AblationRuns) -> pd.DataFrame:
    """Columns `variant`, `seed`, `metric`, `layer`, `value`: means over heads and timesteps.

    Empty where no trial was probed; what is not finite is left out.
    """
    rows = [
        (trial["variant"], int(trial["seed"]), metric, layer, float(trial[key]))
        for metric in PROBED
        for key in runs.metrics
        if (layer := names.layer_of(key, metric)) is not None
        for trial in runs.trials[["variant", "seed", key]].to_dict("records")
        if math.isfinite(trial[key])
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "metric", "layer", "value"])


def draw_attention_probe(probed: pd.DataFrame, variants: Sequence[str]) -> Figure | None:
    """A panel a metric, over the layers; bands are the range of the seeds."""
    panels = [
        Panel(title, over_seeds(probed[probed["metric"] == metric], "layer"))
        for metric, title in PROBED.items()
    ]
    return draw_panels(panels, variants, "layer", (PAGE_WIDTH / len(PROBED), 2.3))
