"""What the user sees while jobs run: moving bars on a terminal, stamped lines anywhere else."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from threading import Lock
from typing import Self

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
from harness.processes.progress import WARNING, Progress, StageClock
from models.errors import one_line


def print_line(console: Console, text: str, style: str = "") -> None:
    """Print a text as it stands: no markup, no colours of its own, not broken into lines; at once,
    also into a pipe."""
    console.print(Text(text, style=style), soft_wrap=True)
    console.file.flush()


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


class JobDisplay(AbstractContextManager["JobDisplay"]):
    """Context manager whose `event` is the `on_event` of `run_jobs`."""

    def __init__(self, console: Console, total: int) -> None:
        """`total` is the number of jobs to come."""
        self._console = console
        self._total = total
        self._over = 0

    @abstractmethod
    def started(self, key: str) -> None: ...

    @abstractmethod
    def progressed(self, key: str, progress: Progress) -> None: ...

    @abstractmethod
    def ended(self, result: JobResult) -> None: ...

    @abstractmethod
    def notice(self, text: str) -> None:
        """Show a line that stays."""

    def event(self, event: JobEvent) -> None:
        match event:
            case JobStarted(key):
                self.started(key)
            case JobProgressed(key, progress) if progress.stage == WARNING:
                self.notice(f"{key}  {WARNING}: {progress.note}")
            case JobProgressed(key, progress):
                self.progressed(key, progress)
            case JobEnded(result):
                self.ended(result)
            case JobsInterrupted(keys):
                self.notice(
                    f"interrupted: {len(keys)} running job(s) save and stop; again to end at once"
                )


def job_display(console: Console, total: int) -> JobDisplay:
    """The display for a console. Bars need an interactive one; `rich` takes pipes, CI and dumb
    terminals for others."""
    return (LiveView if console.is_interactive else LineView)(console, total)


class LineView(JobDisplay):
    """A line with a time stamp at each change of stage and at each quarter of a stage."""

    def __init__(self, console: Console, total: int) -> None:
        super().__init__(console, total)
        self._last: dict[str, tuple[str, int]] = {}

    def __exit__(self, *error: object) -> None:
        """Nothing to restore."""

    def started(self, key: str) -> None:
        self._last[key] = ("", 0)
        self.notice(f"{key}  started")

    def progressed(self, key: str, progress: Progress) -> None:
        fraction = progress.done / progress.total if progress.total > 0 else 0.0
        quarter = int(fraction * 4)
        stage, quarter_before = self._last[key]
        if progress.stage == stage and quarter <= quarter_before:
            return
        self._last[key] = (progress.stage, quarter)
        amount = f"{fraction:.0%}  {progress.done}/{progress.total}" if progress.total > 0 else ""
        self.notice("  ".join(filter(None, (key, progress.stage, amount, progress.note))))

    def ended(self, result: JobResult) -> None:
        self._over += 1
        self.notice(f"{describe_end(result)}  [{self._over}/{self._total}]")

    def notice(self, text: str) -> None:
        print_line(self._console, f"{datetime.now():%Y-%m-%d %H:%M:%S}  {text}")


REFRESHES_PER_SECOND = 4
NARROWEST_BAR, WIDEST_BAR = 6, 40
ROOM_BESIDE_BAR = 88
"""Characters that a line usually needs without its bar."""
NARROWEST_KEY = 16


class LiveView(JobDisplay):
    """A table with a bar for each job that runs and one for all of them, redrawn in place; ended
    jobs and notices scroll away above it."""

    def __init__(
        self, console: Console, total: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(console, total)
        self._clock = clock
        self._began_at = clock()
        self._running: dict[str, tuple[float, StageClock]] = {}
        """When each job was started, and how far its stage is."""
        self._durations: list[float] = []
        self._failed = 0
        self._lock = Lock()
        self._live = Live(
            console=console, get_renderable=self.table, refresh_per_second=REFRESHES_PER_SECOND
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def started(self, key: str) -> None:
        with self._lock:
            self._running[key] = self._clock(), StageClock(self._clock)

    def progressed(self, key: str, progress: Progress) -> None:
        with self._lock:
            self._running[key][1].take(progress)

    def ended(self, result: JobResult) -> None:
        with self._lock:
            del self._running[result.key]
            self._over += 1
            self._failed += not result.ok
            if result.ok:
                self._durations.append(result.seconds)
        print_line(self._console, describe_end(result), "green" if result.ok else "red")

    def notice(self, text: str) -> None:
        print_line(self._console, text)

    def table(self) -> Table:
        """The lines as they are now. Called by the thread that redraws."""
        room = self._console.width - ROOM_BESIDE_BAR
        bar_width = min(max(room, NARROWEST_BAR), WIDEST_BAR)
        key_width = max(self._console.width // 3, NARROWEST_KEY)
        table = Table.grid(padding=(0, 1))
        # Key, stage, bar, amount, elapsed, time left, note.
        for justify in ("left", "left", "left", "right", "right", "right"):
            table.add_column(justify=justify, no_wrap=True)
        table.add_column()
        with self._lock:
            now = self._clock()
            for key, (began_at, stage) in self._running.items():
                at = stage.latest
                table.add_row(
                    Text(cut_middle(key, key_width)),
                    Text(at.stage, style="cyan"),
                    _bar(at.done, at.total, bar_width),
                    f"{at.done}/{at.total}" if at.total > 0 else "",
                    format_duration(now - began_at),
                    _countdown(stage.seconds_left),
                    Text(at.note, style="dim", no_wrap=True, overflow="ellipsis"),
                )
            waiting = self._total - self._over - len(self._running)
            elapsed = [now - began_at for began_at, _ in self._running.values()]
            table.add_row(
                Text("all", style="bold"),
                "",
                _bar(self._over, self._total, bar_width),
                f"{self._over}/{self._total}",
                format_duration(now - self._began_at),
                _countdown(remaining_for_all(self._durations, elapsed, waiting)),
                Text(f"{self._failed} failed" if self._failed else "", style="red", no_wrap=True),
            )
        return table


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


def cut_middle(text: str, width: int) -> str:
    """At most `width` characters, with both ends kept: the seed stands at the end of a key."""
    tail = width // 2
    return text if len(text) <= width else f"{text[: width - tail - 1]}\u2026{text[-tail:]}"


def _bar(done: int, total: int, width: int) -> ProgressBar:
    if total <= 0:
        return ProgressBar(total=None, width=width, pulse=True)
    return ProgressBar(total=total, completed=done, width=width)


def _countdown(seconds: float | None) -> str:
    return "" if seconds is None else f"eta {format_duration(seconds)}"
