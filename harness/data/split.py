"""Keeping some images out of training, the same ones in every trial."""

from __future__ import annotations

import torch
from torch import Tensor

from harness.data.labelled_images import DataSet, LabelledImages
from models.errors import UserError
from models.randomness import generator


def hold_out(images: Tensor, labels: Tensor, class_names: tuple[str, ...], count: int) -> DataSet:
    """Split a data set that has no split of its own.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        class_names: by label.
        count: how many images to hold out, drawn as evenly from the classes as their sizes allow.

    Raises:
        UserError: no image would be left for training.
    """
    total = len(labels)
    if count >= total:
        raise UserError(
            f"data.held_out is {count}, but there are only {total} images: set it under {total}"
        )
    order = torch.randperm(total, generator=generator("hold-out"))
    # Images are numbered within their class; taking all first ones, then all second ones, and so
    # on spreads the held-out images over the classes.
    turn = torch.empty(total, dtype=torch.int64)
    for label in range(len(class_names)):
        members = order[labels[order] == label]
        turn[members] = torch.arange(len(members))
    ranked = order[torch.argsort(turn[order], stable=True)]
    held_out = ranked[:count].sort().values
    train = ranked[count:].sort().values
    return DataSet(
        LabelledImages(images[train], labels[train], class_names),
        LabelledImages(images[held_out], labels[held_out], class_names),
    )
