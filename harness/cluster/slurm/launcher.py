"""A SLURM cluster as a launcher: submits what is not queued, through submitit, then follows it."""

from __future__ import annotations

import contextlib
import io
import re
import secrets
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path

from filelock import FileLock
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from harness.cluster import Plan
from harness.cluster.slurm.follow import Follower
from harness.cluster.slurm.partitions import check_request
from harness.cluster.slurm.queue import (
    JOB_NAME,
    JobRecord,
    QueuedJob,
    ask,
    is_active,
    own_words,
    read_queue,
    read_record,
    require_slurm,
    write_record,
)
from harness.cluster.slurm.task import TaskSpec, run_task
from harness.config.cluster import SlurmCluster
from harness.machine.environment import ROOT, THREAD_VARIABLES
from harness.machine.files import write_json
from harness.processes.jobs import Job, JobEvent, JobResult
from harness.processes.worker import absolute_sys_path
from models.errors import Detached, UserError

STOP_SIGNAL = "USR1"

_START_DEAF = """sh -c 'trap "" USR1 USR2 TERM; exec "$0" "$@"'"""
"""A process that has nothing to save yet must not be killed, and its job fail, by a signal that
comes while it imports what will listen to it."""

_FOLDER = "slurm"
"""Below the runs folder: a folder a submission."""

_UNRECORDED = "unrecorded.json"
"""In a submission's folder from before sbatch is called until all records are written."""

_DEFAULT_ARRAY = 1001

MakeSpec = Callable[[str, Job], TaskSpec]
"""From the name of a submission and one of its jobs."""


@dataclass(frozen=True)
class SlurmLauncher:
    """Each job becomes one of SLURM's, which goes on when this process ends."""

    config: SlurmCluster
    runs_dir: Path
    """Of the results; a folder all nodes can reach."""
    label: str
    """For people who look at the queue."""
    detach: bool
    """Leave after the submission."""
    notice: Callable[[str], None]

    def plan(self, jobs: int, *, wants_gpu: bool) -> Plan:
        require_slurm()
        check_request(self.config)
        # SLURM keeps the cores and GPUs of jobs apart.
        run = partial(self._run, wants_gpu)
        return Plan(self.config.cpus_per_task, self.config.tasks, 1, run)

    def _run(
        self,
        wants_gpu: bool,
        jobs: Sequence[Job],
        target: str,
        on_event: Callable[[JobEvent], None],
    ) -> list[JobResult]:
        needs_gpu = wants_gpu and self.config.gpus_per_node is not None
        spec = partial(TaskSpec, target, self.config, needs_gpu, absolute_sys_path())
        records = self._submit(jobs, spec)
        if self.detach:
            raise Detached(len(jobs))
        return Follower(jobs, records, self.config, on_event, self.notice).follow()

    def scripts(self, jobs: Sequence[Job]) -> list[str]:
        """The scripts that `run` would hand to sbatch; nothing is written and nobody is told."""
        known = _attached(jobs, read_queue(self.config.command_timeout))
        submission = _new_name()
        folder = self._folder(submission)
        left = [job for job in jobs if job.key not in known]
        return [
            script_text(executor(config, folder, submission, self.label), len(batch))
            for config, batch in self._batches(left)
        ]

    def _submit(self, jobs: Sequence[Job], spec: MakeSpec) -> dict[str, JobRecord]:
        """Submit those that are not in the queue, all of them or none; the records of all jobs."""
        folder = self.runs_dir / _FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / ".lock"):
            queue = read_queue(self.config.command_timeout)
            self._cancel_unrecorded(folder, queue)
            known = _attached(jobs, queue)
            left = [job for job in jobs if job.key not in known]
            new = self._submit_all(left, spec) if left else {}
        if known:
            self.notice(f"{len(known)} job(s) were submitted before and are queued or running")
        if new:
            ids = sorted({record.job.split("_")[0] for record in new.values()}, key=int)
            where = self.config.partition or "the default partition"
            self.notice(f"{len(new)} job(s) submitted to {where}: {', '.join(ids)}")
        return known | new

    def _submit_all(self, jobs: Sequence[Job], spec: MakeSpec) -> dict[str, JobRecord]:
        submission = _new_name()
        folder = self._folder(submission)
        # The jobs are pickled into it, with the address of the MLflow store and its password.
        folder.mkdir(parents=True, mode=0o700)
        unrecorded = folder / _UNRECORDED
        write_json(unrecorded, [job.key for job in jobs])
        ids: dict[str, str] = {}
        try:
            for config, batch in self._batches(jobs):
                made = executor(config, folder, submission, self.label)
                specs = [spec(submission, _absolute(job)) for job in batch]
                # submitit prints what it raises as well.
                with contextlib.redirect_stderr(io.StringIO()):
                    submitted = made.map_array(run_task, specs)
                ids |= {job.key: str(it.job_id) for job, it in zip(batch, submitted, strict=True)}
            for pickled in folder.glob("*_submitted.pkl"):
                pickled.chmod(0o600)
        except (FailedJobError, FailedSubmissionError) as error:
            self._take_back(ids.values())
            shutil.rmtree(folder, ignore_errors=True)
            raise UserError(
                f"sbatch refused the jobs, so none was submitted: {own_words(str(error))}"
            ) from error
        records = {key: JobRecord(job, submission, time.time()) for key, job in ids.items()}
        for job in jobs:
            write_record(job.result_file, records[job.key])
        unrecorded.unlink()
        return records

    def _batches(self, jobs: Sequence[Job]) -> Iterator[tuple[SlurmCluster, Sequence[Job]]]:
        """Jobs of a script each, alike and no more than an array holds, and what they ask for."""
        most = self._array_size()
        for single in (True, False):
            alike = [job for job in jobs if job.single_process == single]
            config = of_one_process(self.config) if single else self.config
            for at in range(0, len(alike), most):
                yield config, alike[at : at + most]

    def _array_size(self) -> int:
        settings = ask(["scontrol", "show", "config"], self.config.command_timeout)
        found = re.search(r"^MaxArraySize\s*=\s*(\d+)\s*$", settings, re.MULTILINE)
        # 0 means that the cluster takes no arrays.
        return max(1, int(found[1])) if found else _DEFAULT_ARRAY

    def _folder(self, submission: str) -> Path:
        folder = self.runs_dir / _FOLDER / submission
        if "%" in str(folder):
            raise UserError(
                f"SLURM takes a % in a path for a pattern, but --runs-dir is {self.runs_dir}: "
                "choose another folder"
            )
        return folder

    def _cancel_unrecorded(self, folder: Path, queue: Mapping[str, QueuedJob]) -> None:
        """Jobs of a launcher that died while it submitted cannot be told apart: end them."""
        for unrecorded in folder.glob(f"*/{_UNRECORDED}"):
            name = JOB_NAME.format(submission=unrecorded.parent.name)
            jobs = [job.job for job in queue.values() if job.name == name and job.active]
            if jobs:
                self.notice(
                    f"an earlier command died while it submitted: its {len(jobs)} job(s) are "
                    "cancelled and submitted anew"
                )
                self._take_back(jobs)
            unrecorded.unlink()

    def _take_back(self, jobs: Iterable[str]) -> None:
        if ids := list(jobs):
            ask(["scancel", *ids], self.config.command_timeout)


