"""Jobs as plain lines with a time stamp, for pipes, files and CI."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from harness.processes.jobs import JobResult
from harness.processes.progress import Progress

QUARTERS = 4


def format_duration(seconds: float) -> str:
    """75 -> "1:15", 3675 -> "1:01:15"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def shown_path(path: Path) -> str:
    """Relative to the working folder where that is shorter to read."""
    folder = Path.cwd()
    return str(path.relative_to(folder) if path.is_relative_to(folder) else path)


def describe_end(result: JobResult) -> str:
    """The line about a job that is over."""
    if result.ok:
        return f"{result.key}  done in {format_duration(result.seconds)}"
    mistake = " ".join((result.reason or "").split())
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
