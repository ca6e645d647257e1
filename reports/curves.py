"""The validation loss over the steps of training, from MLflow's metric history."""

from __future__ import annotations

from typing import TYPE_CHECKING

from harness.tracking import names
from reports.load import INFINITY_IN_SQL, AblationRuns
from reports.store import open_store

if TYPE_CHECKING:
    import pandas as pd


def load_validation_curves(runs: AblationRuns) -> pd.DataFrame:
    """Columns `variant`, `seed`, `step`, `loss`; finite values of finished trials only.

    A step that a resumed run wrote twice counts once, with the later value.
    """
    import pandas as pd

    rows = []
    with open_store(runs.tracking_uri, f"run `{runs.command}` first") as client:
        for _, trial in runs.trials.iterrows():
            history = client.get_metric_history(trial["run_id"], names.VALIDATION_LOSS)
            by_step = {
                point.step: point.value for point in sorted(history, key=lambda p: p.timestamp)
            }
            rows += [
                (trial["variant"], int(trial["seed"]), step, value)
                for step, value in sorted(by_step.items())
                if abs(value) < INFINITY_IN_SQL
            ]
    return pd.DataFrame(rows, columns=["variant", "seed", "step", "loss"])
