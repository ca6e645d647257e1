"""The probe's figures of each layer, one row a trial, layer and metric."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from harness.vocabulary import names
from reports.load import AblationRuns

if TYPE_CHECKING:
    import pandas as pd

PROBED = {
    names.ATTENTION_ENTROPY: "row entropy / log N",
    names.ATTENTION_EFFECTIVE_RANK: "effective rank",
    names.TOKEN_SIMILARITY: "token similarity",
}
"""Metric to what it is called in a figure."""


def probe_by_layer(runs: AblationRuns) -> pd.DataFrame:
    """Columns `variant`, `seed`, `metric`, `layer`, `value`: means over heads and timesteps.

    Empty where no trial was probed; what is not finite is left out.
    """
    import pandas as pd

    rows = [
        (trial["variant"], int(trial["seed"]), metric, layer, float(trial[key]))
        for metric in PROBED
        for key in runs.metrics
        if (layer := names.layer_of(key, metric)) is not None
        for trial in runs.trials[["variant", "seed", key]].to_dict("records")
        if math.isfinite(trial[key])
    ]
    return pd.DataFrame(rows, columns=["variant", "seed", "metric", "layer", "value"])
