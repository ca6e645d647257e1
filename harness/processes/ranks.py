"""Several processes of this machine that do one job together.

Whoever has such a job, a worker of the pool or a command, starts them, passes on what they report
and that they shall stop, and ends all of them where one fails.
"""

from __future__ import annotations

import os
import selectors
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from harness.machine.environment import THREAD_VARIABLES, usable_cores
from harness.machine.place import place_from_environment
from harness.processes.group import ProcessGroup
from harness.processes.jobs import Job, RankFailedError
from harness.processes.meeting import Meeting
from harness.processes.progress import Progress, ProgressListener
from harness.processes.signals import Interrupted, StopRequest, stop_on_signals
from harness.processes.worker import Message, import_target
from harness.processes.worker_process import WorkerProcess, WorkerSettings, describe_exit
from models.errors import Preempted, UserError

_RANK = "harness.processes.ranks:run_rank"

_HOST = "127.0.0.1"

GRACE_SECONDS = 3.0
"""For the clean-up of a process that is told to end; less than the pool gives its workers."""

FIRST_FAILURE_SECONDS = 1.0
"""How long to wait for the cause after a failure that may be its consequence."""

POLL_SECONDS = 0.1


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
        target: "package.module:function", called as `function(payload, report, stop)` in each
            process.
        payload: the same for all, writable as JSON.
        processes: how many.
        threads: CPU threads of each.
        log_path: of the leading process; the others have `log-rank1.txt` and so on beside it.
        report: told what the leading process reports.
        stop: passed on to all of them once it is requested.

    Returns:
        What the target returns in the leading process.

    Raises:
        UserError: of the process that failed first.
        RankFailedError: a process failed otherwise.
        Preempted: a stop was requested, and all have saved what they had. No process is left in
            any of these cases.
    """
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with _meeting_place(processes) as port:
        ranks = _Ranks(processes, WorkerSettings(_RANK, threads), log_path, report, stop)
        try:
            for rank in range(processes):
                variables = {
                    "RANK": str(rank),
                    "LOCAL_RANK": str(rank),
                    "WORLD_SIZE": str(processes),
                    "LOCAL_WORLD_SIZE": str(processes),
                    "MASTER_ADDR": _HOST,
                    "MASTER_PORT": str(port),
                    "TORCHELASTIC_USE_AGENT_STORE": "True",
                }
                ranks.start(
                    {
                        "variables": variables,
                        "target": target,
                        "payload": payload,
                        "threads": threads,
                    }
                )
            return ranks.wait()
        finally:
            ranks.end()


def run_rank(payload: dict[str, Any], report: ProgressListener, stop: StopRequest) -> Any:
    """What each process does."""
    os.environ.update(payload["variables"])
    return import_target(payload["target"], payload["threads"])(payload["payload"], report, stop)


@contextmanager
def _meeting_place(processes: int) -> Iterator[int]:
    """The port of a store that lives as long as the context, reachable from this machine alone."""
    listening = socket.create_server((_HOST, 0), backlog=2 * processes)
    port: int = listening.getsockname()[1]
    store = TCPStore(
        _HOST,
        port,
        processes,
        is_master=True,
        wait_for_workers=False,
        master_listen_fd=listening.detach(),
    )
    yield port
    del store


@dataclass(frozen=True)
class _Failure:
    rank: int
    reason: str
    died: bool
    """Without a word."""
    caused_by_user: bool
    lost_touch: bool
    """Because of another one."""

    @property
    def precedence(self) -> tuple[bool, bool]:
        """Sorts what is a cause before what is a consequence."""
        return self.lost_touch, not self.died


class _Ranks:
    def __init__(
        self,
        size: int,
        settings: WorkerSettings,
        log_path: Path,
        report: ProgressListener,
        stop: StopRequest,
    ) -> None:
        self._size = size
        self._stop = stop
        self._settings = settings
        self._log_path = log_path
        self._report = report
        self._workers: list[WorkerProcess] = []
        self._selector = selectors.DefaultSelector()
        self._values: dict[int, Any] = {}
        self._failures: list[_Failure] = []
        self._stopped: dict[int, str] = {}
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        self._gpus = visible.split(",") if visible else [visible]

    def start(self, payload: dict[str, Any]) -> None:
        """Start the next process."""
        rank = len(self._workers)
        log = self._log_path
        if rank > 0:
            log = log.with_name(f"{log.stem}-rank{rank}{log.suffix}")
        gpu = self._gpus[rank % len(self._gpus)]
        worker = WorkerProcess(rank, self._settings, gpu, log)
        self._workers.append(worker)
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        worker.start(Job(f"process {rank}", payload, log))

    def wait(self) -> Any:
        """The leading process's value, once all are done."""
        failed_at: float | None = None
        asked = False
        while len(self._ended()) < self._size:
            self._receive()
            self._look_for_dead()
            if self._stop.requested and not asked:
                # The others of one that is left in the middle of common work lose touch with it.
                for worker in self._workers:
                    worker.interrupt(self._stop.reason or "")
                asked = True
            if self._failures and not asked:
                failed_at = failed_at or time.monotonic()
                if time.monotonic() - failed_at > FIRST_FAILURE_SECONDS:
                    raise self._ending()
        if self._stopped or self._failures:
            raise self._ending()
        return self._values[0]

    def _ended(self) -> set[int]:
        return {*self._values, *self._stopped, *(failure.rank for failure in self._failures)}

    def end(self) -> None:
        """End what is left of all processes, at once where they were asked to stop before."""
        left = [worker for worker in self._workers if worker.return_code() is None]
        if not self._stop.requested:
            for worker in left:
                worker.interrupt(signal.SIGTERM.name)
                worker.ask_to_end(GRACE_SECONDS)
            while any(worker.return_code() is None and not worker.overdue() for worker in left):
                time.sleep(POLL_SECONDS)
        for worker in self._workers:
            worker.close()
        self._selector.close()

    def _receive(self) -> None:
        for key, _ in self._selector.select(POLL_SECONDS):
            worker: WorkerProcess = key.data
            self._handle(worker, worker.inbox.drain())
            if worker.inbox.closed:
                self._selector.unregister(worker.connection)

    def _handle(self, worker: WorkerProcess, messages: list[Message]) -> None:
        rank = worker.slot
        for message in messages:
            if "progress" in message:
                if rank == 0:
                    self._report(Progress(**message["progress"]))
                continue
            ended = message["ended"]
            if "value" in ended:
                self._values[rank] = ended["value"]
            elif "stopped" in ended:
                self._stopped[rank] = ended["stopped"]
            else:
                by_user = ended.get("caused_by_user", False)
                lost_touch = ended.get("lost_touch", False)
                self._failures.append(_Failure(rank, ended["reason"], False, by_user, lost_touch))
            # Its connections to the others close, which end what they wait for.
            worker.ask_to_end(GRACE_SECONDS)

    def _look_for_dead(self) -> None:
        for worker in self._workers:
            code = worker.return_code()
            if code is None or worker.slot in self._ended():
                continue
            if not worker.inbox.closed:
                self._handle(worker, worker.inbox.drain())
            if worker.slot not in self._ended():
                reason = describe_exit(code).removeprefix("worker ")
                self._failures.append(_Failure(worker.slot, reason, True, False, False))

    def _ending(self) -> Exception:
        if self._stopped and all(failure.lost_touch for failure in self._failures):
            where = self._stopped[min(self._stopped)]
            return Preempted(self._stop.reason or "a signal to one of its processes", where)
        cause = min(self._failures, key=lambda failure: failure.precedence)
        if cause.caused_by_user:
            return UserError(cause.reason)
        return RankFailedError(f"process {cause.rank} of {self._size} ended: {cause.reason}")


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
        target: "package.module:function", called as `function(payload, report, stop)` in each
            process, which finds the others by `group_of_environment`; what it returns must be
            writable as JSON.
        payload: writable as JSON.
        processes: how many.
        on_progress: told what the leading process reports.

    Raises:
        UserError: what one of them raises; the others are stopped.
        RankFailedError: one of them crashed or was killed; the others are stopped.
        Interrupted: Ctrl-C or SIGTERM.
    """
    logs = Path(tempfile.mkdtemp(prefix="harness-ranks-"))
    asked = os.environ.get(THREAD_VARIABLES[0], "")
    threads = int(asked) if asked.isdigit() else usable_cores() // processes
    try:
        with stop_on_signals() as stop:
            found = run_ranks(
                target,
                dict(payload),
                processes=processes,
                threads=max(1, threads),
                log_path=logs / "log.txt",
                report=on_progress,
                stop=stop,
            )
    except RankFailedError as error:
        raise RankFailedError(f"{error} (logs: {logs})") from error
    except Preempted:
        shutil.rmtree(logs)
        raise Interrupted(stop.number) from None
    except BaseException:
        shutil.rmtree(logs)
        raise
    shutil.rmtree(logs)
    return found
