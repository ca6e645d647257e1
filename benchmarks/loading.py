"""`python -m benchmarks data`: images a second of the training loader, beside torchvision's
ImageFolder, on the same images."""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks.turns import ratios, spread, take_rounds
from harness.data.batches import BatchOrder, DrawOrder, loader_of
from harness.data.images import EncodedImages, ImageSet, LatentImages
from harness.data.latents.cache import open_cache
from harness.data.manifest import Manifest, read_manifest
from harness.data.sources import open_source
from harness.data.sources.base import Source
from harness.data.verify import check_sizes
from harness.terminal.progress import ProgressView
from models.errors import UserError

_SEED = 0

Epoch = Callable[[], Iterator[Tensor]]
"""Starts the workers of a loader, and gives the batches of one pass over the images."""


def run(options: argparse.Namespace) -> int:
    """Load the images of a manifest once a round with each loader, and print their speeds.

    Worker processes are started before the clock, which counts from the first batch asked for to
    the last one got. Both crop to a square and scale to float32; both flip half of the images.
    """
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
        ProgressView(Console(stderr=True), unit="runs") as view,
    ):
        _unpack(source, manifest, Path(temporary))
        ours = _our_loader(images, options.batch_size, options.workers)
        theirs = _image_folder(
            Path(temporary), options.resolution, options.batch_size, options.workers
        )
        work = {"ours": lambda: _speed(ours), "ImageFolder": lambda: _speed(theirs)}
        turns = take_rounds(work, options.rounds, view).values()
    our_speeds, their_speeds = ([turn.result for turn in each] for each in turns)
    print(
        f"{count} images, {options.resolution} pixels, batches of {options.batch_size}, "
        f"{options.workers} workers, median of {options.rounds} rounds"
    )
    print(f"  harness ({what}): {median(our_speeds):,.0f} images/s")
    print(f"  torchvision ImageFolder: {median(their_speeds):,.0f} images/s")
    print(f"  ratio: {spread(ratios(our_speeds, their_speeds))}")
    return 0


def _unpack(source: Source, manifest: Manifest, folder: Path) -> None:
    """Write the images of a manifest as class folders, for loaders that read only those."""
    for image in manifest.images:
        name = image.id.replace("/", "_").replace("#", "_")
        suffix = "" if Path(name).suffix else ".jpg"
        path = folder / f"{image.label:06d}" / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(image.id))


def _speed(epoch: Epoch) -> float:
    """Images a second."""
    batches = epoch()
    began = time.perf_counter()
    count = sum(len(batch) for batch in batches)
    return count / (time.perf_counter() - began)


def _our_loader(images: ImageSet, batch_size: int, workers: int) -> Epoch:
    order = DrawOrder(len(images.labels), batch_size, _SEED, horizontal_flip=True)
    steps = len(images.labels) // batch_size
    starts = itertools.count(steps, steps)

    def epoch() -> Iterator[Tensor]:
        start = next(starts)
        loader = loader_of(images, BatchOrder(order, start, start + steps), _SEED, workers)
        return (batch.images for batch in loader)

    return epoch


def _image_folder(folder: Path, resolution: int, batch_size: int, workers: int) -> Epoch:
    transform = v2.Compose(
        [
            v2.Resize(resolution),
            v2.CenterCrop(resolution),
            v2.RandomHorizontalFlip(),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
        ]
    )
    loader = DataLoader(
        ImageFolder(str(folder), transform),
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
    )
    return lambda: (images for images, _ in loader)
