from __future__ import annotations

import pytest

from harness.evaluation.cost import images_per_second


def test_is_the_median_after_warm_up() -> None:
    intervals = [(64, 8.0), (64, 2.0), (64, 1.0), (32, 1.0), (64, 64.0)]
    assert images_per_second(intervals, warmup=1) == 32
    assert images_per_second(intervals, warmup=2) == 32
    assert images_per_second(intervals, warmup=3) == (32 + 1) / 2


def test_the_last_interval_counts_where_all_are_warm_up() -> None:
    assert images_per_second([(10, 5.0), (12, 2.0)], warmup=2) == 6
    assert images_per_second([(10, 5.0)], warmup=10) == 2


def test_nothing_measured_has_no_speed() -> None:
    assert images_per_second([], warmup=0) is None


@pytest.mark.parametrize("interval", [(0, 1.0), (5, 0.0), (5, -1.0)])
def test_empty_intervals_are_refused(interval: tuple[int, float]) -> None:
    with pytest.raises(ValueError, match="interval"):
        images_per_second([(5, 1.0), interval], warmup=0)
