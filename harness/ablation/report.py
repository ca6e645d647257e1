"""The report of an ablation: from the runs in MLflow to tables and figures in a folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from rich.console import Console

from harness.config.load import Ablation
from harness.data.datasets import bind_content
from harness.machine.environment import ROOT
from harness.machine.files import check_folder
from harness.terminal.jobs import print_line
from harness.tracking import runs
from harness.tracking.publisher import publish_pending, wait_published
from harness.tracking.store import Store, open_store
from models.errors import UserError
from reports.load import open_store as open_for_reading
from reports.report import TABLE_MARKDOWN, Report, write_report

_LONGEST_NAME = 200
"""Bytes that every file system takes as a folder's name."""


def rebuild_report(
    ablation: str, scale: str, runs_dir: Path, console: Console, selected: Ablation | None = None
) -> None:
    """Make the tables and figures again from MLflow alone, of the trials that are finished.

    The trials to compare are those that were `selected`, or else those of the ablation's run that
    was last at work.

    Raises:
        UserError: MLflow does not answer, has no run of this ablation at this scale, or none of
            these trials; a name cannot be one.
    """
    for what, name in (("ablation", ablation), ("scale", scale)):
        if not name or Path(name).name != name or len(name.encode()) > _LONGEST_NAME:
            raise UserError(
                f"{what} {name[:50]!r}: expected the name of one that was run, which is that of a "
                "file in experiments/ without its folder and ending"
            )
    check_folder(runs_dir, "--runs-dir")
    store, notice = open_store(ROOT), partial(print_line, console)
    if store.database is not None and store.database.exists():
        # Where the repository was copied or moved, its artifacts are looked for here.
        store.client()
    elif store.database is None:
        # Silence and a missing driver are told once, as what they are, before anything is sent.
        with open_for_reading(store.uri, ablation, scale) as client:
            client.search_experiments(max_results=1)
    recorded = runs.ablation_folders(runs_dir, scale, ablation)
    for each in recorded:
        runs.list_trials_again(each)
    publish_pending(runs_dir, store, notice)
    # Where a command is at work on the ablation, the listing is sent by that.
    published = wait_published(recorded, store, notice)
    run_id = None
    if selected is not None:
        hashes = [trial.hash for trial in bind_content(selected).trials]
        run_id = published.get(runs.ablation_folder(runs_dir, scale, ablation, hashes))
        if run_id is None:
            raise UserError(
                f"ablation {ablation} at scale {scale} was not run with these seeds and KEY=VALUE: "
                "`make ablation` with the same ones does; without any, the report is of the run "
                "that was last at work"
            )
    folder = _folder(runs_dir, scale, ablation)
    _show(write_report(store.uri, ablation, scale, folder, run_id), console)


def record_report(
    tracked: runs.ParentRun,
    members: Sequence[runs.AblationMember],
    ablation: Ablation,
    runs_dir: Path,
    store: Store,
    console: Console,
) -> bool:
    """Write the report on the members, in table order, record it in the ablation's run, and print
    it; whether there is one.

    Where MLflow does not answer, or no trial has finished, it says so and what to do later.
    """
    notice = partial(print_line, console)
    again = f"make report EXP={ablation.name} SCALE={ablation.scale}"
    folders = [*(member.folder for member in members), tracked.folder]
    if wait_published(folders, store, notice)[tracked.folder] is None:
        notice(f"No report yet, since reports are made from MLflow; later: {again}")
        return False
    folder = _folder(runs_dir, ablation.scale, ablation.name)
    try:
        report = write_report(store.uri, ablation.name, ablation.scale, folder, tracked.run_id)
    except UserError as error:
        notice(f"{error}\nNo report yet; when that is mended: {again}")
        return False
    for file in report.files:
        tracked.artifact(file)
    table = (folder / TABLE_MARKDOWN).read_text(encoding="utf-8")
    tracked.note(f"{table.strip()}\n\n{runs.members_table(members, tracked.folder)}")
    _show(report, console)
    return True


def _folder(runs_dir: Path, scale: str, ablation: str) -> Path:
    return runs_dir / "reports" / scale / ablation


def _show(report: Report, console: Console) -> None:
    console.print(report.console)
    for note in report.notes:
        print_line(console, f"! {note}")
    for file in report.files:
        print_line(console, str(file))
