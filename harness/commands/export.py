"""`harness export`: a trained network as two files."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.options import Commands, add_runs_dir, add_weights


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "export",
        help="write a trained network as model.safetensors and model.json",
        description="Write the EMA weights of a trained trial as OUT/model.safetensors, and what "
        "builds the network as OUT/model.json; harness.training.export.load_exported(OUT) reads "
        "both.",
        epilog="Example: python -m harness export runs/digits/dydila/seed0-0123456789ab exported",
    )
    command.add_argument("run", metavar="RUN", help="a trial's folder, or its run id in MLflow")
    command.add_argument("out", metavar="OUT", type=Path, help="the folder to write")
    add_weights(command)
    add_runs_dir(command)
    command.set_defaults(command=_export)


def _export(options: argparse.Namespace) -> int:
    from harness.trial.trained import export_run

    export_run(options.run, options.runs_dir, options.out, options.weights)
    print(options.out)
    return 0
