"""`harness convert`: published DiT checkpoints."""

from __future__ import annotations

import argparse
from pathlib import Path

from harness.cli.options import Commands


def add(commands: Commands) -> None:
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
