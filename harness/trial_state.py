"""In which state a trial is, from the files beside it and SLURM's queue; MLflow is not asked."""

from __future__ import annotations

import math
import shutil
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.cluster.slurm.queue import (
    JobRecord,
    QueuedJob,
    SlurmError,
    TaskOutcome,
    describe_ending,
    read_outcome,
    read_queue,
    read_record,
)
from harness.processes.lock import is_locked
from harness.processes.status import TrialStatus, read_status

QUEUE_SECONDS = 10.0
QUEUE_TIMEOUT_SECONDS = 60.0
SILENCE_SECONDS = 60.0
"""After which a trial on another host, whose lock cannot be seen from here, is taken for ended."""

Phase = Literal["done", "running", "queued", "requeued", "stopped", "failed", "waiting"]
Queue = Mapping[str, QueuedJob]


@dataclass(frozen=True)
class TrialState:
    """One trial as it is now.

    `waiting`: nobody has begun it, or asked for it. `queued`: a job was submitted. `requeued`: it
    was interrupted and its job waits for another turn. `stopped`: interrupted, and nobody goes on.
    """

    phase: Phase
    reason: str = ""
    """Why it waits, stopped or failed."""
    status: TrialStatus | None = None
    """How far it came; None where it was never begun."""
    job: str = ""
    """SLURM's id; empty where it has none."""
    requeues: int = 0


class StateReader:
    """Reads the states of trials. Asks SLURM, which serves all users of a cluster, no more often
    than every few seconds, and only where a job was submitted."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        """`notice` is told where SLURM gives no answer."""
        self._notice = notice
        self._queue: Queue | None = None
        self._asked = -math.inf

    def read(self, results: Sequence[Path]) -> list[TrialState]:
        """The states of the trials that make these results."""
        submitted = (not result.exists() and read_record(result) is not None for result in results)
        if any(submitted) and time.monotonic() - self._asked > QUEUE_SECONDS:
            self._queue = self._ask()
            self._asked = time.monotonic()
        return [state_of(result, self._queue) for result in results]

    def _ask(self) -> Queue | None:
        try:
            return read_queue(QUEUE_TIMEOUT_SECONDS)
        except SlurmError as error:
            here = "" if shutil.which("squeue") else " (this machine is not part of the cluster)"
            self._notice(f"{error}{here}; states are what the files say")
            return None


def state_of(result: Path, queue: Queue | None) -> TrialState:
    """The state of one trial, by the file of its result; `queue` is None where SLURM is silent."""
    status = read_status(result.parent)
    record = read_record(result)
    outcome = None if record is None else read_outcome(result, record)
    requeues = 0 if outcome is None else outcome.requeues
    job = "" if record is None else record.job
    if result.exists():
        return TrialState("done", status=status, job=job, requeues=requeues)
    phase, reason = _phase(result, status, record, outcome, queue)
    if phase == "running" and record is not None and status is not None:
        heard = record.submitted if outcome is None else outcome.updated
        if status.updated < heard:
            # What an earlier job left; this one has not come to the trial yet.
            status = replace(status, stage="starting", note="", seconds_left=None)
    return TrialState(phase, reason, status, job, requeues)


def _phase(
    result: Path,
    status: TrialStatus | None,
    record: JobRecord | None,
    outcome: TaskOutcome | None,
    queue: Queue | None,
) -> tuple[Phase, str]:
    found = None if record is None or queue is None else record.find(queue)
    if record is not None and found is not None and found.active and not record.cancelled:
        if found.waits:
            again = outcome is not None
            return ("requeued" if again else "queued"), found.reason
        if found.runs:
            return "running", f"{found.time_left} of the job's time left"
        if outcome is not None and outcome.state in ("requeued", "stopped"):
            return "requeued", outcome.reason
    if is_locked(result.parent):
        return "running", ""
    if record is not None and _job_speaks(record, outcome, status):
        return _phase_of_job(record, outcome, found, queue)
    return _phase_of_process(status)


def _job_speaks(record: JobRecord, outcome: TaskOutcome | None, status: TrialStatus | None) -> bool:
    """Whether the job, not the trial's process or a later run of it, knows how it ended."""
    heard = record.submitted if outcome is None else outcome.updated
    return status is None or status.state == "running" or status.updated <= heard


def _phase_of_job(
    record: JobRecord, outcome: TaskOutcome | None, found: QueuedJob | None, queue: Queue | None
) -> tuple[Phase, str]:
    if record.cancelled:
        return "stopped", "cancelled"
    if outcome is not None and outcome.state == "failed":
        return "failed", outcome.reason
    if queue is None:
        if outcome is None:
            return "queued", ""
        return ("running" if outcome.state == "running" else "requeued"), outcome.reason
    ending = describe_ending(found)
    if found is not None and found.state == "CANCELLED":
        return "stopped", ending
    if outcome is not None and outcome.state in ("requeued", "stopped"):
        return "stopped", outcome.reason
    return "failed", ending


def _phase_of_process(status: TrialStatus | None) -> tuple[Phase, str]:
    if status is None:
        return "waiting", ""
    if status.state == "failed":
        return "failed", status.reason
    if status.state != "running":
        return "stopped", status.reason
    if status.host != socket.gethostname() and time.time() - status.updated < SILENCE_SECONDS:
        return "running", ""
    return "stopped", "its process ended without a word"
