"""What the user sees while one stage runs: a moving bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from harness.progress import Progress

_LINES = 10
"""Of a stage, where there is no terminal."""


class StageView:
    """Context manager that is a listener of progress."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_interactive,
        )
        self._task = self._bar.add_task("", total=None)
        self._line = ("", 0)

    def __enter__(self) -> StageView:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def __call__(self, progress: Progress) -> None:
        if self._console.is_interactive:
            self._bar.update(
                self._task,
                description=progress.stage,
                completed=progress.done,
                total=progress.total,
            )
            return
        line = (progress.stage, progress.done * _LINES // max(progress.total, 1))
        if line != self._line:
            self._line = line
            text = f"{progress.stage}  {progress.done}/{progress.total}"
            self._console.print(text, highlight=False, markup=False, soft_wrap=True)
            self._console.file.flush()
