"""The worker's side of the pool: `python -m harness.processes.worker SOCKET_FD PARENT_PID`.

A worker imports the target once and runs one job after the other. It leads its own session, so
that Ctrl-C in the terminal reaches the parent alone, which asks the worker by a message to stop its
job. When the parent is gone, the kernel sends SIGTERM (Linux), and the end of the socket tells the
same anywhere; what does not end in time is killed together with all processes that it started.

Messages are one JSON object a line over a socket pair. JSON rather than pickle, so that what a job
takes and returns can also be written to a file, and so that a message that is cut off by the death
of its sender is recognised by the missing line end.
"""

from __future__ import annotations

import atexit
import ctypes
import faulthandler
import importlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from harness.processes.jobs import LostTouchError
from harness.processes.progress import Progress, ProgressListener
from harness.processes.signals import INTERRUPTING, StopRequest
from models.errors import Preempted, UserError, one_line

Message = dict[str, Any]

RECEIVE_BYTES = 1 << 16


def encode(message: Message) -> bytes:
    """Raises TypeError or ValueError where the message cannot be written as JSON."""
    return json.dumps(message).encode() + b"\n"


class Inbox:
    """Collects bytes from a socket and hands out whole messages.

    `closed` says that the other side is gone.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._rest = b""
        self.closed = False

    def wait(self) -> list[Message]:
        """Waits for bytes; returns the messages that they complete, often none."""
        return self._receive(0)

    def drain(self) -> list[Message]:
        """All messages that have arrived, without waiting."""
        messages: list[Message] = []
        with suppress(BlockingIOError):
            while not self.closed:
                messages += self._receive(socket.MSG_DONTWAIT)
        return messages

    def _receive(self, flags: int) -> list[Message]:
        try:
            received = self._connection.recv(RECEIVE_BYTES, flags)
        except ConnectionError:
            received = b""
        self.closed = not received
        *lines, self._rest = (self._rest + received).split(b"\n")
        return [json.loads(line) for line in lines]


ORPHAN_GRACE_SECONDS = 3.0

REPORT_INTERVAL_SECONDS = 0.1

REASON_CHARACTERS = 300

PR_SET_PDEATHSIG = 1
"""From Linux' <sys/prctl.h>."""

Target = Callable[[dict[str, Any], ProgressListener, StopRequest], Any]


class ParentWatch:
    """Reads the socket in a thread: jobs go to `messages`, a wish to stop to `stop`. Ends this
    process when the parent is gone."""

    def __init__(self, connection: socket.socket, parent_pid: int, stop: StopRequest) -> None:
        self.messages: SimpleQueue[Message] = SimpleQueue()
        self._stop = stop
        self._inbox = Inbox(connection)
        self._parent_pid = parent_pid
        self._asked_by_parent = False
        self._disconnected = False
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        while not self._orphaned():
            for message in self._inbox.wait():
                if "interrupt" in message:
                    self._asked_by_parent = True
                    self._stop.request(message["interrupt"])
                else:
                    self.messages.put(message)
            self._disconnected = self._inbox.closed
        if not self._asked_by_parent:
            # Time to save, which a job that was asked before its parent died has had.
            self._stop.request(signal.SIGTERM.name)
            time.sleep(ORPHAN_GRACE_SECONDS)
        self.kill_orphans()

    def _orphaned(self) -> bool:
        # The kernel's SIGTERM can end the main thread before the other one sees the socket close.
        return self._disconnected or os.getppid() != self._parent_pid

    def kill_orphans(self) -> None:
        """Kills the whole session, this process included; a parent that lives does it itself."""
        if self._orphaned():
            os.killpg(os.getpid(), signal.SIGKILL)


class Exit:
    """Ends the process after the exit handlers of all libraries, and without the interpreter's
    teardown of their modules, which takes seconds once torch and Lightning are imported."""

    def __init__(self, watch: ParentWatch) -> None:
        self.all_jobs_done = False
        self._watch = watch
        self._pid = os.getpid()
        # Handlers run in the reverse order of their registration, so this one runs last.
        atexit.register(self._leave)

    def at_once(self, number: signal.Signals) -> None:
        """What a second signal does, in the middle of whatever the job is at."""
        self._watch.kill_orphans()
        os._exit(128 + number)

    def _leave(self) -> None:
        if os.getpid() != self._pid:
            return  # a fork of the worker
        _flush()
        self._watch.kill_orphans()
        os._exit(0 if self.all_jobs_done else 1)


