"""Trials and their states as a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.ablation.status import ProgressRow
from harness.terminal.jobs import format_duration
from harness.trial.spec import FLOOR
from harness.trial_state import Phase, TrialState

_STYLES: dict[Phase, str] = {
    "done": "green",
    "running": "cyan",
    "queued": "yellow",
    "requeued": "yellow",
    "stopped": "magenta",
    "failed": "red",
    "waiting": "dim",
}
_OVER: tuple[Phase, ...] = ("done", "failed", "stopped", "waiting")


def is_over(rows: Sequence[ProgressRow]) -> bool:
    """Whether nothing will happen unless somebody begins it."""
    return all(row.state.phase in _OVER for row in rows)


def status_view(rows: Sequence[ProgressRow], notices: Sequence[str]) -> RenderableType:
    """The table, a line that counts the states, and what could not be found out."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("trial", "state", "stage", "done", "left", "job", "requeued", "note"):
        right = name in ("done", "left", "requeued")
        table.add_column(
            name,
            justify="right" if right else "left",
            no_wrap=name != "note",
            overflow="fold",
            header_style="bold",
        )
    for row in rows:
        state = row.state
        table.add_row(
            Text(row.key),
            Text(state.phase, style=_STYLES[state.phase]),
            Text(_stage(state)),
            _amount(state),
            _left(state),
            state.job,
            f"{state.requeues}x" if state.requeues else "",
            Text(_note(state)),
        )
    trials = [row for row in rows if row.key != FLOOR]
    counts = Counter(row.state.phase for row in trials)
    summary = ", ".join(f"{counts[phase]} {phase}" for phase in _STYLES if counts[phase])
    plural = "" if len(trials) == 1 else "s"
    lines = [Text(f"{len(trials)} trial{plural}: {summary}"), *(Text(notice) for notice in notices)]
    return Group(table, *lines)


def _stage(state: TrialState) -> str:
    begun = state.status is not None and state.phase != "done"
    return state.status.stage if begun and state.status is not None else ""


def _amount(state: TrialState) -> str:
    status = state.status
    if status is None or state.phase == "done" or status.total <= 0:
        return ""
    return f"{status.done}/{status.total} {status.done / status.total:4.0%}"


def _left(state: TrialState) -> str:
    status = state.status
    if state.phase != "running" or status is None or status.seconds_left is None:
        return ""
    return format_duration(status.seconds_left)


def _note(state: TrialState) -> str:
    said = state.status.note if state.phase == "running" and state.status is not None else ""
    return "  ".join(part for part in (said, state.reason) if part)
