"""How a stage of a trial reports where it stands, without knowing who listens, and its speed."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

WARNING = "warning"
"""The stage of a report whose note whoever watches must see, in a line that stays."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """One report: `done` of `total` units of `stage` (train: steps; sample, features: images)."""

    stage: str
    done: int
    total: int
    note: str = ""

    def begins_after(self, last: Progress) -> bool:
        """Whether this is another stage than that of the report before, or the same one anew, such
        as features of samples behind those of real images. No warning is left out."""
        another = self.stage != last.stage or self.stage == WARNING
        return another or self.total != last.total or self.done < last.done


ProgressListener = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """The listener for callers that show nothing."""


def warn(text: str, listener: ProgressListener) -> None:
    """Write a line to the log, and to the terminal of whoever watches."""
    _log.warning(text)
    listener(Progress(WARNING, 0, 0, text))


class StageClock:
    """The speed of the present stage, and the time that it will still take, by a clock in seconds.
    What a resumed stage had done before it was first reported here does not count for its speed."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.latest = Progress("starting", 0, 0)
        self._clock = clock
        self._began, self._done_before = clock(), 0

    def take(self, progress: Progress) -> bool:
        """Take a report; whether it begins another stage."""
        another = progress.stage != self.latest.stage
        if another:
            self._began, self._done_before = self._clock(), progress.done
        self.latest = progress
        return another

    @property
    def speed(self) -> float | None:
        """Units a second; None before any was done."""
        done, seconds = self.latest.done - self._done_before, self._clock() - self._began
        return done / seconds if done > 0 and seconds > 0 else None

    @property
    def seconds_left(self) -> float | None:
        """Until the stage is over at its mean speed; None if unknown."""
        speed = self.speed
        return None if speed is None else max(self.latest.total - self.latest.done, 0) / speed
