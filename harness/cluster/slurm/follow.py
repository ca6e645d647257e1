"""Watching submitted jobs until all are over, from the queue and the files beside their results."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from harness.cluster.slurm.queue import (
    JobRecord,
    QueuedJob,
    SlurmError,
    describe_ending,
    read_outcome,
    read_queue,
)
from harness.config.cluster import SlurmCluster
from harness.processes.jobs import Job, JobEnded, JobEvent, JobProgressed, JobResult, JobStarted
from harness.processes.progress import Progress
from harness.processes.signals import stop_on_signals
from harness.processes.status import read_status
from models.errors import Detached

FILES_SECONDS = 1.0
"""Between two looks at the files."""
MISSING_LOOKS = 2
"""A job that is missing from the queue more often than this, with no result, is over: shared file
systems show a new file seconds late."""
_STEP_SECONDS = 0.2


@dataclass
class Follower:
    """Follows jobs once; tells `on_event` of them, and `notice` of SLURM's silence."""

    jobs: Sequence[Job]
    records: Mapping[str, JobRecord]
    config: SlurmCluster
    on_event: Callable[[JobEvent], None]
    notice: Callable[[str], None]
    _started: dict[str, float] = field(default_factory=dict, init=False)
    _shown: dict[str, Progress] = field(default_factory=dict, init=False)
    _missing: dict[str, int] = field(default_factory=dict, init=False)
    _results: dict[str, JobResult] = field(default_factory=dict, init=False)
    _silent: bool = field(default=False, init=False)

    def follow(self) -> list[JobResult]:
        """Tell what happens until all jobs are over.

        Raises:
            Detached: Ctrl-C or SIGTERM; the jobs go on.
        """
        next_queue = 0.0
        pause = min(FILES_SECONDS, self.config.poll_seconds)
        with stop_on_signals() as stop:
            while True:
                if time.monotonic() >= next_queue:
                    self._look_at_queue()
                    next_queue = time.monotonic() + self.config.poll_seconds
                for job in self._left():
                    self._look_at_files(job)
                if not self._left():
                    return [self._results[job.key] for job in self.jobs]
                looked = time.monotonic()
                while time.monotonic() - looked < pause:
                    if stop.requested:
                        raise Detached(len(self._left()), by_signal=stop.number)
                    time.sleep(min(_STEP_SECONDS, pause))

    def _left(self) -> list[Job]:
        return [job for job in self.jobs if job.key not in self._results]

    def _look_at_queue(self) -> None:
        try:
            queue = read_queue(self.config.command_timeout)
        except SlurmError as error:
            if not self._silent:
                self.notice(f"{error}; asking again until SLURM answers")
            self._silent = True
            return
        if self._silent:
            self.notice("SLURM answers again")
        self._silent = False
        for job in self._left():
            found = self.records[job.key].find(queue)
            if found is not None and found.active:
                self._missing.pop(job.key, None)
                self._look_at_job(job, found)
            else:
                self._look_for_ending(job, found)

    def _look_at_job(self, job: Job, found: QueuedJob) -> None:
        if found.runs:
            self._start(job)
        elif found.waits and job.key in self._started:
            outcome = read_outcome(job.result_file, self.records[job.key])
            times = "" if outcome is None else f"{outcome.requeues}x"
            note = "  ".join(part for part in (times, found.reason) if part)
            self._show(job, Progress("requeued", 0, 0, note))

    def _look_at_files(self, job: Job) -> None:
        if job.result_file.exists():
            self._end(job, None)
            return
        outcome = read_outcome(job.result_file, self.records[job.key])
        if outcome is None or outcome.state == "requeued":
            return
        if outcome.state == "failed":
            self._end(job, outcome.reason, outcome.caused_by_user)
        elif outcome.state == "running":
            self._start(job)
            status = read_status(job.result_file.parent)
            fresh = status is not None and status.updated >= outcome.updated
            if status is not None and fresh and status.state == "running":
                self._show(job, status.progress)

    def _look_for_ending(self, job: Job, found: QueuedJob | None) -> None:
        """A job that is no longer in the queue has a result, a reason, or died."""
        self._look_at_files(job)
        if job.key in self._results:
            return
        self._missing[job.key] = self._missing.get(job.key, 0) + 1
        if self._missing[job.key] > MISSING_LOOKS:
            record = self.records[job.key]
            outcome = read_outcome(job.result_file, record)
            said = f"{outcome.reason}; " if outcome is not None and outcome.reason else ""
            self._end(job, f"{said}{describe_ending(found)} (job {record.job})")

    def _start(self, job: Job) -> None:
        if job.key not in self._started:
            self._started[job.key] = time.monotonic()
            self.on_event(JobStarted(job.key))

    def _show(self, job: Job, progress: Progress) -> None:
        if self._shown.get(job.key) != progress:
            self._shown[job.key] = progress
            self.on_event(JobProgressed(job.key, progress))

    def _end(self, job: Job, reason: str | None, caused_by_user: bool = False) -> None:
        self._start(job)
        seconds = time.monotonic() - self._started[job.key]
        result = JobResult(job.key, job.log_path, seconds, None, reason, caused_by_user)
        self._results[job.key] = result
        self.on_event(JobEnded(result))
