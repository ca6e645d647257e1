"""The rows of the probe as CSV, and their means."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, fields

from harness.evaluation.probe.probe import ProbeRow


def probe_csv(rows: Sequence[ProbeRow]) -> str:
    """All rows with all digits, a column a field of `ProbeRow`; what a row lacks is empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [field.name for field in fields(ProbeRow)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def select(
    rows: Sequence[ProbeRow],
    metric: str,
    *,
    layer: int | None = None,
    timestep: float | None = None,
) -> list[float]:
    """The finite values of a metric; of all layers and timesteps where none is given."""
    return [
        row.value
        for row in rows
        if row.metric == metric
        and layer in (None, row.layer)
        and timestep in (None, row.timestep)
        and math.isfinite(row.value)
    ]


def mean(values: Sequence[float]) -> float:
    """NaN of nothing."""
    return math.fsum(values) / len(values) if values else math.nan


def layers(rows: Sequence[ProbeRow]) -> list[int]:
    """Those that were measured, in order."""
    return sorted({row.layer for row in rows})


def timesteps(rows: Sequence[ProbeRow]) -> list[float]:
    """Those that were measured, in order."""
    return sorted({row.timestep for row in rows})
