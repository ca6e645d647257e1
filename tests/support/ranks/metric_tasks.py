"""What each process does in the tests of metrics that are gathered over processes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from harness.evaluation.metrics.frechet import fitted_gaussian
from harness.evaluation.metrics.torch_metrics import (
    FrechetDistanceMetric,
    InceptionScoreMetric,
    KernelDistanceMetric,
    NeighbourScoresMetric,
)
from harness.processes.group import ProcessGroup

_RANDOM = np.random.default_rng(0)
_MIXING = _RANDOM.normal(size=(12, 12))
SAMPLES = (_RANDOM.gamma(1, size=(83, 12)) @ _MIXING).astype(np.float32)
REAL = (_RANDOM.gamma(1.2, size=(70, 12)) @ _MIXING).astype(np.float32)
NUMBERS = _RANDOM.permutation(1000)[: len(SAMPLES)]
"""The samples' unique numbers, in no order."""


def metrics() -> dict[str, Any]:
    """One of each, as set up."""
    return {
        "fd": FrechetDistanceMetric(fitted_gaussian(REAL)),
        "kd": KernelDistanceMetric(REAL, subsets=7, subset_size=40),
        "is": InceptionScoreMetric(SAMPLES.shape[1], splits=4),
        "pr": NeighbourScoresMetric(REAL),
    }


def take(metric: Any, rows: np.ndarray) -> None:
    """Give a metric some of the samples."""
    batch = torch.from_numpy(SAMPLES[rows])
    if isinstance(metric, FrechetDistanceMetric):
        metric.update(batch)
    else:
        metric.update(batch, torch.from_numpy(NUMBERS[rows]))


def plain(value: Tensor | dict[str, Tensor]) -> Any:
    """The numbers."""
    return (
        {key: float(one) for key, one in value.items()} if isinstance(value, dict) else float(value)
    )


def compute_together(group: ProcessGroup, shares: list[list[list[int]]]) -> dict[str, Any]:
    """Each process takes its own batches of rows; all get the values of all."""
    found = {}
    for name, metric in metrics().items():
        for rows in shares[group.rank]:
            take(metric, np.array(rows))
        found[name] = plain(metric.compute())
    return found
