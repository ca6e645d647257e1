"""A SLURM cluster as a launcher: submits what is not queued, then follows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.cluster.slurm.follow import Follower
from harness.cluster.slurm.partitions import check_request
from harness.cluster.slurm.queue import require_slurm
from harness.cluster.slurm.submission import Submitted, Submitter
from harness.config.cluster import SlurmCluster
from harness.processes.jobs import Job, JobEvent, JobResult
from models.errors import Detached


@dataclass(frozen=True)
class SlurmLauncher:
    """Each job becomes one of SLURM's, which goes on when this process ends.

    Args:
        config: what each job asks for.
        runs_dir: of the results; a folder all nodes can reach.
        label: for people who look at the queue.
        detach: leave after the submission.
        notice: told what happens.
    """

    config: SlurmCluster
    runs_dir: Path
    label: str
    detach: bool
    notice: Callable[[str], None]
    wants_gpu: bool = False

    @property
    def threads(self) -> int:
        return self.config.cpus_per_task

    @property
    def processes(self) -> int:
        return self.config.tasks

    @property
    def side_by_side(self) -> int:
        """SLURM keeps the cores and GPUs of jobs apart."""
        return 1

    def plan(self, jobs: int, *, wants_gpu: bool) -> SlurmLauncher:
        require_slurm()
        check_request(self.config)
        return replace(self, wants_gpu=wants_gpu)

    def run(
        self, jobs: Sequence[Job], target: str, on_event: Callable[[JobEvent], None]
    ) -> list[JobResult]:
        submitted = self._submitter().submit(jobs, target)
        self._tell(submitted)
        if self.detach:
            raise Detached(len(jobs))
        follower = Follower(jobs, submitted.records, self.config, on_event, self.notice)
        return follower.follow()

    def scripts(self, jobs: Sequence[Job]) -> list[str]:
        return self._submitter().scripts(jobs)

    def _submitter(self) -> Submitter:
        return Submitter(self.config, self.runs_dir, self.label, self.wants_gpu, self.notice)

    def _tell(self, submitted: Submitted) -> None:
        waiting = len(submitted.records) - len(submitted.new)
        if waiting:
            self.notice(f"{waiting} job(s) were submitted before and are queued or running")
        if submitted.new:
            ids = {submitted.records[key].job.split("_")[0] for key in submitted.new}
            listed = ", ".join(sorted(ids, key=int))
            where = self.config.partition or "the default partition"
            self.notice(f"{len(submitted.new)} job(s) submitted to {where}: {listed}")
