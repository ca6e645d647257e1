"""What the harness adds to the time of a training step, beside a plain PyTorch loop.

The same training steps in a plain PyTorch loop: what the harness's own cost is measured against.

Network, loss, noise, optimizer, schedule, clipping and EMA are those of the trainer, so the weights
are too, bit by bit. There is no trainer, no callback, no logging, no check and no checkpoint.

`python -m benchmarks overhead`: what the harness adds to training steps and to trials.

What launching costs: tiny jobs through the pool of local workers, and whole tiny trials.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from harness.cli.options import Commands, add_experiments_dir
from harness.config.schema import TrialConfig
from harness.config.serialisation import to_plain
from harness.data.batches import BatchOrder, draw_order, loader_of
from harness.data.datasets import load_data_set
from harness.data.images import DataSet, ImageSet
from harness.machine.environment import ROOT
from harness.processes.jobs import Job, JobEvent, JobProgressed, JobResult
from harness.processes.pool import run_jobs
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from harness.tracking.journal import Journal
from harness.tracking.lightning_logger import JournalLogger
from harness.tracking.publisher import THREAD_NAME, Publisher
from harness.tracking.store import Store
from harness.training.build import build_module
from harness.training.hardware import Precision, choose_device
from harness.training.train import train
from harness.trial.spec import TrialSpec
from models.diffusion_module import Batch
from models.errors import UserError

if TYPE_CHECKING:
    from harness.config.schema import TrialConfig


class BareLoop:
    """One process's training, step by step.

    Args:
        config: of the trial; one rate of learning for all weights, no accumulation.
        images: the training images.
        device: where to train.
        precision: resolved.
    """

    def __init__(
        self, config: TrialConfig, images: ImageSet, device: torch.device, precision: Precision
    ) -> None:
        train = config.train
        self.config = config
        self.images = images
        self.device = device
        self.half = precision == "bf16-mixed"
        self.module = build_module(config, images.shape, len(images.class_names)).to(device)
        self.network = self.module.backbone
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=train.learning_rate,
            betas=train.betas,
            weight_decay=train.weight_decay,
            fused=True,
        )
        warmup = max(train.warmup_steps, 1)
        self.schedule = LambdaLR(self.optimizer, lambda step: min((step + 1) / warmup, 1.0))
        average = get_ema_multi_avg_fn(train.ema_decay)
        self.ema = AveragedModel(self.network, multi_avg_fn=average)

    def batches(self) -> DataLoader[Batch]:
        """Those of all steps, in order."""
        order = BatchOrder(draw_order(self.config, self.images), 0, self.config.train.steps)
        return loader_of(self.images, order, self.config.seed, self.config.data.workers)

    def step(self, batch: Batch) -> Tensor:
        """Train on a batch; its mean loss."""
        batch = Batch(*(part.to(self.device) for part in batch))
        self.optimizer.zero_grad()
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.half):
            loss = self.module.batch_losses(batch).mean()
        loss.backward()
        limit = self.config.train.gradient_clip or float("inf")
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), limit)
        self.optimizer.step()
        self.schedule.step()
        self.ema.update_parameters(self.network)
        return loss.detach()


WARM_UP_STEPS = 10

_EXPERIMENT = "benchmark"


@dataclass(frozen=True)
class Seconds:
    """Of some steps, the mean of one."""

    wall: float
    cpu: float
    """Of the thread that trains."""


@dataclass(frozen=True)
class Round:
    """One training, in which each step of the harness was followed by the same one of the loop.

    One entry a block of as many steps as lie between two logged metrics.
    """

    harness: tuple[Seconds, ...]
    bare: tuple[Seconds, ...]
    publisher: float
    """Seconds of CPU a step that the thread took which sends metrics to MLflow. It sends every two
    seconds, so this is the less the shorter a step is."""

    @property
    def wall_ratio(self) -> float:
        """The harness's time over the loop's, the median of the blocks."""
        return statistics.median(
            one.wall / other.wall for one, other in zip(self.harness, self.bare, strict=True)
        )

    @property
    def cpu_ratio(self) -> float:
        """The same of CPU time, the publisher's included; other programs disturb it less."""
        return statistics.median(
            (one.cpu + self.publisher) / other.cpu
            for one, other in zip(self.harness, self.bare, strict=True)
        )


