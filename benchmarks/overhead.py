"""`python -m benchmarks overhead`: what the harness adds to training steps and to trials."""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
import warnings
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.console import Console

from benchmarks import spread
from benchmarks.launching import measure_launching, measure_whole_trials
from benchmarks.steps import measure_step_overhead
from harness.config.load import load_ablation
from harness.config.schema import TrialConfig
from harness.terminal.progress import ProgressView
from models.errors import UserError


def run(options: argparse.Namespace) -> int:
    """Measure steps, launching and whole trials, and print what was found."""
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
            f"  ratio: {spread(wall, 3)} of wall time, {spread(cpu, 3)} of CPU time",
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
