"""`harness benchmark data`: images a second of the loader, beside torchvision's ImageFolder."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median

from harness.cli.options import Commands
from models.errors import UserError


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "data",
        help="images a second of the training loader, beside torchvision's ImageFolder",
        description="Load the images of a manifest with the training loader and with torchvision's "
        "ImageFolder in a DataLoader, turn by turn, and print the speeds and the ratio. With "
        "--latents, the training loader reads latents instead. ImageFolder gets the images as "
        "files in a temporary folder.",
        epilog="Example: python -m harness benchmark data images.zip images.json --workers 2",
    )
    command.add_argument("source", metavar="SOURCE", type=Path, help="the images")
    command.add_argument("manifest", metavar="MANIFEST", type=Path, help="which of them")
    command.add_argument("--latents", type=Path, metavar="DIR", help="a folder of `data encode`")
    command.add_argument("--resolution", type=int, default=256, metavar="PIXELS")
    command.add_argument("--batch-size", type=int, default=32, metavar="N")
    command.add_argument("--workers", type=int, default=2, metavar="N", help="loader processes")
    command.add_argument("--rounds", type=int, default=5, metavar="N", help="pairs of measurements")
    command.set_defaults(command=_benchmark)


def _benchmark(options: argparse.Namespace) -> int:
    from rich.console import Console

    from benchmarks.loading import measure_loading, unpack
    from harness.data.images import ImageSet
    from harness.data.latents.cache import open_cache
    from harness.data.manifest import read_manifest
    from harness.data.manifest_images import EncodedImages, LatentImages
    from harness.data.sources import open_source
    from harness.data.verify import check_sizes
    from harness.terminal.progress import ProgressView

    for option, least in (("resolution", 4), ("batch_size", 1), ("workers", 0), ("rounds", 1)):
        if getattr(options, option) < least:
            raise UserError(
                f"--{option.replace('_', '-')} is {getattr(options, option)}, but must be at least "
                f"{least}"
            )
    manifest, source = read_manifest(options.manifest), open_source(options.source)
    check_sizes(manifest, source)
    count = len(manifest.images)
    if count < options.batch_size:
        raise UserError(f"--batch-size is {options.batch_size}, but there are only {count} images")
    pictures = EncodedImages(source, manifest, options.resolution, kept_in_memory=0)
    images: ImageSet = pictures
    what = f"decoded from {source.path.name}"
    if options.latents is not None:
        cache = open_cache(options.latents)
        if cache.manifest.hash != manifest.hash:
            raise UserError(
                f"{options.latents} holds latents of the manifest {cache.manifest.name}, not of "
                f"{options.manifest}: name the one that it was encoded with"
            )
        images, what = LatentImages(cache, lambda: pictures), "latents"
    with (
        tempfile.TemporaryDirectory() as temporary,
        ProgressView(Console(stderr=True), unit="rounds") as view,
    ):
        unpack(source, manifest, Path(temporary))
        speeds = measure_loading(
            images,
            Path(temporary),
            resolution=options.resolution,
            batch_size=options.batch_size,
            workers=options.workers,
            rounds=options.rounds,
            on_progress=view,
        )
    print(
        f"{count} images, {options.resolution} pixels, batches of {options.batch_size}, "
        f"{options.workers} workers, median of {options.rounds} rounds"
    )
    print(f"  harness ({what}): {speeds.ours:,.0f} images/s")
    print(f"  torchvision ImageFolder: {speeds.image_folder:,.0f} images/s")
    low, high = min(speeds.ratios), max(speeds.ratios)
    print(f"  ratio: {median(speeds.ratios):.2f} ({low:.2f} to {high:.2f})")
    return 0
