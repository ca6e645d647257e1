"""Several processes of this machine that do one job together, for a worker of the pool or a
command: all of them end where one fails."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from harness.machine.environment import GPUS_VARIABLE, THREAD_VARIABLES, usable_cores
from harness.machine.place import place_from_environment
from harness.processes.group import ProcessGroup
from harness.processes.jobs import Job, JobEvent, JobProgressed, JobResult, RankFailedError
from harness.processes.meeting import Meeting
from harness.processes.pool import Pool
from harness.processes.progress import ProgressListener
from harness.processes.signals import Interrupted, StopRequest, stop_on_signals
from harness.processes.worker import rank_log
from models.errors import Preempted, UserError

_HOST = "127.0.0.1"
FIRST_FAILURE_SECONDS = 1.0
"""How long to wait for the cause after a failure that may be its consequence."""


def run_ranks(
    target: str,
    payload: dict[str, Any],
    *,
    processes: int,
    threads: int,
    log_path: Path,
    report: ProgressListener,
    stop: StopRequest,
) -> Any:
    """Run a job in so many new processes, which find in their environment where they meet.

    The GPUs in CUDA_VISIBLE_DEVICES are shared out among them, one each.

    Args:
        target: what each process calls, see `Job`.
        payload: for each.
        processes: how many.
        threads: CPU threads of each.
        log_path: of the leading process; the others have `log-rank1.txt` and so on beside it.
        report: told what the leading process reports.
        stop: passed on to all of them once it is requested.

    Returns:
        What the target returns in the leading process. No process is left, here and below.

    Raises:
        UserError: of the process that failed first.
        RankFailedError: a process failed otherwise.
        Preempted: a stop was requested, and all have saved what they had.
    """
    jobs = [Job(f"process {rank}", payload, rank_log(log_path, rank)) for rank in range(processes)]

    def listen(event: JobEvent) -> None:
        if isinstance(event, JobProgressed) and event.key == jobs[0].key:
            report(event.progress)

    ended: dict[str, JobResult] = {}
    failed_at: float | None = None
    store = _meeting_place(processes)
    surroundings = _surroundings(processes, store.port)
    with Pool(jobs, target, threads, surroundings, listen) as pool:
        for _ in pool.turns(stop):
            # The others of one that is asked to stop amid common work lose touch with it.
            if not ended and not stop.requested and any(map(_failed, pool.results.values())):
                failed_at = failed_at or time.monotonic()
                if time.monotonic() - failed_at > FIRST_FAILURE_SECONDS:
                    ended = dict(pool.results)
                    pool.dismiss()
    ended = ended or pool.results
    if ended and all(result.ok for result in ended.values()):
        return ended[jobs[0].key].value
    raise _ending(ended, jobs, stop)


def _surroundings(processes: int, port: int) -> list[dict[str, str]]:
    """What the environment of each process holds besides that of this one."""
    visible = os.environ.get(GPUS_VARIABLE)
    gpus = [{GPUS_VARIABLE: gpu} for gpu in visible.split(",")] if visible else [{}]
    return [
        {
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(processes),
            "LOCAL_WORLD_SIZE": str(processes),
            "MASTER_ADDR": _HOST,
            "MASTER_PORT": str(port),
            "TORCHELASTIC_USE_AGENT_STORE": "True",
            **gpus[rank % len(gpus)],
        }
        for rank in range(processes)
    ]


def _meeting_place(processes: int) -> TCPStore:
    """A store that is reachable from this machine alone, as long as it is referred to."""
    listening = socket.create_server((_HOST, 0), backlog=2 * processes)
    return TCPStore(
        _HOST,
        listening.getsockname()[1],
        processes,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )


def _failed(result: JobResult) -> bool:
    return not result.ok and result.stopped is None


def _ending(ended: Mapping[str, JobResult], jobs: Sequence[Job], stop: StopRequest) -> Exception:
    """What the results mean, in the order in which they came, where not all are well."""
    failed = [result for result in ended.values() if _failed(result)]
    stopped = [ended[job.key].stopped for job in jobs if job.key in ended]
    where = next(filter(None, stopped), None if failed else "before it began")
    if where is not None and all(result.lost_touch for result in failed):
        return Preempted(stop.reason or "a signal to one of its processes", where)
    # What is a cause before what is a consequence.
    cause = min(failed, key=lambda result: (result.lost_touch, not result.died))
    reason = (cause.reason or "").removeprefix("worker ")
    if cause.caused_by_user:
        return UserError(reason)
    return RankFailedError(f"{cause.key} of {len(jobs)} ended: {reason}")


@contextmanager
def group_of_environment() -> Iterator[ProcessGroup]:
    """The group that this process was started in, or a group of one."""
    with Meeting(place_from_environment()) as meeting:
        yield meeting.begin(cuda=False)


def check_processes(processes: int) -> None:
    """Raises a UserError where a command cannot start so many."""
    if processes < 1:
        raise UserError(f"--processes is {processes}, but must be 1 or more")
    if processes > 1 and (place := place_from_environment()) is not None:
        raise UserError(
            f"--processes {processes} starts processes, but this is one of {place.size} that "
            "torchrun or srun started: leave one of the two out"
        )


def run_local_ranks(
    target: str, payload: Mapping[str, Any], processes: int, on_progress: ProgressListener
) -> Any:
    """Run a command's work in processes of this machine, as `run_ranks` does; each finds the others
    by `group_of_environment`. They share out the cores, or have `OMP_NUM_THREADS` threads each.

    Raises:
        UserError: what one of them raises; the others are stopped.
        RankFailedError: one of them crashed or was killed; the others are stopped.
        Interrupted: Ctrl-C or SIGTERM.
    """
    logs = Path(tempfile.mkdtemp(prefix="harness-ranks-"))
    asked = os.environ.get(THREAD_VARIABLES[0], "")
    threads = int(asked) if asked.isdigit() else usable_cores() // processes
    keep_logs = False
    try:
        with stop_on_signals() as stop:
            return run_ranks(
                target,
                dict(payload),
                processes=processes,
                threads=max(1, threads),
                log_path=logs / "log.txt",
                report=on_progress,
                stop=stop,
            )
    except RankFailedError as error:
        keep_logs = True
        raise RankFailedError(f"{error} (logs: {logs})") from error
    except Preempted:
        raise Interrupted(stop.number) from None
    finally:
        if not keep_logs:
            shutil.rmtree(logs)
