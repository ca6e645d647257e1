"""The job's side: runs the target, and decides what a signal, a failure or an end means.

A requested stop puts the job back into the queue, and so does the loss of one of several processes,
whose node may have died; a failure does not, since it would only happen again.
"""

from __future__ import annotations

import os
import socket
import sys
import time
import traceback
from dataclasses import dataclass

from harness.cluster.slurm.queue import (
    JobRecord,
    OutcomeState,
    SlurmError,
    TaskOutcome,
    ask,
    read_outcome,
    read_record,
    write_outcome,
)
from harness.config.cluster import SlurmCluster
from harness.machine.place import place_from_environment
from harness.processes.jobs import Job, LostTouchError
from harness.processes.progress import ignore_progress
from harness.processes.signals import PREEMPTING, StopRequest, ignore_signal
from harness.processes.worker import (
    REASON_CHARACTERS,
    flush_output,
    import_target,
    rank_log,
    redirect_output,
)
from models.errors import Preempted, UserError, one_line

MOST_LOST = 3
"""Turns in a row that may end with a lost process: what a node's death is not, happens again."""
_OTHERS_SAY_SECONDS = 5.0
"""In which a shared file system shows what another process wrote before it ended."""


@dataclass(frozen=True)
class TaskSpec:
    """All that one of SLURM's jobs needs."""

    target: str
    config: SlurmCluster
    needs_gpu: bool
    sys_path: list[str]
    submission: str
    job: Job
    """Its log is the first process's; the others have `log-rank1.txt` and so on beside it."""


def run_task(spec: TaskSpec) -> None:
    """Run one process of a job; called by submitit on the node.

    Raises:
        SystemExit: with 0 where the job was put back or stopped, with 1 where it failed. One of
            several processes ends at once instead, with the same code.
    """
    stop = StopRequest()
    # In place of submitit's handlers, which would requeue at once, in the middle of a step. SLURM
    # sends several signals to the same end, and kills by itself what does not heed them.
    stop.listen(PREEMPTING, ignore_signal)
    _Task(spec, stop).run()


class _Task:
    def __init__(self, spec: TaskSpec, stop: StopRequest) -> None:
        self._spec = spec
        self._stop = stop
        self._result = spec.job.result_file
        place = place_from_environment()
        self._rank = 0 if place is None else place.rank
        self._several = place is not None
        self._job = _job_id()
        self._requeues = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
        spec.job.log_path.parent.mkdir(parents=True, exist_ok=True)
        told = self._told()
        self._lost = told.lost if told else 0

    def run(self) -> None:
        # Another process may have failed while this one was still starting.
        if self._rank == 0 and not self._another_failed():
            self._write("running")
        try:
            redirect_output(rank_log(self._spec.job.log_path, self._rank))
            self._call_target()
        except BaseException as error:
            if self._may_go_on(error):
                self._stopped(error)
                self._exit(0)
            self._failed(error)
            self._exit(1)
        if self._rank == 0:
            self._write("done")

    def _call_target(self) -> None:
        spec = self._spec
        sys.path[:] = [*dict.fromkeys((*spec.sys_path, *sys.path))]
        target = import_target(spec.target, spec.config.cpus_per_task)
        if spec.needs_gpu:
            _check_gpu()
        self._stop.check("before it began")
        target(spec.job.payload, ignore_progress, self._stop)

    def _may_go_on(self, error: BaseException) -> bool:
        """Whether a later turn may go on from here. A process that failed says why before others
        lose touch with it; one that is gone without a word was killed, or its node died."""
        lost = isinstance(error, LostTouchError)
        # srun, too, ends the others where one of them failed.
        if self._several and (lost or self._stop.reason == "SIGTERM"):
            deadline = time.monotonic() + _OTHERS_SAY_SECONDS
            while not self._another_failed() and time.monotonic() < deadline:
                time.sleep(0.2)
        if self._another_failed():
            return False
        return lost or self._stop.requested or isinstance(error, Preempted)

    def _another_failed(self) -> bool:
        told = self._told()
        return told is not None and told.state == "failed" and told.requeues == self._requeues

    def _told(self) -> TaskOutcome | None:
        """What this job last said, in this turn or a former one."""
        return read_outcome(self._result, JobRecord(self._job, self._spec.submission, 0.0))

    def _exit(self, code: int) -> None:
        if not self._several:
            raise SystemExit(code) from None
        # The connections to the others are open, and their clean-up may wait for the others.
        flush_output()
        os._exit(code)

    def _failed(self, error: BaseException) -> None:
        """The first process that fails says why; the others fail because of it."""
        by_user = isinstance(error, UserError)
        if by_user:
            print(f"error: {error}", file=sys.stderr)
            reason = str(error)
        else:
            traceback.print_exception(error)
            reason = one_line(error, named=True, most=REASON_CHARACTERS)
        who = f"process {self._rank}: " if self._rank else ""
        if not self._another_failed():
            self._write("failed", f"{who}{reason}", by_user)

    def _stopped(self, error: BaseException) -> None:
        """Put the job back, unless SLURM does it, or nobody wants it back."""
        print(error, file=sys.stderr)
        if self._rank > 0:
            return
        reason = one_line(error)
        self._lost = self._lost + 1 if isinstance(error, LostTouchError) else 0
        record = read_record(self._result)
        if record is not None and record.job == self._job and record.cancelled:
            self._write("failed", "cancelled")
        elif not self._runs_on():
            self._write("stopped", reason)
        elif self._lost > MOST_LOST:
            self._write("failed", f"{reason}; that was so {self._lost} times in a row")
        elif self._requeues >= self._spec.config.max_requeues:
            self._write(
                "failed",
                f"{reason}, after {self._requeues} requeue(s), as many as cluster.max_requeues "
                "allows; it goes on from there when it is submitted again",
            )
        else:
            self._write("requeued", reason, requeues=self._requeues + 1)
            try:
                ask(["scontrol", "requeue", self._job], self._spec.config.command_timeout)
            except SlurmError as no_answer:
                self._write("failed", f"{reason}, and could not be put back: {no_answer}")

    def _runs_on(self) -> bool:
        """Whether SLURM would let the job run on: it was not cancelled, nor is being requeued."""
        command = ["squeue", "--all", "--noheader", "--format=%T", f"--jobs={self._job}"]
        try:
            return ask(command, self._spec.config.command_timeout).strip() == "RUNNING"
        except SlurmError as error:
            print(error, file=sys.stderr)
            return True

    def _write(
        self,
        state: OutcomeState,
        reason: str = "",
        caused_by_user: bool = False,
        requeues: int | None = None,
    ) -> None:
        outcome = TaskOutcome(
            self._job,
            self._spec.submission,
            state,
            requeues=self._requeues if requeues is None else requeues,
            updated=time.time(),
            reason=reason,
            caused_by_user=caused_by_user,
            lost=self._lost,
        )
        write_outcome(self._result, outcome)


def _check_gpu() -> None:
    """Raises a UserError instead of training on the CPU for days."""
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            f"{socket.gethostname()}: cluster.gpus_per_node asks for GPUs, but PyTorch can use "
            "none here: see nvidia-smi and the driver there, or set train.device=cpu"
        )


def _job_id() -> str:
    array, index = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{index}" if array and index else os.environ["SLURM_JOB_ID"]
