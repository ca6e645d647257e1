"""Metrics over the steps of training, from MLflow's metric history."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.vocabulary import names
from reports.load import INFINITY_IN_SQL, AblationRuns
from reports.mlflow_store import open_store

if TYPE_CHECKING:
    import pandas as pd


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
