"""What launching costs: tiny jobs through the pool of local workers, and whole tiny trials."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from harness.config.schema import TrialConfig
from harness.config.serialisation import to_plain
from harness.machine.environment import ROOT
from harness.processes.jobs import Job, JobEvent, JobProgressed, JobResult
from harness.processes.pool import run_jobs
from harness.processes.progress import Progress, ProgressListener
from harness.processes.signals import StopRequest
from harness.tracking.journal import Journal
from harness.tracking.store import Store
from harness.trial.spec import TrialSpec
from models.errors import UserError

_SIDE = 256

_PRODUCTS = 20


@dataclass(frozen=True)
class LaunchOverhead:
    """What launching jobs that do next to nothing took."""

    jobs: int
    workers: int
    wall: float
    """Seconds from the first job's start to the last one's end, those of starting the workers
    included, in which each imports torch once."""
    start: float
    """Seconds of `wall` before the first job began its work."""
    work: float
    """Seconds that the jobs' own work took, all together, measured within the jobs."""

    @property
    def seconds_a_job(self) -> float:
        """By how much the wall time of each job exceeds what its work takes on as many workers."""
        return (self.wall - self.work / self.workers) / self.jobs

    @property
    def seconds_a_job_once_started(self) -> float:
        """`seconds_a_job` without the start of the workers."""
        return self.seconds_a_job - self.start / self.jobs


def tiny_job(
    payload: Mapping[str, Any],  # noqa: ARG001
    report: ProgressListener,
    stop: StopRequest,  # noqa: ARG001
) -> float:
    """Some matrix products; how many seconds they took."""
    began = time.perf_counter()
    matrix = torch.full((_SIDE, _SIDE), 1.0 / _SIDE)
    for done in range(1, _PRODUCTS + 1):
        matrix = matrix @ matrix
        report(Progress("multiply", done, _PRODUCTS))
    return time.perf_counter() - began


def measure_launching(folder: Path, *, jobs: int, workers: int) -> LaunchOverhead:
    """Run tiny jobs through the pool that runs trials.

    Args:
        folder: for the jobs' logs.
        jobs: how many.
        workers: processes, one CPU thread each.
    """
    first: list[float] = []

    def listen(event: JobEvent) -> None:
        if isinstance(event, JobProgressed) and not first:
            first.append(time.perf_counter())

    began = time.perf_counter()
    results = run_jobs(
        [Job(f"job{number}", {}, folder / f"job{number}" / "log.txt") for number in range(jobs)],
        "benchmarks.launching:tiny_job",
        workers=workers,
        threads_per_worker=1,
        on_event=listen,
        gpus=(),
    )
    wall = time.perf_counter() - began
    work = sum(result.value for result in _good(results))
    return LaunchOverhead(jobs, workers, wall, min(first, default=began) - began, work)


def measure_whole_trials(config: TrialConfig, folder: Path, *, trials: int) -> float:
    """Median seconds of whole trials of one training step and few samples, in one worker.

    The first trial is left out: its worker imports the libraries, and it measures the reference
    that the others use.

    Args:
        config: of a trial; steps and samples are made as few as can be.
        folder: for the trials and an MLflow database.
        trials: how many are timed.
    """
    train = config.train.model_copy(
        update={"steps": 1, "batch_size": min(config.train.batch_size, 16)}
    )
    # As few as every sampler takes: Heun's solver wants three.
    few = {"steps": min(config.sample.steps, 3), "grid_images": 1}
    sample = config.sample.model_copy(update=few)
    evaluate = config.evaluate.model_copy(
        update={"samples": 16, "reference_images": 32, "inception_splits": 1}
    )
    parts = {"train": train, "sample": sample, "evaluate": evaluate}
    store = Store(f"sqlite:///{folder / 'mlflow.db'}", ROOT)
    store.prepare("benchmark", _ignore_event)
    parent = Journal(folder / "parent")
    parent.start(experiment="benchmark", run_name="parent", tags={}, params={})
    parent.close()
    jobs = []
    for seed in range(trials + 1):
        spec = TrialSpec(
            config=to_plain(config.model_copy(update={**parts, "seed": seed})),
            variant=config.attention.name,
            scale="benchmark",
            hash=f"{seed:012x}",
            folder=str(folder / "trials" / f"seed{seed}"),
            references=str(folder / "references"),
            parent=str(parent.folder),
            store_uri=store.uri,
            root=str(ROOT),
            threads=1,
            side_by_side=1,
        )
        payload = {"job": "trial", "spec": asdict(spec)}
        jobs.append(Job(f"seed{seed}", payload, Path(spec.folder) / "log.txt"))
    results = run_jobs(
        jobs,
        "harness.trial.run:run_trial_job",
        workers=1,
        threads_per_worker=1,
        on_event=_ignore_event,
        gpus=(),
    )
    return statistics.median(result.seconds for result in _good(results)[1:])


def _ignore_event(said: object) -> None:
    """Events of jobs and the tracking store's notices: a measurement has no user to tell."""


def _good(results: Sequence[JobResult]) -> Sequence[JobResult]:
    """The results, if all are good.

    Raises:
        UserError: a job failed.
    """
    for result in results:
        if not result.ok:
            raise UserError(f"{result.key} failed: {result.reason} (log: {result.log_path})")
    return results
