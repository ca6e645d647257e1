"""Images from anywhere: a folder, an `.npz` in ADM's layout or a `.npy`.

Images in an array are checked and brought to (N, H, W, C) uint8 as they are read; those in a folder
are of one size, decoded as they are asked for and never resized.
"""

from __future__ import annotations

import hashlib
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from harness.data.walk import FORMATS, SUFFIXES, ImageWalk, walk_images
from harness.machine.files import known_kind, shown_names
from harness.machine.npz import ImageRows, StreamedArray, load_arrays, map_npy, open_npz_array
from harness.processes.group import ALONE, ProcessGroup
from models.errors import UserError, one_line

_LOOKED_AT = 1000
"""Images of a wrong type that are read to say how to convert them."""

_OPAQUE = 255

_SLACK = 1.1
"""How far from zero values may lie that are taken for -1 to 1: networks draw a little beyond."""

_UNREADABLE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)

_GREY = ("1", "L")

_MAYBE_TRANSPARENT = ("LA", "PA", "P", "RGBA")

_MODES = (*_GREY, *_MAYBE_TRANSPARENT, "RGB", "CMYK", "YCbCr")

_FEWEST = 2


@contextmanager
def reading_arrays(path: Path) -> Iterator[None]:
    """Context in which a file of arrays is read.

    Raises:
        UserError: it cannot be read; the message says which kind of file it is, or that it is
            damaged.
    """
    try:
        yield
    except _UNREADABLE as error:
        what = known_kind(path)
        if what is not None:
            raise UserError(f"{path} is {what}") from error
        raise UserError(
            f"{path} cannot be read ({one_line(error)}): it is damaged, truncated or no file of "
            "arrays"
        ) from error


class ArrayImages:
    """Rows of an array of a file, which is read as it is sliced."""

    def __init__(self, path: Path, array: NDArray[Any] | StreamedArray, what: str) -> None:
        """Take an array (N, H, W), or (N, H, W, C) with 1, 3 or 4 channels, uint8.

        Raises:
            UserError: another type or shape; the message says how to convert it, and calls the
                array `what`.
        """
        self.path = path
        self._array = array
        if not array.shape or 0 in array.shape[1:]:
            raise UserError(f"{path}: {what} of shape {array.shape} holds no images")
        if array.dtype != np.uint8:
            raise UserError(f"{path}: {what} is {array.dtype}, expected uint8: {self._mend()}")
        shape = array.shape
        if len(shape) == 3 and shape[2] not in (3, 4):
            shape = (*shape, 1)
        if len(shape) != 4 or shape[3] not in (1, 3, 4):
            raise UserError(f"{path}: {what} has the shape {array.shape}, {self._expected()}")
        self._stored_channels = shape[3]
        self.shape = (*shape[:3], min(shape[3], 3))
        self.grey = len(self) if shape[3] == 1 else 0
        """How many of the images are grey."""
        self.said = "the fourth channel is opacity, and left out" if shape[3] == 4 else ""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        try:
            part = np.asarray(self._array[rows])
        except _UNREADABLE as error:
            raise UserError(
                f"{self.path} is damaged or truncated ({error}): write or fetch it again"
            ) from error
        part = part.reshape(len(part), *self.shape[1:3], self._stored_channels)
        if self._stored_channels == 4:
            clear = np.flatnonzero((part[..., 3] != _OPAQUE).any(axis=(1, 2)))
            if len(clear):
                first = rows.indices(len(self))[0] + int(clear[0])
                raise UserError(
                    f"{self.path}: image {first} has transparent pixels: put it on a background "
                    "and store three channels"
                )
        return part[..., : self.shape[3]]

    def count_classes(self) -> int | None:
        """How many labels there are in `arr_1`; None where there is none."""
        if self.path.suffix != ".npz":
            return None
        with reading_arrays(self.path):
            labels = load_arrays(self.path, ["arr_1"]).get("arr_1")
        return None if labels is None else len(np.unique(labels))

    def _expected(self) -> str:
        shape = self._array.shape
        if len(shape) == 4 and shape[1] in (1, 3, 4):
            return "so channels come first: np.transpose(x, (0, 2, 3, 1)) puts them last"
        if len(shape) == 3:
            return "which is a single image: expected (N, H, W, 3), two images or more"
        return "expected (N, H, W, 3), or (N, H, W) for grey images"

    def _mend(self) -> str:
        """How to make uint8 of it, from what its values are."""
        kind = self._array.dtype.kind
        if kind in "iu":
            return "x.astype(np.uint8), where all values are 0 to 255"
        if kind != "f":
            return "images as numbers from 0 to 255"
        values = np.asarray(self._array[:_LOOKED_AT], dtype=np.float64)
        if not np.isfinite(values).all():
            bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
            return f"image {bad[0]} has pixels that are NaN or infinite, so find out why first"
        low, high = values.min(initial=0), values.max(initial=0)
        found = f"the values {low:.3g} to {high:.3g}"
        if low < -_SLACK or (low < 0 and high > _SLACK):
            return (
                f"{found} fit neither 0 to 1 nor -1 to 1: decode latents, and undo a normalisation "
                "(x * std + mean), before they are stored"
            )
        if low < 0:
            return f"{found} look like -1 to 1, so (127.5 * x + 128).clip(0, 255).astype(np.uint8)"
        if high <= 1:
            return f"{found} look like 0 to 1, so (255 * x).round().astype(np.uint8)"
        return "x.round().clip(0, 255).astype(np.uint8), where 255 is white"


