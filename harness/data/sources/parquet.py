"""Parquet files of Hugging Face's `datasets`: a column `image` and a column `label`.

An image is stored as its encoded bytes, alone or beside the path that it had. The names of the
classes stand in the metadata that `datasets` leaves in a file's schema.

The format stores no sizes of single images, so listing reads through all images once, a group of
rows at a time. The groups that were used last stay in memory.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow.parquet import ParquetFile

from harness.data.sources.base import (
    Entry,
    EntryIndex,
    Recognised,
    Source,
    beginning,
    visible_files,
)
from harness.data.sources.labels import LabelledEntry, index_labelled, training_files
from models.errors import UserError, one_line

EXPECTED = "Hugging Face's parquet files"
SUFFIX = ".parquet"
_IMAGE, _LABEL = "image", "label"

_MOST = 256 * 2**20
"""Bytes kept in a process; a larger group is kept alone."""

Key = tuple[int, int]
"""Numbers of a file and of a group of rows in it."""


class RowGroups:
    """A cache for several threads; other processes, forked or sent it, begin with an empty one."""

    def __init__(self, most: int = _MOST) -> None:
        self.most = most
        """Bytes kept."""
        self._begin()

    def get(self, key: Key, read: Callable[[], pa.ChunkedArray]) -> pa.ChunkedArray:
        """The group of rows that is kept, or else read now and kept."""
        # A fork may happen while another thread holds the lock, which then stays locked for ever.
        if self._process != os.getpid():
            self._begin()
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return self._kept[key]
        # Two threads may read the same group; holding the lock would make all of them wait.
        rows = read()
        with self._lock:
            self._kept[key] = rows
            bytes_kept = sum(each.nbytes for each in self._kept.values())
            while len(self._kept) > 1 and bytes_kept > self.most:
                bytes_kept -= self._kept.popitem(last=False)[1].nbytes
        return rows

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._kept: OrderedDict[Key, pa.ChunkedArray] = OrderedDict()
        self._process = os.getpid()

    def __reduce__(self) -> tuple[type[RowGroups], tuple[int]]:
        return RowGroups, (self.most,)


def recognise(path: Path) -> Recognised | None:
    """A parquet file; or a folder of some, which a copy of a repository has one level below."""
    if not path.is_dir():
        begins = beginning(path).startswith(b"PAR1")
        if not begins and path.suffix != SUFFIX:
            return None
        return Recognised("a parquet file", lambda: ParquetSource(path, (path,)), sure=begins)
    inner = path / "data"
    tables = visible_files(path, SUFFIX) + (visible_files(inner, SUFFIX) if inner.is_dir() else [])
    if not tables:
        return None
    found = f"{len(tables)} parquet files"
    return Recognised(found, lambda: ParquetSource(path, training_files(path, tables)))


class ParquetSource(Source):
    """Rows in random access: ids are `FILE#row`. An image costs reading its group of rows."""

    def __init__(self, path: Path, files: tuple[Path, ...]) -> None:
        super().__init__(path)
        self.files = files
        self._groups = RowGroups()

    def _list(self) -> EntryIndex:
        names = _class_names(self.files[0])
        for file in self.files[1:]:
            if _class_names(file) != names:
                raise UserError(
                    f"{file} names other classes than {self.files[0]}: name files of one data set"
                )
        found = []
        for number, file in enumerate(self.files):
            for count, (group, row, label, size) in enumerate(_rows(file)):
                entry_id = f"{file.name}#{count}"
                if label is None or size is None:
                    missing = "label" if label is None else "encoded image"
                    raise UserError(f"{self.path}: {entry_id} has no {missing}")
                found.append(LabelledEntry(entry_id, label, size, (number, group, row)))
        if not found:
            raise UserError(f"{self.path} holds no image: expected rows with an image and a label")
        return index_labelled(self, names, found)

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        number, group, row = place
        images = self._groups.get((number, group), lambda: self._read_group(number, group))
        content = images[row].as_py() if row < len(images) else None
        if content is None:
            raise ValueError("no such row")
        return content

    def _read_group(self, number: int, group: int) -> pa.ChunkedArray:
        try:
            with ParquetFile(self.files[number]) as file:
                if group >= file.num_row_groups:
                    raise ValueError(f"{self.files[number].name} has fewer rows than before")
                return _images(file, group)
        except pa.ArrowException as error:
            raise ValueError(str(error)) from error


def _rows(path: Path) -> Iterator[tuple[int, int, int | None, int | None]]:
    """Number of the group of rows and of the row in it, label, and bytes of the image."""
    with _opened(path) as file:
        for group in range(file.num_row_groups):
            labels = file.read_row_group(group, columns=[_LABEL], use_threads=False).column(0)
            sizes = pc.binary_length(_images(file, group))
            pairs = zip(labels.to_pylist(), sizes.to_pylist(), strict=True)
            yield from ((group, row, label, size) for row, (label, size) in enumerate(pairs))


def _images(file: ParquetFile, group: int) -> pa.ChunkedArray:
    """The encoded images of a group of rows."""
    is_struct = pa.types.is_struct(file.schema_arrow.field(_IMAGE).type)
    column = f"{_IMAGE}.bytes" if is_struct else _IMAGE
    # Threads of Arrow would not survive the fork of a process that loads data.
    images = file.read_row_group(group, columns=[column], use_threads=False).column(0)
    return pc.struct_field(images, "bytes") if is_struct else images


def _class_names(path: Path) -> tuple[str, ...] | None:
    """The names in the schema, once its columns are seen to be right."""
    with _opened(path) as file:
        schema = file.schema_arrow
    kinds = {field.name: field.type for field in schema}
    image, label = kinds.get(_IMAGE), kinds.get(_LABEL)
    twice = [name for name in (_IMAGE, _LABEL) if schema.names.count(name) > 1]
    if twice:
        raise UserError(f"{path} has several columns {twice[0]}, but expected one")
    if image is None or label is None or not (_is_image(image) and pa.types.is_integer(label)):
        found = ", ".join(f"{name} ({kind})" for name, kind in kinds.items())
        raise UserError(
            f"{path} has the columns {found}, but expected {_IMAGE} (binary, or a struct with "
            f"bytes) and {_LABEL} (an integer)"
        )
    try:
        stored = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = stored["info"]["features"][_LABEL]["names"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    is_list = isinstance(names, list) and all(isinstance(name, str) for name in names)
    return tuple(names) if is_list else None


def _is_image(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind) and (index := kind.get_field_index("bytes")) >= 0:
        kind = kind.field(index).type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


@contextmanager
def _opened(path: Path) -> Iterator[ParquetFile]:
    try:
        with ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError) as error:
        # Arrow's own errors are without a number of the operating system's.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise UserError(
            f"{path} is damaged or cut off ({one_line(error)}): copy it again"
        ) from error
