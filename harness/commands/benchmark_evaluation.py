"""`harness benchmark evaluation`: FID's time, beside torch-fidelity, pytorch-fid and scipy."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from harness.cli.options import Commands
from models.errors import UserError

if TYPE_CHECKING:
    from benchmarks.evaluation import ToolSpeed
    from harness.evaluation.frechet_benchmark import FrechetSpeeds

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
        epilog="Example: python -m harness benchmark evaluation --samples generated/ "
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
    import json
    from dataclasses import asdict

    import torch
    from rich.console import Console

    from benchmarks.evaluation import Comparison, available_tools, measure_evaluation
    from harness.evaluation.benchmark_images import link_images, write_digits
    from harness.evaluation.extractors.inception import standard_weights
    from harness.evaluation.extractors.weights_file import check_there, file_sha256
    from harness.evaluation.frechet_benchmark import measure_frechet
    from harness.evaluation.random_inception import write_random_inception
    from harness.machine.environment import process_device
    from harness.machine.files import write_text
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
        write_text(options.json, json.dumps(report, indent=2) + "\n")
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