def open_array_images(path: Path) -> ArrayImages:
    """The images of a `.npz` in ADM's layout (`arr_0`), or of a `.npy`.

    Raises:
        UserError: the file is missing, damaged or holds something else.
    """
    with reading_arrays(path):
        if path.suffix == ".npy":
            return ArrayImages(path, map_npy(path), "the array")
        try:
            return ArrayImages(path, open_npz_array(path, "arr_0"), "arr_0")
        except KeyError:
            kind = known_kind(path)
            if kind is not None:
                raise UserError(f"{path} is {kind}") from None
            with zipfile.ZipFile(path) as archive:
                held = [name.removesuffix(".npy") for name in archive.namelist()]
            raise UserError(
                f"{path} has no array arr_0, which holds the images in ADM's layout; it has "
                f"{shown_names(held)}"
            ) from None


def find_images(folder: Path) -> ImageWalk:
    """All images below a folder, sorted by their paths.

    Raises:
        UserError: there are none, or a part of the folder cannot be looked at.
    """
    found = walk_images(folder)
    if not found.names:
        left_out = f" ({found.left_out})" if str(found.left_out) else ""
        raise UserError(
            f"{folder} holds no images{left_out}: expected files that end in {', '.join(SUFFIXES)}"
        )
    return found


class FolderImages:
    """All images below a folder, sorted by their paths.

    As the field's evaluators do, an orientation in EXIF is not looked at.
    """

    def __init__(self, folder: Path) -> None:
        """Read all headers.

        Raises:
            UserError: there are no images, or one is damaged, of another size or of more than 8
                bits a channel. The message names it.
        """
        self.folder = folder
        found = find_images(folder)
        self.files = found.files
        self.said = str(found.left_out)
        """What the folder holds beside them, in words; empty where there is nothing else."""
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            headers = list(pool.map(_header, self.files))
        sizes = [size for size, _ in headers]
        if len(set(sizes)) > 1:
            self._refuse_sizes(sizes)
        self.grey = sum(mode in _GREY for _, mode in headers)
        """How many of the images are grey."""
        width, height = sizes[0]
        channels = 1 if self.grey == len(self.files) else 3
        self.shape = (len(self.files), height, width, channels)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        files = self.files[rows]
        images = np.empty((len(files), *self.shape[1:]), dtype=np.uint8)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for place, image in enumerate(pool.map(self._decoded, files)):
                images[place] = image
        return images

    def count_classes(self) -> int | None:
        """How many class folders there are; None where an image lies in none."""
        parts = [file.relative_to(self.folder).parts for file in self.files]
        return len({part[0] for part in parts}) if all(len(part) > 1 for part in parts) else None

    def _decoded(self, path: Path) -> NDArray[np.uint8]:
        """(H, W, C)."""
        with _opened(path) as image:
            image.load()
            if image.mode in _MAYBE_TRANSPARENT:
                alpha = np.asarray(image.convert("RGBA"))[..., 3]
                if (alpha != _OPAQUE).any():
                    raise UserError(
                        f"{path} has transparent pixels: put it on a background and store it "
                        "without transparency"
                    )
            pixels = np.asarray(image.convert("L" if self.shape[3] == 1 else "RGB"))
        if pixels.shape[:2] != self.shape[1:3]:
            raise UserError(f"{path} has another size than its header had before")
        return pixels.reshape(self.shape[1:])

    def _refuse_sizes(self, sizes: list[tuple[int, int]]) -> None:
        """Name an image of the usual size and one of another."""
        counts = Counter(sizes)
        usual = counts.most_common(1)[0][0]
        one = self.files[sizes.index(usual)]
        other = next(index for index, size in enumerate(sizes) if size != usual)
        raise UserError(
            f"{self.folder} holds images of {len(counts)} sizes: {one} is {usual[0]}x{usual[1]}, "
            f"{self.files[other]} is {sizes[other][0]}x{sizes[other][1]} (width x height); "
            "expected one size, since figures depend on how images are resized"
        )


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    try:
        with Image.open(path, formats=FORMATS) as image:
            yield image
    except UserError:
        raise
    except UnidentifiedImageError:
        raise UserError(f"{path} is {known_kind(path) or 'no image, or a damaged one'}") from None
    # Damaged files make Pillow raise almost anything.
    except Exception as error:
        raise UserError(f"{path} is damaged or truncated ({error})") from error


