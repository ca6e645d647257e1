"""`harness search`: look for good values of configuration fields."""

from __future__ import annotations

import argparse

from harness.cli.options import (
    CLUSTER,
    DETACH,
    EXPERIMENTS_DIR,
    FAILED,
    RUNS_DIR,
    SCALE,
    command,
    load_with_cluster,
    option,
    overrides,
)


@command(
    option("name", metavar="NAME", help="a file in experiments/search; see `list`"),
    overrides("change a field of the base configuration, such as train.steps=200"),
    option("--trials", type=int, required=True, metavar="N", help="trials of the study in all"),
    option("--workers", type=int, metavar="N", help="trials at once; short for cluster.workers=N"),
    option(
        "--storage",
        metavar="URL",
        help="database of the study, such as postgresql://user@host/name "
        "(default: a file in RUNS_DIR/searches)",
    ),
    SCALE,
    CLUSTER,
    DETACH,
    RUNS_DIR,
    EXPERIMENTS_DIR,
)
def search(options: argparse.Namespace) -> int:
    """Look for good values of configuration fields with Optuna.

    Each of its trials is one configuration, trained with every seed of the search; bad ones are
    stopped early. --trials counts all trials of the study, so the same command goes on with what is
    left, and a larger number goes on from there. Several of them may run at once on one study.

    Example: python -m harness search dydila_factors --trials 30 train.steps=300
    """
    from harness.search.config import load_search

    if options.workers is not None:
        options.overrides = [*options.overrides, f"cluster.workers={options.workers}"]

    loaded, cluster = load_with_cluster(
        lambda: load_search(
            options.name,
            scale=options.scale,
            overrides=options.overrides,
            experiments_dir=options.experiments_dir,
        ),
        options,
    )
    # Optuna and the trials' libraries take seconds, which a mistake need not wait for.
    from rich.console import Console

    from harness.search.launch import run_search
    from models.errors import Detached

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
