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

    def begins_after(self, last: Progress) -> bool:
        """Whether this is another stage than that of the report before, or the same one anew.

        Features of samples follow those of real images: the same stage, with a count that starts
        again.
        """
        return self.stage != last.stage or self.total != last.total or self.done < last.done


ProgressListener = Callable[[Progress], None]


def ignore_progress(progress: Progress) -> None:
    """The listener for callers that show nothing."""
