"""`python -m benchmarks overhead`: what the harness adds to training steps and to trials.

`steps` measures the steps; here are tiny jobs through the pool of local workers, and whole tiny
trials.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console

from benchmarks.steps import measure_step_overhead
from benchmarks.turns import spread
from harness.config.load import load_ablation
from harness.config.schema import TrialConfig
from harness.config.serialisation import to_plain
from harness.machine.environment import ROOT
from harness.processes.jobs import Job, JobEvent, JobProgressed, JobResult
from harness.processes.pool import run_jobs
from harness.processes.progress import Progress, ProgressListener
from harness.processes.signals import StopRequest
from harness.terminal.progress import ProgressView
from harness.tracking.journal import Journal
from harness.tracking.store import Store
from harness.trial.spec import TrialSpec
from models.errors import UserError

_SIDE = 256
_PRODUCTS = 20


def run(options: argparse.Namespace) -> int:
    """Measure steps, launching and whole trials, and print what was found."""
    config = _config(options)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with ProgressView(Console(stderr=True), unit="rounds") as view:
            measured = measure_step_overhead(config, folder, options.steps, options.rounds, view)
        launched = measure_launching(folder, jobs=options.jobs, workers=options.workers)
        trial_seconds = _measure_whole_trials(config, folder, options.trials)
    wall_ratios, cpu_ratios = zip(*(one.ratios for one in measured), strict=True)
    found = {
        "steps": options.steps,
        "rounds": options.rounds,
        "harness_seconds_a_step": median(wall for one in measured for wall, _ in one.harness),
        "bare_seconds_a_step": median(wall for one in measured for wall, _ in one.bare),
        "publisher_cpu_seconds_a_step": median(one.publisher for one in measured),
        "ratio": median(wall_ratios),
        "wall_ratios": wall_ratios,
        "cpu_ratios": cpu_ratios,
        "jobs": options.jobs,
        "workers": options.workers,
        "launch_seconds_a_job": launched.a_job,
        "launch_seconds_a_job_once_started": launched.a_job - launched.start / options.jobs,
        "seconds_to_start_the_workers": launched.start,
        "work_seconds_a_job": launched.work / options.jobs,
        "whole_trial_seconds": trial_seconds,
    }
    print(json.dumps(found, indent=2) if options.json else _text(options, found))
    return 0


def _config(options: argparse.Namespace) -> TrialConfig:
    ablation = load_ablation(
        options.ablation,
        scale=options.scale,
        seeds=1,
        overrides=options.overrides,
        experiments_dir=options.experiments_dir,
    )
    for trial in ablation.trials:
        if trial.variant == options.variant:
            return trial.config
    raise UserError(
        f"--variant is {options.variant}, but {options.ablation} has {', '.join(ablation.variants)}"
    )


def _text(options: argparse.Namespace, found: dict[str, Any]) -> str:
    wall, cpu = found["wall_ratios"], found["cpu_ratios"]
    return "\n".join(
        (
            f"{options.variant} at {options.scale}, {found['steps']} steps a round, median of "
            f"{found['rounds']} rounds, {options.threads} CPU thread(s)",
            f"  harness: {found['harness_seconds_a_step'] * 1000:.2f} ms a step",
            f"  plain PyTorch loop: {found['bare_seconds_a_step'] * 1000:.2f} ms a step",
            f"  ratio: {spread(wall, 3)} of wall time, {spread(cpu, 3)} of CPU time",
            f"{found['jobs']} tiny jobs on {found['workers']} workers",
            f"  launching: {found['launch_seconds_a_job']:.3f} s a job beyond the "
            f"{found['work_seconds_a_job']:.3f} s of its own work, the "
            f"{found['seconds_to_start_the_workers']:.1f} s to start the workers shared out among "
            f"all jobs; {found['launch_seconds_a_job_once_started']:.3f} s once they run",
            "a whole trial of one step and 16 samples, all stages from data to MLflow",
            f"  {found['whole_trial_seconds']:.2f} s in a worker that runs trials already",
        )
    )


@dataclass(frozen=True)
class LaunchOverhead:
    """Seconds that launching jobs which do next to nothing took."""

    wall: float
    """From the first job's start to the last one's end, with those of starting the workers, in
    which each imports torch once."""
    start: float
    """Of `wall`, before the first job began its work."""
    work: float
    """Of the jobs' own work, all together, measured within the jobs."""
    a_job: float
    """By how much the wall time of each job exceeds what its work takes on as many workers."""


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
    """Run tiny jobs through the pool that runs trials, in workers of one CPU thread each.

    `folder` is for the jobs' logs.
    """
    worked: list[float] = []

    def listen(event: JobEvent) -> None:
        if isinstance(event, JobProgressed):
            worked.append(time.perf_counter())

    began = time.perf_counter()
    results = run_jobs(
        [Job(f"job{number}", {}, folder / f"job{number}" / "log.txt") for number in range(jobs)],
        "benchmarks.overhead:tiny_job",
        workers=workers,
        threads_per_worker=1,
        on_event=listen,
        gpus=(),
    )
    wall = time.perf_counter() - began
    work = sum(result.value for result in _good(results))
    start = min(worked, default=began) - began
    return LaunchOverhead(wall, start, work, a_job=(wall - work / workers) / jobs)


def _measure_whole_trials(config: TrialConfig, folder: Path, trials: int) -> float:
    """Median seconds of whole trials of one training step and few samples, in one worker.

    One more is run first and left out: its worker imports the libraries, and it measures the
    reference that the others use.
    """
    # As few steps of sampling as every sampler takes: Heun's solver wants three.
    least = {
        "train": {"steps": 1, "batch_size": min(config.train.batch_size, 16)},
        "sample": {"steps": min(config.sample.steps, 3), "grid_images": 1},
        "evaluate": {"samples": 16, "reference_images": 32, "inception_splits": 1},
    }
    sections = {
        name: getattr(config, name).model_copy(update=fields) for name, fields in least.items()
    }
    store = Store(f"sqlite:///{folder / 'mlflow.db'}", ROOT)
    store.prepare("benchmark", lambda _: None)
    parent = Journal(folder / "parent")
    parent.start(experiment="benchmark", run_name="parent", tags={}, params={})
    parent.close()
    jobs = []
    for seed in range(trials + 1):
        spec = TrialSpec(
            config=to_plain(config.model_copy(update={**sections, "seed": seed})),
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
        on_event=lambda _: None,
        gpus=(),
    )
    return median(result.seconds for result in _good(results)[1:])


def _good(results: Sequence[JobResult]) -> Sequence[JobResult]:
    for result in results:
        if not result.ok:
            raise UserError(f"{result.key} failed: {result.reason} (log: {result.log_path})")
    return results
