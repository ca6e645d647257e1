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
    """One call of the pool's target.

    `payload` must be writable as JSON. `log_path` receives all that the job prints, and the
    traceback if it fails; an existing log is continued. `result_path` is the file that exists once
    the job is done; launchers that outlive their process need it. A `single_process` job gains
    nothing from the several processes that a launcher may give each job.
    """

    key: str
    payload: dict[str, Any]
    log_path: Path
    result_path: Path | None = None
    single_process: bool = False

    @property
    def result_file(self) -> Path:
        """`result_path`, by those who need it.

        Raises:
            ValueError: the job has none.
        """
        if self.result_path is None:
            raise ValueError(f"the job {self.key} names no file of its result")
        return self.result_path


@dataclass(frozen=True)
class JobResult:
    """How a job ended: with `value`, or with `reason`, the short text of what went wrong.

    `caused_by_user` tells a `UserError` from a fault of the program or the machine. `stopped` says
    how far a job came that was asked to stop; the next one of the same folder goes on from there.
    `lost_touch` tells that it failed because of another process, `died` that its worker
    ended without a word.
    `seconds` is the wall time from handing the job to a worker to its end, the worker's start
    included.
    """

    key: str
    log_path: Path
    seconds: float
    value: Any = None
    reason: str | None = None
    caused_by_user: bool = False
    stopped: str | None = None
    lost_touch: bool = False
    died: bool = False

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
