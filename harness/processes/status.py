"""How far a trial is, as a small file beside it: for those who look on without being its parent."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from harness.machine.files import read_sound_json, write_json
from harness.processes.progress import Progress, ProgressListener, StageClock
from models.errors import Preempted, one_line

STATUS_FILE = "status.json"
SECONDS_BETWEEN_WRITES = 1.0
LONGEST_PAUSE = 10.0
LARGEST_SHARE = 0.02
"""Of a trial's time that goes into writing this file, as far as the longest pause allows."""

State = Literal["running", "stopped", "failed", "done"]


@dataclass(frozen=True)
class TrialStatus:
    """What the process that last worked on a trial said about it."""

    state: State
    """`stopped`: interrupted or preempted, and to be resumed."""
    host: str
    pid: int
    updated: float
    """Seconds since the epoch."""
    stage: str = ""
    done: int = 0
    total: int = 0
    note: str = ""
    seconds_left: float | None = None
    """Of the present stage, at its mean speed in this process; None if unknown."""
    reason: str = ""
    """Why it stopped or failed."""

    @property
    def progress(self) -> Progress:
        return Progress(self.stage, self.done, self.total, self.note)


def read_status(folder: Path) -> TrialStatus | None:
    """The status of the trial in `folder`; None where it was never started."""
    return read_sound_json(folder / STATUS_FILE, TrialStatus)


@contextmanager
def recorded_status(folder: Path, listener: ProgressListener) -> Iterator[ProgressListener]:
    """Records for the process that runs a trial how it comes on and how it ends, by a listener that
    tells `listener` and writes the file about once a second."""
    stage = StageClock()
    next_write = 0.0

    def write(state: State, reason: str = "") -> None:
        nonlocal next_write
        began = time.monotonic()
        status = TrialStatus(
            state,
            host=socket.gethostname(),
            pid=os.getpid(),
            updated=time.time(),
            **asdict(stage.latest),
            seconds_left=stage.seconds_left,
            reason=reason,
        )
        # A disk that is full is told by what has to be written.
        with suppress(OSError):
            write_json(folder / STATUS_FILE, status)
        now = time.monotonic()
        pause = max(SECONDS_BETWEEN_WRITES, (now - began) / LARGEST_SHARE)
        next_write = now + min(pause, LONGEST_PAUSE)

    def report(progress: Progress) -> None:
        if stage.take(progress) or time.monotonic() >= next_write:
            write("running")
        listener(progress)

    write("running")
    try:
        yield report
    except BaseException as error:
        write(*state_after(error))
        raise
    write("done")


def record_ending(folder: Path, state: State, reason: str) -> None:
    """Say for the process that ran the trial how it ended, once that process is gone."""
    status = read_status(folder)
    if status is not None:
        ended = replace(status, state=state, reason=reason, seconds_left=None, updated=time.time())
        write_json(folder / STATUS_FILE, ended)


def state_after(error: BaseException) -> tuple[State, str]:
    """In which state an error leaves a trial, and the reason in one line."""
    if isinstance(error, Preempted):
        return "stopped", one_line(error)
    if isinstance(error, Exception):
        return "failed", one_line(error)
    return "stopped", "interrupted"
