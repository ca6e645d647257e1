"""`evaluate` with several processes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

from pydantic import TypeAdapter

from harness.evaluation.standalone.evaluate import Evaluation, Watch, evaluate_images, silent_watch
from harness.evaluation.standalone.spec import EvaluateOrder
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from harness.processes.ranks import check_processes, group_of_environment, run_local_ranks

_RANK = "harness.evaluate_ranks:evaluate_as_rank"
_UNITS = {"bootstrap": "resamples", "extrapolation": "resamples"}
"""Of stages that count something else than images."""


def run_evaluation(order: EvaluateOrder, processes: int, watch: Watch) -> Evaluation | None:
    """Measure with several processes on this machine, or as the process that torchrun started.

    Args:
        order: what to measure.
        processes: to start; 1 works in this one.
        watch: shows progress.

    Returns:
        None in a process that another one leads.

    Raises:
        UserError: as `evaluate_images`.
        RankFailedError: a process crashed or was killed.
    """
    check_processes(processes)
    if processes == 1:
        with group_of_environment() as group:
            return evaluate_images(order, watch, group)
    with _Views(watch) as views:
        payload = {"order": TypeAdapter(EvaluateOrder).dump_python(order, mode="json")}
        found = run_local_ranks(_RANK, payload, processes, views.show)
    return TypeAdapter(Evaluation).validate_python(found)


def evaluate_as_rank(payload: Mapping[str, Any], report: ProgressListener) -> Any:
    """What each of several processes does; the evaluation as JSON takes it."""
    order = TypeAdapter(EvaluateOrder).validate_python(payload["order"])
    with group_of_environment() as group:
        evaluation = evaluate_images(order, silent_watch(report), group)
    return TypeAdapter(Evaluation | None).dump_python(evaluation, mode="json")


class _Views:
    """One view of progress at a time, another one where another unit is counted, or where a stage
    begins anew: samples after real images."""

    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._open = ExitStack()
        self._unit: str | None = None
        self._last = Progress("", 0, 0)
        self._view: ProgressListener = ignore_progress

    def __enter__(self) -> _Views:
        return self

    def __exit__(self, *raised: object) -> None:
        self._open.close()

    def show(self, progress: Progress) -> None:
        unit = _UNITS.get(progress.stage, "images")
        again = progress.stage == self._last.stage and progress.begins_after(self._last)
        self._last = progress
        if unit != self._unit or again:
            self._open.close()
            self._view = self._open.enter_context(self._watch(unit))
            self._unit = unit
        self._view(progress)
