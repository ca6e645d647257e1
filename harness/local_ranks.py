"""A command's work shared out among processes: those that it starts, or those of torchrun."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from harness.machine.environment import THREAD_VARIABLES, usable_cores
from harness.processes.group import ProcessGroup
from harness.processes.meeting import Meeting, place_from_environment
from harness.processes.progress import ProgressListener
from harness.processes.ranks import RankFailedError, run_ranks
from models.errors import UserError


@contextmanager
def group_of_environment() -> Iterator[ProcessGroup]:
    """The group that this process was started in, or a group of one.

    Raises:
        UserError: what the environment tells of it is incomplete.
    """
    with Meeting(place_from_environment()) as meeting:
        yield meeting.begin(cuda=False)


def check_processes(processes: int) -> None:
    """Raises a UserError where a command cannot start so many."""
    if processes < 1:
        raise UserError(f"--processes is {processes}, but must be 1 or more")
    place = place_from_environment()
    if processes > 1 and place is not None:
        raise UserError(
            f"--processes {processes} starts processes, but this is one of {place.size} that "
            "torchrun or srun started: leave one of the two out"
        )


def run_local_ranks(
    target: str, payload: Mapping[str, Any], processes: int, on_progress: ProgressListener
) -> Any:
    """Start processes on this machine, and wait for what the leading one finds.

    They take GPUs in turn and share out the cores, or have `OMP_NUM_THREADS` threads each where
    that is set.

    Args:
        target: "package.module:function", called as `function(payload, report)` in each process,
            which finds the others by `group_of_environment`; what it returns must be writable as
            JSON.
        payload: writable as JSON.
        processes: how many.
        on_progress: told what the leading process reports.

    Raises:
        UserError: what one of them raises; the others are stopped.
        RankFailedError: one of them crashed or was killed; the others are stopped.
    """
    logs = Path(tempfile.mkdtemp(prefix="harness-ranks-"))
    asked = os.environ.get(THREAD_VARIABLES[0], "")
    threads = int(asked) if asked.isdigit() else usable_cores() // processes
    try:
        found = run_ranks(
            target,
            dict(payload),
            processes=processes,
            threads=max(1, threads),
            log_path=logs / "log.txt",
            report=on_progress,
        )
    except RankFailedError as error:
        raise RankFailedError(f"{error} (logs: {logs})") from error
    except BaseException:
        shutil.rmtree(logs)
        raise
    shutil.rmtree(logs)
    return found
