"""Stopping: what a signal means to a command, its workers, the processes of a trial, a SLURM task.

The first signal is a request, looked at where a stop does no harm: after a training step, whose
state is saved, between two batches of another stage, while a lock is waited for. The second one
ends the process at once, for a person who will not wait; SLURM's tasks leave that to SLURM. A
command passes the request on to its workers, and a worker to the processes of its trial, by a
message: a process that still starts gets it as well. Whoever owns a process makes one `StopRequest`
and hands it down.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

from harness.processes.progress import Progress, ProgressListener
from models.errors import Preempted

INTERRUPTING = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and what `kill`, a service manager or a closing machine sends."""
PREEMPTING = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
"""SIGUSR1 is what the jobs ask SLURM for, SIGTERM what it sends otherwise; submitit has USR2."""
ECHO_SECONDS = 0.5
"""A signal that comes again so soon is the same one: a terminal sends Ctrl-C to each process of its
group, and a program that started this one may pass it on as well."""

OnSecond = Callable[[signal.Signals], None]


class Interrupted(KeyboardInterrupt):
    """This command was asked to end by a signal."""

    def __init__(self, number: signal.Signals) -> None:
        super().__init__(number.name)
        self.number = number

    @property
    def exit_code(self) -> int:
        """What a shell shows of a process that the signal ended: 130 or 143."""
        return 128 + self.number


def raise_interrupted(number: signal.Signals) -> NoReturn:
    """Leave the main thread's code at the line that it is at."""
    raise Interrupted(number)


def ignore_signal(number: signal.Signals) -> None:
    """For processes that whoever sent the signal will end in time."""


class StopRequest:
    """Not requested until somebody asks, by a signal or `request`; then for good."""

    def __init__(self) -> None:
        self.reason: str | None = None
        """What asked: a signal's name, or a word."""
        self._asked_at = 0.0
        self._numbers: Sequence[signal.Signals] = ()
        self._on_second: OnSecond = ignore_signal
        self._second = False
        self._pid = os.getpid()

    @property
    def requested(self) -> bool:
        return self.reason is not None

    @property
    def number(self) -> signal.Signals:
        """The signal that asked; SIGTERM where it was something else."""
        return signal.Signals.__members__.get(self.reason or "", signal.SIGTERM)

    def request(self, reason: str) -> None:
        """Ask for the stop; the first reason stays."""
        if self.reason is None:
            self.reason, self._asked_at = reason, time.monotonic()

    def check(self, where: str) -> None:
        """Raises `Preempted` once the stop is requested; `where` says how far the work is."""
        if self.reason is not None:
            raise Preempted(self.reason, where)

    def listen(self, numbers: Sequence[signal.Signals], on_second: OnSecond) -> None:
        """Let these signals ask for the stop; only the main thread of a process may. `on_second` is
        called, once, in the main thread, with a signal that comes after the first."""
        self._numbers, self._on_second = numbers, on_second
        for number in numbers:
            signal.signal(number, self._handle)

    def listen_again(self) -> None:
        """Take the signals back from a library that put its own handlers in place."""
        self.listen(self._numbers, self._on_second)

    def ignore_second(self) -> None:
        """From here on no signal does anything: clean-up runs that must not be cut off."""
        self._second = True

    def between_batches(self, listener: ProgressListener) -> ProgressListener:
        """The listener with a `check` behind it, for stages that lose nothing but their present
        batch when they are left."""

        def tell(progress: Progress) -> None:
            listener(progress)
            self.check(f"at {progress.stage} {progress.done}/{progress.total}")

        return tell

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if os.getpid() != self._pid:
            # A fork, such as a loader of images, ends as it would without a handler.
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        elif self.reason is None:
            self.request(signal.Signals(number).name)
        elif not self._second and time.monotonic() - self._asked_at > ECHO_SECONDS:
            self._second = True
            self._on_second(signal.Signals(number))


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Context in which Ctrl-C or SIGTERM asks for a stop, and a second one raises `Interrupted`; in
    the main thread, which alone receives signals. One that `nohup` ignores stays ignored."""
    stop = StopRequest()
    before: dict[signal.Signals, Any] = {
        number: signal.getsignal(number)
        for number in INTERRUPTING
        if _in_main_thread() and signal.getsignal(number) not in (signal.SIG_IGN, None)
    }
    stop.listen(tuple(before), raise_interrupted)
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def terminated_like_interrupted() -> Iterator[None]:
    """Context in which SIGTERM raises `Interrupted`, as Ctrl-C raises KeyboardInterrupt, so that
    what the command was at is cleaned up. For what has nothing to save."""
    if not _in_main_thread() or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda number, _: raise_interrupted(signal.Signals(number)))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