def _header(path: Path) -> tuple[tuple[int, int], str]:
    """Width and height, and mode."""
    with _opened(path) as image:
        size, mode = image.size, image.mode
    if mode not in _MODES:
        raise UserError(
            f"{path} has pixels of the kind {mode}: expected 8 bits a channel, colour or grey"
        )
    return size, mode


@dataclass(frozen=True)
class ImageInput:
    """Images, and what should be said of them."""

    images: ImageRows
    source: str
    """Where they come from, in words."""
    notes: tuple[str, ...] = ()
    """What was done to them."""
    classes: int | None = None
    """How many classes they are of; None where they have no labels."""

    @property
    def resolution(self) -> str:
        """Rows and columns of the images."""
        return "x".join(map(str, self.images.shape[1:3]))


def open_images(path: Path) -> ImageInput:
    """See what images there are, without reading all of them.

    Args:
        path: a folder of image files, at any depth; an `.npz` with `arr_0`; or a `.npy`.

    Raises:
        UserError: nothing is there, it holds no images as they are expected, or fewer than two.
    """
    if not path.exists():
        raise UserError(f"there is no {path}: expected a folder of images, an .npz or a .npy")
    images: FolderImages | ArrayImages
    images = FolderImages(path) if path.is_dir() else open_array_images(path)
    if len(images) < _FEWEST:
        raise UserError(f"{path} holds {len(images)} images, but at least {_FEWEST} are needed")
    notes = [images.said] if images.said else []
    if images.grey:
        count = "all" if images.grey == len(images) else f"{images.grey:,} of {len(images):,}"
        notes.append(f"{count} images are grey, shown as three equal channels")
    told = tuple(f"{path}: {note}" for note in notes)
    return ImageInput(images, str(path), told, images.count_classes())


class HashedRows:
    """Images that are hashed on their way, each of them once or more, in whatever order."""

    def __init__(self, images: ImageRows) -> None:
        self._images = images
        self._digests = np.zeros((len(images), hashlib.sha256().digest_size), dtype=np.uint8)
        self._seen = np.zeros(len(images), dtype=np.bool_)

    @property
    def shape(self) -> tuple[int, ...]:
        return self._images.shape

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]:
        part = self._images[rows]
        for row, image in zip(range(*rows.indices(len(self))), part, strict=True):
            digest = hashlib.sha256(np.ascontiguousarray(image).data).digest()
            self._digests[row] = np.frombuffer(digest, dtype=np.uint8)
            self._seen[row] = True
        return part

    def sha256(self, group: ProcessGroup = ALONE) -> str:
        """64 hex digits: the SHA-256 of the shape as text and of the SHA-256 of each image.

        All processes of a group, each of which read some of the images, call this together.

        Raises:
            ValueError: not all images have been read.
        """
        own = np.flatnonzero(self._seen)
        gathered = group.gather((own, self._digests[own]))
        found = ""
        if gathered is not None:
            for rows, digests in gathered:
                self._digests[rows], self._seen[rows] = digests, True
            if not self._seen.all():
                raise ValueError(f"{self._seen.sum()} of {len(self)} images have been read")
            text = repr(tuple(self.shape)).encode()
            found = hashlib.sha256(text + self._digests.tobytes()).hexdigest()
        return group.broadcast(found)
