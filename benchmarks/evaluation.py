"""Seconds of `harness evaluate`, beside the commands of torch-fidelity and pytorch-fid.

`python -m benchmarks evaluation`: FID's time, beside torch-fidelity, pytorch-fid and scipy.

Two folders of images that every evaluator reads the same way.

How long a Frechet distance takes from stored statistics, beside the usual matrix square root.

Inception weights without training, for measurements where only the time counts.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import nn
from torchvision.models import inception_v3

from harness.cli.options import Commands
from harness.evaluation.extractors.inception import Extractor
from harness.evaluation.image_inputs import FolderImages
from harness.evaluation.metrics.frechet import FeatureMoments, frechet_distance
from harness.machine.environment import THREAD_VARIABLES
from harness.machine.files import atomic_path, read_json, write_json
from harness.processes.progress import Progress, ProgressListener, ignore_progress
from models.errors import UserError
from models.randomness import generator

OURS = "harness evaluate"

_PYTORCH_FID_WEIGHTS = Path("hub", "checkpoints", "pt_inception-2015-12-05-6726825d.pth")
"""Below TORCH_HOME; the only place where pytorch-fid looks."""

_LAST_LINES = 3


@dataclass(frozen=True)
class Comparison:
    """What all tools are given."""

    samples: Path
    """A folder of images, without folders in it."""
    reference: Path
    """Another one."""
    images: int
    """In both of them."""
    weights: Path
    """Of Inception, in the layout that all three read."""
    batch_size: int
    threads: int
    device: str
    """cpu or cuda."""


@dataclass(frozen=True)
class Tool:
    """A command that prints or writes a Frechet distance of two folders."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    figure: Callable[[str], float]
    """From what it printed."""


@dataclass(frozen=True)
class ToolSpeed:
    """How long a tool took, from its start to its end."""

    name: str
    figure: float
    """The distance that it found."""
    seconds: tuple[float, ...]
    """A round each."""
    processor_seconds: tuple[float, ...]
    """Of all threads and processes of a tool, a round each: little changed by what else runs."""
    features_per_second: float
    """Images of both folders over the median of the seconds, all that a tool does in them."""
    ratios: tuple[float, ...]
    """Its seconds over ours, a round each; above 1 ours is faster."""
    processor_ratios: tuple[float, ...]
    """The same of the processor's seconds."""


def available_tools(comparison: Comparison, scratch: Path) -> tuple[list[Tool], list[str]]:
    """Ours first and the others that are installed, and a line on each that is not.

    Args:
        comparison: what they are given.
        scratch: a folder for what they need or write.
    """
    tools, skipped = [_ours(comparison, scratch / "ours.json")], []
    fidelity = Path(sys.executable).with_name("fidelity")
    command = str(fidelity) if fidelity.is_file() else shutil.which("fidelity")
    if command is None:
        skipped.append("torch-fidelity is skipped: its command `fidelity` is not installed")
    else:
        tools.append(_torch_fidelity(comparison, command))
    if importlib.util.find_spec("pytorch_fid") is None:
        skipped.append("pytorch-fid is skipped: it is not installed (pip install pytorch-fid)")
    else:
        tools.append(_pytorch_fid(comparison, scratch / "torch-home"))
    return tools, skipped


def measure_evaluation(
    tools: Sequence[Tool],
    comparison: Comparison,
    *,
    rounds: int,
    on_progress: ProgressListener = ignore_progress,
) -> tuple[ToolSpeed, ...]:
    """Run all tools, turn by turn, in an order that turns from round to round.

    Args:
        tools: the first is the one that ratios are taken to.
        comparison: what they were made for.
        rounds: how often each runs, at least 1.
        on_progress: told after each run.

    Raises:
        UserError: a tool fails; the message ends with its last lines.
    """
    seconds: dict[str, list[float]] = {tool.name: [] for tool in tools}
    processor: dict[str, list[float]] = {tool.name: [] for tool in tools}
    figures: dict[str, float] = {}
    for turn in range(rounds):
        first = turn % len(tools)
        for place, tool in enumerate([*tools[first:], *tools[:first]]):
            began, busy = time.perf_counter(), _processor_seconds()
            printed = _run(tool, comparison.threads)
            seconds[tool.name].append(time.perf_counter() - began)
            processor[tool.name].append(_processor_seconds() - busy)
            figures[tool.name] = tool.figure(printed)
            done = turn * len(tools) + place + 1
            on_progress(Progress(tool.name, done, rounds * len(tools)))
    first_tool = tools[0].name
    return tuple(
        ToolSpeed(
            name=name,
            figure=figures[name],
            seconds=tuple(taken),
            processor_seconds=tuple(processor[name]),
            features_per_second=comparison.images / statistics.median(taken),
            ratios=_ratios(taken, seconds[first_tool]),
            processor_ratios=_ratios(processor[name], processor[first_tool]),
        )
        for name, taken in seconds.items()
    )


