"""`harness cancel`: end the jobs of an ablation."""

from __future__ import annotations

import argparse

from harness.cli.options import Commands, add_selection, load_selected_ablation


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "cancel",
        help="end the queued and running jobs of an ablation",
        description="End the queued and running SLURM jobs of an ablation's trials. Running trials "
        "save first, so that a later `ablation` goes on from there.",
        epilog="Example: python -m harness cancel no_differential --scale sub_in",
    )
    add_selection(command)
    command.set_defaults(command=_cancel)


def _cancel(options: argparse.Namespace) -> int:
    from harness.ablation.status import cancel_ablation

    for line in cancel_ablation(load_selected_ablation(options), options.runs_dir):
        print(line)
    return 0
