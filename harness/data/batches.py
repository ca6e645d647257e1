"""Training batches: which images at which step, in an order that depends on the seed alone.

Every epoch is a permutation of its own, drawn from the seed and the epoch's number. So nothing has
to be saved to resume: the batches from step k on are those that an uninterrupted run would have
drawn, with any number of processes and of workers that load.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import pytorch_lightning as pl
import torch
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
    """What the order depends on; batches run on across the ends of epochs."""

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


class DrawnImages(Dataset[Batch]):
    """Images by draw; a whole batch is fetched at once.

    Args:
        source: the images.
        seed: of the latents that are sampled anew at every draw.
    """

    def __init__(self, source: ImageSet, seed: int) -> None:
        self.source = source
        self.seed = seed

    def __getitem__(self, draw: Draw) -> Batch:
        return self.__getitems__([draw])

    def __getitems__(self, draws: list[Draw]) -> Batch:
        index, positions, flips = (torch.tensor(part) for part in zip(*draws, strict=True))

        def noise_of(row: int) -> torch.Generator:
            return generator("latent-noise", self.seed, draws[row].position)

        images = self.source.inputs(index, flips, noise_of)
        return Batch(images, self.source.labels[index], positions)


def _keep(batch: Any) -> Any:
    """A batch is fetched whole, so nothing is left to collate."""
    return batch


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
    """Batches in their order, whatever the number of worker processes.

    Args:
        images: the set.
        batches: which images each batch draws.
        seed: of the latents that are sampled anew at every draw.
        workers: processes that load; 0 loads in this one.
    """
    return DataLoader(
        DrawnImages(images, seed),
        batch_sampler=batches,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        collate_fn=_keep,
    )
