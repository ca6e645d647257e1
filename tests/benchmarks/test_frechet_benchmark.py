from __future__ import annotations

import itertools

import pytest

from benchmarks import evaluation as frechet_benchmark
from benchmarks.evaluation import measure_frechet
from harness.processes.progress import Progress


def test_medians_and_ratios_are_of_interleaved_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that runs 1 and 4, 3 and 6, 2 and 10 seconds."""
    durations = (1, 4, 3, 6, 2, 10)
    ticks = itertools.accumulate(itertools.chain.from_iterable((100, one) for one in durations))
    monkeypatch.setattr(frechet_benchmark.time, "perf_counter", lambda: next(ticks))
    reported: list[Progress] = []
    speeds = measure_frechet(dimensions=8, rounds=3, on_progress=reported.append)
    assert (speeds.ours, speeds.square_root) == (2, 6)
    assert speeds.ratios == (4, 2, 5)
    assert speeds.dimensions == 8
    assert [p.done for p in reported] == [1, 2, 3]


def test_both_ways_find_the_same_distance() -> None:
    speeds = measure_frechet(dimensions=48, rounds=1)
    assert speeds.relative_difference < 1e-8
    assert min(speeds.ours, speeds.square_root) > 0
