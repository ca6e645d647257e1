"""How far an ablation is, and the end of its jobs, for commands that did not begin them.

In which state a trial is, from the files beside it and SLURM's queue; MLflow is not asked.

Trials and their states as a table.
"""

from __future__ import annotations

import math
import shutil
import socket
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.cluster.slurm.queue import (
    JobRecord,
    QueuedJob,
    SlurmError,
    TaskOutcome,
    cancel_jobs,
    describe_ending,
    read_outcome,
    read_queue,
    read_record,
)
from harness.config.load import Ablation
from harness.data.datasets import bind_content
from harness.machine.files import given_path
from harness.processes.lock import describe_holder, is_locked
from harness.processes.status import TrialStatus, read_status
from harness.terminal.jobs import format_duration
from harness.trial.spec import (
    FLOOR,
    RESULT,
    finished_floor,
    finished_result,
    floor_file,
    trial_folder,
    trial_key,
)

QUEUE_SECONDS = 10.0

QUEUE_TIMEOUT_SECONDS = 60.0

SILENCE_SECONDS = 60.0
"""After which a trial on another host, whose lock cannot be seen from here, is taken for ended."""

Phase = Literal["done", "running", "queued", "requeued", "stopped", "failed", "waiting"]

Queue = Mapping[str, QueuedJob]


@dataclass(frozen=True)
class TrialState:
    """One trial as it is now.

    `waiting`: nobody has begun it, or asked for it. `queued`: a job was submitted. `requeued`: it
    was interrupted and its job waits for another turn. `stopped`: interrupted, and nobody goes on.
    """

    phase: Phase
    reason: str = ""
    """Why it waits, stopped or failed."""
    status: TrialStatus | None = None
    """How far it came; None where it was never begun."""
    job: str = ""
    """SLURM's id; empty where it has none."""
    requeues: int = 0


class StateReader:
    """Reads the states of trials. Asks SLURM, which serves all users of a cluster, no more often
    than every few seconds, and only where a job was submitted."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        """`notice` is told where SLURM gives no answer."""
        self._notice = notice
        self._queue: Queue | None = None
        self._asked = -math.inf

    def read(self, results: Sequence[Path]) -> list[TrialState]:
        """The states of the trials that make these results."""
        submitted = (not result.exists() and read_record(result) is not None for result in results)
        if any(submitted) and time.monotonic() - self._asked > QUEUE_SECONDS:
            self._queue = self._ask()
            self._asked = time.monotonic()
        return [state_of(result, self._queue) for result in results]

    def _ask(self) -> Queue | None:
        try:
            return read_queue(QUEUE_TIMEOUT_SECONDS)
        except SlurmError as error:
            here = "" if shutil.which("squeue") else " (this machine is not part of the cluster)"
            self._notice(f"{error}{here}; states are what the files say")
            return None


def state_of(result: Path, queue: Queue | None) -> TrialState:
    """The state of one trial, by the file of its result; `queue` is None where SLURM is silent."""
    status = read_status(result.parent)
    record = read_record(result)
    outcome = None if record is None else read_outcome(result, record)
    requeues = 0 if outcome is None else outcome.requeues
    job = "" if record is None else record.job
    floor = result.name != RESULT
    found = finished_floor(result) if floor else finished_result(result.parent)
    if found is not None:
        return TrialState("done", status=status, job=job, requeues=requeues)
    phase, reason = _phase(result, status, record, outcome, queue)
    if phase == "running" and record is not None and status is not None:
        heard = record.submitted if outcome is None else outcome.updated
        if status.updated < heard:
            # What an earlier job left; this one has not come to the trial yet.
            status = replace(status, stage="starting", note="", seconds_left=None)
    return TrialState(phase, reason, status, job, requeues)


def _phase(
    result: Path,
    status: TrialStatus | None,
    record: JobRecord | None,
    outcome: TaskOutcome | None,
    queue: Queue | None,
) -> tuple[Phase, str]:
    found = None if record is None or queue is None else record.find(queue)
    if record is not None and found is not None and found.active and not record.cancelled:
        if found.waits:
            again = outcome is not None
            return ("requeued" if again else "queued"), found.reason
        if found.runs:
            return "running", f"{found.time_left} of the job's time left"
        if outcome is not None and outcome.state in ("requeued", "stopped"):
            return "requeued", outcome.reason
    if is_locked(result.parent):
        return "running", ""
    if record is not None and _job_speaks(record, outcome, status):
        return _phase_of_job(record, outcome, found, queue)
    return _phase_of_process(status)


def _job_speaks(record: JobRecord, outcome: TaskOutcome | None, status: TrialStatus | None) -> bool:
    """Whether the job, not the trial's process or a later run of it, knows how it ended."""
    heard = record.submitted if outcome is None else outcome.updated
    return status is None or status.state == "running" or status.updated <= heard


