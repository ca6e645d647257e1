"""What the user sees while jobs run: moving bars on a terminal, plain lines anywhere else.

Jobs as plain lines with a time stamp, for pipes, files and CI.

Jobs as moving bars on a terminal: one line for each that runs, and one for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from threading import Lock
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from harness.config.yaml_source import shown_path
from harness.processes.jobs import (
    JobEnded,
    JobEvent,
    JobProgressed,
    JobResult,
    JobsInterrupted,
    JobStarted,
)
from harness.processes.progress import Progress, StageClock
from models.errors import one_line

QUARTERS = 4


def format_duration(seconds: float) -> str:
    """75 -> "1:15", 3675 -> "1:01:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def describe_end(result: JobResult) -> str:
    """The line about a job that is over."""
    if result.ok:
        return f"{result.key}  done in {format_duration(result.seconds)}"
    mistake = one_line(result.reason or "")
    if result.stopped is not None:
        return f"{result.key}  {mistake}"
    return f"{result.key}  failed: {mistake} (log: {shown_path(result.log_path)})"


class LineView:
    """One line at each change of stage and at each quarter of a stage, flushed at once."""

    def __init__(self, console: Console, total: int) -> None:
        self._console = console
        self._total = total
        self._ended = 0
        self._last: dict[str, tuple[str, int]] = {}

    def open(self) -> None:
        """Nothing to prepare."""

    def close(self) -> None:
        """Nothing to restore."""

    def started(self, key: str) -> None:
        self._last[key] = ("", 0)
        self.notice(f"{key}  started")

    def progressed(self, key: str, progress: Progress) -> None:
        fraction = progress.done / progress.total if progress.total > 0 else 0.0
        quarter = int(fraction * QUARTERS)
        stage, quarter_before = self._last[key]
        if progress.stage == stage and quarter <= quarter_before:
            return
        self._last[key] = (progress.stage, quarter)
        amount = f"{fraction:.0%}  {progress.done}/{progress.total}" if progress.total > 0 else ""
        parts = (key, progress.stage, amount, progress.note)
        self.notice("  ".join(part for part in parts if part))

    def ended(self, result: JobResult) -> None:
        self._ended += 1
        self.notice(f"{describe_end(result)}  [{self._ended}/{self._total}]")

    def notice(self, text: str) -> None:
        line = f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}"
        self._console.print(Text(line), soft_wrap=True)
        self._console.file.flush()


COLUMNS = ("key", "stage", "bar", "amount", "elapsed", "remaining", "note")

NUMBERS = ("amount", "elapsed", "remaining")

REFRESHES_PER_SECOND = 4

NARROWEST_BAR = 6

NARROWEST_KEY = 16

WIDEST_BAR = 40

ROOM_BESIDE_BAR = 88
"""Characters that a line usually needs without its bar."""


class RunningJob(StageClock):
    """A job that runs, and how long it has been running."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__(clock)
        self._started_at = clock()

    def elapsed(self) -> float:
        """Seconds since the job was started, over all of its stages."""
        return self._clock() - self._started_at


def remaining_for_all(
    durations: Sequence[float], running: Sequence[float], waiting: int
) -> float | None:
    """Seconds until all jobs are over, judged by those that are done; None before the first.

    Args:
        durations: seconds of each job that was done well.
        running: seconds since each running job was started.
        waiting: jobs not started yet. As many jobs run at once as do now.
    """
    if not durations or not running:
        return None
    mean = sum(durations) / len(durations)
    left = [max(mean - elapsed, 0.0) for elapsed in running]
    return max(max(left), (sum(left) + waiting * mean) / len(running))


class LiveView:
    """A table that is redrawn in place; ended jobs and notices scroll away above it."""

    def __init__(
        self, console: Console, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console
        self._total = total
        self._clock = clock
        self._began_at = clock()
        self._running: dict[str, RunningJob] = {}
        self._durations: list[float] = []
        self._over = 0
        self._failed = 0
        self._lock = Lock()
        self._live = Live(
            console=console, get_renderable=self.table, refresh_per_second=REFRESHES_PER_SECOND
        )

    def open(self) -> None:
        self._live.start()

    def close(self) -> None:
        self._live.stop()

    def started(self, key: str) -> None:
        with self._lock:
            self._running[key] = RunningJob(self._clock)

    def progressed(self, key: str, progress: Progress) -> None:
        with self._lock:
            self._running[key].take(progress)

    def ended(self, result: JobResult) -> None:
        with self._lock:
            del self._running[result.key]
            self._over += 1
            self._failed += not result.ok
            if result.ok:
                self._durations.append(result.seconds)
        style = "green" if result.ok else "red"
        self._console.print(Text(describe_end(result), style=style), soft_wrap=True)

    def notice(self, text: str) -> None:
        self._console.print(Text(text), soft_wrap=True)

    def table(self) -> Table:
        """The lines as they are now. Called by the thread that redraws."""
        room = self._console.width - ROOM_BESIDE_BAR
        bar_width = min(max(room, NARROWEST_BAR), WIDEST_BAR)
        table = Table.grid(padding=(0, 1))
        for name in COLUMNS:
            number = name in NUMBERS
            table.add_column(justify="right" if number else "left", no_wrap=name != "note")
        with self._lock:
            for key, job in self._running.items():
                at = job.latest
                table.add_row(
                    Text(cut_middle(key, max(self._console.width // 3, NARROWEST_KEY))),
                    Text(at.stage, style="cyan"),
                    _bar(at.done, at.total, bar_width),
                    Text(f"{at.done}/{at.total}" if at.total > 0 else ""),
                    format_duration(job.elapsed()),
                    _countdown(job.seconds_left),
                    Text(at.note, style="dim", no_wrap=True, overflow="ellipsis"),
                )
            waiting = self._total - self._over - len(self._running)
            elapsed = [job.elapsed() for job in self._running.values()]
            table.add_row(
                Text("all", style="bold"),
                "",
                _bar(self._over, self._total, bar_width),
                f"{self._over}/{self._total}",
                format_duration(self._clock() - self._began_at),
                _countdown(remaining_for_all(self._durations, elapsed, waiting)),
                Text(f"{self._failed} failed" if self._failed else "", style="red", no_wrap=True),
            )
        return table


def cut_middle(text: str, width: int) -> str:
    """At most `width` characters, with both ends kept: the seed stands at the end of a key."""
    if len(text) <= width:
        return text
    tail = width // 2
    return f"{text[: width - tail - 1]}\u2026{text[-tail:]}"


def _bar(done: int, total: int, width: int) -> ProgressBar:
    if total <= 0:
        return ProgressBar(total=None, width=width, pulse=True)
    return ProgressBar(total=total, completed=done, width=width)


def _countdown(seconds: float | None) -> str:
    return "" if seconds is None else f"eta {format_duration(seconds)}"


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
                    f"interrupted: {len(keys)} running job(s) save and stop; again to end at once"
                )
