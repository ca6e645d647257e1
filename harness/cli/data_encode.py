"""`harness data encode`: latents of all images, made once."""

from __future__ import annotations

import argparse

from harness.cli.options import Commands, add_command, add_device, add_number, spec_of


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(commands, encode, _add_files, _add_numbers, add_device)


def _add_files(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", metavar="SOURCE", help="the images")
    command.add_argument("out", metavar="OUT", help="the folder to write")
    command.add_argument(
        "--autoencoder",
        metavar="FOLDER",
        required=True,
        help="in diffusers' layout; or a name on the hub, as OWNER/NAME or OWNER/NAME/FOLDER",
    )
    command.add_argument("--manifest", metavar="FILE", required=True, help="from make-manifest")
    add_number(command, "--resolution", None, "pixels a side", required=True)
    command.add_argument(
        "--dtype", choices=("float16", "float32"), default="float16", help="to store in"
    )


def _add_numbers(command: argparse.ArgumentParser) -> None:
    add_number(command, "--batch-size", 32, "images encoded at once")
    add_number(
        command,
        "--images-per-shard",
        512,
        "about how many images a file holds, and a killed process loses",
    )
    add_number(command, "--processes", 1, "on this machine, GPUs in turn")
    add_number(command, "--loaders", 8, "threads of each process that read and decode images")


def encode(options: argparse.Namespace) -> int:
    """Encode images and their mirror images with an autoencoder.

    Of each image of a manifest, and of its mirror image, mean and log-variance (AutoencoderKL) or
    the latent (AutoencoderDC) go to the folder OUT. The same command resumes where it was stopped,
    and can run any number of times side by side, also under torchrun and srun.

    Example: python -m harness data encode imagenet/train latents --manifest sub-in-100.json
    --autoencoder sd-vae-ft-ema --resolution 256
    """
    from rich.console import Console

    from harness.data.latents.encode_in_processes import EncodeSpec, run_encode
    from harness.machine.place import place_from_environment
    from harness.processes.progress import ignore_progress
    from harness.terminal.progress import ProgressView

    spec = spec_of(EncodeSpec, options)
    place = place_from_environment()
    if place is not None and place.rank > 0:
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
