"""The worker's side of the pool: `python -m harness.processes.worker CONNECTION_FD PARENT_PID`.

A worker imports the target once and runs one job after the other. It leads its own session, so
that Ctrl-C in the terminal reaches the parent alone, which asks the worker by a message to stop its
job. When the parent is gone, the kernel sends SIGTERM (Linux), and the end of the connection tells
the same anywhere; what does not end in time is killed together with all that it started. Messages
are JSON, so that what a job takes and returns can be written to a file as well.
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import importlib
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path
from queue import SimpleQueue
from typing import Any, cast

from harness.processes.jobs import LostTouchError
from harness.processes.progress import Progress, ProgressListener
from harness.processes.signals import INTERRUPTING, StopRequest
from models.errors import Preempted, UserError, one_line

Message = dict[str, Any]
Target = Callable[[dict[str, Any], ProgressListener, StopRequest], Any]

ORPHAN_GRACE_SECONDS = 3.0
REPORT_INTERVAL_SECONDS = 0.1
REASON_CHARACTERS = 300
PR_SET_PDEATHSIG = 1
"""From Linux' <sys/prctl.h>."""


def send(connection: Connection, message: Message) -> None:
    """Does nothing where the other side is gone, which its process's end tells more of."""
    with suppress(ConnectionError):
        connection.send_bytes(json.dumps(message).encode())


def receive(connection: Connection) -> Message | None:
    """The next message, waited for; None once the other side is gone."""
    try:
        return cast("Message", json.loads(connection.recv_bytes()))
    except (EOFError, OSError):
        return None


class Parent:
    """The line to the parent. A thread reads it: jobs go to `messages`, a wish to stop to `stop`;
    it ends this process when the parent is gone."""

    def __init__(self, connection: Connection, pid: int, stop: StopRequest) -> None:
        self.messages: SimpleQueue[Message] = SimpleQueue()
        self.all_jobs_done = False
        self._connection = connection
        self._sending = threading.Lock()
        self._pid = pid
        self._own_pid = os.getpid()
        self._stop = stop
        self._disconnected = False
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, message: Message) -> None:
        """From any thread."""
        with self._sending:
            send(self._connection, message)

    def _read(self) -> None:
        asked = False
        while not self._orphaned():
            message = receive(self._connection)
            if message is None:
                self._disconnected = True
            elif "interrupt" in message:
                asked = True
                self._stop.request(message["interrupt"])
            else:
                self.messages.put(message)
        if not asked:
            # Time to save, which a job that was asked before its parent died has had.
            self._stop.request(signal.SIGTERM.name)
            time.sleep(ORPHAN_GRACE_SECONDS)
        self._kill_orphans()

    def _orphaned(self) -> bool:
        # The kernel's SIGTERM can end the main thread before the other one sees the line end.
        return self._disconnected or os.getppid() != self._pid

    def _kill_orphans(self) -> None:
        """Kills the whole session, this process included; a parent that lives does it itself."""
        if self._orphaned():
            os.killpg(os.getpid(), signal.SIGKILL)

    def leave_at_once(self, number: signal.Signals) -> None:
        """What a second signal does, in the middle of whatever the job is at."""
        self._kill_orphans()
        os._exit(128 + number)

    def leave(self) -> None:
        """End the process without the interpreter's teardown of the modules, which takes seconds
        once torch and Lightning are imported."""
        if os.getpid() == self._own_pid:  # and not a fork of the worker
            flush_output()
            self._kill_orphans()
            os._exit(0 if self.all_jobs_done else 1)


class JobReporter:
    """The `report` of one job: forwards progress at most about ten times a second, and always the
    first report of a stage and the one that completes it. What a thread of the job reports after
    its end is dropped: it would count for the next job."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self.over = False
        self._send = send
        self._last = Progress("", 0, 0)
        self._sent_at = 0.0

    def report(self, progress: Progress) -> None:
        if self.over:
            return
        now = time.monotonic()
        completes = progress.done >= progress.total and self._last.done < self._last.total
        due = now - self._sent_at >= REPORT_INTERVAL_SECONDS
        if due or completes or progress.begins_after(self._last):
            self._last, self._sent_at = progress, now
            self._send({"progress": asdict(progress)})


def absolute_sys_path() -> list[str]:
    """Where this process finds modules, for another one in another folder."""
    return [str(Path(entry).absolute()) for entry in sys.path]


def import_target(target: str, threads: int) -> Target:
    """The function named by "package.module:function"; torch gets so many threads."""
    module_name, _, function_name = target.partition(":")
    function: Target = getattr(importlib.import_module(module_name), function_name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return function


def flush_output() -> None:
    """Of stdout and stderr, as far as a full disk takes it."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


def rank_log(log: Path, rank: int) -> Path:
    """The log of one of several processes: `log.txt` of the leading one, `log-rank1.txt`, ..."""
    return log.with_name(f"{log.stem}-rank{rank}{log.suffix}") if rank else log


def redirect_output(log_path: Path) -> None:
    """Points stdout and stderr, of compiled code too, at the end of the log, line by line: it must
    be complete also when the process is killed."""
    flush_output()
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]


def serve_job(
    job: Message, settings: Message, report: ProgressListener, stop: StopRequest
) -> Message:
    """Run a job; how it ended, as fields of a `JobResult`."""
    try:
        redirect_output(Path(job["log_path"]))
        stop.check("before it began")
        target = import_target(settings["target"], settings["threads"])
        ended: Message = {"value": target(job["payload"], report, stop)}
        json.dumps(ended)
    except UserError as error:
        _say(f"error: {error}")
        lost_touch = isinstance(error, LostTouchError)
        return {"reason": str(error), "caused_by_user": True, "lost_touch": lost_touch}
    except Preempted as stopped:
        _say(str(stopped))
        return {"reason": str(stopped), "stopped": stopped.where}
    except (Exception, SystemExit) as error:
        _say(traceback.format_exc().rstrip())
        return {"reason": one_line(error, named=True, most=REASON_CHARACTERS)}
    return ended


def _say(text: str) -> None:
    """Into the job's log, which may be on a full disk."""
    with suppress(OSError):
        print(text, file=sys.stderr)


def main(descriptor: int, parent_pid: int) -> None:
    """Runs jobs until the parent says stop.

    After an unexpected exception the worker ends, so that what it left behind (memory held by the
    traceback, a broken CUDA context) cannot harm the next job, and so it does once a stop is
    requested, which concerns the present job alone: {"last": true} tells the parent.
    """
    os.set_inheritable(descriptor, False)
    faulthandler.enable()
    stop = StopRequest()
    parent = Parent(Connection(descriptor), parent_pid, stop)
    # Handlers run in the reverse order of their registration, so this one runs after all others.
    atexit.register(parent.leave)
    stop.listen(INTERRUPTING, parent.leave_at_once)
    settings = parent.messages.get()
    sys.path[:] = settings["sys_path"]
    while "job" in (message := parent.messages.get()):
        reporter = JobReporter(parent.send)
        ended = serve_job(message["job"], settings, reporter.report, stop)
        reporter.over = True
        last = stop.requested or ("reason" in ended and not ended.get("caused_by_user"))
        parent.send({"ended": ended, "last": last})
        if last:
            break
    parent.all_jobs_done = True


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
