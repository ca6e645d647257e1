"""`python -m benchmarks`: ratios of speeds, measured side by side in one run."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from benchmarks import evaluation, loading, overhead
from harness.cli.main import run_command
from harness.cli.options import Parser


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
    for add in (loading.add, evaluation.add, overhead.add):
        add(commands)
    return run_command(parser, sys.argv[1:] if arguments is None else arguments)


if __name__ == "__main__":
    raise SystemExit(main())
