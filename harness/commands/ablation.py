"""`harness ablation`: run what is not finished, then compare."""

from __future__ import annotations

import argparse

from harness.commands.exit_codes import BAD_INPUT, FAILED
from harness.commands.options import Commands, add_selection, load_selection


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
    command.set_defaults(command=_ablation)


def _ablation(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.ablation import run_ablation

    ablation, cluster = load_selection(options)
    failed = run_ablation(ablation, cluster, options.runs_dir, Console())
    if failed and all(result.caused_by_user for result in failed):
        return BAD_INPUT
    return FAILED if failed else 0
