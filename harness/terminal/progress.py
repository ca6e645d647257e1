"""How far a command is, at what speed, and how long it will take."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

from harness.processes.progress import Progress, StageClock
from harness.terminal.jobs import format_duration, print_line

SECONDS_BETWEEN_LINES = 30.0
"""Where there is no terminal."""


class ProgressView:
    """Context manager that is a listener of progress: a moving bar on a terminal, lines elsewhere.

    Reports may come from several processes; one that is behind an earlier report is left out.
    """

    def __init__(
        self, console: Console, unit: str = "images", clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Counts in `unit`, and takes the seconds from `clock`."""
        self._console = console
        self._unit = unit
        self._clock = clock
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[pace]}"),
            console=console,
            disable=not console.is_interactive,
        )
        self._task = self._bar.add_task("", total=None, pace="")
        self._stage = StageClock(clock)
        self._last = Progress("", -1, 0)
        self._line_at = 0.0

    def __enter__(self) -> ProgressView:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        now = self._clock()
        if progress.stage != self._last.stage:
            self._last = Progress(progress.stage, -1, 0)
        if progress.done < self._last.done or progress == self._last:
            return
        self._stage.take(progress)
        over = progress.done == progress.total and self._last.done != progress.total
        noted = bool(progress.note) and progress.note != self._last.note
        first = self._last.done < 0
        self._last = progress
        done, total, pace = progress.done, progress.total, self._pace()
        if self._console.is_interactive:
            self._bar.update(
                self._task, description=progress.stage, completed=done, total=total, pace=pace
            )
        elif first or over or noted or now - self._line_at >= SECONDS_BETWEEN_LINES:
            self._line_at = now
            parts = (progress.stage, f"{done}/{total}", pace)
            print_line(self._console, "  ".join(filter(None, parts)))

    def _pace(self) -> str:
        """How many a second since the first report, and the time left at that speed."""
        speed, left = self._stage.speed, self._stage.seconds_left
        if speed is None or left is None:
            return self._last.note
        parts = (f"{speed:.1f} {self._unit}/s", f"{format_duration(left)} left", self._last.note)
        return "  ".join(filter(None, parts))
