"""`python -m benchmarks evaluation`: FID's time, beside torch-fidelity, pytorch-fid and scipy.

Here are the images and the weights that all tools are given, and the distance alone, from stored
statistics, beside the usual matrix square root; `tools` runs the tools.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from rich.console import Console
from scipy.linalg import sqrtm
from torch import nn
from torchvision.models import inception_v3

from benchmarks.tools import Comparison, ToolSpeed, available_tools, measure_evaluation
from benchmarks.turns import ratios, spread, take_rounds
from harness.evaluation.extractors.inception import Extractor, standard_weights
from harness.evaluation.extractors.weights_file import check_there, file_sha256
from harness.evaluation.image_inputs import FolderImages
from harness.evaluation.metrics.frechet import FeatureMoments, frechet_distance
from harness.machine.files import atomic_path, check_writable, write_json
from harness.machine.place import choose_device
from harness.processes.progress import ProgressListener, ignore_progress
from harness.terminal.progress import ProgressView
from harness.vocabulary.names import short_hash
from models.errors import UserError
from models.randomness import generator

Statistics = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean (D,) and covariance (D, D)."""

_DIMENSIONS = 2048
_SAMPLES_PER_DIMENSION = 3
"""Enough for covariances of full rank, which are the slower ones for neither side."""
_PIXELS = 256
_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Suffixes that all of the tools look for."""
_LEVELS = 16
"""Grey levels of scikit-learn's digits."""
_SPREAD = 0.05
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
    device = str(choose_device(options.device))
    with (
        tempfile.TemporaryDirectory() as temporary,
        ProgressView(Console(stderr=True), unit="runs") as view,
    ):
        scratch = Path(temporary)
        if options.samples is None:
            images, what = write_digits(options.count, scratch)
        else:
            images = link_images(options.samples, options.reference, options.count, scratch)
            what = f"of {options.samples} and {options.reference}"
        weights = options.weights or standard_weights()
        untrained = not weights.is_file()
        if untrained:
            weights = scratch / "random.pth"
            write_random_inception(weights)
        given = Comparison(scratch, images, weights, options.batch_size, threads, device)
        tools, skipped = available_tools(given)
        speeds = measure_evaluation(tools, given, rounds=options.rounds, on_progress=view)
        digest = file_sha256(weights)
        torch.set_num_threads(threads)
        alone = measure_frechet(dimensions=_DIMENSIONS, rounds=options.rounds, on_progress=view)
    print(
        f"{images} images, {what}; batches of {options.batch_size}, {threads} threads, "
        f"{device}, {options.rounds} rounds, Inception weights {short_hash(digest)}"
    )
    for line in (*skipped, *([_UNTRAINED] if untrained else [])):
        print(f"! {line}")
    _print(speeds, alone)
    if options.json is not None:
        report = {
            "images": images,
            "batch_size": options.batch_size,
            "threads": threads,
            "device": device,
            "weights_sha256": digest,
            "weights_trained": not untrained,
            "skipped": skipped,
            "tools": [asdict(speed) for speed in speeds],
            "frechet_distance_alone": asdict(alone),
        }
        write_json(options.json, report, indent=2)
        print(options.json)
    return 0


def _print(speeds: Sequence[ToolSpeed], alone: FrechetSpeeds) -> None:
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
    print(
        f"  the distance alone, {alone.dimensions} dimensions: {alone.ours:.2f} s; scipy's sqrtm: "
        f"{alone.square_root:.2f} s, {spread(alone.ratios)} times as long, results "
        f"{alone.relative_difference:.0e} apart"
    )


def link_images(samples: Path, reference: Path, count: int, folder: Path) -> int:
    """The first images of two folders at any depth as links in `folder`; how many there are.

    Raises:
        UserError: a folder holds no images, or others than all tools read.
    """
    total = 0
    for name, source in (("samples", samples), ("reference", reference)):
        if not source.is_dir():
            raise UserError(f"{source} is no folder of images")
        files = FolderImages(source).files[:count]
        (folder / name).mkdir(parents=True)
        for number, file in enumerate(files):
            if file.suffix not in _SUFFIXES:
                raise UserError(
                    f"{file} is no file that all tools look for: expected {', '.join(_SUFFIXES)}"
                )
            (folder / name / f"{number:06}{file.suffix}").symlink_to(file.resolve())
        total += len(files)
    return total


def write_digits(count: int, folder: Path) -> tuple[int, str]:
    """Real images that come with scikit-learn, enlarged to 256 pixels a side: how many, and what.

    Raises:
        UserError: more images are asked for than half of its 1,797, for each of the two folders.
    """
    from sklearn.datasets import load_digits

    digits = load_digits().images
    if count > len(digits) // 2:
        raise UserError(
            f"--count is {count}, but there are {len(digits) // 2} digits for each folder: name "
            "folders with --samples and --reference"
        )
    for place, name in enumerate(("samples", "reference")):
        (folder / name).mkdir(parents=True)
        for number, digit in enumerate(digits[place::2][:count]):
            levels = (digit * (255 / _LEVELS)).round().astype(np.uint8)
            image = Image.fromarray(levels).resize((_PIXELS, _PIXELS), Image.Resampling.BICUBIC)
            image.convert("RGB").save(folder / name / f"{number:06}.png")
    return 2 * count, f"scikit-learn's digits of {_PIXELS} pixels"


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


@dataclass(frozen=True)
class FrechetSpeeds:
    """Median seconds of one distance, features and statistics not counted."""

    dimensions: int
    ours: float
    square_root: float
    """With `scipy.linalg.sqrtm` of the covariances' product."""
    ratios: tuple[float, ...]
    """The square root's seconds over ours, a pair a round; above 1 ours is faster."""
    relative_difference: float
    """Between the two results."""


def measure_frechet(
    *, dimensions: int, rounds: int, on_progress: ProgressListener = ignore_progress
) -> FrechetSpeeds:
    """Compute the same distance both ways, turn by turn, each with the threads its library has."""
    a, b = _statistics(dimensions, "a"), _statistics(dimensions, "b")
    work = {"ours": lambda: frechet_distance(*a, *b), "sqrtm": lambda: _by_square_root(a, b)}
    ours, theirs = take_rounds(work, rounds, on_progress).values()
    seconds = [[turn.seconds for turn in turns] for turns in (ours, theirs)]
    expected = theirs[-1].result
    return FrechetSpeeds(
        dimensions=dimensions,
        ours=median(seconds[0]),
        square_root=median(seconds[1]),
        ratios=ratios(seconds[1], seconds[0]),
        relative_difference=abs(ours[-1].result - expected) / expected,
    )


def _statistics(dimensions: int, name: str) -> Statistics:
    """Of features that depend on one another and differ in variance, as real ones do."""
    stream = generator("frechet-benchmark", name)
    mixing = torch.randn(dimensions, dimensions, generator=stream) / dimensions**0.5
    scales = torch.arange(1, dimensions + 1) ** -0.5
    moments = FeatureMoments(dimensions)
    for _ in range(_SAMPLES_PER_DIMENSION):
        noise = torch.randn(dimensions, dimensions, generator=stream)
        moments.update((noise * scales @ mixing).numpy())
    return moments.mean, moments.covariance


def _by_square_root(a: Statistics, b: Statistics) -> float:
    root = np.real(sqrtm(a[1] @ b[1]))
    shift = a[0] - b[0]
    return float(shift @ shift + np.trace(a[1]) + np.trace(b[1]) - 2 * np.trace(root))
