"""How far an ablation is, and the end of its jobs, for commands that did not begin them.

The state of a trial is told from the files beside it and SLURM's queue; MLflow is not asked.
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
from harness.config.yaml_source import shown_path
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
    """One trial as it is now, and why it waits, stopped or failed.

    `waiting`: nobody has begun it, or asked for it. `queued`: a job was submitted. `requeued`: it
    was interrupted and its job waits for another turn. `stopped`: interrupted, and nobody goes on.
    """

    phase: Phase
    reason: str = ""
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
            try:
                self._queue = read_queue(QUEUE_TIMEOUT_SECONDS)
            except SlurmError as error:
                self._queue = None
                is_part = shutil.which("squeue") is not None
                where = "" if is_part else " (this machine is not part of the cluster)"
                self._notice(f"{error}{where}; states are what the files say")
            self._asked = time.monotonic()
        return [state_of(result, self._queue) for result in results]


def state_of(result: Path, queue: Queue | None) -> TrialState:
    """The state of one trial, by the file of its result; `queue` is None where SLURM is silent."""
    status = read_status(result.parent)
    record = read_record(result)
    outcome = None if record is None else read_outcome(result, record)
    requeues = 0 if outcome is None else outcome.requeues
    job = "" if record is None else record.job
    is_trial = result.name == RESULT
    if (finished_result(result.parent) if is_trial else finished_floor(result)) is not None:
        return TrialState("done", status=status, job=job, requeues=requeues)
    phase, reason = _phase(result, status, record, outcome, queue)
    if phase in ("stopped", "waiting") and result.exists():
        reason = f"{shown_path(result)} is damaged: `ablation` measures again what it held"
    heard = None if record is None else _last_heard(record, outcome)
    if phase == "running" and heard is not None and status is not None and status.updated < heard:
        # What an earlier job left; this one has not come to the trial yet.
        status = replace(status, stage="starting", note="", seconds_left=None)
    return TrialState(phase, reason, status, job, requeues)


def _last_heard(record: JobRecord, outcome: TaskOutcome | None) -> float:
    """When a job last said anything; in seconds since the epoch."""
    return record.submitted if outcome is None else outcome.updated


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
    # Where the trial's process, or a later run of it, was heard of after the job, it knows better.
    ended = None if status is None or status.state == "running" else status.updated
    if record is None or (ended is not None and ended > _last_heard(record, outcome)):
        return _phase_of_process(status)
    return _phase_of_job(record, outcome, found, queue)


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
    """End the queued and running jobs of an ablation; what was done, and what has to be done by
    hand, in lines.

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
"""Nothing will happen unless somebody begins it."""


class AblationProgress:
    """Looks at the files of an ablation's trials each time that it is asked."""

    def __init__(self, ablation: Ablation, runs_dir: Path) -> None:
        """Raises `UserError` where the trials depend on data that are not there."""
        self._results = results_of(ablation, runs_dir)
        self._notices: list[str] = []
        self._reader = StateReader(self._notices.append)

    def look(self) -> tuple[RenderableType, bool]:
        """All trials in the order of their runs, and the floor where it has a job of its own, as a
        table; and whether all of them are over."""
        keys = [key for key, path in self._results.items() if key != FLOOR or read_record(path)]
        states = self._reader.read([self._results[key] for key in keys])
        shown = _view(dict(zip(keys, states, strict=True)), self._notices)
        self._notices.clear()
        return shown, all(state.phase in _OVER for state in states)


def _view(states: Mapping[str, TrialState], notices: Sequence[str]) -> RenderableType:
    """The table, a line that counts the states, and what could not be found out."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in ("trial", "state", "stage", "done", "left", "job", "requeued", "note"):
        table.add_column(
            name,
            justify="right" if name in ("done", "left", "requeued") else "left",
            no_wrap=name != "note",
            overflow="fold",
            header_style="bold",
        )
    for key, state in states.items():
        requeues = f"{state.requeues}x" if state.requeues else ""
        stage, amount, left, note = _progress(state)
        phase = Text(state.phase, style=_STYLES[state.phase])
        table.add_row(Text(key), phase, stage, amount, left, state.job, requeues, note)
    counts = Counter(state.phase for key, state in states.items() if key != FLOOR)
    summary = ", ".join(f"{counts[phase]} {phase}" for phase in _STYLES if counts[phase])
    plural = "" if counts.total() == 1 else "s"
    lines = [f"{counts.total()} trial{plural}: {summary}", *notices]
    return Group(table, *map(Text, lines))


def _progress(state: TrialState) -> tuple[Text, str, str, Text]:
    """A trial's stage, how far it is, the time left, and what there is to say."""
    status, runs = state.status, state.phase == "running"
    if status is None:
        return Text(), "", "", Text(state.reason)
    stage = amount = left = ""
    if state.phase != "done":
        stage = status.stage
        if status.total > 0:
            amount = f"{status.done}/{status.total} {status.done / status.total:4.0%}"
    if runs and status.seconds_left is not None:
        left = format_duration(status.seconds_left)
    said = status.note if runs else ""
    return Text(stage), amount, left, Text("  ".join(filter(None, (said, state.reason))))
