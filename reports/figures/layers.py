"""What the variants' attention looks like from layer to layer, as the probe measured it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from harness.vocabulary import names
from reports.figures.panels import PAGE_WIDTH, Panel, draw_panels, over_seeds
from reports.load import AblationRuns

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

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


def draw_attention_probe(probed: pd.DataFrame, variants: Sequence[str]) -> Figure:
    """A panel a metric, over the layers; bands are the range of the seeds.

    Args:
        probed: as `probe_by_layer` gives it, at least one row.
        variants: their order.
    """
    panels = [
        Panel(title, over_seeds(probed[probed["metric"] == metric], "layer"))
        for metric, title in PROBED.items()
    ]
    return draw_panels(panels, variants, "layer", (PAGE_WIDTH / len(PROBED), 2.3))