def _ratios(theirs: Sequence[float], ours: Sequence[float]) -> tuple[float, ...]:
    return tuple(their / our for their, our in zip(theirs, ours, strict=True))


def _processor_seconds() -> float:
    """Of all children that have ended, and of theirs."""
    used = os.times()
    return used.children_user + used.children_system


def _run(tool: Tool, threads: int) -> str:
    environment = {
        **os.environ,
        **tool.environment,
        **dict.fromkeys(THREAD_VARIABLES, str(threads)),
    }
    ran = subprocess.run(tool.command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode:
        said = " / ".join((ran.stderr or ran.stdout).strip().splitlines()[-_LAST_LINES:])
        raise UserError(
            f"{tool.name} ended with exit status {ran.returncode}: {said}; the command was "
            f"{' '.join(tool.command)}"
        )
    return ran.stdout


def _ours(comparison: Comparison, out: Path) -> Tool:
    def figure(_: str) -> float:
        report = read_json(out)
        (value,) = report["figures"].values()
        return float(value)

    return Tool(
        OURS,
        (
            *(sys.executable, "-m", "harness", "evaluate"),
            *("--samples", str(comparison.samples), "--reference", str(comparison.reference)),
            *("--extractor", "inception", "--extractor-weights", str(comparison.weights)),
            *("--metrics", "fd", "--resamples", "0", "--json", str(out)),
            *("--batch-size", str(comparison.batch_size), "--device", comparison.device),
        ),
        {},
        figure,
    )


def _torch_fidelity(comparison: Comparison, command: str) -> Tool:
    def figure(printed: str) -> float:
        return float(json.loads(printed[printed.index("{") :])["frechet_inception_distance"])

    return Tool(
        "torch-fidelity",
        (
            *(command, "--fid", "--json", "--silent", "--no-cache"),
            *(("--cpu",) if comparison.device == "cpu" else ("--gpu", "0")),
            *("--input1", str(comparison.samples), "--input2", str(comparison.reference)),
            *("--feature-extractor-weights-path", str(comparison.weights)),
            *("--batch-size", str(comparison.batch_size)),
        ),
        {},
        figure,
    )


def _pytorch_fid(comparison: Comparison, torch_home: Path) -> Tool:
    place = torch_home / _PYTORCH_FID_WEIGHTS
    place.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(comparison.weights.resolve())

    def figure(printed: str) -> float:
        found = re.search(r"FID:\s*(\S+)", printed)
        if found is None:
            raise UserError(f"pytorch-fid printed no figure, but {printed.strip()!r}")
        return float(found[1])

    return Tool(
        "pytorch-fid",
        (
            *(sys.executable, "-m", "pytorch_fid"),
            *(str(comparison.samples), str(comparison.reference)),
            *("--batch-size", str(comparison.batch_size), "--device", comparison.device),
        ),
        {"TORCH_HOME": str(torch_home)},
        figure,
    )


_DIMENSIONS = 2048

_UNTRAINED = (
    "the Inception weights are random, so the figures mean nothing: only the time counts, and "
    "whether the tools agree"
)


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "evaluation",
        help="seconds of FID, beside torch-fidelity's, pytorch-fid's and scipy's",
        description="Measure FID of the same two folders with `harness evaluate` and with the "
        "commands of torch-fidelity and pytorch-fid, each a process of its own with the same "
        "Inception weights, threads and batch size, turn by turn; and the Frechet distance alone "
        "beside scipy's matrix square root. Each tool's figure stands beside its time.",
        epilog="Example: python -m benchmarks evaluation --samples generated/ "
        "--reference real/ --count 5000",
    )
    command.add_argument(
        "--samples", type=Path, metavar="DIR", help="images (default: scikit-learn's digits)"
    )
    command.add_argument("--reference", type=Path, metavar="DIR", help="what they are compared to")
    command.add_argument(
        "--count", type=int, default=256, metavar="N", help="of each folder (default: %(default)s)"
    )
    command.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="of Inception, torch-fidelity's or pytorch-fid's file (default: torch-fidelity's from "
        "PyTorch's cache, else random ones)",
    )
    command.add_argument("--batch-size", type=int, default=50, metavar="N")
    command.add_argument(
        "--threads", type=int, metavar="N", help="of each tool (default: all processors)"
    )
    command.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    command.add_argument(
        "--rounds", type=int, default=3, metavar="N", help="runs of each (default: %(default)s)"
    )
    command.add_argument("--json", type=Path, metavar="FILE", help="write all of it as JSON")
    command.set_defaults(command=_benchmark)


