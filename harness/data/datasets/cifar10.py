"""CIFAR-10: 32x32 colour photographs of 10 classes, 50,000 for training.

Source: Krizhevsky 2009. Read from torchvision's folder, or from a folder or zip of class folders.
A zip of JPEGs holds slightly other pixels than the original files, so its figures are its own.
"""

from __future__ import annotations

import os
from pathlib import Path

from harness.config.sections import DataConfig
from harness.data.cifar_batches import BATCHES, FOLDER, read_batches
from harness.data.class_folders import read_class_folders
from harness.data.content_hash import hash_of_files
from harness.data.datasets.base import hold_out
from harness.data.images import DataSet
from harness.data.labelled_images import LabelledImages
from models.errors import UserError

ENVIRONMENT = "HARNESS_CIFAR10"
_SIDE = 32
_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)
_HOW_TO_GET_IT = (
    """python -c "from torchvision.datasets import CIFAR10; CIFAR10('data', download=True)" """
    'and then SET="data.path=data", or SET="data.path=..." with a zip or folder of class folders'
)


def check(config: DataConfig) -> None:
    """See that the images are there.

    Raises:
        UserError: they are not, or the configuration asks for another resolution.
    """
    if config.resolution != _SIDE:
        raise UserError(
            f"data.resolution is {config.resolution}, but the images of CIFAR-10 are "
            f"{_SIDE}x{_SIDE} pixels: set data.resolution={_SIDE}"
        )
    _source(config.path)


def content(config: DataConfig) -> str:
    """A hash of the files that hold the images, whichever way they are laid out."""
    source = _source(config.path)
    if source.is_file():
        return hash_of_files([("", source)])
    batches = _batches_folder(source)
    if batches is not None:
        return hash_of_files((name, batches / name) for name in BATCHES)
    files = sorted(path for path in source.rglob("*") if path.is_file())
    return hash_of_files((path.relative_to(source).as_posix(), path) for path in files)


def load(config: DataConfig) -> DataSet:
    """The training images, some of them held out, drawn evenly from the classes.

    They are read from `data.path` or, where that is null, from the environment variable
    HARNESS_CIFAR10. Decoding the images of a zip takes about ten seconds.

    Raises:
        UserError: as `check`; or the images cannot be read, are not those of CIFAR-10's classes, or
            would all be held out.
    """
    check(config)
    source = _source(config.path)
    found = _read(source)
    if found.class_names != _CLASSES:
        raise UserError(
            f"{source} has the classes {', '.join(found.class_names[:10])}, "
            f"but those of CIFAR-10 are {', '.join(_CLASSES)}"
        )
    return hold_out(found, config.held_out, "CIFAR-10")


def _source(path: str | None) -> Path:
    given = path or os.environ.get(ENVIRONMENT)
    if not given:
        raise UserError(
            f"CIFAR-10 is not there: data.path is null and {ENVIRONMENT} is not set; "
            f"get it with: {_HOW_TO_GET_IT}"
        )
    source = Path(given).expanduser()
    if not source.exists():
        key = "data.path" if path else ENVIRONMENT
        raise UserError(
            f"CIFAR-10 is not there: {key} names {source}; get it with: {_HOW_TO_GET_IT}"
        )
    return source


def _read(source: Path) -> LabelledImages:
    batches = _batches_folder(source)
    return read_class_folders(source, _SIDE) if batches is None else read_batches(batches)


def _batches_folder(source: Path) -> Path | None:
    """The folder with torchvision's files, if this is one or holds one."""
    folders = (source / FOLDER, source)
    return next((folder for folder in folders if (folder / BATCHES[0]).is_file()), None)
