"""Images a second, from timings."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

Interval = tuple[int, float]
"""Images, and the seconds that they took."""


def images_per_second(intervals: Sequence[Interval], warmup: int) -> float | None:
    """Median images a second, after warm-up intervals.

    The median, since a machine that others use stalls now and then. Where there are no more
    intervals than those of the warm-up, the last one alone counts: a run of one batch has a speed
    too, a somewhat low one.

    Args:
        intervals: in the order of time, each with at least one image and a positive duration.
        warmup: how many of the first intervals do not count.

    Returns:
        None where there is no interval at all.

    Raises:
        ValueError: an interval without images or without duration.
    """
    if not intervals:
        return None
    if any(images < 1 or seconds <= 0 for images, seconds in intervals):
        raise ValueError("every interval needs at least one image and a positive duration")
    counted = intervals[warmup:] or intervals[-1:]
    return median(images / seconds for images, seconds in counted)
