"""From the configuration to submitit's executor, and the very script that it hands to sbatch."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import SlurmExecutor

from harness.cluster.slurm.records import JOB_NAME
from harness.config.cluster import SlurmCluster
from harness.machine.environment import THREAD_VARIABLES
from harness.processes.worker_process import IMPORT_ROOT

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
        f"export PYTHONPATH={shlex.quote(str(IMPORT_ROOT))}${{PYTHONPATH:+:$PYTHONPATH}}",
        *config.setup,
    ]
