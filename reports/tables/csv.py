"""table.csv: raw floats, a row a seed, then a mean and a std row a variant."""

from __future__ import annotations

from typing import Any

import pandas as pd

from harness.vocabulary import names
from reports.load import AblationRuns
from reports.statistics import summarize


def csv_table(runs: AblationRuns) -> str:
    """Columns `row` (seed, mean or std), `variant`, `seed`, `run_id` and one a metric's key.

    Values are raw, in the unit of the metric's key and with all digits; no figure is an empty
    cell. `seed` and `run_id` are empty in mean and std rows, std is empty for one seed. Metrics of
    single layers, timesteps and routers are left out; MLflow has them.
    """
    metrics = [metric for metric in runs.metrics if not names.is_detail(metric)]
    rows: list[dict[Any, Any]] = []
    for variant in runs.variants:
        trials = runs.of(variant)
        if trials.empty:
            continue
        rows += trials.assign(row="seed").to_dict("records")
        found = {metric: summary for metric in metrics if (summary := summarize(trials[metric]))}
        means = {key: summary.mean for key, summary in found.items()}
        stds = {key: summary.std for key, summary in found.items()}
        rows += [{"row": "mean", "variant": variant, **means}]
        rows += [{"row": "std", "variant": variant, **stds}]
    table = pd.DataFrame(rows, columns=["row", "variant", "seed", "run_id", *metrics])
    table["seed"] = table["seed"].astype("Int64")
    table[metrics] = table[metrics].astype("float64")
    return table.to_csv(index=False, lineterminator="\n")
