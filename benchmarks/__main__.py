"""`harness benchmark`: ratios of speeds, measured side by side in one run."""

from __future__ import annotations

from harness.cli.options import Commands
from harness.commands import benchmark_data, benchmark_evaluation, benchmark_overhead


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
