"""Training batches: which images at which step, in an order that depends on the seed alone.

Every epoch is a permutation of its own, drawn from the seed and the epoch's number. So nothing has
to be saved to resume: the batches from step k on are those that an uninterrupted run would have
drawn, with any number of processes and of workers that load.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import pytorch_lightning as pl
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from harness.config.schema import TrialConfig
from harness.data.images import ImageSet
from models.diffusion_module import Batch
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
    """What the order of images depends on; batches run on across the ends of epochs."""

    images: int
    batch_size: int
    """Over all processes."""
    seed: int
    horizontal_flip: bool


@dataclass(frozen=True, eq=False)
class BatchOrder(Sampler[list[Draw]]):
    """The batches of steps `start` to `stop`; a process of several gets its part of each.

    It has no length on purpose: Lightning would take it for that of an epoch and stop early after
    a resume.
    """

    order: DrawOrder
    start: int
    stop: int
    rank: int = 0
    world_size: int = 1

    def __iter__(self) -> Iterator[list[Draw]]:
        order = self.order
        drawn = -1
        for step in range(self.start, self.stop):
            draws = []
            for offset in range(self.rank, order.batch_size, self.world_size):
                position = step * order.batch_size + offset
                epoch, place = divmod(position, order.images)
                if epoch != drawn:
                    drawn = epoch
                    stream = generator("data-order", order.seed, epoch)
                    indices = torch.randperm(order.images, generator=stream).tolist()
                    flips = (torch.rand(order.images, generator=stream) < 0.5).tolist()
                flip = order.horizontal_flip and flips[place]
                draws.append(Draw(indices[place], position, flip))
            yield draws


@dataclass(frozen=True, eq=False)
class DrawnImages(Dataset[Batch]):
    """Images by draw, a whole batch at once; `seed` is of latents, sampled anew at every draw."""

    source: ImageSet
    seed: int

    def __getitem__(self, draw: Draw) -> Batch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: list[Draw]) -> Batch:
        index, positions, flips = (torch.tensor(part) for part in zip(*draws, strict=True))

        def noise_of(row: int) -> torch.Generator:
            return generator("latent-noise", self.seed, draws[row].position)

        images = self.source.inputs(index, flips, noise_of)
        return Batch(images, self.source.labels[index], positions)


class TrainingData(pl.LightningDataModule):
    """Feeds a trainer from its current step to the last one, also after a resume."""

    def __init__(self, config: TrialConfig, images: ImageSet) -> None:
        super().__init__()
        self.config = config
        self.images = images

    def train_dataloader(self) -> DataLoader[Batch]:
        trainer = self.trainer
        if trainer is None:
            raise RuntimeError("TrainingData serves a trainer, but none is attached")
        batches = BatchOrder(
            draw_order(self.config, self.images),
            trainer.global_step,
            self.config.train.steps,
            trainer.global_rank,
            trainer.world_size,
        )
        return loader_of(self.images, batches, self.config.seed, self.config.data.workers)


def draw_order(config: TrialConfig, images: ImageSet) -> DrawOrder:
    """In which order a trial sees its training images."""
    return DrawOrder(
        len(images.labels), config.train.batch_size, config.seed, config.data.horizontal_flip
    )


def loader_of(images: ImageSet, batches: BatchOrder, seed: int, workers: int) -> DataLoader[Batch]:
    """The batches, loaded by `workers` processes, or in this one where that is 0; their order does
    not depend on it. `seed` is of latents, sampled anew at every draw."""
    return DataLoader(
        DrawnImages(images, seed),
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        # A batch is fetched whole, so nothing is left to collate.
        collate_fn=nn.Identity(),
    )
