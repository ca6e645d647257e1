"""Which files are images and of which class: one rule for folders and archives, for all commands.

A file is an image by its suffix, whatever Pillow can read here, so that a folder has the same
images everywhere. Hidden files and folders (`.ipynb_checkpoints`) and those that macOS adds
(`__MACOSX`) are left out. Links are followed.

What is left out is counted, so that nobody measures or trains on a part without being told. A
folder without permission or a link to nothing is refused: it may hold any number of images.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from models.errors import UserError

FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "DIB", "TIFF", "PPM", "JPEG2000")
"""Pillow's names of what is read, told by content. None runs other programs, as EPS would."""

SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".avif", ".avifs"),
    *(".gif", ".bmp", ".dib", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    *(".jp2", ".j2k", ".j2c", ".jpx", ".jpc", ".jpf"),
)
"""What files in these formats end in, in either case."""

_UNREAD = (
    *(".heic", ".heif", ".hif", ".jxl", ".psd"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf"),
)
"""What images in other formats end in, most of them cameras'."""

_SHOWN = 5
"""Suffixes of other files that are named with their counts."""


def visible_parts(path: str) -> tuple[str, ...] | None:
    """The parts of a path with slashes; None where it is hidden or one that macOS adds."""
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    return None if any(part.startswith(".") or part == "__MACOSX" for part in parts) else parts


def class_order(name: str) -> tuple[int, int, str, str]:
    """What class names are sorted by: numbers first, by their value; then all others as text."""
    if not (name.isascii() and name.isdigit()):
        return 1, 0, name, name
    digits = name.lstrip("0")
    return 0, len(digits), digits, name


@dataclass
class LeftOut:
    """What was passed over: hidden files and folders, a folder counted once; links to a folder
    above; and files that are no images, by their suffix in lower case."""

    hidden: int = 0
    loops: int = 0
    others: Counter[str] = field(default_factory=Counter)

    def takes(self, name: str) -> bool:
        """Count a visible file where it is no image; whether it was one."""
        is_image = name.lower().endswith(SUFFIXES)
        if not is_image:
            self.others[PurePosixPath(name).suffix.lower()] += 1
        return is_image

    def __str__(self) -> str:
        """In words; empty where nothing was left out."""
        parts = []
        if images := Counter({key: self.others[key] for key in _UNREAD if key in self.others}):
            count = _counted(images.total(), "image", "images")
            parts.append(f"{count} to convert to PNG, as they are not read here ({_named(images)})")
        if others := self.others - images:
            count = _counted(others.total(), "file", "files")
            parts.append(f"{count} of no image format ({_named(others)})")
        if self.hidden:
            parts.append(_counted(self.hidden, "hidden file or folder", "hidden files or folders"))
        if self.loops:
            parts.append(_counted(self.loops, "link to a folder above", "links to a folder above"))
        return f"left out {', '.join(parts)}" if parts else ""


def _named(suffixes: Counter[str]) -> str:
    """The most frequent ones, with their counts."""
    most = sorted(suffixes.items(), key=lambda item: (-item[1], item[0]))[:_SHOWN]
    named = [f"{suffix or 'no suffix'} {count:,}" for suffix, count in most]
    return ", ".join([*named, "..."] if len(suffixes) > _SHOWN else named)


def _counted(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


@dataclass(frozen=True)
class ImageWalk:
    """The N images below a folder, at any depth."""

    root: Path
    names: tuple[str, ...]
    """Paths from the root, with slashes, sorted folder by folder."""
    sizes: tuple[int, ...]
    """Bytes."""
    folders: tuple[str, ...]
    """All visible folders, with slashes, whether images are in them or not."""
    left_out: LeftOut

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(self.root / name for name in self.names)


def walk_images(root: Path) -> ImageWalk:
    """Find all images below a folder; there may be none. Raises a UserError if a folder cannot be
    listed, or a link leads nowhere."""
    left_out = LeftOut()
    there = list(_visible(root, left_out))
    found = [(name, size) for name, size in there if size is not None]
    found.sort(key=lambda image: image[0].split("/"))
    return ImageWalk(
        root,
        names=tuple(name for name, _ in found),
        sizes=tuple(size for _, size in found),
        folders=tuple(name for name, size in there if size is None),
        left_out=left_out,
    )


def first_image(root: Path) -> str | None:
    """The path from a folder to some image below it, found without listing all; None without one.
    Raises a UserError if a folder cannot be listed, or a link leads nowhere, before one is met."""
    return next((name for name, size in _visible(root, LeftOut()) if size is not None), None)


def _visible(root: Path, left_out: LeftOut) -> Iterator[tuple[str, int | None]]:
    """Images with their bytes, and folders with None; paths from the root, in no order."""
    waiting = [("", frozenset({_identity(root.stat())}))]
    while waiting:
        folder, above = waiting.pop()
        here = root / folder
        try:
            with os.scandir(here) as entries:
                for entry in entries:
                    name = folder + entry.name
                    if visible_parts(entry.name) is None:
                        left_out.hidden += 1
                    elif entry.is_dir():
                        identity = _identity(entry.stat())
                        if identity in above:
                            left_out.loops += 1
                        else:
                            waiting.append((f"{name}/", above | {identity}))
                            yield name, None
                    elif entry.is_symlink() and not Path(entry).exists():
                        raise UserError(f"{entry.path} is a link to nothing: mend or remove it")
                    elif left_out.takes(name if entry.is_file() else "a pipe or the like"):
                        yield name, entry.stat().st_size
        except OSError as error:
            raise UserError(
                f"{here} cannot be listed ({error.strerror}), and may hold images: mend its "
                "permissions, or move it away"
            ) from error


def _identity(facts: os.stat_result) -> tuple[int, int]:
    """Which folder it is, whatever path leads to it."""
    return facts.st_dev, facts.st_ino
