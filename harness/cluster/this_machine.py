"""Worker processes of this machine as a launcher, and how many of them and of threads there are."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from harness.cluster import Plan
from harness.config.cluster import LocalCluster
from harness.machine.environment import usable_cores, visible_gpus
from harness.processes.jobs import Job
from harness.processes.pool import run_jobs
from models.errors import UserError


def resolve_workers(
    config: LocalCluster, jobs: int, gpus: Sequence[str], notice: Callable[[str], None]
) -> tuple[int, int]:
    """How many workers, and how many CPU threads each, for this many jobs.

    With GPUs `auto` is one worker a GPU, or for as many as a trial has processes. Without, it is
    one worker a core, or for as many, as long as there are jobs, because two single-threaded trials
    side by side are faster than two trials one after the other on both cores. The threads share the
    cores evenly.

    Raises:
        UserError: more workers, or processes of a trial, than GPUs.
    """
    cores, processes = usable_cores(), config.processes_per_trial
    groups = len(gpus) // processes
    if gpus and not groups:
        raise UserError(
            f"cluster.processes_per_trial is {processes}, but {len(gpus)} GPU(s) are "
            f"visible and each process needs one: set it to {len(gpus)} or less"
        )
    if gpus and config.workers != "auto" and config.workers > groups:
        needed = "one" if processes == 1 else f"{processes} (cluster.processes_per_trial)"
        raise UserError(
            f"cluster.workers is {config.workers}, but {len(gpus)} GPU(s) are visible and "
            f"each worker needs {needed}: set it to {groups} or less, or to auto"
        )
    threads_wanted = processes if config.threads_per_worker == "auto" else config.threads_per_worker
    room = groups if gpus else cores // threads_wanted
    workers = max(1, min(room if config.workers == "auto" else config.workers, jobs))
    even_share = max(1, cores // workers)
    threads = even_share if config.threads_per_worker == "auto" else config.threads_per_worker
    busy = max(threads, processes)
    if workers * busy > cores:
        notice(
            f"{workers} worker(s) with {busy} thread(s) each share {cores} core(s), so they "
            f"slow each other down: cluster.workers and cluster.threads_per_worker can be lowered"
        )
    return workers, threads


@dataclass(frozen=True)
class LocalLauncher:
    """Runs jobs in a pool of workers; they end with this process."""

    config: LocalCluster
    notice: Callable[[str], None]

    def plan(self, jobs: int, *, wants_gpu: bool) -> Plan:
        gpus = visible_gpus() if wants_gpu else ()
        workers, threads = resolve_workers(self.config, jobs, gpus, self.notice)
        each = self.config.processes_per_trial
        starts = range(0, len(gpus) - each + 1, each)
        groups = tuple(",".join(gpus[start : start + each]) for start in starts)
        run = partial(run_jobs, workers=workers, threads_per_worker=threads, gpus=groups)
        return Plan(threads, each, workers, run)

    def scripts(self, jobs: Sequence[Job]) -> list[str]:
        raise UserError(
            "--print-sbatch shows what SLURM would be given, but the trials would run on this "
            "machine: add --cluster slurm (CLUSTER=slurm)"
        )
