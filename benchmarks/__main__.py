"""`python -m benchmarks`: ratios of speeds, measured side by side in one run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from harness.cli.main import run_command
from harness.cli.options import (
    DEVICE,
    EXPERIMENTS_DIR,
    SCALE,
    Parser,
    command,
    flag,
    number,
    option,
    overrides,
    path,
)

_SUBJECTS = "softmax sana focused lit dydila dydila:differential=off diffusers_sana diffusers_dit"
_TOKENS = (64, 256, 1024, 4096)
_BLOCK = (
    number("--width", 384, "channels of a token"),
    number("--heads", 6, "the backbone's, for variants that do not choose theirs"),
    number("--batch", 1, "images"),
    number("--convolution", 0, "size of the convolution of V; 0 is none", least=0),
    option("--precision", choices=("float32", "bf16"), default="float32"),
    number("--threads", 1, "CPU threads"),
    flag("--compile", "by torch.compile"),
    option("--device", choices=("cpu", "cuda"), default="cpu"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one benchmark; the exit codes are those of `harness.cli.main.main`."""
    parser: argparse.ArgumentParser = Parser(
        prog="python -m benchmarks",
        description="Compare speeds with those of other tools, turn by turn in one run, so that a "
        "ratio means something on a machine that is not quiet.",
    )
    commands = parser.add_subparsers(title="benchmarks", required=True, metavar="BENCHMARK")
    for each in COMMANDS:
        each.add(commands)
    words = sys.argv[1:] if arguments is None else arguments
    return run_command(parser, words, "a benchmark measures from the beginning")


@command(
    option(
        "--subjects",
        nargs="+",
        metavar="SUBJECT",
        default=_SUBJECTS.split(),
        help=f"what to time (default: {_SUBJECTS})",
    ),
    option(
        "--tokens",
        nargs="+",
        type=int,
        default=_TOKENS,
        metavar="N",
        help=f"in an image (default: {' '.join(map(str, _TOKENS))})",
    ),
    *_BLOCK,
    number("--seconds", 15, "for each number of tokens and pass, after five rounds"),
    path(
        "--output",
        "write attention.csv, growth.csv, attention.png and attention.pdf there",
        "FOLDER",
    ),
)
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


@command(
    option("subject", metavar="VARIANT", help="one of `attention`'s subjects"),
    number("--tokens", 1024, "in an image"),
    *_BLOCK,
    number("--rounds", 5, "passes that are recorded"),
    path("--output", "of the trace (default: one in runs/profiles)"),
)
def profile(options: argparse.Namespace) -> int:
    """Where the time of one attention block goes, operation by operation.

    Records forward and backward passes with PyTorch's profiler, prints the ten operations that take
    longest, and writes a trace (Chrome's JSON) for chrome://tracing or ui.perfetto.dev.

    Example: python -m benchmarks profile dydila:kernel=relu --tokens 256
    """
    from benchmarks.profile import run

    return run(options)


@command(
    path("source", "the images"),
    path("manifest", "which of them"),
    path("--latents", "a folder of `data encode`", "DIR"),
    number("--resolution", 256, "pixels a side", least=4),
    number("--batch-size", 32, "images a batch"),
    number("--workers", 2, "loader processes", least=0),
    number("--rounds", 5, "pairs of measurements"),
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


@command(
    path("--samples", "images (default: scikit-learn's digits)", "DIR"),
    path("--reference", "what they are compared to", "DIR"),
    number("--count", 256, "images of each folder", least=2),
    path(
        "--weights",
        "Inception weights, torch-fidelity's or pytorch-fid's file (default: torch-fidelity's from "
        "PyTorch's cache, else random ones)",
    ),
    number("--batch-size", 50, "images seen at once"),
    number("--threads", None, "of each tool (default: all processors)"),
    number("--rounds", 3, "runs of each"),
    path("--json", "write all of it as JSON"),
    DEVICE,
)
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


@command(
    overrides("change a field"),
    option("--ablation", default="baselines", help="a file in experiments/ablation"),
    option("--variant", default="dydila", help="one of the ablation's"),
    number("--steps", 60, "steps timed a round"),
    number("--rounds", 5, "trainings"),
    number("--threads", 1, "CPU threads"),
    number("--jobs", 200, "tiny jobs to launch"),
    number("--workers", 2, "processes that run them"),
    number("--trials", 5, "whole tiny trials"),
    flag("--json", "print JSON instead of text"),
    SCALE,
    EXPERIMENTS_DIR,
)
def overhead(options: argparse.Namespace) -> int:
    """Seconds a training step beside a plain PyTorch loop, and seconds a launched trial.

    Trains the same steps with the harness and with a plain PyTorch loop, step by step in turns, and
    prints the ratio of their times; then runs tiny jobs through the pool of local workers and
    prints what each costs beyond its own work; then whole tiny trials.

    Example: python -m benchmarks overhead --scale digits train.batch_size=32
    """
    from benchmarks.overhead import run

    return run(options)


@command(
    option(
        "--device",
        choices=("cuda", "cpu"),
        default="cuda",
        help="cpu tries the checks themselves (default: cuda)",
    ),
    number("--seconds", 480, "for all of them"),
    option(
        "--output",
        metavar="FOLDER",
        default="gpu-check",
        help="where the page, logs and runs go (default: gpu-check)",
    ),
)
def gpu_check(options: argparse.Namespace) -> int:
    """What only a machine with a card can show, in minutes, with one page about it.

    Runs the contract of the attention blocks, a stopped training, all baselines (plain, compiled in
    bf16, on several cards), the cost of attention against tokens, and the speed at size S; writes
    gpu-check.md with the name of the card.

    Example: python -m benchmarks gpu-check --output gpu-check
    """
    from benchmarks.gpu_check import run

    return run(options)


COMMANDS = (attention, profile, data, evaluation, gpu_check, overhead)


if __name__ == "__main__":
    raise SystemExit(main())
