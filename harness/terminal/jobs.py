"""What the user sees while jobs run: moving bars on a terminal, plain lines anywhere else."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol

from rich.console import Console

from harness.cluster.display_lines import LineView
from harness.cluster.display_live import LiveView
from harness.processes.jobs import (
    JobEnded,
    JobEvent,
    JobProgressed,
    JobResult,
    JobsInterrupted,
    JobStarted,
)
from harness.processes.progress import Progress


class View(Protocol):
    """One way to show jobs."""

    def open(self) -> None: ...

    def close(self) -> None: ...

    def started(self, key: str) -> None: ...

    def progressed(self, key: str, progress: Progress) -> None: ...

    def ended(self, result: JobResult) -> None: ...

    def notice(self, text: str) -> None: ...


class JobDisplay:
    """Context manager whose `event` is the `on_event` of `run_jobs`."""

    def __init__(self, console: Console, total: int) -> None:
        """`total` is the number of jobs to come. Bars need an interactive console; `rich` takes
        pipes, CI and dumb terminals for others."""
        interactive = console.is_interactive
        self._view: View = LiveView(console, total) if interactive else LineView(console, total)

    def __enter__(self) -> JobDisplay:
        self._view.open()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._view.close()

    def notice(self, text: str) -> None:
        """Shows a line that stays."""
        self._view.notice(text)

    def event(self, event: JobEvent) -> None:
        match event:
            case JobStarted(key):
                self._view.started(key)
            case JobProgressed(key, progress):
                self._view.progressed(key, progress)
            case JobEnded(result):
                self._view.ended(result)
            case JobsInterrupted(keys):
                self._view.notice(
                    f"interrupted: stopping {len(keys)} running job(s), once more to kill at once"
                )
