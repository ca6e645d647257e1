"""What data sets share: keeping images out of training, and short hashes for `data.content`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import torch

from harness.config.sections import DataConfig
from harness.data.images import DataSet, ImageSet
from harness.machine.files import file_digest
from models.errors import UserError
from models.randomness import generator


def check_side(config: DataConfig, side: int, images: str) -> None:
    """See that the configuration asks for the one resolution that some images have. Raises a
    UserError if it asks for another."""
    if config.resolution != side:
        raise UserError(
            f"data.resolution is {config.resolution}, but {images} are {side}x{side} pixels: "
            f"set data.resolution={side}"
        )


def check_held_out(count: int, total: int) -> None:
    """See that two images are left to train on: samples are compared with their covariance. Raises
    a UserError if holding out `count` of `total` images leaves fewer."""
    if count > total - 2:
        raise UserError(
            f"data.held_out is {count}, but there are only {total} images, and 2 must be left for "
            f"training: set it to at most {total - 2}"
        )


def hold_out(images: ImageSet, count: int, title: str) -> DataSet:
    """Split a data set that has no split of its own, as evenly as the sizes of classes allow.
    Raises a UserError if too few images would be left for training."""
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
    held_out, train = (part.sort().values for part in (ranked[:count], ranked[count:]))
    return DataSet(images.subset(train), images.subset(held_out), title)


def hash_of_facts(facts: object) -> str:
    """16 hex digits over what can be written as JSON."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]


def hash_of_files(files: Iterable[tuple[str, Path]]) -> str:
    """16 hex digits over names and contents, in the order given."""
    digest = hashlib.sha256()
    for name, path in files:
        digest.update(name.encode() + b"\0" + bytes.fromhex(file_digest(path)))
    return digest.hexdigest()[:16]
