"""`python -m benchmarks evaluation`: FID's time, beside torch-fidelity, pytorch-fid and scipy.

Here are the command, the images and the weights that all tools are given; `tools` runs them.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from torch import nn
from torchvision.models import inception_v3

from benchmarks import spread
from benchmarks.frechet import FrechetSpeeds, measure_frechet
from benchmarks.tools import Comparison, ToolSpeed, available_tools, measure_evaluation
from harness.evaluation.extractors.inception import Extractor, standard_weights
from harness.evaluation.extractors.weights_file import check_there, file_sha256
from harness.evaluation.image_inputs import FolderImages
from harness.machine.files import atomic_path, check_writable, write_json
from harness.machine.place import choose_device
from harness.terminal.progress import ProgressView
from harness.vocabulary.names import short_hash
from models.errors import UserError
from models.randomness import generator

_DIMENSIONS = 2048

_UNTRAINED = (
    "the Inception weights are random, so the figures mean nothing: only the time counts, and "
    "whether the tools agree"
)


def run(options: argparse.Namespace) -> int:
    """Measure all tools on the same two folders, and print and write what they took."""
    if (options.samples is None) != (options.reference is None):
        raise UserError("--samples and --reference belong together: give both or none")
    if options.weights is not None:
        check_there(options.weights)
    if options.json is not None:
        check_writable(options.json)
    threads = options.threads or torch.get_num_threads()
    device = choose_device(options.device)
    aside = Console(stderr=True)
    with tempfile.TemporaryDirectory() as temporary:
        scratch = Path(temporary)
        if options.samples is None:
            pair = write_digits(options.count, scratch)
        else:
            pair = link_images(options.samples, options.reference, options.count, scratch)
        weights = options.weights or standard_weights()
        untrained = not weights.is_file()
        if untrained:
            weights = scratch / "random.pth"
            write_random_inception(weights)
        comparison = Comparison(
            samples=pair.samples,
            reference=pair.reference,
            images=pair.images,
            weights=weights,
            batch_size=options.batch_size,
            threads=threads,
            device=str(device),
        )
        tools, skipped = available_tools(comparison, scratch)
        with ProgressView(aside, unit="runs") as view:
            speeds = measure_evaluation(tools, comparison, rounds=options.rounds, on_progress=view)
        digest = file_sha256(weights)
    print(
        f"{pair.images} images, {pair.what}; batches of {options.batch_size}, {threads} threads, "
        f"{device}, {options.rounds} rounds, Inception weights {short_hash(digest)}"
    )
    for line in (*skipped, *([_UNTRAINED] if untrained else [])):
        print(f"! {line}")
    _print_tools(speeds)
    torch.set_num_threads(threads)
    with ProgressView(aside, unit="rounds") as view:
        alone = measure_frechet(dimensions=_DIMENSIONS, rounds=options.rounds, on_progress=view)
    _print_alone(alone)
    if options.json is not None:
        report = {
            "images": pair.images,
            "batch_size": options.batch_size,
            "threads": threads,
            "device": str(device),
            "weights_sha256": digest,
            "weights_trained": not untrained,
            "skipped": skipped,
            "tools": [asdict(speed) for speed in speeds],
            "frechet_distance_alone": asdict(alone),
        }
        write_json(options.json, report, indent=2)
        print(options.json)
    return 0


def _print_tools(speeds: tuple[ToolSpeed, ...]) -> None:
    for speed in speeds:
        line = (
            f"  {speed.name}: {median(speed.seconds):.1f} s "
            f"({median(speed.processor_seconds):.1f} of processors), "
            f"{speed.features_per_second:.2f} features/s, FID {speed.figure:.6g}"
        )
        if speed is not speeds[0]:
            line += (
                f"; {spread(speed.ratios)} times the seconds of {speeds[0].name}, "
                f"{spread(speed.processor_ratios)} times the processors' seconds"
            )
        print(line)


def _print_alone(alone: FrechetSpeeds) -> None:
    print(
        f"  the distance alone, {alone.dimensions} dimensions: {alone.ours:.2f} s; scipy's sqrtm: "
        f"{alone.square_root:.2f} s, {spread(alone.ratios)} times as long, results "
        f"{alone.relative_difference:.0e} apart"
    )


PIXELS = 256

_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Suffixes that all of the tools look for."""

_LEVELS = 16
"""Grey levels of scikit-learn's digits."""


@dataclass(frozen=True)
class ImagePair:
    """Two folders of images, without folders in them."""

    samples: Path
    reference: Path
    images: int
    """How many both folders hold together."""
    what: str
    """What they are, in print."""


def link_images(samples: Path, reference: Path, count: int, scratch: Path) -> ImagePair:
    """The first images of two folders at any depth, as links.

    Raises:
        UserError: a folder holds no images, or others than all tools read.
    """
    total = 0
    for name, source in (("samples", samples), ("reference", reference)):
        if not source.is_dir():
            raise UserError(f"{source} is no folder of images")
        images = FolderImages(source)
        folder = scratch / name
        folder.mkdir(parents=True)
        for number, file in enumerate(images.files[:count]):
            if file.suffix not in _SUFFIXES:
                raise UserError(
                    f"{file} is no file that all tools look for: expected {', '.join(_SUFFIXES)}"
                )
            (folder / f"{number:06}{file.suffix}").symlink_to(file.resolve())
            total += 1
    return ImagePair(
        scratch / "samples", scratch / "reference", total, f"of {samples} and {reference}"
    )


def write_digits(count: int, scratch: Path) -> ImagePair:
    """Real images that come with scikit-learn, enlarged to 256 pixels a side.

    Args:
        count: of each folder, at most half of 1,797.
        scratch: where the folders are made.

    Raises:
        UserError: more images are asked for than there are.
    """
    from sklearn.datasets import load_digits

    digits = load_digits().images
    if count > len(digits) // 2:
        raise UserError(
            f"--count is {count}, but there are {len(digits) // 2} digits for each folder: name "
            "folders with --samples and --reference"
        )
    for place, name in enumerate(("samples", "reference")):
        folder = scratch / name
        folder.mkdir(parents=True)
        for number, digit in enumerate(digits[place::2][:count]):
            levels = (digit * (255 / _LEVELS)).round().astype(np.uint8)
            image = Image.fromarray(levels).resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)
            image.convert("RGB").save(folder / f"{number:06}.png")
    return ImagePair(
        scratch / "samples",
        scratch / "reference",
        2 * count,
        f"scikit-learn's digits of {PIXELS} pixels",
    )


_SPREAD = 0.05


def write_random_inception(path: Path) -> None:
    """Write a file in the layout of the field's weights (torchvision's names, 1,008 classes).

    Convolutions keep the scale of what they are given, so that activations are as large as those of
    a trained network: zeros or overflows can take another time.
    """
    network = inception_v3(
        weights=None, num_classes=Extractor.classes, aux_logits=False, init_weights=False
    )
    stream = generator("random-inception")
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, generator=stream)
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, _SPREAD, generator=stream)
    with atomic_path(path) as temporary:
        torch.save(network.state_dict(), temporary)
