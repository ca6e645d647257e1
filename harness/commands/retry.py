"""`harness retry`: run the trials that failed once more."""

from __future__ import annotations

import argparse

from harness.cli.options import Commands, add_selection
from harness.commands.run_selection import add_detach, run_selection


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "retry",
        help="run those trials of an ablation again that failed",
        description="Run those trials of an ablation again that failed, and leave alone those that "
        "were never begun, stopped or run now; then compare. They go on from their last "
        "checkpoints.",
        epilog="Example: python -m harness retry no_differential --cluster slurm",
    )
    add_selection(command)
    add_detach(command)
    command.set_defaults(command=_retry)


def _retry(options: argparse.Namespace) -> int:
    return run_selection(options, only_failed=True)
