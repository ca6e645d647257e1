"""A bounded pool of persistent worker processes on this machine.

A worker keeps what it imported, so that torch is imported once a worker and not once a job. One
worker runs one job at a time; a worker that dies takes only its job with it.
"""

from __future__ import annotations

import json
import math
import os
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from pathlib import Path

from harness.machine.environment import GPUS_VARIABLE, ROOT, THREAD_VARIABLES, visible_gpus
from harness.machine.place import TASK_VARIABLES
from harness.processes.jobs import (
    Job,
    JobEnded,
    JobEvent,
    JobProgressed,
    JobResult,
    JobsInterrupted,
    JobStarted,
)
from harness.processes.progress import Progress
from harness.processes.signals import INTERRUPTING, Interrupted, StopRequest, stop_on_signals
from harness.processes.worker import absolute_sys_path, receive, send

GRACE_SECONDS = 5.0
"""For the clean-up of a worker that is told to end."""
POLL_SECONDS = 0.1


def run_jobs(
    jobs: Sequence[Job],
    target: str,
    on_event: Callable[[JobEvent], None],
    *,
    workers: int,
    threads_per_worker: int,
    gpus: Sequence[str] | None = None,
) -> list[JobResult]:
    """Runs all jobs, started in their order; one result a job, in that order.

    Args:
        jobs: of different keys.
        target: what a worker calls, see `Job`.
        on_event: called in this thread; what it raises stops all jobs.
        workers: how many jobs run at once at most.
        threads_per_worker: CPU threads of each worker.
        gpus: entries of CUDA_VISIBLE_DEVICES, shared out among the workers in turn; None takes all
            that are visible, () hides them from the workers.

    Raises:
        Interrupted: Ctrl-C or SIGTERM, once the running jobs have saved and stopped; a second
            signal kills them at once. Either way no worker is left.
        TypeError, ValueError: a key occurs twice, a number is below 1, a payload is not JSON.
    """
    if len({job.key for job in jobs}) < len(jobs):
        raise ValueError("two jobs have the same key")
    if workers < 1 or threads_per_worker < 1:
        raise ValueError("workers and threads_per_worker must be at least 1")
    for job in jobs:
        json.dumps(job.payload)
    if gpus is None:
        own: list[dict[str, str]] = [{GPUS_VARIABLE: gpu} for gpu in visible_gpus()] or [{}]
    else:
        own = [{GPUS_VARIABLE: gpu} for gpu in gpus or ("",)]
    slots = [own[number % len(own)] for number in range(workers)]
    with stop_on_signals() as stop, Pool(jobs, target, threads_per_worker, slots, on_event) as pool:
        try:
            for _ in pool.turns(stop):
                pass
        finally:
            stop.ignore_second()
    if stop.requested:
        raise Interrupted(stop.number)
    return [pool.results[job.key] for job in jobs]


class Pool:
    """A context in which jobs run, at most one for each of `slots` at once, which are variables of
    a worker's environment; no worker is left at its end."""

    def __init__(
        self,
        jobs: Sequence[Job],
        target: str,
        threads: int,
        slots: Sequence[Mapping[str, str]],
        on_event: Callable[[JobEvent], None],
    ) -> None:
        self.results: dict[str, JobResult] = {}
        """By the jobs' keys, in the order in which they ended."""
        self._target = target
        self._threads = threads
        self._slots = slots
        self._on_event = on_event
        self._pending = deque(jobs)
        self._workers: list[_Worker] = []
        self._selector = selectors.DefaultSelector()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.close()
        self._selector.close()

    def turns(self, stop: StopRequest) -> Iterator[None]:
        """Work until all jobs and workers have ended; the caller has a turn ten times a second.
        Once `stop` is requested, running jobs are asked to save and stop, and no other begins."""
        asked = False
        while self._pending or self._workers:
            if stop.requested and not asked:
                asked = True
                running = self._interrupt(stop.reason or "")
                self._on_event(JobsInterrupted(running))
            self._hand_out()
            for key, _ in self._selector.select(POLL_SECONDS):
                self._listen(key.data)
            self._remove_ended()
            yield

    def dismiss(self) -> None:
        """Ask all jobs to stop, and give their workers a moment to clean up."""
        self._interrupt(signal.SIGTERM.name)
        for worker in self._workers:
            worker.ask_to_end()

    def _interrupt(self, reason: str) -> tuple[str, ...]:
        """Begins no further job, and asks the running ones to stop; their keys."""
        self._pending.clear()
        running = [(worker, worker.job.key) for worker in self._workers if worker.job is not None]
        for worker, _ in running:
            send(worker.connection, {"interrupt": reason})
        return tuple(key for _, key in running)

    def _hand_out(self) -> None:
        """Gives the next jobs to idle workers, or to new ones where there is room."""
        while self._pending:
            worker = next((worker for worker in self._workers if worker.idle), None)
            taken = {worker.slot for worker in self._workers}
            free = [slot for slot in range(len(self._slots)) if slot not in taken]
            if worker is None and not free:
                return
            job = self._pending.popleft()
            self._on_event(JobStarted(job.key))
            try:
                job.log_path.parent.mkdir(parents=True, exist_ok=True)
                (worker or self._start_worker(free[0], job.log_path)).start(job)
            except OSError as error:
                self._end(JobResult(job.key, job.log_path, 0.0, reason=f"cannot start: {error}"))
        for worker in self._workers:
            if worker.idle:
                worker.ask_to_end()

    def _start_worker(self, slot: int, log: Path) -> _Worker:
        environment = worker_environment(self._threads, self._slots[slot])
        worker = _Worker(slot, self._target, self._threads, environment, log)
        self._workers.append(worker)
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        return worker

    def _listen(self, worker: _Worker) -> None:
        """Handle what a worker has said."""
        while worker.connected and worker.connection.poll():
            message = receive(worker.connection)
            if message is None:
                worker.connected = False
                self._selector.unregister(worker.connection)
                worker.expect_end()
            elif worker.job is None:
                continue
            elif "progress" in message:
                self._on_event(JobProgressed(worker.job.key, Progress(**message["progress"])))
            else:
                job, seconds = worker.finish_job()
                self._end(JobResult(job.key, job.log_path, seconds, **message["ended"]))
                if message["last"]:
                    worker.ask_to_end()

    def _remove_ended(self) -> None:
        """Reaps workers that ended, with the reason for the job they were at."""
        for worker in tuple(self._workers):
            if worker.overdue:
                worker.kill_session()
            code = worker.process.poll()
            if code is None:
                continue
            worker.kill_session()
            self._listen(worker)
            if worker.connected:
                self._selector.unregister(worker.connection)
            self._workers.remove(worker)
            if worker.job is not None:
                job, seconds = worker.finish_job()
                reason = describe_exit(code)
                self._end(JobResult(job.key, job.log_path, seconds, reason=reason, died=True))
            worker.close()

    def _end(self, result: JobResult) -> None:
        self.results[result.key] = result
        self._on_event(JobEnded(result))


