"""Timing several pieces of work turn by turn, so that whatever else runs disturbs all alike.

A speed measured alone on a machine that is not quiet says little; the ratio of two that took turns
says much.
"""

from __future__ import annotations

import math
import os
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from scipy.stats import binom

from harness.processes.progress import Progress, ProgressListener

WARM_UP_ROUNDS = 2
FEWEST_ROUNDS = 5
CONFIDENCE = 0.95
TIGHT = 0.02

Result = TypeVar("Result")


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """A 95 % confidence interval of the median, by order statistics.

    The count of values below the true median is binomial with probability 1/2, whatever the
    distribution of the values.
    """
    ordered = sorted(values)
    below = int(binom.ppf((1 - CONFIDENCE) / 2, len(ordered), 0.5))
    return ordered[max(below - 1, 0)], ordered[min(len(ordered) - below, len(ordered) - 1)]


def _looseness(values: Sequence[float]) -> float:
    """Half the width of the interval over the median."""
    lower, upper = median_interval(values)
    return (upper - lower) / 2 / statistics.median(values)


def take_turns(
    work: Mapping[str, Callable[[], object]], *, seconds: float
) -> dict[str, list[float]]:
    """Seconds of every piece of work, one a round, in an order drawn anew for each round.

    `work` is by name. A GPU is waited for before and after each piece. Rounds end, after five, when
    every median is known within 2 % or so many seconds have gone by.
    """
    for _ in range(WARM_UP_ROUNDS):
        for piece in work.values():
            piece()
    order = list(work)
    shuffled = random.Random(0)
    taken: dict[str, list[float]] = {name: [] for name in work}
    ends = time.perf_counter() + seconds
    while True:
        shuffled.shuffle(order)
        for name in order:
            _wait_for_gpu()
            began = time.perf_counter()
            work[name]()
            _wait_for_gpu()
            taken[name].append(time.perf_counter() - began)
        enough = max(map(_looseness, taken.values())) <= TIGHT or time.perf_counter() > ends
        if enough and len(taken[order[0]]) >= FEWEST_ROUNDS:
            return taken


def _wait_for_gpu() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Turn(Generic[Result]):
    """What one call gave and took."""

    result: Result
    seconds: float
    processor_seconds: float
    """Of all threads of child processes that ended in it: little changed by what else runs."""


def take_rounds(
    work: Mapping[str, Callable[[], Result]], rounds: int, on_progress: ProgressListener
) -> dict[str, list[Turn[Result]]]:
    """Call every piece of work once a round, and begin each round with another one.

    `work` is by name; `on_progress` gets a report after each call.
    """
    taken: dict[str, list[Turn[Result]]] = {name: [] for name in work}
    names = deque(work)
    order: list[str] = []
    for _ in range(rounds):
        order += names
        names.rotate(-1)
    for done, name in enumerate(order, start=1):
        began, busy = time.perf_counter(), _processor_seconds()
        result = work[name]()
        seconds = time.perf_counter() - began
        taken[name].append(Turn(result, seconds, _processor_seconds() - busy))
        on_progress(Progress(name, done, len(order)))
    return taken


def _processor_seconds() -> float:
    used = os.times()
    return used.children_user + used.children_system


def ratios(above: Sequence[float], below: Sequence[float]) -> tuple[float, ...]:
    """Round by round."""
    return tuple(one / other for one, other in zip(above, below, strict=True))


def spread(values: Sequence[float], decimals: int = 2) -> str:
    """The median of ratios, and the smallest and largest, in print."""
    shown = (statistics.median(values), min(values), max(values))
    return "{:.{n}f} ({:.{n}f} to {:.{n}f})".format(*shown, n=decimals)


def growth_exponent(sizes: Collection[float], costs: Collection[float]) -> float:
    """The slope of log cost over log size by least squares: 1 is linear, 2 quadratic; NaN where
    fewer than two sizes were measured."""
    if len(sizes) < 2:
        return math.nan
    return statistics.linear_regression(
        list(map(math.log, sizes)), list(map(math.log, costs))
    ).slope


def crossover(sizes: Sequence[float], ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The size from which on ours is faster, interpolated between two sizes on log scales.

    Returns:
        NaN where ours is not faster at the largest size; the smallest size where it always is.
    """
    advantage = [math.log(b / a) for a, b in zip(ours, theirs, strict=True)]
    slower = [i for i, gain in enumerate(advantage) if gain <= 0]
    if not slower:
        return float(sizes[0])
    i = slower[-1]
    if i == len(sizes) - 1:
        return math.nan
    share = -advantage[i] / (advantage[i + 1] - advantage[i])
    return math.exp(math.log(sizes[i]) + share * math.log(sizes[i + 1] / sizes[i]))
