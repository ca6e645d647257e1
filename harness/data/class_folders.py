"""Images in one folder a class, as a folder on disk or as a zip of one.

`CLASS/IMAGE`, at the top or below a single folder that wraps all. Labels number the sorted class
names and images come sorted by class and name, so neither the disk's nor the archive's own order
matters. Every format that Pillow reads counts as an image, told by the file's suffix; other files
and hidden ones are left out.
"""

from __future__ import annotations

import io
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError

from harness.data.labelled_images import LabelledImages
from models.errors import UserError

_LARGEST_FILE = 256 * 2**20
"""Bytes. An image file above it is refused unread: an archive may claim any size."""
_DEEPEST = 6
"""Levels of folders looked into: neither a wrong path nor a loop of links is followed far."""
_SHOWN = 5


@dataclass(frozen=True)
class Member:
    """One image file."""

    name: str
    """Its path in the source, with slashes."""
    label: int


@dataclass(frozen=True)
class ClassFolders:
    """What a source holds."""

    class_names: tuple[str, ...]
    """By label, sorted."""
    members: tuple[Member, ...]
    """Sorted by class and name."""


def list_class_folders(source: Path) -> ClassFolders:
    """Look what a folder or a zip of class folders holds, without reading an image.

    Raises:
        UserError: it is missing, is neither of both, or holds images that lie in no class folder.
    """
    with _opened(source) as files:
        return _arranged(files.names(), source)


def read_class_folders(source: Path, side: int) -> LabelledImages:
    """Read square colour images that all have one size.

    Grey, palette and other images become RGB; transparency is dropped.

    Args:
        source: a folder or zip of class folders.
        side: pixels a side.

    Raises:
        UserError: as `list_class_folders`; or some images cannot be read or have another size,
            with the first of them and the number of all.
    """
    with _opened(source) as files:
        folders = _arranged(files.names(), source)
        pixels = np.empty((len(folders.members), 3, side, side), dtype=np.uint8)
        problems = []
        for index, member in enumerate(folders.members):
            try:
                pixels[index] = _read(files, member.name, side).transpose(2, 0, 1)
            # Damaged files make Pillow and zipfile raise almost anything.
            except Exception as error:
                problems.append(f"{member.name} ({_one_line(error)})")
    if problems:
        raise UserError(
            f"{source}: {len(problems)} of {len(folders.members)} images cannot be used: "
            f"{_first(problems)}; mend or remove them"
        )
    labels = torch.tensor([member.label for member in folders.members], dtype=torch.int64)
    return LabelledImages(torch.from_numpy(pixels), labels, folders.class_names)


class _Files(Protocol):
    def names(self) -> Iterator[str]:
        """Paths of files, with slashes, in any order."""

    def read(self, name: str) -> bytes:
        """The content of one."""


class _Folder:
    def __init__(self, root: Path) -> None:
        self.root = root

    def names(self) -> Iterator[str]:
        for folder, below, files in os.walk(self.root, followlinks=True):
            relative = Path(folder).relative_to(self.root)
            if len(relative.parts) >= _DEEPEST:
                below.clear()
            below[:] = [name for name in below if not name.startswith(".")]
            yield from ((relative / name).as_posix() for name in files)

    def read(self, name: str) -> bytes:
        path = self.root / name
        _check_size(path.stat().st_size)
        return path.read_bytes()


class _Zip:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self.archive = archive

    def names(self) -> Iterator[str]:
        yield from {entry.filename for entry in self.archive.infolist() if not entry.is_dir()}

    def read(self, name: str) -> bytes:
        _check_size(self.archive.getinfo(name).file_size)
        return self.archive.read(name)


@contextmanager
def _opened(source: Path) -> Iterator[_Files]:
    if source.is_dir():
        yield _Folder(source)
        return
    if not source.exists():
        raise UserError(f"there is no folder or zip {source}")
    try:
        archive = zipfile.ZipFile(source)
    except (zipfile.BadZipFile, OSError) as error:
        raise UserError(
            f"{source} is neither a folder nor a zip of class folders: {_one_line(error)}"
        ) from error
    with archive:
        yield _Zip(archive)


def _arranged(names: Iterator[str], source: Path) -> ClassFolders:
    registered = Image.registered_extensions().items()
    suffixes = {suffix for suffix, kind in registered if kind in Image.OPEN}
    paths = [
        path
        for path in map(PurePosixPath, names)
        if path.suffix.lower() in suffixes and not _is_hidden(path)
    ]
    wrapping = _wrapping(paths)
    stray = [path for path in paths if len(path.parts) != wrapping + 2]
    if stray:
        raise UserError(
            f"{source}: expected images as CLASS/IMAGE, but found {min(map(str, stray))}"
        )
    if not paths:
        raise UserError(f"{source} holds no image: expected images as CLASS/IMAGE")
    class_names = tuple(sorted({path.parts[wrapping] for path in paths}))
    label_of = {name: label for label, name in enumerate(class_names)}
    ordered = sorted(paths, key=lambda path: path.parts)
    members = (Member(str(path), label_of[path.parts[wrapping]]) for path in ordered)
    return ClassFolders(class_names, tuple(members))


def _is_hidden(path: PurePosixPath) -> bool:
    """Whether it is a hidden file, or one that macOS adds to archives."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _wrapping(paths: list[PurePosixPath]) -> int:
    """How many folders wrap all class folders."""
    common = 0
    while paths and all(len(path.parts) > common + 2 for path in paths):
        if len({path.parts[common] for path in paths}) > 1:
            break
        common += 1
    return common


def _read(files: _Files, name: str, side: int) -> np.ndarray:
    """(side, side, 3) uint8."""
    with Image.open(io.BytesIO(files.read(name))) as image:
        # The size stands in the header, so a wrong one costs no decoding.
        if image.size != (side, side):
            columns, rows = image.size
            raise ValueError(f"{columns}x{rows} instead of {side}x{side} pixels")
        return np.asarray(image.convert("RGB"))


def _check_size(size: int) -> None:
    if size > _LARGEST_FILE:
        raise ValueError(f"{size} bytes, more than {_LARGEST_FILE}")


def _one_line(error: Exception) -> str:
    # Pillow's text names a buffer's address in memory.
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    return " ".join(str(error).split()) or type(error).__name__


def _first(problems: list[str]) -> str:
    more = len(problems) - _SHOWN
    return ", ".join(problems[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
