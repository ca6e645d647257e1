"""Commands on trained networks: `probe` their attention, `export` them, `convert` DiT's files."""

from __future__ import annotations

import argparse

from harness.cli.options import RUNS_DIR, Commands, command, number, option, path

_RUN = (
    option("run", metavar="RUN", help="a trial's folder, or its run id in MLflow"),
    option(
        "--weights",
        choices=("last", "best"),
        help="EMA weights of the last step, or the best ones by the trial's train.best_by "
        "(default: those that the trial's samples are drawn from)",
    ),
)
_OUT = path("out", "the folder or file to write")


def add(commands: Commands) -> None:
    """Add the commands."""
    for each in (probe, export, convert):
        each.add(commands)


@command(
    *_RUN,
    RUNS_DIR,
    number("--images", None, "held-out images (default: as in the trial)"),
    number("--timesteps", None, "noise levels (default: as in the trial)"),
)
def probe(options: argparse.Namespace) -> int:
    """Measure how smooth the attention of a trained trial is, layer by layer.

    On noised held-out images it measures row entropy, effective rank and token similarity of each
    layer, head and timestep, and how the routers choose. Prints means and writes all figures as CSV
    and PNG to the trial's folder.

    Example: python -m harness probe runs/digits/dydila/seed0-0123456789ab
    """
    from rich.console import Console

    from harness.trial.trained import probe_run

    probe_run(
        options.run, options.runs_dir, options.images, options.timesteps, Console(), options.weights
    )
    return 0


@command(*_RUN, _OUT, RUNS_DIR)
def export(options: argparse.Namespace) -> int:
    """Write a trained network as model.safetensors and model.json.

    OUT/model.safetensors holds the EMA weights of a trained trial, and OUT/model.json what builds
    the network; in Python, harness.load_exported(OUT) reads both.

    Example: python -m harness export runs/digits/dydila/seed0-0123456789ab exported
    """
    from harness.training.export import export_model
    from harness.trial.trained import load_trained_trial

    trial = load_trained_trial(options.run, options.runs_dir, options.weights)
    export_model(trial.network, options.out, trial.config, trial.weights)
    print(options.out)
    return 0


@command(
    path("source", "a checkpoint, or the folder of an export"),
    _OUT,
    number(
        "--heads",
        None,
        "heads of the checkpoint's attention, if its width and depth are none of DiT's sizes",
    ),
)
def convert(options: argparse.Namespace) -> int:
    """Turn a published DiT checkpoint into an exported model, or back.

    A checkpoint is in the layout of facebookresearch/DiT (.pt, .pth, .ckpt, .bin or .safetensors),
    an exported model as `export` writes it. Back goes only softmax attention without a convolution
    of V. Prints what was read: the number of heads above all, which no checkpoint says, and which
    entry of the file the weights were taken from, such as `ema`.

    Examples: python -m harness convert DiT-XL-2-256x256.pt dit; python -m harness convert dit
    DiT-XL-2-256x256.safetensors
    """
    from harness.training.published_dit import convert as convert_files

    print(f"{options.source}: {convert_files(options.source, options.out, options.heads)}")
    print(options.out)
    return 0
