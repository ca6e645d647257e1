"""`python -m benchmarks data`: images a second of the training loader, beside torchvision's
ImageFolder, on the same images."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from benchmarks import spread
from harness.data.batches import BatchOrder, DrawOrder, loader_of
from harness.data.images import EncodedImages, ImageSet, LatentImages
from harness.data.latents.cache import open_cache
from harness.data.manifest import Manifest, read_manifest
from harness.data.sources import open_source
from harness.data.sources.base import Source
from harness.data.verify import check_sizes
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from harness.terminal.progress import ProgressView
from models.errors import UserError

_SEED = 0


@dataclass(frozen=True)
class LoadingSpeeds:
    """Median images a second over the rounds, and the ratio of each round's pair."""

    ours: float
    image_folder: float
    ratios: tuple[float, ...]
    """Ours over ImageFolder's, a pair a round; above 1 ours is faster."""


def measure_loading(
    images: ImageSet,
    folder: Path,
    *,
    resolution: int,
    batch_size: int,
    workers: int,
    rounds: int,
    on_progress: ProgressListener = ignore_progress,
) -> LoadingSpeeds:
    """Load all images once with each loader, turn by turn.

    Worker processes are started before the clock, which counts from the first batch asked for to
    the last one got. Both crop to a square and scale to float32; both flip half of the images.

    Args:
        images: the set.
        folder: of the same images as class folders, for ImageFolder.
        resolution: pixels a side that ImageFolder resizes to.
        batch_size: images a batch.
        workers: loader processes.
        rounds: pairs of measurements.
        on_progress: told after each round.
    """
    ours, theirs = [], []
    for done in range(1, rounds + 1):
        ours.append(_images_per_second(_our_batches(images, batch_size, workers, done)))
        theirs.append(_images_per_second(_their_batches(folder, resolution, batch_size, workers)))
        on_progress(Progress("rounds", done, rounds))
    ratios = tuple(one / other for one, other in zip(ours, theirs, strict=True))
    return LoadingSpeeds(statistics.median(ours), statistics.median(theirs), ratios)


def unpack(source: Source, manifest: Manifest, folder: Path) -> None:
    """Write the images of a manifest as class folders, for loaders that read only those."""
    for image in manifest.images:
        name = image.id.replace("/", "_").replace("#", "_")
        suffix = "" if Path(name).suffix else ".jpg"
        path = folder / f"{image.label:06d}" / f"{name}{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source.read(image.id))


def _images_per_second(batches: Callable[[], Iterator[Tensor]]) -> float:
    iterator = batches()
    count = 0
    began = time.perf_counter()
    for batch in iterator:
        count += len(batch)
    return count / (time.perf_counter() - began)


def _our_batches(
    images: ImageSet, batch_size: int, workers: int, epoch: int
) -> Callable[[], Iterator[Tensor]]:
    order = DrawOrder(len(images.labels), batch_size, _SEED, horizontal_flip=True)
    steps = max(1, len(images.labels) // batch_size)
    loader = loader_of(
        images, BatchOrder(order, epoch * steps, (epoch + 1) * steps), _SEED, workers
    )
    return lambda: (batch.images for batch in loader)


def _their_batches(
    folder: Path, resolution: int, batch_size: int, workers: int
) -> Callable[[], Iterator[Tensor]]:
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


def run(options: argparse.Namespace) -> int:
    """Measure both loaders on the images of a manifest, and print their speeds."""
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
    print(f"  ratio: {spread(speeds.ratios)}")
    return 0
