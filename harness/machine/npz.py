"""Arrays in files of NumPy's, whose headers are not believed until they fit the file.

Arrays of an `.npz` need not fit into memory: they are mapped, or streamed a few rows at a time.
What a header claims is compared with the length of the file before anything is allocated, so a
damaged or hostile file is an error and does not take all of the machine's memory. Samples are
written as ADM's evaluator reads them, for anyone to check the figures with.

Every reader raises OSError, ValueError, EOFError, zipfile.BadZipFile or zlib.error where a file is
missing, damaged, of Python objects or no file of arrays, and KeyError for an array that an archive
lacks. Names of arrays stand without `.npy`.
"""

from __future__ import annotations

import math
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from harness.machine.files import atomic_path


class ImageRows(Protocol):
    """Images (N, H, W, C) uint8 that are read as they are sliced; an array is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> NDArray[np.uint8]: ...


_Header = tuple[tuple[int, ...], bool, np.dtype[Any]]
"""Shape, whether columns come first, and type."""

_CHUNK = 2**20

_MOST_TIMES_SMALLER = 1100
"""How much smaller zip's compression makes a file of zeros: 1,032 times, and a little."""

_IMAGES_AT_ONCE = 256
"""Images in memory while they are written."""


class StreamedArray:
    """A compressed array, read from its beginning to its end; going back begins anew."""

    def __init__(self, path: Path, member: str) -> None:
        self._member = member
        self._archive = zipfile.ZipFile(path)
        self._content = self._archive.open(member)
        self.shape, self._fortran_order, self.dtype = _checked_header(
            self._content, self._archive.getinfo(member)
        )
        self._row = 0

    @property
    def sliceable(self) -> bool:
        """Whether rows lie one after another."""
        return bool(self.shape) and not self._fortran_order and not self.dtype.hasobject

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice, /) -> NDArray[Any]:
        """Consecutive rows."""
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ValueError("rows are read one after another")
        if start < self._row:
            self._content.close()
            self._content = self._archive.open(self._member)
            _header(self._content)
            self._row = 0
        left = (start - self._row) * math.prod(self.shape[1:]) * self.dtype.itemsize
        while left:
            left -= len(self._read(min(left, _CHUNK)))
        shape = (max(stop - start, 0), *self.shape[1:])
        # Not `frombuffer`, whose arrays cannot be written to.
        found = np.empty(shape, dtype=self.dtype)
        found.reshape(-1).view(np.uint8)[:] = np.frombuffer(self._read(found.nbytes), np.uint8)
        self._row = max(stop, start)
        return found

    def _read(self, size: int) -> bytes:
        content = self._content.read(size)
        if len(content) != size:
            raise EOFError(f"{self._member} ends early")
        return content


def open_npz_array(path: Path, name: str) -> NDArray[Any] | StreamedArray:
    """An array of an archive, mapped into memory where it is stored as it is, else streamed.

    A mapped array is read once for its checksum; a streamed one is checked when its end is read.
    """
    member = f"{name}.npy"
    mapped = map_member(path, member)
    if mapped is not None:
        return mapped
    streamed = StreamedArray(path, member)
    return streamed if streamed.sliceable else load_arrays(path, [name])[name]


def load_arrays(path: Path, names: Sequence[str] | None = None) -> dict[str, NDArray[Any]]:
    """Read those of the named arrays into memory that an archive has; None reads all."""
    with zipfile.ZipFile(path) as archive:
        held = [name.removesuffix(".npy") for name in archive.namelist()]
        chosen = [name for name in held if names is None or name in names]
        for name in chosen:
            info = archive.getinfo(f"{name}.npy")
            with archive.open(info) as content:
                _checked_header(content, info)
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in chosen}


def map_npy(path: Path) -> NDArray[Any]:
    """The array of a `.npy`, mapped into memory."""
    with path.open("rb") as file:
        shape, _, dtype = _header(file)
        _check_size(shape, dtype, path.stat().st_size - file.tell())
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    return array


def array_shape(path: Path, name: str) -> tuple[int, ...]:
    """The shape of an array of an archive, from its header alone."""
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as content:
        return _checked_header(content, archive.getinfo(f"{name}.npy"))[0]


def map_member(path: Path, member: str) -> NDArray[Any] | None:
    """An array in an archive, mapped into memory; None where it is compressed or of objects."""
    with zipfile.ZipFile(path) as archive, path.open("rb") as file:
        info = archive.getinfo(member)
        if info.compress_type != zipfile.ZIP_STORED:
            return None
        # A mapped array is not checked as it is read, so all of it is checked once.
        with archive.open(info) as content:
            while content.read(_CHUNK):
                pass
        file.seek(info.header_offset + 26)
        name_length, extra_length = struct.unpack("<HH", file.read(4))
        file.seek(name_length + extra_length, 1)
        begin = file.tell()
        shape, fortran_order, dtype = _header(file)
        if dtype.hasobject or 0 in shape:
            return None
        _check_size(shape, dtype, info.file_size - (file.tell() - begin))
        order: Literal["F", "C"] = "F" if fortran_order else "C"
        return np.memmap(path, dtype, "r", file.tell(), shape, order)


def _header(file: IO[bytes]) -> _Header:
    version = np.lib.format.read_magic(file)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(file)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(file)
    raise ValueError(f"an array in NumPy's format {version}, which is read up to (2, 0)")


def _checked_header(content: IO[bytes], info: zipfile.ZipInfo) -> _Header:
    """The header at the beginning of an archive's member, once the member is as long as it says."""
    if info.file_size > _MOST_TIMES_SMALLER * max(info.compress_size, 1):
        raise ValueError(f"{info.filename} says that it unpacks to {info.file_size:,} bytes")
    shape, fortran_order, dtype = _header(content)
    _check_size(shape, dtype, info.file_size - content.tell())
    return shape, fortran_order, dtype


def _check_size(shape: tuple[int, ...], dtype: np.dtype[Any], left: int) -> None:
    """Compare what a header claims with the bytes that are left behind it."""
    if any(side < 0 for side in shape):
        raise ValueError(f"an array of shape {shape}")
    claimed = math.prod(shape) * dtype.itemsize
    # Python objects are pickled, in as many bytes as that takes.
    if not dtype.hasobject and claimed != left:
        raise ValueError(f"{dtype} {shape} takes {claimed:,} bytes, but there are {left:,}")


def write_colour_images(archive: zipfile.ZipFile, name: str, images: ImageRows) -> None:
    """Store images (N, H, W, 1 or 3) uint8 as (N, H, W, 3), grey ones three times over."""
    shape = (*images.shape[:3], 3)
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        begin_array(file, shape, np.dtype(np.uint8))
        for start in range(0, len(images), _IMAGES_AT_ONCE):
            part = images[start : min(start + _IMAGES_AT_ONCE, len(images))]
            file.write(np.broadcast_to(part, (len(part), *shape[1:])).tobytes())


def begin_array(file: IO[bytes], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Write the header of an array whose rows follow."""
    header = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def export_adm(images: ImageRows, path: Path, labels: NDArray[np.int64] | None = None) -> None:
    """Write images (N, H, W, 1 or 3) as `arr_0`, (N, H, W, 3) uint8; their classes as `arr_1`."""
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        write_colour_images(archive, "arr_0", images)
        if labels is not None:
            with archive.open("arr_1.npy", "w") as file:
                np.lib.format.write_array(file, labels, allow_pickle=False)
