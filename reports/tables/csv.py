"""table.csv: raw floats, a row a seed, then a mean and a std row a variant."""

from __future__ import annotations

from typing import Any

from harness.vocabulary import names
from reports.load import AblationRuns
from reports.statistics import summarize

LEADING_COLUMNS = ("row", "variant", "seed", "run_id")


def csv_table(runs: AblationRuns) -> str:
    """Columns `row` (seed, mean or std), `variant`, `seed`, `run_id` and one a metric's key.

    Values are raw, in the unit of the metric's key and with all digits; no figure is an empty
    cell. `seed` and `run_id` are empty in mean and std rows, std is empty for one seed. Metrics of
    single layers, timesteps and routers are left out; MLflow has them.
    """
    import pandas as pd

    metrics = [metric for metric in runs.metrics if not names.is_detail(metric)]
    rows: list[dict[Any, Any]] = []
    for variant in runs.variants:
        trials = runs.trials[runs.trials["variant"] == variant]
        if trials.empty:
            continue
        rows += [dict(trial) for trial in trials.assign(row="seed").to_dict("records")]
        summaries = {metric: summarize(list(trials[metric])) for metric in metrics}
        means = {key: summary.mean for key, summary in summaries.items() if summary}
        stds = {key: summary.std for key, summary in summaries.items() if summary}
        rows.append({"row": "mean", "variant": variant, **means})
        rows.append({"row": "std", "variant": variant, **stds})
    table = pd.DataFrame(rows, columns=[*LEADING_COLUMNS, *metrics])
    table["seed"] = table["seed"].astype("Int64")
    table[metrics] = table[metrics].astype("float64")
    return table.to_csv(index=False, lineterminator="\n")
