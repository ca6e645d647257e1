"""What data sets share: keeping images out of training, and short hashes for `data.content`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch

from harness.data.images import DataSet, ImageSet
from models.errors import UserError
from models.randomness import generator


def check_held_out(count: int, total: int) -> None:
    """See that images are left to train on, at least two: samples are compared with the covariance
    of the training images, which one image has not.

    Args:
        count: images to hold out.
        total: images that there are.

    Raises:
        UserError: too few would be left.
    """
    if count > total - 2:
        raise UserError(
            f"data.held_out is {count}, but there are only {total} images, and 2 must be left for "
            f"training: set it to at most {total - 2}"
        )


def hold_out(images: ImageSet, count: int, title: str) -> DataSet:
    """Split a data set that has no split of its own.

    Args:
        images: N of them.
        count: how many images to hold out, drawn as evenly from the classes as their sizes allow.
        title: of the data set.

    Raises:
        UserError: no image would be left for training.
    """
    labels = images.labels
    total = len(labels)
    check_held_out(count, total)
    order = torch.randperm(total, generator=generator("hold-out"))
    # Images are numbered within their class; taking all first ones, then all second ones, and so
    # on spreads the held-out images over the classes.
    shuffled = labels[order]
    by_class = torch.argsort(shuffled, stable=True)
    sizes = torch.bincount(shuffled, minlength=len(images.class_names))
    first = sizes.cumsum(0) - sizes
    turn = torch.empty(total, dtype=torch.int64)
    turn[by_class] = torch.arange(total) - first[shuffled[by_class]]
    ranked = order[torch.argsort(turn, stable=True)]
    held_out = ranked[:count].sort().values
    train = ranked[count:].sort().values
    return DataSet(images.subset(train), images.subset(held_out), title)


_DIGITS = 16


def hash_of_facts(facts: object) -> str:
    """16 hex digits over what can be written as JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def hash_of_files(files: Iterable[tuple[str, Path]]) -> str:
    """16 hex digits over names and contents, in the order given."""
    digest = hashlib.sha256()
    for name, path in files:
        with path.open("rb") as file:
            content = hashlib.file_digest(file, "sha256").digest()
        digest.update(name.encode() + b"\0" + content)
    return digest.hexdigest()[:_DIGITS]
