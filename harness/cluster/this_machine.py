"""Worker processes of this machine as a launcher."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from harness.cluster.machine import resolve_workers
from harness.config.cluster import LocalCluster
from harness.machine.gpus import visible_gpus
from harness.processes.jobs import Job, JobEvent, JobResult
from harness.processes.pool import run_jobs
from models.errors import UserError


@dataclass(frozen=True)
class LocalPlan:
    """So many workers, with so many threads each, on these GPUs or groups of GPUs in turn."""

    side_by_side: int
    threads: int
    gpus: tuple[str, ...]
    processes: int

    def run(
        self, jobs: Sequence[Job], target: str, on_event: Callable[[JobEvent], None]
    ) -> list[JobResult]:
        return run_jobs(
            jobs,
            target,
            workers=self.side_by_side,
            threads_per_worker=self.threads,
            on_event=on_event,
            gpus=self.gpus,
        )


@dataclass(frozen=True)
class LocalLauncher:
    """Runs jobs in a pool of workers; they end with this process."""

    config: LocalCluster
    notice: Callable[[str], None]

    def plan(self, jobs: int, *, wants_gpu: bool) -> LocalPlan:
        gpus = visible_gpus() if wants_gpu else ()
        workers, threads = resolve_workers(self.config, jobs, gpus=gpus, on_warning=self.notice)
        each = self.config.processes_per_trial
        starts = range(0, len(gpus) - each + 1, each)
        groups = tuple(",".join(gpus[start : start + each]) for start in starts)
        return LocalPlan(workers, threads, groups, each)

    def scripts(self, jobs: Sequence[Job]) -> list[str]:
        raise UserError(
            "--print-sbatch shows what SLURM would be given, but the trials would run on this "
            "machine: add --cluster slurm (CLUSTER=slurm)"
        )
