"""Ctrl-C and SIGTERM as something to look at, instead of an exception at any line."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


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
            for number in SIGNALS:
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