def _phase_of_job(
    record: JobRecord, outcome: TaskOutcome | None, found: QueuedJob | None, queue: Queue | None
) -> tuple[Phase, str]:
    if record.cancelled:
        return "stopped", "cancelled"
    if outcome is not None and outcome.state == "failed":
        return "failed", outcome.reason
    if queue is None:
        if outcome is None:
            return "queued", ""
        return ("running" if outcome.state == "running" else "requeued"), outcome.reason
    ending = describe_ending(found)
    if found is not None and found.state == "CANCELLED":
        return "stopped", ending
    if outcome is not None and outcome.state in ("requeued", "stopped"):
        return "stopped", outcome.reason
    return "failed", ending


def _phase_of_process(status: TrialStatus | None) -> tuple[Phase, str]:
    if status is None:
        return "waiting", ""
    if status.state == "failed":
        return "failed", status.reason
    if status.state != "running":
        return "stopped", status.reason
    if status.host != socket.gethostname() and time.time() - status.updated < SILENCE_SECONDS:
        return "running", ""
    return "stopped", "its process ended without a word"


@dataclass(frozen=True)
class ProgressRow:
    """One trial, by the name that other commands show it under, and its state."""

    key: str
    state: TrialState


class AblationProgress:
    """Looks at the files of an ablation's trials each time that it is asked."""

    def __init__(self, ablation: Ablation, runs_dir: Path) -> None:
        """Raises `UserError` where the trials depend on data that are not there."""
        self._results = results_of(ablation, runs_dir)
        self._reader = StateReader(self._note)
        self._notices: list[str] = []

    def rows(self) -> list[ProgressRow]:
        """All trials in the order of their runs; the floor where it has a job of its own."""
        keys = [key for key, path in self._results.items() if key != FLOOR or read_record(path)]
        states = self._reader.read([self._results[key] for key in keys])
        return [ProgressRow(key, state) for key, state in zip(keys, states, strict=True)]

    def notices(self) -> list[str]:
        """What could not be found out since the last call."""
        notices, self._notices = self._notices, []
        return notices

    def _note(self, text: str) -> None:
        self._notices.append(text)


def results_of(ablation: Ablation, runs_dir: Path) -> dict[str, Path]:
    """The file of each trial's result, and that of the floor, by what they are shown as.

    Raises:
        UserError: the trials depend on data that are not there.
    """
    runs_dir = given_path(str(runs_dir), "--runs-dir").resolve()
    bound = bind_content(ablation)
    floor = floor_file(bound.trials[0].config, runs_dir / "references")
    trials = {trial_key(trial): trial_folder(runs_dir, trial) / RESULT for trial in bound.trials}
    return {FLOOR: floor, **trials}


def cancel_ablation(ablation: Ablation, runs_dir: Path) -> list[str]:
    """End the queued and running jobs of an ablation.

    Returns:
        Lines that say what was done, and what has to be done by hand.

    Raises:
        SlurmError: there are jobs, and SLURM gives no answer.
    """
    results = results_of(ablation, runs_dir)
    submitted = [path for path in results.values() if not path.exists() and read_record(path)]
    ids = cancel_jobs(submitted, QUEUE_TIMEOUT_SECONDS) if submitted else {}
    lines = [f"{key}: job {ids[path]} cancelled" for key, path in results.items() if path in ids]
    for key, path in results.items():
        if path not in ids and key != FLOOR and is_locked(path.parent):
            lines.append(
                f"{key}: {describe_holder(path.parent)} runs it without SLURM; Ctrl-C in its "
                "terminal, or a SIGTERM to the command that started it, ends it"
            )
    return lines or ["nothing of this ablation is queued or running"]


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
