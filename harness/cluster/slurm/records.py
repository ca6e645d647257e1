"""What is written down about a job beside what it works on; nothing here is keyed on job ids.

`result.json` of a trial has `result.slurm.json`, which the launcher writes, and
`result.slurm-task.json`, which the job writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from harness.cluster.slurm.queue import QueuedJob
from harness.machine.files import write_text

JOB_NAME = "harness-{submission}"

OutcomeState = Literal["running", "requeued", "stopped", "failed", "done"]


@dataclass(frozen=True)
class JobRecord:
    """The latest job that was submitted for something."""

    job: str
    """SLURM's id, `12` or `12_3`."""
    submission: str
    """Of the launcher's call that submitted it; part of the job's name."""
    submitted: float
    """Seconds since the epoch."""
    cancelled: bool = False
    """By our own command: the job must not put itself back into the queue."""

    def find(self, queue: Mapping[str, QueuedJob]) -> QueuedJob | None:
        """The job in the queue. Ids start anew when a cluster is set up anew; names do not."""
        found = queue.get(self.job)
        if found is None or found.name != JOB_NAME.format(submission=self.submission):
            return None
        return found


@dataclass(frozen=True)
class TaskOutcome:
    """What a job last said about itself."""

    job: str
    submission: str
    state: OutcomeState
    """`stopped`: it saved and left its fate to SLURM."""
    requeues: int
    """How often it was put back into the queue so far."""
    updated: float
    reason: str = ""
    caused_by_user: bool = False
    lost: int = 0
    """How many of its last turns in a row ended because one of its processes was gone."""


def record_file(result: Path) -> Path:
    """Where the record of the job that makes `result` is."""
    return result.with_name(f"{result.stem}.slurm.json")


def outcome_file(result: Path) -> Path:
    """Where the job that makes `result` writes how it is."""
    return result.with_name(f"{result.stem}.slurm-task.json")


def read_record(result: Path) -> JobRecord | None:
    """The record, or None where nothing was submitted."""
    fields = _read(record_file(result))
    try:
        return None if fields is None else JobRecord(**fields)
    except TypeError:
        return None


def write_record(result: Path, record: JobRecord) -> None:
    """Replace the record."""
    write_text(record_file(result), json.dumps(asdict(record)) + "\n")


def read_outcome(result: Path, record: JobRecord) -> TaskOutcome | None:
    """What the recorded job said, or None where it has not begun."""
    fields = _read(outcome_file(result))
    try:
        outcome = None if fields is None else TaskOutcome(**fields)
    except TypeError:
        return None
    if outcome is None or (outcome.job, outcome.submission) != (record.job, record.submission):
        return None
    return outcome


def write_outcome(result: Path, outcome: TaskOutcome) -> None:
    """Replace the outcome."""
    write_text(outcome_file(result), json.dumps(asdict(outcome)) + "\n")


def is_active(result: Path, record: JobRecord, queue: Mapping[str, QueuedJob]) -> bool:
    """Whether the recorded job is still going to do its work."""
    found = record.find(queue)
    if found is None or not found.active:
        return False
    if not found.is_ending:
        return not record.cancelled
    outcome = read_outcome(result, record)
    return not record.cancelled and (outcome is None or outcome.state != "failed")


def _read(path: Path) -> dict[str, Any] | None:
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return fields if isinstance(fields, dict) else None
