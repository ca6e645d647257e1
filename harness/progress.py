"""How a stage of a trial reports where it stands, without knowing who listens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """One report: `done` of `total` units of `stage` (train: steps; sample, features: images)."""

    stage: str
    done: int
    total: int
    note: str = ""


ProgressListener = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """The listener for callers that show nothing."""
