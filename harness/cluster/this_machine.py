"""Worker processes of this machine as a launcher.

What this machine offers, and how many workers and threads are made of it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from harness.config.cluster import LocalCluster
from harness.machine.environment import usable_cores
from harness.machine.gpus import visible_gpus
from harness.processes.jobs import Job, JobEvent, JobResult
from harness.processes.pool import run_jobs
from models.errors import UserError

if TYPE_CHECKING:
    from harness.config.cluster import LocalCluster


def resolve_workers(
    config: LocalCluster,
    jobs: int,
    *,
    gpus: Sequence[str] | None = None,
    on_warning: Callable[[str], None] = warnings.warn,
) -> tuple[int, int]:
    """How many workers, and how many CPU threads each, for this many jobs.

    With GPUs `auto` is one worker a GPU, or for as many as a trial has processes. Without, it is
    one worker a core, or for as many, as long as there are jobs, because two single-threaded trials
    side by side are faster than two trials one after the other on both cores. The threads share the
    cores evenly. `gpus` None asks the machine; pass () where trials run on the CPU whatever the
    machine has.

    Raises:
        UserError: more workers, or processes of a trial, than GPUs.
    """
    cores = usable_cores()
    usable_gpus = visible_gpus() if gpus is None else tuple(gpus)
    processes = config.processes_per_trial
    groups = len(usable_gpus) // processes
    if usable_gpus and not groups:
        raise UserError(
            f"cluster.processes_per_trial is {processes}, but {len(usable_gpus)} GPU(s) are "
            f"visible and each process needs one: set it to {len(usable_gpus)} or less"
        )
    if usable_gpus and config.workers != "auto" and config.workers > groups:
        needed = "one" if processes == 1 else f"{processes} (cluster.processes_per_trial)"
        raise UserError(
            f"cluster.workers is {config.workers}, but {len(usable_gpus)} GPU(s) are visible and "
            f"each worker needs {needed}: set it to {groups} or less, or to auto"
        )
    if config.workers != "auto":
        limit = config.workers
    elif usable_gpus:
        limit = groups
    elif config.threads_per_worker != "auto":
        limit = cores // config.threads_per_worker
    else:
        limit = cores // processes
    workers = max(1, min(limit, jobs))
    even_share = max(1, cores // workers)
    threads = even_share if config.threads_per_worker == "auto" else config.threads_per_worker
    busy = max(threads, processes)
    if workers * busy > cores:
        on_warning(
            f"{workers} worker(s) with {busy} thread(s) each share {cores} core(s), so they "
            f"slow each other down: cluster.workers and cluster.threads_per_worker can be lowered"
        )
    return workers, threads


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