class Outbox:
    """Sends messages to the parent, from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, message: Message) -> None:
        encoded = encode(message)
        # A parent that is gone is the business of ParentWatch.
        with suppress(ConnectionError), self._lock:
            self._connection.sendall(encoded)


class JobReporter:
    """The `report` of one job: forwards progress at most about ten times a second.

    The first report of a stage and the one that completes it are always sent, also where the stage
    comes again at once. Reports that a thread of the job makes after the job's end are dropped:
    they would count for the next job.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._last = Progress("", 0, 0)
        self._sent_at = 0.0
        self._over = False

    def close(self) -> None:
        self._over = True

    def report(self, progress: Progress) -> None:
        if self._over:
            return
        now = time.monotonic()
        completes = progress.done >= progress.total and self._last.done < self._last.total
        due = now - self._sent_at >= REPORT_INTERVAL_SECONDS
        if due or completes or progress.begins_after(self._last):
            self._last, self._sent_at = progress, now
            self._outbox.send(
                {
                    "progress": {
                        "stage": progress.stage,
                        "done": progress.done,
                        "total": progress.total,
                        "note": progress.note,
                    }
                }
            )


def import_target(target: str, threads: int) -> Target:
    """The function named by "package.module:function"."""
    module_name, _, function_name = target.partition(":")
    function: Target = getattr(importlib.import_module(module_name), function_name)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(threads)
    return function


def _flush() -> None:
    # A log on a full disk takes nothing more.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


def redirect_output(log_path: Path) -> None:
    """Points stdout and stderr, of compiled code too, at the end of the log."""
    _flush()
    descriptor = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)


def serve_job(
    job: Message, settings: Message, report: ProgressListener, stop: StopRequest
) -> Message:
    """The message about the job's end, {"ended": fields of a `JobResult`}."""
    try:
        redirect_output(Path(job["log_path"]))
        stop.check("before it began")
        target = import_target(settings["target"], settings["threads"])
        ended: Message = {"ended": {"value": target(job["payload"], report, stop)}}
        encode(ended)
    except UserError as error:
        with suppress(OSError):
            print(f"error: {error}", file=sys.stderr)
        lost_touch = isinstance(error, LostTouchError)
        return {"ended": {"reason": str(error), "caused_by_user": True, "lost_touch": lost_touch}}
    except Preempted as stopped:
        with suppress(OSError):
            print(stopped, file=sys.stderr)
        return {"ended": {"reason": str(stopped), "stopped": stopped.where}}
    except (Exception, SystemExit) as error:
        with suppress(OSError):
            traceback.print_exc()
        return {"ended": {"reason": one_line(error, named=True, most=REASON_CHARACTERS)}}
    return ended


def main(socket_descriptor: int, parent_pid: int) -> None:
    """Runs jobs until the parent says stop.

    After an unexpected exception the worker ends, so that what it left behind (memory held by the
    traceback, a broken CUDA context) cannot harm the next job; the parent starts a fresh one. So it
    does once a stop is requested, which concerns the present job alone. The parent is told by
    {"last": true} in the message about the job's end.
    """
    stop = StopRequest()
    connection = socket.socket(fileno=socket_descriptor)
    connection.set_inheritable(False)
    faulthandler.enable()
    # The log is read while the job runs, and must be complete when the worker is killed.
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")  # type: ignore[union-attr]
    watch = ParentWatch(connection, parent_pid, stop)
    exit_handler = Exit(watch)
    stop.listen(INTERRUPTING, exit_handler.at_once)
    outbox = Outbox(connection)
    settings = watch.messages.get()
    sys.path[:] = settings["sys_path"]
    while "job" in (message := watch.messages.get()):
        reporter = JobReporter(outbox)
        outcome = serve_job(message["job"], settings, reporter.report, stop)
        reporter.close()
        faulty = "reason" in outcome["ended"] and not outcome["ended"].get("caused_by_user")
        last = faulty or stop.requested
        outbox.send({**outcome, "last": last})
        if last:
            break
    exit_handler.all_jobs_done = True


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
