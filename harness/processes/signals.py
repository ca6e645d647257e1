"""A request to stop at the next good moment: what a scheduler's signal becomes.

Signals belong to the process, so whoever owns the process makes one `StopRequest` and hands it down
to where a stop does no harm: after a training step, between two batches of another stage.

Ctrl-C and SIGTERM as something to look at, instead of an exception at any line.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

from harness.processes.progress import Progress, ProgressListener
from models.errors import Preempted

SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
"""SIGUSR1 is what the jobs ask SLURM for, SIGTERM what it sends otherwise; submitit has USR2."""


class StopRequest:
    """Not requested until a signal comes that it listens to; then for good."""

    def __init__(self) -> None:
        self.reason: str | None = None
        self._listening = False

    @property
    def requested(self) -> bool:
        return self.reason is not None

    def listen(self) -> None:
        """Take over the signals. Only the main thread of a process may."""
        self._listening = True
        for number in SIGNALS:
            signal.signal(number, self._handle)

    def listen_again(self) -> None:
        """Take the signals back from a library that put its own handlers in place."""
        if self._listening:
            self.listen()

    def between_batches(self, listener: ProgressListener) -> ProgressListener:
        """The same listener, which raises `Preempted` once a stop is requested.

        For stages that lose nothing but their present batch when they are left.
        """

        def tell(progress: Progress) -> None:
            listener(progress)
            if self.reason is not None:
                where = f"at {progress.stage} {progress.done}/{progress.total}"
                raise Preempted(self.reason, where)

        return tell

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        self.reason = self.reason or signal.Signals(number).name


INTERRUPTING = (signal.SIGINT, signal.SIGTERM)


class Interruption:
    """Context in which the first SIGINT or SIGTERM only sets `requested`.

    A second one raises KeyboardInterrupt at once, for a user who will not wait; later ones do
    nothing. A signal that the process was told to ignore stays ignored. Outside of the main thread,
    which alone receives signals, the context does nothing.
    """

    def __init__(self) -> None:
        self._received = 0
        self._previous: dict[signal.Signals, Any] = {}

    @property
    def requested(self) -> bool:
        return self._received > 0

    def ignore_further_signals(self) -> None:
        """From here on nothing is raised: clean-up runs that must not be cut off."""
        self._received = max(self._received, 2)

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            for number in INTERRUPTING:
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, previous in self._previous.items():
            signal.signal(number, previous)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        self._received += 1
        if self._received == 2:
            raise KeyboardInterrupt
