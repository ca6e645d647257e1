"""A bounded pool of persistent worker processes on this machine.

A worker keeps what it imported, so that torch is imported once a worker and not once a job. One
worker runs one job at a time; a worker that dies takes only its job with it.
"""

from __future__ import annotations

import selectors
import signal
from collections import deque
from collections.abc import Callable, Sequence

from harness.machine.gpus import visible_gpus
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
from harness.processes.signals import Interrupted, stop_on_signals
from harness.processes.worker import Message, encode
from harness.processes.worker_process import WorkerProcess, WorkerSettings, describe_exit

GRACE_SECONDS = 5.0
POLL_SECONDS = 0.1


def run_jobs(
    jobs: Sequence[Job],
    target: str,
    *,
    workers: int,
    threads_per_worker: int,
    on_event: Callable[[JobEvent], None],
    gpus: Sequence[str] | None = None,
) -> list[JobResult]:
    """Runs all jobs, started in their order, at most `workers` at once.

    Args:
        jobs: their keys must differ and their payloads be writable as JSON.
        target: "package.module:function", imported in the worker and called as
            `function(payload, report)`; what it returns must be writable as JSON.
        workers: how many jobs run at once at most.
        threads_per_worker: CPU threads of each worker.
        on_event: called in this thread; what it raises stops all jobs.
        gpus: entries of CUDA_VISIBLE_DEVICES, shared out among the workers in turn; None takes all
            that are visible, () hides them from the workers.

    Returns:
        One result a job, in the order of `jobs`. A job that fails is a result with a reason.

    Raises:
        Interrupted: Ctrl-C or SIGTERM, once the running jobs have saved and stopped; a second
            signal kills them at once. Either way no worker is left.
        TypeError, ValueError: a key occurs twice, a number is below 1, a payload is not JSON.
    """
    keys = [job.key for job in jobs]
    if len(set(keys)) < len(keys):
        raise ValueError("two jobs have the same key")
    if workers < 1 or threads_per_worker < 1:
        raise ValueError("workers and threads_per_worker must be at least 1")
    for job in jobs:
        encode(job.payload)
    if gpus is None:
        slots: list[str | None] = list(visible_gpus()) or [None]
    else:
        slots = list(gpus) or [""]
    settings = WorkerSettings(target, threads_per_worker)
    pool = _Pool(jobs, settings, [slots[i % len(slots)] for i in range(workers)], on_event)
    return pool.run()


class _Pool:
    """One call of `run_jobs`. `slot_gpus` has an entry for each worker that may run at once."""

    def __init__(
        self,
        jobs: Sequence[Job],
        settings: WorkerSettings,
        slot_gpus: Sequence[str | None],
        on_event: Callable[[JobEvent], None],
    ) -> None:
        self._jobs = jobs
        self._settings = settings
        self._slot_gpus = slot_gpus
        self._on_event = on_event
        self._pending = deque(jobs)
        self._results: dict[str, JobResult] = {}
        self._workers: list[WorkerProcess] = []
        self._selector = selectors.DefaultSelector()

    def run(self) -> list[JobResult]:
        with stop_on_signals() as stop, self._selector:
            asked = False
            try:
                while self._pending or self._workers:
                    if stop.requested and not asked:
                        self._ask_to_stop(stop.number)
                        asked = True
                    self._hand_out()
                    self._receive()
                    self._remove_ended()
            finally:
                stop.ignore_second()
                for worker in self._workers:
                    worker.close()
            if stop.requested:
                raise Interrupted(stop.number)
        return [self._results[job.key] for job in self._jobs]

    def _ask_to_stop(self, number: signal.Signals) -> None:
        """Lets the running jobs save and stop; no further one is begun."""
        self._pending.clear()
        running = [worker for worker in self._workers if worker.job is not None]
        for worker in running:
            worker.interrupt(number.name)
        self._on_event(JobsInterrupted(tuple(worker.job.key for worker in running if worker.job)))

    def _hand_out(self) -> None:
        """Gives the next jobs to idle workers, or to new ones where there is room."""
        while self._pending:
            worker = next((worker for worker in self._workers if worker.idle), None)
            if worker is None:
                taken = {worker.slot for worker in self._workers}
                free = [slot for slot in range(len(self._slot_gpus)) if slot not in taken]
                if not free:
                    return
            job = self._pending.popleft()
            self._on_event(JobStarted(job.key))
            try:
                job.log_path.parent.mkdir(parents=True, exist_ok=True)
                if worker is None:
                    worker = self._start_worker(free[0], job)
            except OSError as error:
                self._end(JobResult(job.key, job.log_path, 0.0, reason=f"cannot start: {error}"))
            else:
                worker.start(job)
        for worker in self._workers:
            if worker.idle:
                worker.ask_to_end(GRACE_SECONDS)

    def _start_worker(self, slot: int, job: Job) -> WorkerProcess:
        worker = WorkerProcess(slot, self._settings, self._slot_gpus[slot], job.log_path)
        self._workers.append(worker)
        self._selector.register(worker.connection, selectors.EVENT_READ, worker)
        return worker

    def _receive(self) -> None:
        for key, _ in self._selector.select(POLL_SECONDS):
            worker: WorkerProcess = key.data
            self._handle(worker, worker.inbox.drain())
            if worker.inbox.closed:
                self._selector.unregister(worker.connection)
                worker.expect_end(GRACE_SECONDS)

    def _handle(self, worker: WorkerProcess, messages: Sequence[Message]) -> None:
        for message in messages:
            job = worker.job
            if job is None:
                continue
            if "progress" in message:
                self._on_event(JobProgressed(job.key, Progress(**message["progress"])))
                continue
            result = JobResult(job.key, job.log_path, worker.finish_job(), **message["ended"])
            if message["last"]:
                worker.ask_to_end(GRACE_SECONDS)
            self._end(result)

    def _remove_ended(self) -> None:
        """Reaps workers that ended, with the reason for the job they were at."""
        for worker in tuple(self._workers):
            if worker.overdue():
                worker.kill_session()
            code = worker.return_code()
            if code is None:
                continue
            worker.kill_session()
            if not worker.inbox.closed:
                self._selector.unregister(worker.connection)
                self._handle(worker, worker.inbox.drain())
            self._workers.remove(worker)
            if (job := worker.job) is not None:
                reason = describe_exit(code)
                self._end(JobResult(job.key, job.log_path, worker.finish_job(), reason=reason))
            worker.close()

    def _end(self, result: JobResult) -> None:
        self._results[result.key] = result
        self._on_event(JobEnded(result))