def _attached(jobs: Sequence[Job], queue: Mapping[str, QueuedJob]) -> dict[str, JobRecord]:
    """The records of those jobs that are queued or running, by their keys."""
    records = {job.key: (job.result_file, read_record(job.result_file)) for job in jobs}
    return {
        key: record
        for key, (result, record) in records.items()
        if record is not None and is_active(result, record, queue)
    }


def _absolute(job: Job) -> Job:
    result = job.result_file.absolute()
    return replace(job, log_path=job.log_path.absolute(), result_path=result)


def _new_name() -> str:
    return f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def of_one_process(config: SlurmCluster) -> SlurmCluster:
    """What a job asks for that is one process on one node, whatever is configured."""
    gpus = None if config.gpus_per_node is None else 1
    return config.model_copy(update={"nodes": 1, "tasks_per_node": 1, "gpus_per_node": gpus})


def executor(config: SlurmCluster, folder: Path, submission: str, label: str) -> SlurmExecutor:
    """An executor that submits as configured, with a folder for the script and what SLURM and
    submitit write before a job has its own log; by `submission` the jobs are found again."""
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
        setup=[
            # The shell outlives the signals; the trial, which gets them too, decides what to do.
            f"trap : {STOP_SIGNAL} USR2 TERM",
            *(f"export {name}={config.cpus_per_task}" for name in THREAD_VARIABLES),
            f"export PYTHONPATH={shlex.quote(str(ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}",
            *config.setup,
        ],
        # Since 22.05 srun does not take over --cpus-per-task. A process that fails must not leave
        # the others waiting for it; one that is done must not have them ended, as WaitTime would.
        srun_args=[f"--cpus-per-task={config.cpus_per_task}", "--kill-on-bad-exit=1", "--wait=0"],
        additional_parameters={
            "signal": f"{STOP_SIGNAL}@{config.signal_seconds}",
            "requeue": True,
            **config.additional,
        },
    )
    return made


def script_text(made: SlurmExecutor, count: int) -> str:
    """What the executor would hand to sbatch for `count` jobs, an array where there are several."""
    shown = SlurmExecutor(made.folder)
    shown.parameters = made.parameters | ({"map_count": count} if count > 1 else {})
    text: str = shown._make_submission_file_text(made._submitit_command_str, "")
    return text
