"""Training batches for Lightning, from wherever the run stands."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader, Dataset

from harness.config.schema import TrialConfig
from harness.data.images import ImageSet
from harness.data.order import BatchOrder, Draw, DrawOrder
from models.diffusion_module import Batch
from models.randomness import generator


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
