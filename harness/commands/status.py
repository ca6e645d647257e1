"""`harness status`: how far every trial of an ablation is."""

from __future__ import annotations

import argparse
import time

from harness.cli.options import Commands, add_selection, load_selected_ablation

_FILES_SECONDS = 2.0
_WIDTH_WITHOUT_TERMINAL = 160


def add(commands: Commands) -> None:
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
