"""`python -m benchmarks`: ratios of speeds, measured side by side in one run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from harness.cli.main import run_command
from harness.cli.options import (
    Parser,
    add_command,
    add_device,
    add_experiments_dir,
    add_file,
    add_number,
    add_overrides,
    add_scale,
)

ATTENTION_SUBJECTS = (
    "softmax",
    "sana",
    "focused",
    "lit",
    "dydila",
    "dydila:differential=off",
    "diffusers_sana",
    "diffusers_dit",
)
ATTENTION_TOKENS = (64, 256, 1024, 4096)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark.

    Args:
        arguments: None takes those of the process.

    Returns:
        The exit codes of `harness.cli.main.main`.
    """
    parser: argparse.ArgumentParser = Parser(
        prog="python -m benchmarks",
        description="Compare speeds with those of other tools, turn by turn in one run, so that a "
        "ratio means something on a machine that is not quiet.",
    )
    commands = parser.add_subparsers(title="benchmarks", required=True, metavar="BENCHMARK")
    add_command(commands, attention, _add_attention)
    add_command(commands, data, _add_data)
    add_command(commands, evaluation, _add_evaluation, add_device)
    add_command(commands, overhead, _add_overhead, add_scale, add_experiments_dir)
    return run_command(parser, sys.argv[1:] if arguments is None else arguments)


def attention(options: argparse.Namespace) -> int:
    """Latency and memory of attention blocks against tokens, beside diffusers'.

    Times the forward pass, and forward and backward, of every block in turns; prints the ratio to
    SANA's attention, the exponent of growth and the number of tokens from which softmax is slower.
    A subject is a variant, with fields as in dydila:differential=off,kernel=relu, or diffusers'
    attention on the same weights: diffusers_sana, diffusers_dit.

    Example: python -m benchmarks attention --subjects sana dydila softmax --tokens 256 1024
    """
    from benchmarks.attention import run

    return run(options)


def _add_attention(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--subjects",
        nargs="+",
        metavar="SUBJECT",
        default=ATTENTION_SUBJECTS,
        help=f"what to time (default: {' '.join(ATTENTION_SUBJECTS)})",
    )
    command.add_argument(
        "--tokens",
        nargs="+",
        type=int,
        default=ATTENTION_TOKENS,
        metavar="N",
        help=f"default: {' '.join(map(str, ATTENTION_TOKENS))}",
    )
    add_number(command, "--width", 384, "channels of a token")
    add_number(command, "--heads", 6, "the backbone's, for variants that do not choose theirs")
    add_number(command, "--batch", 1, "images")
    add_number(command, "--convolution", 0, "size of the convolution of V; 0 is none", least=0)
    command.add_argument("--precision", choices=("float32", "bf16"), default="float32")
    add_number(command, "--threads", 1, "CPU threads")
    command.add_argument("--compile", action="store_true", help="by torch.compile")
    command.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    add_number(command, "--seconds", 15, "for each number of tokens and pass, after five rounds")
    command.add_argument(
        "--output",
        type=Path,
        metavar="FOLDER",
        help="write attention.csv, growth.csv, attention.png and attention.pdf there",
    )


def data(options: argparse.Namespace) -> int:
    """Images a second of the training loader, beside torchvision's ImageFolder.

    Loads the images of a manifest with both loaders, turn by turn, and prints the speeds and the
    ratio. With --latents, the training loader reads latents instead. ImageFolder gets the images as
    files in a temporary folder.

    Example: python -m benchmarks data images.zip images.json --workers 2
    """
    from benchmarks.loading import run

    return run(options)


def _add_data(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", metavar="SOURCE", type=Path, help="the images")
    command.add_argument("manifest", metavar="MANIFEST", type=Path, help="which of them")
    command.add_argument("--latents", type=Path, metavar="DIR", help="a folder of `data encode`")
    add_number(command, "--resolution", 256, "pixels a side", least=4)
    add_number(command, "--batch-size", 32, "images a batch")
    add_number(command, "--workers", 2, "loader processes", least=0)
    add_number(command, "--rounds", 5, "pairs of measurements")


def evaluation(options: argparse.Namespace) -> int:
    """Seconds of FID, beside torch-fidelity's, pytorch-fid's and scipy's.

    Measures FID of the same two folders with `harness evaluate` and with the commands of
    torch-fidelity and pytorch-fid, each a process of its own with the same Inception weights,
    threads and batch size, turn by turn; and the Frechet distance alone beside scipy's matrix
    square root. Each tool's figure stands beside its time.

    Example: python -m benchmarks evaluation --samples generated/ --reference real/ --count 5000
    """
    from benchmarks.evaluation import run

    return run(options)


def _add_evaluation(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--samples", type=Path, metavar="DIR", help="images (default: scikit-learn's digits)"
    )
    command.add_argument("--reference", type=Path, metavar="DIR", help="what they are compared to")
    add_number(command, "--count", 256, "images of each folder", least=2)
    add_file(
        command,
        "--weights",
        "Inception weights, torch-fidelity's or pytorch-fid's file (default: torch-fidelity's from "
        "PyTorch's cache, else random ones)",
    )
    add_number(command, "--batch-size", 50, "images seen at once")
    add_number(command, "--threads", None, "of each tool (default: all processors)")
    add_number(command, "--rounds", 3, "runs of each")
    add_file(command, "--json", "write all of it as JSON")


def overhead(options: argparse.Namespace) -> int:
    """Seconds a training step beside a plain PyTorch loop, and seconds a launched trial.

    Trains the same steps with the harness and with a plain PyTorch loop, step by step in turns, and
    prints the ratio of their times; then runs tiny jobs through the pool of local workers and
    prints what each costs beyond its own work; then whole tiny trials.

    Example: python -m benchmarks overhead --scale digits train.batch_size=32
    """
    from benchmarks.overhead import run

    return run(options)


def _add_overhead(command: argparse.ArgumentParser) -> None:
    add_overrides(command, "change a field")
    command.add_argument("--ablation", default="baselines", help="a file in experiments/ablation")
    command.add_argument("--variant", default="dydila", help="one of the ablation's")
    add_number(command, "--steps", 60, "steps timed a round")
    add_number(command, "--rounds", 5, "trainings")
    add_number(command, "--threads", 1, "CPU threads")
    add_number(command, "--jobs", 200, "tiny jobs to launch")
    add_number(command, "--workers", 2, "processes that run them")
    add_number(command, "--trials", 5, "whole tiny trials")
    command.add_argument("--json", action="store_true", help="print JSON instead of text")


if __name__ == "__main__":
    raise SystemExit(main())
