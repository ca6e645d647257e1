"""`harness ablation`: run what is not finished, then compare.

`harness cancel`: end the jobs of an ablation.

`harness config`: what would run.

`harness report`: the comparison once more, from MLflow.

`harness retry`: run the trials that failed once more.

`harness status`: how far every trial of an ablation is.
"""

from __future__ import annotations

import argparse
import time

from harness.cli.options import (
    Commands,
    add_detach,
    add_runs_dir,
    add_selection,
    load_selected_ablation,
    load_selection,
    run_selection,
)


def add(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "ablation",
        help="train, sample and measure every variant with every seed, then compare",
        description="Train, sample and measure every variant with every seed; write all to MLflow "
        "and the comparison to RUNS_DIR/reports. Finished trials are reused and interrupted ones "
        "resumed, so the command can be repeated at any time.",
        epilog="Example: python -m harness ablation no_differential --seeds 3 train.steps=200",
    )
    add_selection(command)
    add_detach(command)
    command.add_argument(
        "--print-sbatch",
        action="store_true",
        help="print the scripts that SLURM would be given now, and submit nothing",
    )
    command.set_defaults(command=_ablation)


def _ablation(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.ablation.run import print_scripts

    if not options.print_sbatch:
        return run_selection(options, only_failed=False)
    ablation, cluster = load_selection(options)
    print_scripts(ablation, cluster, options.runs_dir, Console())
    return 0


def add_cancel(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "cancel",
        help="end the queued and running jobs of an ablation",
        description="End the queued and running SLURM jobs of an ablation's trials. Running trials "
        "save first, so that a later `ablation` goes on from there.",
        epilog="Example: python -m harness cancel no_differential --scale sub_in",
    )
    add_selection(command)
    command.set_defaults(command=_cancel)


def _cancel(options: argparse.Namespace) -> int:
    from harness.ablation.status import cancel_ablation

    for line in cancel_ablation(load_selected_ablation(options), options.runs_dir):
        print(line)
    return 0


def add_config(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "config",
        help="print the resolved trials and their hashes, and run nothing",
        description="Print the resolved trials of an ablation and their hashes; run nothing.",
    )
    add_selection(command)
    command.set_defaults(command=_config)


def _config(options: argparse.Namespace) -> int:
    from harness.config.serialisation import to_yaml
    from harness.data.datasets import bind_content
    from models.errors import UserError

    ablation, _ = load_selection(options)
    try:
        ablation = bind_content(ablation)
    except UserError as error:
        print(f"# The hashes are not final, since they depend on data that are not there: {error}")
    print(f"# {ablation.name} at {ablation.scale}: {ablation.question}")
    print(f"# {len(ablation.trials)} trials; the others are compared with {ablation.baseline}")
    for trial in ablation.trials:
        print("---")
        print(f"# {trial.folder}  (hash {trial.hash}, weights {trial.training_hash})")
        print(to_yaml(trial.config).rstrip())
    return 0


def add_report(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "report",
        help="rebuild the tables and figures of an ablation from MLflow",
        description="Rebuild the tables and figures of an ablation from MLflow alone; train "
        "nothing. Of an ablation that is still at work, or was interrupted, the trials that are "
        "finished are compared, and the others named.",
    )
    command.add_argument("name", metavar="NAME", help="an ablation that was run before")
    command.add_argument("--scale", default="digits", help="how big: a file in experiments/scale")
    add_runs_dir(command)
    command.set_defaults(command=_report)


def _report(options: argparse.Namespace) -> int:
    from rich.console import Console

    from harness.ablation.report import rebuild_report

    rebuild_report(options.name, options.scale, options.runs_dir, Console())
    return 0


def add_retry(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "retry",
        help="run those trials of an ablation again that failed",
        description="Run those trials of an ablation again that failed, and leave alone those that "
        "were never begun, stopped or run now; then compare. They go on from their last "
        "checkpoints.",
        epilog="Example: python -m harness retry no_differential --cluster slurm",
    )
    add_selection(command)
    add_detach(command)
    command.set_defaults(command=_retry)


def _retry(options: argparse.Namespace) -> int:
    return run_selection(options, only_failed=True)


_FILES_SECONDS = 2.0

_WIDTH_WITHOUT_TERMINAL = 160


def add_status(commands: Commands) -> None:
    """Add the command to the command line."""
    command = commands.add_parser(
        "status",
        help="show how far every trial of an ablation is",
        description="Show how far every trial of an ablation is, wherever it runs and whether or "
        "not the command that began it still does. Needs the same --scale, --seeds and KEY=VALUE "
        "as that command; MLflow is not asked.",
        epilog="Example: python -m harness status no_differential --watch",
    )
    add_selection(command)
    command.add_argument(
        "--watch", action="store_true", help="go on showing, until all is over or Ctrl-C"
    )
    command.set_defaults(command=_status)


def _status(options: argparse.Namespace) -> int:
    from rich.console import Console
    from rich.live import Live

    from harness.ablation.status import AblationProgress, is_over, status_view

    progress = AblationProgress(load_selected_ablation(options), options.runs_dir)
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH_WITHOUT_TERMINAL)

    if not options.watch:
        console.print(status_view(progress.rows(), progress.notices()))
        return 0
    try:
        with Live(console=console, auto_refresh=False) as live:
            while True:
                rows = progress.rows()
                live.update(status_view(rows, progress.notices()), refresh=True)
                if is_over(rows):
                    return 0
                time.sleep(_FILES_SECONDS)
    except KeyboardInterrupt:
        return 0
