"""`harness report`: the comparison once more, from MLflow."""

from __future__ import annotations

import argparse

from harness.cli.options import Commands, add_runs_dir


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "report",
        help="rebuild the tables and figures of an ablation from MLflow",
        description="Rebuild the tables and figures of an ablation from MLflow alone; train "
        "nothing. Of an ablation that is still at work, or was interrupted, the trials that are "
        "finished are compared, and the others named.",
    )
    command.add_argument("name", metavar="NAME", help="an ablation that was run before")
    command.add_argument("--scale", default="digits", help="how big: a file in experiments/scale")
    add_runs_dir(command)
    command.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.ablation.report import rebuild_report

    rebuild_report(options.name, options.scale, options.runs_dir, Console())
    return 0
