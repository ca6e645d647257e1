"""A trial on several processes of this machine."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from harness.processes.progress import ProgressListener
from harness.processes.ranks import run_ranks
from harness.processes.status import record_failure
from harness.tracking.journal import end_left_run, ending_of
from harness.trial.spec import TrialOrder

_TARGET = "harness.trial.run:run_job"
_LOG = "log.txt"


def run_on_ranks(order: TrialOrder, report: ProgressListener) -> dict[str, Any]:
    """Start the processes of a trial, which share its threads, and wait for its result.

    Where they fail, the one that wrote the trial's journal was stopped for what happened to
    another: so the reason is written down here.

    Raises:
        UserError: of the process that failed first.
        RankFailedError: a process failed otherwise.
    """
    folder = Path(order.folder)
    threads = max(1, order.threads // order.processes)
    payload = {"job": "trial", "order": asdict(replace(order, threads=threads))}
    try:
        result: dict[str, Any] = run_ranks(
            _TARGET,
            payload,
            processes=order.processes,
            threads=threads,
            log_path=folder / _LOG,
            report=report,
        )
    except Exception as error:
        end_left_run(folder, *ending_of(error))
        record_failure(folder, str(error))
        raise
    return result
