"""Handing jobs to SLURM once: what is queued already is not submitted again.

From the configuration to submitit's executor, and the very script that it hands to sbatch.
"""

from __future__ import annotations

import contextlib
import io
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from harness.cluster.slurm.queue import (
    JOB_NAME,
    JobRecord,
    QueuedJob,
    ask,
    is_active,
    own_words,
    read_queue,
    read_record,
    write_record,
)
from harness.cluster.slurm.task import TaskSpec, run_task
from harness.config.cluster import SlurmCluster
from harness.machine.environment import ROOT, THREAD_VARIABLES
from harness.machine.files import write_json
from harness.processes.jobs import Job
from models.errors import UserError

STOP_SIGNAL = "USR1"

_START_DEAF = """sh -c 'trap "" USR1 USR2 TERM; exec "$0" "$@"'"""
"""A process that has nothing to save yet must not be killed, and its job fail, by a signal that
comes while it imports what will listen to it."""


def executor(
    config: SlurmCluster, folder: Path, submission: str, label: str, *, single: bool
) -> SlurmExecutor:
    """An executor that submits as configured.

    Args:
        config: what each job asks for.
        folder: for the script and what SLURM and submitit write before a job has its own log.
        submission: becomes part of the jobs' name, by which they are found again.
        label: for people who look at the queue.
        single: whether the job is one process on one node, whatever is configured.
    """
    if single:
        config = replace_tasks(config)
    made = SlurmExecutor(folder, python=f"{_START_DEAF} {shlex.quote(sys.executable)}")
    made.update_parameters(
        job_name=JOB_NAME.format(submission=submission),
        comment=label,
        partition=config.partition,
        account=config.account,
        qos=config.qos,
        constraint=config.constraint,
        nodes=config.nodes,
        ntasks_per_node=config.tasks_per_node,
        gpus_per_node=config.gpus_per_node,
        cpus_per_task=config.cpus_per_task,
        mem=config.memory,
        time=config.minutes,
        array_parallelism=config.max_parallel,
        wckey=None,
        stderr_to_stdout=True,
        setup=_setup(config),
        # Since 22.05 srun does not take over --cpus-per-task. A process that fails must not leave
        # the others waiting for it; one that is done must not have them ended, as WaitTime would.
        srun_args=[
            f"--cpus-per-task={config.cpus_per_task}",
            "--kill-on-bad-exit=1",
            "--wait=0",
        ],
        additional_parameters={
            "signal": f"{STOP_SIGNAL}@{config.signal_seconds}",
            "requeue": True,
            **config.additional,
        },
    )
    return made


def script_text(made: SlurmExecutor, count: int) -> str:
    """What the executor would hand to sbatch for `count` jobs, an array where there are several."""
    parameters: dict[str, Any] = dict(made.parameters)
    if count > 1:
        parameters["map_count"] = count
    shown = SlurmExecutor(made.folder)
    shown.parameters = parameters
    text: str = shown._make_submission_file_text(made._submitit_command_str, "")
    return text


def replace_tasks(config: SlurmCluster) -> SlurmCluster:
    """The same for a job of one process."""
    gpus = None if config.gpus_per_node is None else 1
    return config.model_copy(update={"nodes": 1, "tasks_per_node": 1, "gpus_per_node": gpus})


def _setup(config: SlurmCluster) -> list[str]:
    return [
        # The shell outlives the signals; the trial, which gets them as well, decides what to do.
        f"trap : {STOP_SIGNAL} USR2 TERM",
        *(f"export {name}={config.cpus_per_task}" for name in THREAD_VARIABLES),
        f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}",
        *config.setup,
    ]


FOLDER = "slurm"
"""Below the runs folder: a folder a submission."""

_UNRECORDED = "unrecorded.json"
"""In a submission's folder from before sbatch is called until all records are written."""

_DEFAULT_ARRAY = 1001


@dataclass(frozen=True)
class Submitted:
    """What became of the jobs: `new` were submitted now, the others were queued before."""

    records: dict[str, JobRecord]
    """By the jobs' keys."""
    new: tuple[str, ...]