def _benchmark(options: argparse.Namespace) -> int:
    from dataclasses import asdict

    import torch
    from rich.console import Console

    from harness.evaluation.extractors.inception import standard_weights
    from harness.evaluation.extractors.weights_file import check_there, file_sha256
    from harness.machine.environment import process_device
    from harness.terminal.progress import ProgressView

    for option, least in (("count", 2), ("batch_size", 1), ("rounds", 1), ("threads", 1)):
        value = getattr(options, option)
        if value is not None and value < least:
            raise UserError(
                f"--{option.replace('_', '-')} is {value}, but must be at least {least}"
            )
    if (options.samples is None) != (options.reference is None):
        raise UserError("--samples and --reference belong together: give both or none")
    if options.weights is not None:
        check_there(options.weights)
    threads = options.threads or torch.get_num_threads()
    device = process_device(options.device)
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
        f"{device}, {options.rounds} rounds, Inception weights {digest[:12]}"
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
    from statistics import median

    for speed in speeds:
        line = (
            f"  {speed.name}: {median(speed.seconds):.1f} s "
            f"({median(speed.processor_seconds):.1f} of processors), "
            f"{speed.features_per_second:.2f} features/s, FID {speed.figure:.6g}"
        )
        if speed is not speeds[0]:
            line += (
                f"; {_spread(speed.ratios)} times the seconds of {speeds[0].name}, "
                f"{_spread(speed.processor_ratios)} times the processors' seconds"
            )
        print(line)


def _print_alone(alone: FrechetSpeeds) -> None:
    print(
        f"  the distance alone, {alone.dimensions} dimensions: {alone.ours:.2f} s; scipy's sqrtm: "
        f"{alone.square_root:.2f} s, {_spread(alone.ratios)} times as long, results "
        f"{alone.relative_difference:.0e} apart"
    )


def _spread(ratios: tuple[float, ...]) -> str:
    from statistics import median

    return f"{median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


PIXELS = 256

_SUFFIXES = (".png", ".jpg", ".jpeg")
"""Those that all of the tools look for."""

_LEVELS = 16
"""Of scikit-learn's digits."""


@dataclass(frozen=True)
class ImagePair:
    """Folders without folders in them."""

    samples: Path
    reference: Path
    images: int
    """In both together."""
    what: str
    """In words."""


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


Statistics = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Mean (D,) and covariance (D, D)."""

_SAMPLES_PER_DIMENSION = 3
"""Enough for covariances of full rank, which are the slower ones for neither side."""


@dataclass(frozen=True)
class FrechetSpeeds:
    """Seconds of one distance, features and statistics not counted."""

    dimensions: int
    ours: float
    """Median over the rounds."""
    square_root: float
    """Median, with `scipy.linalg.sqrtm` of the covariances' product."""
    ratios: tuple[float, ...]
    """The square root's seconds over ours, a pair a round; above 1 ours is faster."""
    relative_difference: float
    """Between the two results."""


def measure_frechet(
    *,
    dimensions: int,
    rounds: int,
    on_progress: ProgressListener = ignore_progress,
) -> FrechetSpeeds:
    """Compute the same distance both ways, turn by turn, each with the threads its library has.

    Args:
        dimensions: 2048 for Inception features.
        rounds: pairs of measurements, at least 1.
        on_progress: told after each round.
    """
    a, b = _statistics(dimensions, "a"), _statistics(dimensions, "b")
    ours, theirs = [], []
    for done in range(1, rounds + 1):
        seconds, value = _timed(lambda: frechet_distance(*a, *b))
        ours.append(seconds)
        seconds, expected = _timed(lambda: _by_square_root(a, b))
        theirs.append(seconds)
        on_progress(Progress("rounds", done, rounds))
    return FrechetSpeeds(
        dimensions=dimensions,
        ours=statistics.median(ours),
        square_root=statistics.median(theirs),
        ratios=tuple(other / one for one, other in zip(ours, theirs, strict=True)),
        relative_difference=abs(value - expected) / expected,
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


def _timed(compute: Callable[[], float]) -> tuple[float, float]:
    began = time.perf_counter()
    value = compute()
    return time.perf_counter() - began, value


def _by_square_root(a: Statistics, b: Statistics) -> float:
    from scipy.linalg import sqrtm

    root = np.real(sqrtm(a[1] @ b[1]))
    shift = a[0] - b[0]
    return float(shift @ shift + np.trace(a[1]) + np.trace(b[1]) - 2 * np.trace(root))


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
