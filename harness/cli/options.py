"""Options that several commands share.

What the process tells the shell; 0 is success.

Running the trials of an ablation, for the commands that do.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from harness.machine.environment import EXPERIMENTS, ROOT

if TYPE_CHECKING:
    from harness.config.cluster import ClusterConfig
    from harness.config.load import Ablation


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_selection(command: argparse.ArgumentParser) -> None:
    """Which ablation, at which scale, changed how."""
    command.add_argument(
        "name", metavar="NAME", help="a file in experiments/ablation; `list` shows all"
    )
    command.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        help="change a field for every variant, such as train.steps=200; for where trials run, "
        "such as cluster.workers=1",
    )
    command.add_argument("--scale", default="digits", help="how big: a file in experiments/scale")
    command.add_argument(
        "--seeds", type=int, metavar="N", help="run seeds 0 to N-1 instead of the ablation's own"
    )
    command.add_argument(
        "--cluster", default="local", help="where trials run: a file in experiments/cluster"
    )
    add_runs_dir(command)
    add_experiments_dir(command)


def add_runs_dir(command: argparse.ArgumentParser) -> None:
    """Where trials are."""
    command.add_argument(
        "--runs-dir",
        type=Path,
        default=ROOT / "runs",
        help="where trials and reports are written (default: runs/ in the repository)",
    )


def add_weights(command: argparse.ArgumentParser) -> None:
    """Which of a trial's weights."""
    command.add_argument(
        "--weights",
        choices=("last", "best"),
        help="EMA weights of the last step, or the best ones by the trial's train.best_by "
        "(default: those that the trial's samples are drawn from)",
    )


def add_experiments_dir(command: argparse.ArgumentParser) -> None:
    """Where the YAML files are."""
    command.add_argument(
        "--experiments-dir",
        type=Path,
        default=EXPERIMENTS,
        help="the folder of YAML files (default: experiments/ in the repository)",
    )


def add_extraction(command: argparse.ArgumentParser, default: str) -> None:
    """Which features, and where they are computed."""
    command.add_argument(
        "--extractor",
        metavar="NAME",
        help=f"inception, efficientnet_lite0 or torch:MODEL, a model of timm ({default})",
    )
    command.add_argument(
        "--extractor-weights",
        metavar="FILE",
        type=Path,
        help="of inception, instead of the standard ones, or of torch:MODEL",
    )
    command.add_argument(
        "--batch-size",
        metavar="N",
        type=int,
        default=64,
        help="images seen at once (default: %(default)s)",
    )
    command.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes a GPU where there is one (default: %(default)s)",
    )


def add_processes(command: argparse.ArgumentParser) -> None:
    """How many extract features."""
    command.add_argument(
        "--processes",
        metavar="N",
        type=int,
        default=1,
        help="share the extraction out among N processes on this machine, which take GPUs in turn "
        "and share the cores; torchrun can start them instead (default: %(default)s)",
    )


def load_selected_ablation(options: argparse.Namespace) -> Ablation:
    """The ablation alone, for commands to which it does not matter where it runs."""
    from harness.config.load import load_ablation

    return load_ablation(
        options.name,
        scale=options.scale,
        seeds=options.seeds,
        overrides=options.overrides,
        experiments_dir=options.experiments_dir,
    )


def load_selection(options: argparse.Namespace) -> tuple[Ablation, ClusterConfig]:
    """The ablation and where it runs, the mistakes of both told at once."""
    from harness.config.load import load_ablation, load_cluster
    from harness.config.mistakes import ConfigError, Mistake

    mistakes: list[Mistake] = []
    try:
        cluster = load_cluster(options.cluster, options.overrides, options.experiments_dir)
    except ConfigError as error:
        mistakes += error.mistakes
    try:
        ablation = load_ablation(
            options.name,
            scale=options.scale,
            seeds=options.seeds,
            overrides=options.overrides,
            experiments_dir=options.experiments_dir,
        )
    except ConfigError as error:
        raise ConfigError([*error.mistakes, *mistakes]) from None
    if mistakes:
        raise ConfigError(mistakes)
    return ablation, cluster


FAILED = 1

BAD_INPUT = 2

INTERRUPTED = 130


def add_detach(command: argparse.ArgumentParser) -> None:
    """The wish not to watch."""
    command.add_argument(
        "--detach",
        action="store_true",
        help="with SLURM: leave once the jobs are submitted; the same command watches them again",
    )


def run_selection(options: argparse.Namespace, *, only_failed: bool) -> int:
    """Run what is not finished, or what failed, and say how to go on where the jobs are left.

    Returns:
        The exit code.
    """
    from rich.console import Console

    from harness.ablation.run import run_ablation
    from harness.cluster.launcher import Detached

    console = Console()
    ablation, cluster = load_selection(options)
    try:
        failed = run_ablation(
            ablation,
            cluster,
            options.runs_dir,
            console,
            detach=options.detach,
            only_failed=only_failed,
        )
    except Detached as left:
        same = f"{options.name} --scale {options.scale}"
        console.print(
            f"{left}. To watch them again and get the report, repeat the command.\n"
            f"`python -m harness status {same}` shows them, `python -m harness cancel {same}` ends "
            "them; both with the same --seeds and KEY=VALUE as here.",
            highlight=False,
            markup=False,
            soft_wrap=True,
        )
        return INTERRUPTED if left.by_signal else 0
    if failed and all(result.caused_by_user for result in failed):
        return BAD_INPUT
    return FAILED if failed else 0
