"""`harness probe`: how smooth the attention of a trained trial is.

`harness convert`: published DiT checkpoints.

`harness export`: a trained network as two files.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.options import Commands, add_runs_dir, add_weights


def add_probe(commands: Commands) -> None:
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


def add_convert(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "convert",
        help="turn a published DiT checkpoint into an exported model, or back",
        description="Turn a checkpoint in the layout of facebookresearch/DiT (.pt, .pth or "
        ".safetensors) into an exported model, as `export` writes it, or an exported model with "
        "softmax attention and without a convolution of V into such a checkpoint.",
        epilog="Examples: python -m harness convert DiT-XL-2-256x256.pt dit; "
        "python -m harness convert dit DiT-XL-2-256x256.safetensors",
    )
    command.add_argument(
        "source", metavar="SOURCE", type=Path, help="a checkpoint, or the folder of an export"
    )
    command.add_argument("out", metavar="OUT", type=Path, help="the folder or checkpoint to write")
    command.add_argument(
        "--heads",
        type=int,
        metavar="N",
        help="of the checkpoint's attention, where its width and depth are none of DiT's sizes",
    )
    command.set_defaults(command=_convert)


def _convert(options: argparse.Namespace) -> int:
    from harness.training.published_dit import convert

    convert(options.source, options.out, options.heads)
    print(options.out)
    return 0


def add_export(commands: Commands) -> None:
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
