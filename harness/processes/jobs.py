"""What goes into a pool of workers and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.processes.progress import Progress
from models.errors import UserError


class LostTouchError(UserError):
    """A process cannot go on because another one does not answer: a consequence, not a cause."""


class RankFailedError(Exception):
    """One of several processes crashed or was killed; the message says which, and how."""


@dataclass(frozen=True)
class Job:
    """One call of a target, which is named by "package.module:function" and called in a worker as
    `function(payload, report, stop)`; payload and value can be written as JSON."""

    key: str
    payload: dict[str, Any]
    log_path: Path
    """Receives all that the job prints, and the traceback if it fails; a log is continued."""
    result_path: Path | None = None
    """The file that exists once the job is done, for launchers that outlive their process."""
    single_process: bool = False
    """It gains nothing from the several processes that a launcher may give each job."""

    @property
    def result_file(self) -> Path:
        """`result_path`, by those who need it; raises ValueError where the job has none."""
        if self.result_path is None:
            raise ValueError(f"the job {self.key} names no file of its result")
        return self.result_path


@dataclass(frozen=True)
class JobResult:
    """How a job ended: with `value`, or with `reason`, the short text of what went wrong."""

    key: str
    log_path: Path
    seconds: float
    """Wall time from handing the job to a worker to its end, the worker's start included."""
    value: Any = None
    reason: str | None = None
    caused_by_user: bool = False
    """It was a `UserError`, and no fault of the program or the machine."""
    stopped: str | None = None
    """How far a job came that was asked to stop; the next one of its folder goes on from there."""
    lost_touch: bool = False
    """It failed because of another process."""
    died: bool = False
    """Its worker ended without a word."""

    @property
    def ok(self) -> bool:
        return self.reason is None


@dataclass(frozen=True)
class JobStarted:
    """The job was handed to a worker."""

    key: str


@dataclass(frozen=True)
class JobProgressed:
    """The job reported where it stands."""

    key: str
    progress: Progress


@dataclass(frozen=True)
class JobEnded:
    """The job is over, well or badly."""

    result: JobResult


@dataclass(frozen=True)
class JobsInterrupted:
    """Ctrl-C or SIGTERM arrived: the running jobs, by their keys, are asked to save and stop."""

    keys: tuple[str, ...]


JobEvent = JobStarted | JobProgressed | JobEnded | JobsInterrupted
