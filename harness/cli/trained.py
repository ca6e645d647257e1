"""`harness probe`: how smooth the attention of a trained trial is."""

from __future__ import annotations

import argparse

from harness.cli.options import Commands, add_runs_dir, add_weights


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "probe",
        help="measure how smooth the attention of a trained trial is, layer by layer",
        description="Measure the attention of a trained trial on noised held-out images: row "
        "entropy, effective rank and token similarity of each layer, head and timestep, and how "
        "its routers choose. Prints means and writes all figures as CSV and PNG to the trial's "
        "folder.",
        epilog="Example: python -m harness probe runs/digits/dydila/seed0-0123456789ab",
    )
    command.add_argument("run", metavar="RUN", help="a trial's folder, or its run id in MLflow")
    command.add_argument(
        "--images", type=int, metavar="N", help="held-out images (default: as in the trial)"
    )
    command.add_argument(
        "--timesteps", type=int, metavar="N", help="noise levels (default: as in the trial)"
    )
    add_weights(command)
    add_runs_dir(command)
    command.set_defaults(command=_probe)


def _probe(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.trial.trained import probe_run

    probe_run(
        options.run,
        options.runs_dir,
        options.images,
        options.timesteps,
        Console(),
        options.weights,
    )
    return 0