def measure_step_overhead(
    config: TrialConfig,
    folder: Path,
    *,
    steps: int,
    rounds: int,
    on_progress: ProgressListener = ignore_progress,
) -> tuple[Round, ...]:
    """Train with the harness and with a plain loop, step by step in turns, from the same start.

    The harness trains as in a trial: Lightning, its callbacks, a journal, and a publisher that
    sends it to an MLflow database in the background. Validation and checkpoints, which the plain
    loop does not have, are left out, and so are the first ten steps of a round.

    Args:
        config: of a trial.
        folder: for what the harness writes.
        steps: that are timed, a round; whole blocks of `train.log_every` are.
        rounds: trainings.
        on_progress: told after each round.
    """
    total = WARM_UP_STEPS + steps
    fields = {"steps": total, "validate_every": total + 1, "checkpoint_every": total + 1}
    config = config.model_copy(update={"train": config.train.model_copy(update=fields)})
    data = load_data_set(config.data)
    store = Store(f"sqlite:///{folder / 'mlflow.db'}", folder)
    store.prepare(_EXPERIMENT, _ignore)
    found = []
    for done in range(1, rounds + 1):
        found.append(_train_in_turns(config, data, folder / f"round{done}", store))
        on_progress(Progress("rounds", done, rounds))
    return tuple(found)


def _train_in_turns(config: TrialConfig, data: DataSet, folder: Path, store: Store) -> Round:
    device = choose_device(config.train).device
    precision: Precision = "bf16-mixed" if config.train.precision == "bf16-mixed" else "32-true"
    loop = BareLoop(config, data.train, device, precision)
    batches = iter(loop.batches())
    harness: list[Seconds] = []
    bare: list[Seconds] = []

    def now() -> Seconds:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return Seconds(time.perf_counter(), time.thread_time())

    began = now()
    sent = 0.0

    def take_turns(_progress: Progress) -> None:
        """Called at the end of each of the harness's steps."""
        nonlocal began, sent
        stepped = now()
        harness.append(_between(began, stepped))
        loop.step(next(batches))
        began = now()
        bare.append(_between(stepped, began))
        if len(bare) == WARM_UP_STEPS:
            sent = _cpu_seconds_of(THREAD_NAME)

    journal = Journal(folder)
    journal.start(experiment=_EXPERIMENT, run_name=folder.name, tags={}, params={})
    publisher = Publisher(folder, store, _ignore)
    publisher.start()
    train(config, data, folder, device, precision, JournalLogger(journal), take_turns)
    sending = (_cpu_seconds_of(THREAD_NAME) - sent) / (config.train.steps - WARM_UP_STEPS)
    journal.end("FINISHED")
    publisher.close()
    journal.close()
    size = min(config.train.log_every, config.train.steps - WARM_UP_STEPS)
    return Round(_blocks(harness, size), _blocks(bare, size), sending)


def _between(began: Seconds, ended: Seconds) -> Seconds:
    return Seconds(ended.wall - began.wall, ended.cpu - began.cpu)


def _blocks(steps: Sequence[Seconds], size: int) -> tuple[Seconds, ...]:
    """Means over consecutive steps after the warm-up; an incomplete last block is left out."""
    starts = range(WARM_UP_STEPS, len(steps) - size + 1, size)
    return tuple(
        Seconds(
            statistics.fmean(step.wall for step in steps[start : start + size]),
            statistics.fmean(step.cpu for step in steps[start : start + size]),
        )
        for start in starts
    )


def _cpu_seconds_of(thread_name: str) -> float:
    """What a thread that runs has used of a CPU; 0 where there is none, or the system says not."""
    for thread in threading.enumerate():
        if thread.name == thread_name and thread.ident is not None:
            return time.clock_gettime(time.pthread_getcpuclockid(thread.ident))
    return 0.0


def _ignore(text: str) -> None:
    """The tracking store's notices: a measurement has no user to tell."""


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "overhead",
        help="seconds a training step beside a plain PyTorch loop, and seconds a launched trial",
        description="Train the same steps with the harness and with a plain PyTorch loop, step by "
        "step in turns, and print the ratio of their times; then run tiny jobs through the pool of "
        "local workers and print what each costs beyond its own work; then whole tiny trials.",
        epilog="Example: python -m benchmarks overhead --scale digits train.batch_size=32",
    )
    command.add_argument("overrides", metavar="KEY=VALUE", nargs="*", help="change a field")
    command.add_argument("--ablation", default="baselines", help="a file in experiments/ablation")
    command.add_argument("--variant", default="dydila", help="one of the ablation's")
    command.add_argument("--scale", default="digits", help="a file in experiments/scale")
    command.add_argument("--steps", type=int, default=60, metavar="N", help="timed a round")
    command.add_argument("--rounds", type=int, default=5, metavar="N", help="trainings")
    command.add_argument("--threads", type=int, default=1, metavar="N", help="CPU threads")
    command.add_argument("--jobs", type=int, default=200, metavar="N", help="tiny jobs to launch")
    command.add_argument("--workers", type=int, default=2, metavar="N", help="that run them")
    command.add_argument("--trials", type=int, default=5, metavar="N", help="whole tiny trials")
    command.add_argument("--json", action="store_true", help="print JSON instead of text")
    add_experiments_dir(command)
    command.set_defaults(command=_benchmark)


