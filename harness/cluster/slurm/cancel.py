"""Ending jobs for good."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.cluster.slurm.commands import ask
from harness.cluster.slurm.queue import read_queue
from harness.cluster.slurm.records import read_record, write_record


def cancel_jobs(results: Sequence[Path], timeout: float) -> dict[Path, str]:
    """End the jobs that are queued or running to make these results.

    Returns:
        The ids of the jobs that were cancelled, by the result.

    Raises:
        SlurmError: SLURM gives no answer.
    """
    queue = read_queue(timeout)
    ids: dict[Path, str] = {}
    for result in results:
        record = read_record(result)
        found = None if record is None else record.find(queue)
        if record is not None and found is not None and found.active:
            # First, so that the job, which is asked to save and stop, does not put itself back.
            write_record(result, replace(record, cancelled=True))
            ids[result] = record.job
    if ids:
        ask(["scancel", *ids.values()], timeout)
    return ids
