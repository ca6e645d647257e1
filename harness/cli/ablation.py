"""Commands that run trials and look at them, those of ablations and those of searches."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress

from harness.cli.options import (
    BAD_INPUT,
    CLUSTER,
    DETACH,
    EXPERIMENTS_DIR,
    FAILED,
    RUNS_DIR,
    SCALE,
    SELECTION,
    Commands,
    command,
    flag,
    load_selected_ablation,
    load_selection,
    load_with_cluster,
    option,
    overrides,
)

_SECONDS_BETWEEN_LOOKS = 2.0
"""Of `status --watch`, at the files of trials."""
_WIDTH_WITHOUT_TERMINAL = 160


def add(commands: Commands) -> None:
    """Add the commands."""
    for each in (ablation, config, report, status, cancel, retry, search):
        each.add(commands)


@command(
    *SELECTION,
    DETACH,
    flag("--print-sbatch", "print the scripts that SLURM would be given now, and submit nothing"),
)
def ablation(options: argparse.Namespace) -> int:
    """Train, sample and measure every variant with every seed, then compare.

    All is written to MLflow, and the comparison to RUNS_DIR/reports. Finished trials are reused and
    interrupted ones resumed, so the command can be repeated at any time.

    Example: python -m harness ablation no_differential --seeds 3 train.steps=200
    """
    from rich.console import Console

    from harness.ablation.run import print_scripts

    if not options.print_sbatch:
        return _run(options, only_failed=False)
    selected, cluster = load_selection(options)
    print_scripts(selected, cluster, options.runs_dir, Console())
    return 0


@command(*SELECTION, DETACH)
def retry(options: argparse.Namespace) -> int:
    """Run those trials of an ablation again that failed, then compare.

    Trials that were never begun, were stopped or run now are left alone. The failed ones go on from
    their last checkpoints.

    Example: python -m harness retry no_differential --cluster slurm
    """
    return _run(options, only_failed=True)


def _run(options: argparse.Namespace, *, only_failed: bool) -> int:
    """Run what is not finished, or what failed, and compare; or leave the jobs to a scheduler, and
    say how to go on."""
    from rich.console import Console

    from harness.ablation.run import run_ablation
    from harness.terminal.jobs import print_line
    from models.errors import Detached

    console = Console()
    selected, cluster = load_selection(options)
    try:
        outcome = run_ablation(
            selected,
            cluster,
            options.runs_dir,
            console,
            detach=options.detach,
            only_failed=only_failed,
        )
    except Detached as left:
        which = f"{options.name} --scale {options.scale}"
        print_line(
            console,
            f"{left}. To watch them again and get the report, repeat the command.\n"
            f"`python -m harness status {which}` shows them, `python -m harness cancel {which}` "
            "ends them; both with the same --seeds and KEY=VALUE as here.",
        )
        return 0 if left.by_signal is None else 128 + left.by_signal
    if outcome.failed and all(result.caused_by_user for result in outcome.failed):
        return BAD_INPUT
    return FAILED if outcome.failed or not outcome.reported else 0


@command(*SELECTION)
def config(options: argparse.Namespace) -> int:
    """Print the resolved trials of an ablation and their hashes, and run nothing."""
    from harness.config.serialisation import to_yaml
    from harness.data.datasets import bind_content
    from models.errors import UserError

    selected, _ = load_selection(options)
    try:
        selected = bind_content(selected)
    except UserError as error:
        print(f"# The hashes are not final, since they depend on data that are not there: {error}")
    print(f"# {selected.name} at {selected.scale}: {selected.question}")
    print(f"# {len(selected.trials)} trials; the others are compared with {selected.baseline}")
    for trial in selected.trials:
        print("---")
        print(f"# {trial.folder}  (hash {trial.hash}, weights {trial.training_hash})")
        print(to_yaml(trial.config).rstrip())
    return 0


@command(*SELECTION)
def report(options: argparse.Namespace) -> int:
    """Rebuild the tables and figures of an ablation from MLflow.

    Nothing is trained. Of an ablation that is still at work, or was interrupted, the trials that
    are finished are compared, and the others named. With --seeds or KEY=VALUE the report is of the
    ablation as it was run with the same ones; without them, of the run that was last at work.

    Example: python -m harness report no_differential --seeds 5
    """
    from rich.console import Console

    from harness.ablation.report import rebuild_report

    selected = None
    if options.seeds is not None or options.overrides:
        selected = load_selected_ablation(options)
    rebuild_report(options.name, options.scale, options.runs_dir, Console(), selected)
    return 0


@command(*SELECTION)
def cancel(options: argparse.Namespace) -> int:
    """End the queued and running SLURM jobs of an ablation.

    Running trials save first, so that a later `ablation` goes on from there.

    Example: python -m harness cancel no_differential --scale sub_in
    """
    from harness.ablation.status import cancel_ablation

    for line in cancel_ablation(load_selection(options)[0], options.runs_dir):
        print(line)
    return 0


@command(*SELECTION, flag("--watch", "go on showing, until all is over or Ctrl-C"))
def status(options: argparse.Namespace) -> int:
    """Show how far every trial of an ablation is.

    It does not matter where the trials run, and whether the command that began them still does.
    Needs the same --scale, --seeds and KEY=VALUE as that command; MLflow is not asked.

    Example: python -m harness status no_differential --watch
    """
    from rich.console import Console
    from rich.live import Live

    from harness.ablation.status import AblationProgress

    progress = AblationProgress(load_selection(options)[0], options.runs_dir)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_WITHOUT_TERMINAL)
    if not options.watch:
        console.print(progress.look()[0])
        return 0
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            view, over = progress.look()
            live.update(view, refresh=True)
            if over:
                break
            time.sleep(_SECONDS_BETWEEN_LOOKS)
    return 0


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
