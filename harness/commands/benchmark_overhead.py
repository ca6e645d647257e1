"""`harness benchmark overhead`: what the harness adds to training steps and to trials."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from harness.cli.options import Commands, add_experiments_dir
from models.errors import UserError

if TYPE_CHECKING:
    from harness.config.schema import TrialConfig


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "overhead",
        help="seconds a training step beside a plain PyTorch loop, and seconds a launched trial",
        description="Train the same steps with the harness and with a plain PyTorch loop, step by "
        "step in turns, and print the ratio of their times; then run tiny jobs through the pool of "
        "local workers and print what each costs beyond its own work; then whole tiny trials.",
        epilog="Example: python -m harness benchmark overhead --scale digits train.batch_size=32",
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

    from benchmarks.overhead import measure_step_overhead
    from harness.launch_overhead import measure_launching, measure_whole_trials
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
