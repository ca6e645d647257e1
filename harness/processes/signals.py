"""A request to stop at the next good moment: what a scheduler's signal becomes.

Signals belong to the process, so whoever owns the process makes one `StopRequest` and hands it down
to where a stop does no harm: after a training step, between two batches of another stage.
"""

from __future__ import annotations

import signal
from types import FrameType

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