@dataclass(frozen=True)
class Submitter:
    """Submits jobs whose results belong below one runs folder."""

    config: SlurmCluster
    runs_dir: Path
    label: str
    wants_gpu: bool
    notice: Callable[[str], None]

    def submit(self, jobs: Sequence[Job], target: str) -> Submitted:
        """Submit those that are not in the queue, all of them or none.

        Raises:
            UserError: sbatch refused the jobs, or SLURM gives no answer.
        """
        folder = self.runs_dir / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            queue = read_queue(self.config.command_timeout)
            self._cancel_unrecorded(folder, queue)
            records = attached(jobs, queue)
            left = [job for job in jobs if job.key not in records]
            if left:
                records |= self._submit_all(left, target)
            return Submitted(records, tuple(job.key for job in left))

    def scripts(self, jobs: Sequence[Job]) -> list[str]:
        """The scripts that `submit` would use; nothing is written and nobody is told."""
        known = attached(jobs, read_queue(self.config.command_timeout))
        left = [job for job in jobs if job.key not in known]
        submission = _new_name()
        folder = self._folder(submission)
        return [
            script_text(
                executor(self.config, folder, submission, self.label, single=single), len(batch)
            )
            for single, batch in self._batches(left)
        ]

    def _submit_all(self, jobs: Sequence[Job], target: str) -> dict[str, JobRecord]:
        submission = _new_name()
        folder = self._folder(submission)
        # The jobs are pickled into it, with the address of the MLflow store and its password.
        folder.mkdir(parents=True, mode=0o700)
        unrecorded = folder / _UNRECORDED
        write_json(unrecorded, [job.key for job in jobs])
        ids: dict[str, str] = {}
        try:
            for single, batch in self._batches(jobs):
                made = executor(self.config, folder, submission, self.label, single=single)
                specs = [self._spec(job, target, submission) for job in batch]
                # submitit prints what it raises as well.
                with contextlib.redirect_stderr(io.StringIO()):
                    submitted = made.map_array(run_task, specs)
                ids |= {job.key: str(it.job_id) for job, it in zip(batch, submitted, strict=True)}
            for pickled in folder.glob("*_submitted.pkl"):
                pickled.chmod(0o600)
        except (FailedJobError, FailedSubmissionError) as error:
            self._take_back(ids.values())
            shutil.rmtree(folder, ignore_errors=True)
            message = own_words(str(error))
            raise UserError(f"sbatch refused the jobs, so none was submitted: {message}") from error
        now = time.time()
        records = {key: JobRecord(job, submission, now) for key, job in ids.items()}
        for job in jobs:
            write_record(job.result_file, records[job.key])
        unrecorded.unlink()
        return records

    def _batches(self, jobs: Sequence[Job]) -> list[tuple[bool, Sequence[Job]]]:
        """Jobs of one submission script each: alike, and no more than an array may hold."""
        most = self._array_size()
        batches: list[tuple[bool, Sequence[Job]]] = []
        for single in (True, False):
            alike = [job for job in jobs if job.single_process == single]
            batches += [(single, alike[at : at + most]) for at in range(0, len(alike), most)]
        return batches

    def _array_size(self) -> int:
        settings = ask(["scontrol", "show", "config"], self.config.command_timeout)
        for line in settings.splitlines():
            name, _, value = line.partition("=")
            if name.strip() == "MaxArraySize" and value.strip().isdigit():
                # 0 means that the cluster takes no arrays.
                return max(1, int(value))
        return _DEFAULT_ARRAY

    def _spec(self, job: Job, target: str, submission: str) -> TaskSpec:
        return TaskSpec(
            target=target,
            payload=job.payload,
            log=str(job.log_path.absolute()),
            result=str(job.result_file.absolute()),
            submission=submission,
            threads=self.config.cpus_per_task,
            max_requeues=self.config.max_requeues,
            needs_gpu=self.wants_gpu and self.config.gpus_per_node is not None,
            command_timeout=self.config.command_timeout,
            sys_path=tuple(str(Path(entry).absolute()) for entry in sys.path),
        )

    def _folder(self, submission: str) -> Path:
        folder = self.runs_dir / FOLDER / submission
        if "%" in str(folder):
            raise UserError(
                f"SLURM takes a % in a path for a pattern, but --runs-dir is {self.runs_dir}: "
                "choose another folder"
            )
        return folder

    def _cancel_unrecorded(self, folder: Path, queue: dict[str, QueuedJob]) -> None:
        """Jobs of a launcher that died while it submitted cannot be told apart: end them."""
        for unrecorded in folder.glob(f"*/{_UNRECORDED}"):
            submission = unrecorded.parent.name
            name = JOB_NAME.format(submission=submission)
            jobs = [job.job for job in queue.values() if job.name == name and job.active]
            if jobs:
                self.notice(
                    f"an earlier command died while it submitted: its {len(jobs)} job(s) are "
                    "cancelled and submitted anew"
                )
                self._take_back(jobs)
            unrecorded.unlink()

    def _take_back(self, jobs: Iterable[str]) -> None:
        ids = list(jobs)
        if ids:
            ask(["scancel", *ids], self.config.command_timeout)


def attached(jobs: Sequence[Job], queue: dict[str, QueuedJob]) -> dict[str, JobRecord]:
    """The records of those jobs that are queued or running, by their keys."""
    records = {}
    for job in jobs:
        record = read_record(job.result_file)
        if record is not None and is_active(job.result_file, record, queue):
            records[job.key] = record
    return records


def _new_name() -> str:
    return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"
