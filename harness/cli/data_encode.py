"""`harness data encode`: latents of all images, once and for all."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from harness.cli.options import Commands

_RANK = ("RANK", "SLURM_PROCID")
"""Of a process among all of its job, as torchrun and srun tell it."""


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "encode",
        help="encode images and their mirror images with an autoencoder",
        description="Encode the images of a manifest and their mirror images, and write mean and "
        "log-variance (AutoencoderKL) or the latent (AutoencoderDC) of each to the folder OUT. The "
        "same command resumes where it was stopped, and can run any number of times side by side, "
        "also under torchrun and srun.",
        epilog="Example: python -m harness data encode imagenet/train latents --manifest "
        "sub-in-100.json --autoencoder sd-vae-ft-ema --resolution 256",
    )
    command.add_argument("source", metavar="SOURCE", type=Path, help="the images")
    command.add_argument("out", metavar="OUT", type=Path, help="the folder to write")
    command.add_argument(
        "--autoencoder",
        metavar="FOLDER",
        required=True,
        help="in diffusers' layout; or a name on the hub, as OWNER/NAME or OWNER/NAME/FOLDER",
    )
    command.add_argument(
        "--manifest", metavar="FILE", type=Path, required=True, help="of make-manifest"
    )
    command.add_argument("--resolution", metavar="R", type=int, required=True, help="pixels a side")
    command.add_argument(
        "--dtype",
        choices=("float16", "float32"),
        default="float16",
        help="to store in (default: %(default)s)",
    )
    command.add_argument(
        "--batch-size",
        metavar="N",
        type=int,
        default=32,
        help="images encoded at once (default: %(default)s)",
    )
    command.add_argument(
        "--images-per-shard",
        metavar="N",
        type=int,
        default=512,
        help="about how many images a file holds, and a killed process loses (default: "
        "%(default)s)",
    )
    command.add_argument(
        "--processes",
        metavar="N",
        type=int,
        default=1,
        help="on this machine, GPUs in turn (default: %(default)s)",
    )
    command.add_argument(
        "--loaders",
        metavar="N",
        type=int,
        default=8,
        help="threads of each process that read and decode images (default: %(default)s)",
    )
    command.add_argument(
        "--device",
        choices=("auto", "cpu", "cuda"),
        default="auto",
        help="auto takes a GPU where there is one (default: %(default)s)",
    )
    command.set_defaults(command=_encode)


def _encode(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.data.latents.encode_in_processes import EncodeSpec, run_encode
    from harness.processes.progress import ignore_progress
    from harness.terminal.progress import ProgressView

    spec = EncodeSpec(
        source=str(options.source),
        out=str(options.out),
        autoencoder=options.autoencoder,
        manifest=str(options.manifest),
        resolution=options.resolution,
        dtype=options.dtype,
        batch_size=options.batch_size,
        images_per_shard=options.images_per_shard,
        loaders=options.loaders,
        device=options.device,
    )
    if not _is_first():
        run_encode(spec, options.processes, ignore_progress)
        return 0
    with ProgressView(Console(stderr=True)) as view:
        encoded = run_encode(spec, options.processes, view)
    description = encoded.cache.description
    total = sum(description.shard_sizes)
    print(
        f"{description.manifest_name}: {total} images and their mirror images, {encoded.images} "
        f"of them encoded now in {encoded.seconds:.1f} s; identity {encoded.cache.identity}"
    )
    print(options.out)
    return 0


def _is_first() -> bool:
    """Whether this process speaks for all of its job."""
    return next((os.environ[key] for key in _RANK if key in os.environ), "0") == "0"
