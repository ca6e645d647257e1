"""Running the trials of an ablation, for the commands that do."""

from __future__ import annotations

import argparse

from harness.cli.options import load_selection
from harness.commands.exit_codes import BAD_INPUT, FAILED, INTERRUPTED


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
