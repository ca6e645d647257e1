"""In which order training sees the images: a function of the seed and the step alone.

Nothing has to be saved to resume: the batches from step k on are those that an uninterrupted run
would have drawn.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch.utils.data import Sampler

from models.randomness import generator


class Draw(NamedTuple):
    """One image of a batch."""

    image: int
    """Index into the training images."""
    position: int
    """How many images the run had drawn before this one."""
    flip: bool
    """Whether it is mirrored."""


@dataclass(frozen=True)
class DrawOrder:
    """Every epoch is a permutation of its own; batches run on across the ends of epochs."""

    images: int
    batch_size: int
    """Over all processes."""
    seed: int
    horizontal_flip: bool


class BatchOrder(Sampler[list[Draw]]):
    """The batches of steps `start` to `stop`.

    It has no length on purpose: Lightning would take it for that of an epoch and stop early after
    a resume.

    Args:
        order: which images, in which order.
        start: the first step.
        stop: one past the last step.
        rank: of this process, which gets its part of each batch.
        world_size: processes.
    """

    def __init__(
        self, order: DrawOrder, start: int, stop: int, rank: int = 0, world_size: int = 1
    ) -> None:
        self.order = order
        self.start = start
        self.stop = stop
        self.rank = rank
        self.world_size = world_size

    def __iter__(self) -> Iterator[list[Draw]]:
        order = self.order
        epoch = -1
        indices: list[int] = []
        flips: list[bool] = []
        for step in range(self.start, self.stop):
            draws = []
            for offset in range(self.rank, order.batch_size, self.world_size):
                position = step * order.batch_size + offset
                needed, place = divmod(position, order.images)
                if needed != epoch:
                    epoch = needed
                    indices, flips = self._epoch(epoch)
                draws.append(Draw(indices[place], position, flips[place]))
            yield draws

    def _epoch(self, epoch: int) -> tuple[list[int], list[bool]]:
        order = self.order
        stream = generator("data-order", order.seed, epoch)
        indices = torch.randperm(order.images, generator=stream)
        flips = torch.rand(order.images, generator=stream) < 0.5
        if not order.horizontal_flip:
            flips = torch.zeros_like(flips)
        return indices.tolist(), flips.tolist()
