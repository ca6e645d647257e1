"""The pool's side of one worker: start it, talk to it, end it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import harness
from harness.machine.environment import THREAD_VARIABLES
from harness.machine.place import TASK_VARIABLES
from harness.processes.jobs import Job
from harness.processes.signals import INTERRUPTING
from harness.processes.worker import Inbox, Message, encode

IMPORT_ROOT = Path(harness.__file__).resolve().parents[1]


@dataclass(frozen=True)
class WorkerSettings:
    """What all workers of a pool have in common: "package.module:function" and CPU threads."""

    target: str
    threads: int


def worker_environment(threads: int, gpu: str | None) -> dict[str, str]:
    """The environment of a worker, which is none of the tasks that its parent may be one of.

    Args:
        threads: CPU threads.
        gpu: an entry of CUDA_VISIBLE_DEVICES; None leaves that as it is.
    """
    own = {name: value for name, value in os.environ.items() if name not in TASK_VARIABLES}
    inherited = own.get("PYTHONPATH")
    environment = {**own, **dict.fromkeys(THREAD_VARIABLES, str(threads))}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(IMPORT_ROOT), inherited)))
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    return environment


def describe_exit(code: int) -> str:
    """Why a worker ended in the middle of a job, from its return code (negative: the signal)."""
    # A worker that two signals ended exits as a shell would say it.
    by_signal = code < 0 or code - 128 in INTERRUPTING
    if not by_signal:
        return f"worker exited with code {code} in the middle of the job"
    number = -code if code < 0 else code - 128
    reason = f"worker killed by signal {int(number)} ({signal.strsignal(number)})"
    return f"{reason}; perhaps memory ran out" if number == signal.SIGKILL else reason


class WorkerProcess:
    """A fresh interpreter in a session of its own, which runs one job at a time.

    Started with `subprocess` rather than `multiprocessing`: the environment is the child's alone,
    the parent's main module is not imported again, and the whole session can be killed.
    """

    def __init__(self, slot: int, settings: WorkerSettings, gpu: str | None, log: Path) -> None:
        """`log` receives what the worker prints before its first job.

        Raises:
            OSError: the log cannot be written, or no process can be started.
        """
        self.slot = slot
        self.job: Job | None = None
        self.job_started_at = 0.0
        self._deadline: float | None = None
        self.connection, theirs = socket.socketpair()
        self.inbox = Inbox(self.connection)
        with theirs, log.open("ab") as log_file:
            descriptor = theirs.fileno()
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "harness.processes.worker",
                    str(descriptor),
                    str(os.getpid()),
                ],
                pass_fds=[descriptor],
                stdin=subprocess.DEVNULL,
                stdout=log_file,
                stderr=log_file,
                start_new_session=True,
                env=worker_environment(settings.threads, gpu),
            )
        sys_path = [str(Path(entry).absolute()) for entry in sys.path]
        self._send({"target": settings.target, "threads": settings.threads, "sys_path": sys_path})

    @property
    def idle(self) -> bool:
        """Whether it can take a job now."""
        return self.job is None and self._deadline is None and self.return_code() is None

    def return_code(self) -> int | None:
        return self._process.poll()

    def start(self, job: Job) -> None:
        self.job, self.job_started_at = job, time.monotonic()
        self._send({"job": {"payload": job.payload, "log_path": str(job.log_path.absolute())}})

    def finish_job(self) -> float:
        """Frees the worker from its job and returns how many seconds the job took."""
        self.job = None
        return time.monotonic() - self.job_started_at

    def ask_to_end(self, grace: float) -> None:
        """Lets the worker end by itself; after `grace` seconds it is overdue."""
        self._send({"stop": True})
        self.expect_end(grace)

    def interrupt(self, reason: str) -> None:
        """Asks the running job to save and stop; `reason` is what asked for it."""
        self._send({"interrupt": reason})

    def expect_end(self, grace: float) -> None:
        """After `grace` seconds the worker is overdue, unless it became so earlier."""
        deadline = time.monotonic() + grace
        self._deadline = deadline if self._deadline is None else min(self._deadline, deadline)

    def overdue(self) -> bool:
        return self._deadline is not None and time.monotonic() > self._deadline

    def kill_session(self) -> None:
        """SIGKILL to the worker and to all that it started. Does nothing where none is left."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Ends what is left of the worker, reaps it and frees the socket."""
        self.kill_session()
        self._process.wait()
        self.connection.close()

    def _send(self, message: Message) -> None:
        # A worker that died is found by its return code, with the reason.
        with suppress(ConnectionError):
            self.connection.sendall(encode(message))