class _Worker:
    """A fresh interpreter in a session of its own, which runs one job at a time.

    Started with `subprocess`, since children of a forkserver share its first environment, import
    the parent's main module again, and live on when the parent is killed.
    """

    def __init__(
        self, slot: int, target: str, threads: int, environment: Mapping[str, str], log: Path
    ) -> None:
        """`log` receives what the worker prints before its first job. Raises OSError where it
        cannot be written, or no process can be started."""
        self.slot = slot
        self.job: Job | None = None
        self.connected = True
        self._job_began = 0.0
        self._deadline = math.inf
        self.connection, theirs = Pipe()
        with theirs, log.open("ab") as log_file:
            descriptor = theirs.fileno()
            own = [str(descriptor), str(os.getpid())]
            self.process = subprocess.Popen(
                [sys.executable, "-m", "harness.processes.worker", *own],
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
                env=environment,
            )
        settings = {"target": target, "threads": threads, "sys_path": absolute_sys_path()}
        send(self.connection, settings)

    @property
    def idle(self) -> bool:
        return self.job is None and self._deadline == math.inf and self.process.poll() is None

    @property
    def overdue(self) -> bool:
        return time.monotonic() > self._deadline

    def start(self, job: Job) -> None:
        self.job, self._job_began = job, time.monotonic()
        log = str(job.log_path.absolute())
        send(self.connection, {"job": {"payload": job.payload, "log_path": log}})

    def finish_job(self) -> tuple[Job, float]:
        """The job that has ended, and how many seconds it took."""
        assert self.job is not None
        job, self.job = self.job, None
        return job, time.monotonic() - self._job_began

    def ask_to_end(self) -> None:
        send(self.connection, {"stop": True})
        self.expect_end()

    def expect_end(self) -> None:
        """Some seconds from now the worker is overdue, unless it is so earlier."""
        self._deadline = min(self._deadline, time.monotonic() + GRACE_SECONDS)

    def kill_session(self) -> None:
        """SIGKILL to what is left of the worker and of all that it started."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends what is left of the worker, reaps it and frees the connection."""
        self.kill_session()
        self.process.wait()
        self.connection.close()


def worker_environment(threads: int, own: Mapping[str, str]) -> dict[str, str]:
    """The environment of a worker, which is none of the tasks that its parent may be one of, with
    so many CPU threads and variables of its own."""
    inherited = {name: value for name, value in os.environ.items() if name not in TASK_VARIABLES}
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    limits = dict.fromkeys(THREAD_VARIABLES, str(threads))
    return {**inherited, **limits, "PYTHONPATH": path, **own}


def describe_exit(code: int) -> str:
    """Why a worker ended in the middle of a job, from its return code (negative: the signal)."""
    # A worker that two signals ended exits as a shell would say it.
    number = -code if code < 0 else code - 128
    if code >= 0 and number not in INTERRUPTING:
        return f"worker exited with code {code} in the middle of the job"
    reason = f"worker killed by signal {int(number)} ({signal.strsignal(number)})"
    return f"{reason}; perhaps memory ran out" if number == signal.SIGKILL else reason
