"""Timing several pieces of work turn by turn, so that whatever else runs disturbs all alike.

A speed measured alone on a machine that is not quiet says little; the ratio of two that took turns
says much. Rounds are repeated until every median is known well enough or the time is over.
"""

from __future__ import annotations

import math
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from scipy.stats import binom

WARM_UP_ROUNDS = 2
FEWEST_ROUNDS = 5
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Timing:
    """Seconds that one piece of work took, one value a round."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds."""
        return statistics.median(self.seconds)

    @property
    def quartiles(self) -> tuple[float, float]:
        """The lower and the upper one, seconds."""
        lower, _, upper = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return lower, upper

    @property
    def interval(self) -> tuple[float, float]:
        """A 95 % confidence interval of the median, by order statistics, seconds.

        The count of values below the true median is binomial with probability 1/2, whatever the
        distribution of the times.
        """
        ordered = sorted(self.seconds)
        below = int(binom.ppf((1 - CONFIDENCE) / 2, len(ordered), 0.5))
        return ordered[max(below - 1, 0)], ordered[min(len(ordered) - below, len(ordered) - 1)]

    @property
    def relative_half_width(self) -> float:
        """Half the width of the interval over the median."""
        lower, upper = self.interval
        return (upper - lower) / 2 / self.median


def take_turns(
    work: Mapping[str, Callable[[], object]],
    *,
    seconds: float,
    tightness: float = 0.02,
    seed: int = 0,
) -> dict[str, Timing]:
    """Time every piece of work once a round, in an order drawn anew for each round.

    A GPU is waited for before and after each piece.

    Args:
        work: by name; each is called without arguments.
        seconds: no round begins after this much time, but five are always run.
        tightness: rounds end when each median's 95 % interval is within this share of it.
        seed: of the orders.

    Returns:
        The times by name, in the order of `work`.
    """
    for _ in range(WARM_UP_ROUNDS):
        for piece in work.values():
            piece()
    order = list(work)
    shuffled = random.Random(seed)
    taken: dict[str, list[float]] = {name: [] for name in work}
    ends = time.perf_counter() + seconds
    while True:
        shuffled.shuffle(order)
        for name in order:
            taken[name].append(_seconds_of(work[name]))
        if len(taken[order[0]]) < FEWEST_ROUNDS:
            continue
        timings = {name: Timing(tuple(values)) for name, values in taken.items()}
        widest = max(timing.relative_half_width for timing in timings.values())
        if widest <= tightness or time.perf_counter() > ends:
            return timings


def growth_exponent(sizes: list[int], seconds: list[float]) -> float:
    """The slope of log time over log size by least squares: 1 is linear, 2 quadratic.

    Returns:
        NaN where fewer than two sizes were measured.
    """
    if len(sizes) < 2:
        return math.nan
    logs = [math.log(size) for size in sizes]
    return statistics.linear_regression(logs, [math.log(s) for s in seconds]).slope


def crossover(sizes: list[int], ours: list[float], theirs: list[float]) -> float | None:
    """The size from which on ours is faster, interpolated between two sizes on log scales.

    Returns:
        None where ours is not faster at the largest size; the smallest size where it always is.
    """
    advantage = [math.log(b / a) for a, b in zip(ours, theirs, strict=True)]
    if advantage[-1] <= 0:
        return None
    slower = [i for i, gain in enumerate(advantage) if gain <= 0]
    if not slower:
        return float(sizes[0])
    i = slower[-1]
    share = -advantage[i] / (advantage[i + 1] - advantage[i])
    return math.exp(math.log(sizes[i]) + share * math.log(sizes[i + 1] / sizes[i]))


def _seconds_of(piece: Callable[[], object]) -> float:
    _wait_for_gpu()
    began = time.perf_counter()
    piece()
    _wait_for_gpu()
    return time.perf_counter() - began


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
