"""`harness search`: look for good values of configuration fields."""

from __future__ import annotations

import argparse

from harness.cli.options import (
    FAILED,
    INTERRUPTED,
    Commands,
    add_detach,
    add_experiments_dir,
    add_runs_dir,
)


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "search",
        help="look for good values of configuration fields with Optuna",
        description="Look for good values of configuration fields with Optuna. Each of its trials "
        "is one configuration, trained with every seed of the search; bad ones are stopped early. "
        "--trials counts all trials of the study, so the same command goes on with what is left, "
        "and a larger number goes on from there. Several of them may run at once on one study.",
        epilog="Example: python -m harness search dydila_factors --trials 30 train.steps=300",
    )
    command.add_argument("name", metavar="NAME", help="a file in experiments/search; see `list`")
    command.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        help="change a field of the base configuration, such as train.steps=200",
    )
    command.add_argument(
        "--trials", type=int, required=True, metavar="N", help="trials of the study in all"
    )
    command.add_argument("--scale", default="digits", help="how big: a file in experiments/scale")
    command.add_argument(
        "--workers", type=int, metavar="N", help="trials at once; short for cluster.workers=N"
    )
    command.add_argument(
        "--cluster", default="local", help="where trials run: a file in experiments/cluster"
    )
    command.add_argument(
        "--storage",
        metavar="URL",
        help="database of the study, such as postgresql://user@host/name "
        "(default: a file in RUNS_DIR/searches)",
    )
    add_detach(command)
    add_runs_dir(command)
    add_experiments_dir(command)
    command.set_defaults(command=_search)


def _search(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.config.load import load_cluster
    from harness.config.mistakes import ConfigError, Mistake
    from harness.search.config import load_search

    overrides = list(options.overrides)
    if options.workers is not None:
        overrides.append(f"cluster.workers={options.workers}")
    mistakes: list[Mistake] = []
    try:
        cluster = load_cluster(options.cluster, overrides, options.experiments_dir)
    except ConfigError as error:
        mistakes += error.mistakes
    try:
        search = load_search(
            options.name,
            scale=options.scale,
            overrides=overrides,
            experiments_dir=options.experiments_dir,
        )
    except ConfigError as error:
        raise ConfigError([*error.mistakes, *mistakes]) from None
    if mistakes:
        raise ConfigError(mistakes)
    from harness.cluster.launcher import Detached
    from harness.search.launch import run_search

    try:
        found = run_search(
            search,
            cluster,
            trials=options.trials,
            storage=options.storage,
            runs_dir=options.runs_dir,
            console=Console(),
            detach=options.detach,
        )
    except Detached as left:
        print(f"{left}. To watch them again, and for what they found, repeat the command.")
        return INTERRUPTED if left.by_signal else 0
    return 0 if found else FAILED
