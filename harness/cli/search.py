"""`harness search`: look for good values of configuration fields."""

from __future__ import annotations

import argparse

from harness.cli.options import (
    FAILED,
    Commands,
    add_cluster,
    add_command,
    add_detach,
    add_experiments_dir,
    add_overrides,
    add_runs_dir,
    add_scale,
    check_runs_dir,
    load_with_cluster,
)


def add(commands: Commands) -> None:
    """Add the command."""
    add_command(
        commands,
        search,
        _add_study,
        add_scale,
        add_cluster,
        add_detach,
        add_runs_dir,
        add_experiments_dir,
    )


def _add_study(command: argparse.ArgumentParser) -> None:
    command.add_argument("name", metavar="NAME", help="a file in experiments/search; see `list`")
    add_overrides(command, "change a field of the base configuration, such as train.steps=200")
    command.add_argument(
        "--trials", type=int, required=True, metavar="N", help="trials of the study in all"
    )
    command.add_argument(
        "--workers", type=int, metavar="N", help="trials at once; short for cluster.workers=N"
    )
    command.add_argument(
        "--storage",
        metavar="URL",
        help="database of the study, such as postgresql://user@host/name "
        "(default: a file in RUNS_DIR/searches)",
    )


def search(options: argparse.Namespace) -> int:
    """Look for good values of configuration fields with Optuna.

    Each of its trials is one configuration, trained with every seed of the search; bad ones are
    stopped early. --trials counts all trials of the study, so the same command goes on with what is
    left, and a larger number goes on from there. Several of them may run at once on one study.

    Example: python -m harness search dydila_factors --trials 30 train.steps=300
    """
    from harness.search.config import Search, load_search

    if options.workers is not None:
        options.overrides = [*options.overrides, f"cluster.workers={options.workers}"]

    def load() -> Search:
        return load_search(
            options.name,
            scale=options.scale,
            overrides=options.overrides,
            experiments_dir=options.experiments_dir,
        )

    loaded, cluster = load_with_cluster(load, options)
    check_runs_dir(options.runs_dir)
    # Optuna and the trials' libraries take seconds, which a mistake need not wait for.
    from rich.console import Console

    from harness.cluster.launcher import Detached
    from harness.search.launch import run_search

    try:
        found = run_search(
            loaded,
            cluster,
            trials=options.trials,
            storage=options.storage,
            runs_dir=options.runs_dir,
            console=Console(),
            detach=options.detach,
        )
    except Detached as left:
        print(f"{left}. To watch them again, and for what they found, repeat the command.")
        return 0 if left.by_signal is None else 128 + left.by_signal
    return 0 if found else FAILED