def _benchmark(options: argparse.Namespace) -> int:
    import logging
    import warnings

    import torch
    from rich.console import Console

    from harness.terminal.progress import ProgressView

    for option in ("steps", "rounds", "threads", "jobs", "workers", "trials"):
        if getattr(options, option) < 1:
            raise UserError(f"--{option} is {getattr(options, option)}, but must be at least 1")
    config = _config(options)
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
    torch.set_num_threads(options.threads)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with ProgressView(Console(stderr=True), unit="rounds") as view:
            measured = measure_step_overhead(
                config, folder, steps=options.steps, rounds=options.rounds, on_progress=view
            )
        launched = measure_launching(folder, jobs=options.jobs, workers=options.workers)
        trial_seconds = measure_whole_trials(config, folder, trials=options.trials)
    found: dict[str, Any] = {
        "steps": options.steps,
        "rounds": options.rounds,
        "harness_seconds_a_step": median(block.wall for one in measured for block in one.harness),
        "bare_seconds_a_step": median(block.wall for one in measured for block in one.bare),
        "publisher_cpu_seconds_a_step": median(one.publisher for one in measured),
        "ratio": median(one.wall_ratio for one in measured),
        "wall_ratios": [one.wall_ratio for one in measured],
        "cpu_ratios": [one.cpu_ratio for one in measured],
        "jobs": launched.jobs,
        "workers": launched.workers,
        "launch_seconds_a_job": launched.seconds_a_job,
        "launch_seconds_a_job_once_started": launched.seconds_a_job_once_started,
        "seconds_to_start_the_workers": launched.start,
        "work_seconds_a_job": launched.work / launched.jobs,
        "whole_trial_seconds": trial_seconds,
    }
    print(json.dumps(found, indent=2) if options.json else _text(options, found))
    return 0


def _text(options: argparse.Namespace, found: dict[str, Any]) -> str:
    wall, cpu = found["wall_ratios"], found["cpu_ratios"]
    return "\n".join(
        [
            f"{options.variant} at {options.scale}, {found['steps']} steps a round, median of "
            f"{found['rounds']} rounds, {options.threads} CPU thread(s)",
            f"  harness: {found['harness_seconds_a_step'] * 1000:.2f} ms a step",
            f"  plain PyTorch loop: {found['bare_seconds_a_step'] * 1000:.2f} ms a step",
            f"  ratio: {median(wall):.3f} ({min(wall):.3f} to {max(wall):.3f}) of wall time, "
            f"{median(cpu):.3f} ({min(cpu):.3f} to {max(cpu):.3f}) of CPU time",
            f"{found['jobs']} tiny jobs on {found['workers']} workers",
            f"  launching: {found['launch_seconds_a_job']:.3f} s a job beyond the "
            f"{found['work_seconds_a_job']:.3f} s of its own work, the "
            f"{found['seconds_to_start_the_workers']:.1f} s to start the workers shared out among "
            f"all jobs; {found['launch_seconds_a_job_once_started']:.3f} s once they run",
            "a whole trial of one step and 16 samples, all stages from data to MLflow",
            f"  {found['whole_trial_seconds']:.2f} s in a worker that runs trials already",
        ]
    )


def _config(options: argparse.Namespace) -> TrialConfig:
    from harness.config.load import load_ablation

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


_SIDE = 256

_PRODUCTS = 20


@dataclass(frozen=True)
class LaunchOverhead:
    """Of jobs that did next to nothing."""

    jobs: int
    workers: int
    wall: float
    """Seconds from the first job's start to the last one's end, those of starting the workers
    included, in which each imports torch once."""
    start: float
    """Of these, the seconds before the first job began its work."""
    work: float
    """Seconds that the jobs' own work took, all together, measured within the jobs."""

    @property
    def seconds_a_job(self) -> float:
        """By how much the wall time of each job exceeds what its work takes on as many workers."""
        return (self.wall - self.work / self.workers) / self.jobs

    @property
    def seconds_a_job_once_started(self) -> float:
        """The same without the start of the workers."""
        return self.seconds_a_job - self.start / self.jobs


def tiny_job(payload: Mapping[str, Any], report: ProgressListener) -> float:  # noqa: ARG001
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
        "benchmarks.overhead:tiny_job",
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
    sample = config.sample.model_copy(update={"steps": 1, "grid_images": 1})
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
    """The same results.

    Raises:
        UserError: a job failed.
    """
    for result in results:
        if not result.ok:
            raise UserError(f"{result.key} failed: {result.reason} (log: {result.log_path})")
    return results
