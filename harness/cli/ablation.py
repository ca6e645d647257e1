"""`harness ablation`: run what is not finished, then compare."""

from __future__ import annotations

import argparse

from harness.cli.options import Commands, add_selection, load_selection
from harness.commands.run_selection import add_detach, run_selection


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "ablation",
        help="train, sample and measure every variant with every seed, then compare",
        description="Train, sample and measure every variant with every seed; write all to MLflow "
        "and the comparison to RUNS_DIR/reports. Finished trials are reused and interrupted ones "
        "resumed, so the command can be repeated at any time.",
        epilog="Example: python -m harness ablation no_differential --seeds 3 train.steps=200",
    )
    add_selection(command)
    add_detach(command)
    command.add_argument(
        "--print-sbatch",
        action="store_true",
        help="print the scripts that SLURM would be given now, and submit nothing",
    )
    command.set_defaults(command=_ablation)


def _ablation(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.ablation.run import print_scripts

    if not options.print_sbatch:
        return run_selection(options, only_failed=False)
    ablation, cluster = load_selection(options)
    print_scripts(ablation, cluster, options.runs_dir, Console())
    return 0
