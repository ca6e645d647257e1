"""CIFAR-10's own files, as torchvision lays them out: `cifar-10-batches-py/data_batch_1` to `5`.

They are pickles, and a pickle can run any code. This reader allows none: it knows plain values and
the one kind of array that the files hold, which it rebuilds itself, and refuses everything else.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from harness.data.labelled_images import LabelledImages
from models.errors import UserError

FOLDER = "cifar-10-batches-py"
BATCHES = tuple(f"data_batch_{number}" for number in range(1, 6))
_META = "batches.meta"
_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE


def read_batches(folder: Path) -> LabelledImages:
    """The training images, in the order of the files.

    Args:
        folder: the one that holds `data_batch_1`.

    Raises:
        UserError: a file is missing, or is not what CIFAR-10 has there.
    """
    missing = [name for name in (*BATCHES, _META) if not (folder / name).is_file()]
    if missing:
        raise UserError(f"{folder} lacks {', '.join(missing)}")
    names = _field(_unpickled(folder / _META), "label_names", folder / _META)
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UserError(f"{folder / _META} does not hold the names of the classes")
    pixels, labels = [], []
    for path in (folder / name for name in BATCHES):
        batch = _unpickled(path)
        batch_pixels, batch_labels = _field(batch, "data", path), _field(batch, "labels", path)
        fits = (
            isinstance(batch_pixels, _PickledArray)
            and isinstance(batch_labels, list)
            and batch_pixels.shape == (len(batch_labels), _PIXELS)
            and all(type(label) is int and 0 <= label < len(names) for label in batch_labels)
        )
        if not fits:
            raise UserError(f"{path} does not hold one row of {_PIXELS} bytes and a label an image")
        pixels.append(batch_pixels.values())
        labels += batch_labels
    images = np.concatenate(pixels).reshape(-1, 3, _SIDE, _SIDE)
    return LabelledImages(
        torch.from_numpy(images), torch.tensor(labels, dtype=torch.int64), tuple(names)
    )


class _PickledDtype:
    """What stands for `numpy.dtype` while reading: only bytes are known."""

    def __init__(self, code: object, align: object = False, copy: object = True) -> None:
        if code not in ("u1", "|u1"):
            raise pickle.UnpicklingError(f"an array of {code!r} instead of bytes")

    def __setstate__(self, state: object) -> None:
        """Byte order and the like, which bytes do not have."""


class _PickledArray:
    """What stands for an array while reading; NumPy never sees the pickle's own arguments."""

    def __init__(self, kind: object, shape: object, code: object) -> None:
        self.shape = (0, 0)
        self.content = b""
        self.columns_first = False

    def __setstate__(self, state: object) -> None:
        match state:
            case (
                int(),
                (int(rows), int(columns)),
                _PickledDtype(),
                bool(columns_first),
                bytes(content) | str(content),
            ):
                # Python 2 wrote bytes as text.
                raw = content.encode("latin-1") if isinstance(content, str) else content
                if min(rows, columns) < 0 or rows * columns != len(raw):
                    raise pickle.UnpicklingError("an array whose size is not that of its content")
                self.shape, self.content, self.columns_first = (rows, columns), raw, columns_first
            case _:
                raise pickle.UnpicklingError("an array that is not a table of bytes")

    def values(self) -> NDArray[np.uint8]:
        """(rows, columns)."""
        order: Literal["F", "C"] = "F" if self.columns_first else "C"
        return np.frombuffer(self.content, dtype=np.uint8).reshape(self.shape, order=order)


def _encoded(text: object, encoding: object) -> bytes:
    """What stands for `_codecs.encode`, by which Python 3 writes bytes in old protocols."""
    if not isinstance(text, str) or encoding != "latin1":
        raise pickle.UnpicklingError("bytes in an unknown form")
    return text.encode("latin-1")


class _ArrayKind:
    """What stands for `numpy.ndarray` as an argument."""


_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy._core.multiarray", "_reconstruct"): _PickledArray,
    ("numpy", "ndarray"): _ArrayKind,
    ("numpy", "dtype"): _PickledDtype,
    ("_codecs", "encode"): _encoded,
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}") from None


def _unpickled(path: Path) -> Any:
    with path.open("rb") as file:
        try:
            return _load(file)
        # A damaged pickle raises almost anything.
        except Exception as error:
            raise UserError(
                f"{path} is not a file of CIFAR-10, or is damaged: {error or type(error).__name__}"
            ) from error


def _load(file: BinaryIO) -> Any:
    return _Unpickler(file, encoding="latin1").load()


def _field(content: Any, key: str, path: Path) -> Any:
    if not isinstance(content, dict) or key not in content:
        raise UserError(f"{path} is not a file of CIFAR-10: it lacks {key}")
    return content[key]
