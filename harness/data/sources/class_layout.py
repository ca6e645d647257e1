"""Images as `CLASS/IMAGE`, at the top or below folders that wrap all of them.

Labels number the sorted class names. A file is an image by its suffix; other files and hidden ones
are left out. Which suffixes count does not depend on how Pillow was built, so that the same folder
has the same images everywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from harness.data.sources.base import Entry, EntryIndex, Source, index_entries
from models.errors import UserError

_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".avif", ".gif", ".bmp", ".dib"),
    *(".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpx"),
)
_SHOWN = 3


def is_image_name(name: str) -> bool:
    """Whether a file's name has the suffix of an image, in either case."""
    return name.lower().endswith(_SUFFIXES)


def visible_parts(path: str) -> tuple[str, ...] | None:
    """The folders of a path with slashes; None where it is hidden or one that macOS adds."""
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    return None if any(part.startswith(".") or part == "__MACOSX" for part in parts) else parts


def index_class_folders(
    source: Source,
    files: Sequence[tuple[str, int]],
    places: Sequence[Sequence[int]],
    folders: Iterable[str],
) -> EntryIndex:
    """Arrange files into classes.

    Args:
        source: named in messages.
        files: paths with slashes, and bytes; N of them in any order, other files than images too.
        places: K numbers a file, by which the source finds it.
        folders: paths of folders that are really there, even if nothing is in them.

    Raises:
        UserError: there is no image, one lies in no class folder, a class has none, or a path is
            there twice.
    """
    parts_of: dict[str, tuple[str, ...] | None] = {}
    chosen: list[tuple[int, tuple[str, ...], str]] = []
    for row, (name, _) in enumerate(files):
        folder, _, base = name.rpartition("/")
        if folder not in parts_of:
            parts_of[folder] = visible_parts(folder)
        parts = parts_of[folder]
        if parts is not None and not base.startswith(".") and is_image_name(base):
            chosen.append((row, parts, base))
    if not chosen:
        names = sorted(name for name, _ in files)
        found = f", but found {', '.join(names[:_SHOWN])}" if names else ""
        more = f" and {len(names) - _SHOWN} more files" if len(names) > _SHOWN else ""
        raise UserError(
            f"{source.path} holds no image: expected images as CLASS/IMAGE{found}{more}"
        )
    wrapping = _wrapping({parts for _, parts, _ in chosen})
    depth = len(wrapping) + 1
    stray = ["/".join((*parts, base)) for _, parts, base in chosen if len(parts) != depth]
    if stray:
        raise UserError(f"{source.path}: expected images as CLASS/IMAGE, but found {min(stray)}")
    there = {parts for parts in map(visible_parts, folders) if parts is not None}
    empty = {parts[-1] for parts in there if len(parts) == depth and parts[:-1] == wrapping}
    class_ids = tuple(sorted({parts[-1] for _, parts, _ in chosen} | empty))
    label_of = {name: label for label, name in enumerate(class_ids)}
    entries = [
        Entry(f"{parts[-1]}/{base}", label_of[parts[-1]], files[row][1])
        for row, parts, base in chosen
    ]
    rows = [row for row, _, _ in chosen]
    kept = np.array([places[row] for row in rows], dtype=np.int64).reshape(len(rows), -1)
    return index_entries(source, class_ids, entries, kept, "/".join(wrapping))


def _wrapping(folders: set[tuple[str, ...]]) -> tuple[str, ...]:
    """The folders that wrap all class folders. A single class is none."""
    common = 0
    while all(len(parts) > common + 1 for parts in folders):
        if len({parts[common] for parts in folders}) > 1:
            break
        common += 1
    return next(iter(folders))[:common]
