"""Lightning's metrics into a journal, in a file of its own, since Lightning is slow to import.

Lightning's own MLFlowLogger is not used: it cuts parameters at 250 characters, does not resume a
run properly, and blocks the training while a server is away.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Callable, Mapping
from typing import Any

from pytorch_lightning.loggers.logger import Logger
from pytorch_lightning.utilities import rank_zero_only
from torch import Tensor

from harness.tracking.journal import Journal

MetricsListener = Callable[[Mapping[str, float], int], None]
"""Told of the metrics of an optimizer step, and of that step."""


class JournalLogger(Logger):
    """Writes every metric that Lightning logs to the journal, on rank zero only.

    Hyperparameters are left out: the journal has the resolved configuration already. So is
    Lightning's `epoch`, since a trial's budget is counted in steps. The end of the run is left to
    the trial, which has more to do after training. `on_metrics` is told what has been recorded.
    """

    name = "journal"
    version = ""

    def __init__(self, journal: Journal, on_metrics: MetricsListener | None = None) -> None:
        super().__init__()
        self._journal = journal
        self._on_metrics = on_metrics

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float | Tensor], step: int | None = None) -> None:
        """Record metrics of an optimizer step.

        Raises:
            ValueError: no step is given.
        """
        if step is None:
            raise ValueError("a metric without a step cannot be drawn over the training")
        values = {key: float(value) for key, value in metrics.items() if key != "epoch"}
        self._journal.metrics(values, step)
        if self._on_metrics is not None:
            self._on_metrics(values, step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """Nothing: see the class."""
