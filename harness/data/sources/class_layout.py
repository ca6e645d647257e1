"""The index of a source whose classes are folders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from harness.data.sources.base import Entry, EntryIndex, Source, index_entries, shorten
from harness.data.walk import LeftOut, class_folders, visible_parts
from models.errors import UserError


def index_class_folders(
    source: Source,
    files: Sequence[tuple[str, int]],
    places: Sequence[Sequence[int]],
    folders: Iterable[str],
    left_out: LeftOut,
) -> EntryIndex:
    """Arrange files into classes.

    Args:
        source: named in messages.
        files: paths with slashes, and bytes; N of them in any order, other files than images too.
        places: K numbers a file, by which the source finds it.
        folders: paths of folders that are really there, even if nothing is in them.
        left_out: what was left out before; what is left out here is added.

    Raises:
        UserError: there is no image, one lies in no class folder, a class has none, or a path is
            there twice.
    """
    rows: list[int] = []
    names: list[tuple[str, ...]] = []
    for row, (name, _) in enumerate(files):
        parts = visible_parts(name)
        if parts is None:
            left_out.hidden += 1
        elif parts and left_out.takes(parts[-1]):
            rows.append(row)
            names.append(parts)
    if not rows:
        found = shorten([name for name, _ in files])
        raise UserError(
            f"{source.path} holds no image: expected images as CLASS/IMAGE, but found {found}"
        )
    layout = class_folders(source.path, names, folders)
    entries = [
        Entry("/".join(parts[-2:]), label, files[row][1])
        for row, parts, label in zip(rows, names, layout.labels, strict=True)
    ]
    kept = np.array([places[row] for row in rows], dtype=np.int64).reshape(len(rows), -1)
    wrapping = "/".join(layout.wrapping)
    return index_entries(source, layout.classes, entries, kept, wrapping, left_out)
