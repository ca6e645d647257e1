"""Where trials run: in processes of this machine or jobs of a cluster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from harness.config.cluster import ClusterConfig, LocalCluster, SlurmCluster
from harness.processes.jobs import Job, JobEvent, JobResult
from models.errors import UserError

RunJobs = Callable[[Sequence[Job], str, Callable[[JobEvent], None]], list[JobResult]]


@dataclass(frozen=True)
class Plan:
    """How a number of jobs will be run."""

    threads: int
    """CPU threads of each process."""
    processes: int
    """How many train a trial together."""
    side_by_side: int
    """How many jobs share a machine, as far as known."""
    run: RunJobs
    """Runs jobs with a target (see `Job`) and tells of them in this thread; one result a job, in
    their order. Raises a UserError where they cannot be run like this and none was started,
    `Interrupted` once they have saved and stopped for Ctrl-C or SIGTERM, `Detached` if they go on.
    """


class Launcher(Protocol):
    """A place where trials run."""

    def plan(self, jobs: int, *, wants_gpu: bool) -> Plan:
        """How so many jobs would be run; `wants_gpu` is false where all of them keep to CPUs."""

    def scripts(self, jobs: Sequence[Job]) -> list[str]:
        """What would be handed to a scheduler for these jobs; a UserError where there is none, or
        the request can never be met."""


def make_launcher(
    config: ClusterConfig,
    runs_dir: Path,
    label: str,
    notice: Callable[[str], None],
    *,
    detach: bool = False,
) -> Launcher:
    """The launcher that a configuration describes, for jobs whose results belong into `runs_dir`;
    `label` says to people what they are for, and `notice` tells the user what happens. With
    `detach` they are left to themselves; a UserError where they would end with this process."""
    match config:
        case LocalCluster():
            from harness.cluster.this_machine import LocalLauncher

            if detach:
                raise UserError(
                    "--detach leaves jobs to a scheduler, but the trials would run in processes of "
                    "this command: add --cluster slurm (CLUSTER=slurm), or use nohup or tmux"
                )
            return LocalLauncher(config, notice)
        case SlurmCluster():
            # submitit takes a moment to import.
            from harness.cluster.slurm.launcher import SlurmLauncher

            return SlurmLauncher(config, runs_dir, label, detach, notice)
