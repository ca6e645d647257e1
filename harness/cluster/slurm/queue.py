"""What SLURM and the files beside a result say of the user's jobs; and ending them for good.

The launcher writes `result.slurm.json` beside a trial's `result.json`, and the job writes
`result.slurm-task.json`. None of them is named after a job's id.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from harness.machine.files import read_sound_json, write_json
from models.errors import UserError

NEEDED = ("sbatch", "squeue", "scancel", "scontrol", "sinfo", "srun")


class SlurmError(UserError):
    """A command of SLURM failed, or did not answer in time."""


def require_slurm() -> None:
    """Raises a UserError where one of SLURM's commands is missing."""
    for name in NEEDED:
        if shutil.which(name) is None:
            raise UserError(
                f"{name} is not installed here, so no job can be submitted: run the command on a "
                "machine of a SLURM cluster that submits jobs, or without --cluster (CLUSTER=local)"
            )


def ask(command: Sequence[str], timeout: float) -> str:
    """What a command prints; raises SlurmError, with what its own message says, where it failed or
    took more than `timeout` seconds."""
    name = command[0]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise SlurmError(f"{name} gave no answer within {timeout:.0f} s") from None
    except OSError as error:
        raise SlurmError(f"{name} cannot be run: {error}") from None
    if done.returncode != 0:
        raise SlurmError(f"{name} failed: {own_words(done.stderr, done.returncode)}")
    return done.stdout


def own_words(message: str, return_code: int = 1) -> str:
    """The line of an error message that says what is wrong, without the command's own prefix."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    if not lines:
        return f"exit code {return_code}"
    telling = next((line for line in reversed(lines) if "error:" in line), lines[-1])
    return telling.split("error:", 1)[-1].strip()


_FORMAT = "%i|%j|%T|%L|%r"
_WAITING = ("PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT")
_RUNNING = ("RUNNING", "CONFIGURING", "SUSPENDED", "STOPPED", "SIGNALING", "RESIZING", "STAGE_OUT")
_ENDINGS = {
    "TIMEOUT": "its time was over before it could save: cluster.signal_seconds may be too short",
    "OUT_OF_MEMORY": "memory ran out: cluster.memory may be too small",
    "NODE_FAIL": "its node failed",
    "BOOT_FAIL": "its node did not start",
    "CANCELLED": "cancelled",
    "PREEMPTED": "preempted, and not put back",
    "DEADLINE": "its deadline passed",
}


@dataclass(frozen=True)
class QueuedJob:
    """One job, or one element of an array, that SLURM knows."""

    job: str
    """`12`, or `12_3` in an array."""
    name: str
    state: str
    """As SLURM writes it: PENDING, RUNNING, TIMEOUT and so on."""
    time_left: str
    """Until its limit, such as 1:59:30."""
    reason: str
    """Why it waits; empty where SLURM names nothing."""

    @property
    def waits(self) -> bool:
        return self.state in _WAITING

    @property
    def runs(self) -> bool:
        return self.state in _RUNNING

    @property
    def is_ending(self) -> bool:
        """Its processes are being cleared away; it may be on its way back into the queue."""
        return self.state == "COMPLETING"

    @property
    def active(self) -> bool:
        """Whether it still may do something."""
        return self.waits or self.runs or self.is_ending


def read_queue(timeout: float) -> dict[str, QueuedJob]:
    """All jobs of this user that SLURM remembers, by their ids; those that ended, for some minutes.
    Raises SlurmError where `squeue` gives no answer."""
    which = ["--all", "--me", "--noheader", "--array", "--states=all"]
    return parse_queue(ask(["squeue", *which, f"--format={_FORMAT}"], timeout))


def parse_queue(text: str) -> dict[str, QueuedJob]:
    """The jobs in `squeue`'s output of our format."""
    lines = [re.sub(r"\|None$", "|", line) for line in text.splitlines()]
    jobs = [QueuedJob(*line.split("|", 4)) for line in lines if line.count("|") >= 4]
    return {job.job: job for job in jobs}


def describe_ending(found: QueuedJob | None) -> str:
    """Why a job is over that said nothing itself: what SLURM says of it, if it remembers."""
    if found is not None and found.state in _ENDINGS:
        return _ENDINGS[found.state]
    reason = f" ({found.reason})" if found is not None and found.reason else ""
    return f"the job ended without a word{reason}"


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
        name = JOB_NAME.format(submission=self.submission)
        return found if found is not None and found.name == name else None


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
    return read_sound_json(record_file(result), JobRecord)


def write_record(result: Path, record: JobRecord) -> None:
    """Replace the record."""
    write_json(record_file(result), record)


def read_outcome(result: Path, record: JobRecord) -> TaskOutcome | None:
    """What the recorded job said, or None where it has not begun."""
    told = read_sound_json(outcome_file(result), TaskOutcome)
    own = told is not None and told.job == record.job and told.submission == record.submission
    return told if own else None


def write_outcome(result: Path, outcome: TaskOutcome) -> None:
    """Replace the outcome."""
    write_json(outcome_file(result), outcome)


def is_active(result: Path, record: JobRecord, queue: Mapping[str, QueuedJob]) -> bool:
    """Whether the recorded job is still going to do its work."""
    found = record.find(queue)
    if found is None or not found.active or record.cancelled:
        return False
    outcome = read_outcome(result, record) if found.is_ending else None
    return outcome is None or outcome.state != "failed"


def cancel_jobs(results: Sequence[Path], timeout: float) -> dict[Path, str]:
    """End the jobs that are queued or running to make these results; their ids, by the result.
    Raises SlurmError where SLURM gives no answer."""
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
