"""CIFAR-10: 32x32 colour photographs of 10 classes, 50,000 for training.

Source: Krizhevsky 2009. Read from torchvision's folder, or from a folder or zip of class folders.
A zip of JPEGs holds slightly other pixels than the original files, so its figures are its own.
"""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from harness.config.sections import DataConfig
from harness.data.datasets.base import check_held_out, check_side, hash_of_files, hold_out
from harness.data.decoding import UnreadableImageError, opened_image
from harness.data.images import DataSet, LabelledImages
from harness.data.sources.base import Source
from harness.data.sources.class_folders import FolderSource, ZipSource
from harness.data.walk import walk_images
from harness.machine.files import given_path
from models.errors import UserError, one_line

ENVIRONMENT = "HARNESS_CIFAR10"
FOLDER = "cifar-10-batches-py"
BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_SIDE = 32
_ORIGINALS = 50_000
"""Training images in the original files."""
_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_SHOWN = 5
"""Unusable images that an error names."""
_GET_IT = (
    "get it with: "
    """python -c "from torchvision.datasets import CIFAR10; CIFAR10('data', download=True)" """
    'and then SET="data.path=data", or SET="data.path=..." with a zip or folder of class folders'
)


def check(config: DataConfig) -> None:
    """See that the images are there, without opening one. Raises a UserError if they are not, are
    of other classes or too few, or if the configuration asks for another resolution."""
    check_side(config, _SIDE, "the images of CIFAR-10")
    path, batches = _found(config)
    if batches is None:
        check_held_out(config.held_out, len(_class_folders(path).entries()))
    else:
        check_originals(batches)
        check_held_out(config.held_out, _ORIGINALS)


def content(config: DataConfig) -> str:
    """A hash of the files that hold the images, whichever way they are laid out."""
    path, batches = _found(config)
    if path.is_file():
        return hash_of_files([("", path)])
    names, folder = (walk_images(path).names, path) if batches is None else (BATCHES, batches)
    return hash_of_files((name, folder / name) for name in names)


def load(config: DataConfig) -> DataSet:
    """The training images, some of them held out, drawn evenly from the classes.

    They are read from `data.path` or, if that is null, from the environment variable
    HARNESS_CIFAR10. Decoding the images of a zip takes about ten seconds. Raises a UserError as
    `check` does, or if an image cannot be read.
    """
    check(config)
    path, batches = _found(config)
    images = read_batches(batches) if batches else read_class_folders(_class_folders(path), _SIDE)
    return hold_out(images, config.held_out, "CIFAR-10")


def _found(config: DataConfig) -> tuple[Path, Path | None]:
    """What is named, and the folder with torchvision's files, if it is one or holds one."""
    key = "data.path" if config.path else ENVIRONMENT
    given = config.path or os.environ.get(ENVIRONMENT)
    if not given:
        raise UserError(
            f"CIFAR-10 is not there: data.path is null and {ENVIRONMENT} is not set; {_GET_IT}"
        )
    source = given_path(given, key)
    if not source.exists():
        raise UserError(f"CIFAR-10 is not there: {key} names {source}; {_GET_IT}")
    folders = (source / FOLDER, source)
    return source, next((folder for folder in folders if (folder / BATCHES[0]).is_file()), None)


def _class_folders(path: Path) -> Source:
    """A folder or zip with a folder for each of CIFAR-10's classes."""
    source = open_class_folders(path)
    try:
        names = source.class_ids
    except UserError as error:
        raise UserError(f"CIFAR-10 is not there: {error}; {_GET_IT}") from error
    if names != _CLASSES:
        more = ", ..." if len(names) > len(_CLASSES) else ""
        raise UserError(
            f"{path} has the classes {', '.join(names[: len(_CLASSES)])}{more}, "
            f"but those of CIFAR-10 are {', '.join(_CLASSES)}; {_GET_IT}"
        )
    return source


def check_originals(folder: Path) -> None:
    """See that the files beside `data_batch_1` are CIFAR-10's own, by their MD5. Raises a UserError
    if a file is missing, or is not the original."""
    from torchvision.datasets import CIFAR10
    from torchvision.datasets.utils import check_integrity

    sums = {**dict(CIFAR10.train_list), CIFAR10.meta["filename"]: CIFAR10.meta["md5"]}
    missing = [name for name in sums if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)}; {_GET_IT}")
    for name, md5 in sums.items():
        if not check_integrity(str(folder / name), md5):
            raise UserError(
                f"{folder / name} is not CIFAR-10's original, whose MD5 is {md5}: it is damaged or "
                f"was made anew; {_GET_IT}"
            )


def read_batches(folder: Path) -> LabelledImages:
    """The training images of the original files beside `data_batch_1`, in the order of the files.

    They are pickles, which could run any code, and are opened only if they are the originals.
    """
    from torchvision.datasets import CIFAR10

    class TrainingFiles(CIFAR10):  # type: ignore[misc]
        base_folder = ""
        test_list: ClassVar[list[list[str]]] = []

    check_originals(folder)
    files = TrainingFiles(folder)
    # (N, 32, 32, 3) -> (N, 3, 32, 32)
    images = torch.from_numpy(files.data).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor(files.targets, dtype=torch.int64)
    return LabelledImages(images, labels, tuple(files.classes))


def open_class_folders(path: Path) -> Source:
    """A folder or zip of class folders, or a UserError if it is neither."""
    if path.is_dir():
        return FolderSource(path)
    if not zipfile.is_zipfile(path):
        raise UserError(f"{path} is neither a folder nor a zip of class folders, or is cut off")
    return ZipSource(path)


def read_class_folders(source: Source, side: int) -> LabelledImages:
    """Read square images, all of `side` pixels a side, as RGB; transparency is dropped.

    Raises a UserError with the first of those that cannot be read or have another size.
    """
    entries = source.entries()
    pixels = np.empty((len(entries), side, side, 3), dtype=np.uint8)
    problems = []
    for index, entry in enumerate(entries):
        try:
            with opened_image(source.read(entry.id)) as image:
                # The size stands in the header, so a wrong one costs no decoding.
                if image.size != (side, side):
                    columns, rows = image.size
                    raise UnreadableImageError(f"{columns}x{rows} instead of {side}x{side} pixels")
                pixels[index] = np.asarray(image.convert("RGB"))
        except UnreadableImageError as error:
            problems.append(f"{entry.id} ({error})")
        except UserError as error:
            # What a source says names itself and the image once more; its cause does not.
            problems.append(f"{entry.id} ({one_line(error.__cause__ or error)})")
    if problems:
        more = f" and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise UserError(
            f"{source.path}: {len(problems)} of {len(entries)} images cannot be used: "
            f"{', '.join(problems[:_SHOWN])}{more}; mend or remove them"
        )
    # (N, H, W, 3) -> (N, 3, H, W)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor([entry.label for entry in entries], dtype=torch.int64)
    return LabelledImages(images, labels, source.class_ids)
