"""`harness benchmark`: ratios of speeds, measured side by side in one run."""

from __future__ import annotations

from benchmarks import evaluation as benchmark_evaluation
from benchmarks import loading as benchmark_data
from benchmarks import overhead as benchmark_overhead
from harness.cli.options import Commands


def add(commands: Commands) -> None:
    """Add the group of commands to the command line."""
    group = commands.add_parser(
        "benchmark",
        help="compare speeds with those of other tools, side by side",
        description="Compare speeds with those of other tools, turn by turn in one run, so that a "
        "ratio means something on a machine that is not quiet.",
    )
    parts = group.add_subparsers(title="commands", required=True, metavar="COMMAND")
    for command in (benchmark_data, benchmark_evaluation, benchmark_overhead):
        command.add(parts)
