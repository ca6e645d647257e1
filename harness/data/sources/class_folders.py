"""Class folders: on disk, or in a zip; and how the files of any archive are arranged into classes.

A zip's directory is read once. An image is then found by its offset, because `zipfile` shares one
position between threads and would read the directory again in every process.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from harness.data.sources.base import (
    LARGEST_FILE,
    Entry,
    EntryIndex,
    Recognised,
    Source,
    beginning,
    index_entries,
    read_exactly,
    shorten,
)
from harness.data.walk import LeftOut, class_order, first_image, visible_parts, walk_images
from models.errors import UserError

EXPECTED = "images as CLASS/IMAGE in a folder or a zip"

FoundFile = tuple[str, int, tuple[int, ...]]
"""A path with slashes, bytes, and the numbers by which a source finds the file."""

_HEADER = struct.Struct("<4s22xHH")
"""Before each file of a zip: signature, and the lengths of its name and of an extra field."""
_ENCRYPTED = 1


def recognise(path: Path) -> Recognised | None:
    """A folder with an image anywhere in it; or a zip: it begins as one, or at least ends as one,
    as a file within a tar may too."""
    if path.is_dir():
        image = first_image(path)
        return Recognised(f"the image {image}", lambda: FolderSource(path)) if image else None
    begins = beginning(path).startswith(b"PK")
    if begins or zipfile.is_zipfile(path):
        return Recognised("a zip", lambda: ZipSource(path), sure=begins)
    return None


def index_class_folders(
    source: Source,
    files: Sequence[FoundFile],
    folders: Iterable[str],
    left_out: LeftOut | None = None,
) -> EntryIndex:
    """Arrange images into classes by folders: `CLASS/IMAGE`, at the top or below others.

    `files` are in any order, other files than images too; `folders` are really there, so that a
    class without an image is found; what is left out here is added to `left_out`.

    Raises:
        UserError: there is no image, one lies in no class folder, a class has none, or a path is
            there twice.
    """
    left_out = left_out or LeftOut()
    images = []
    for name, size, place in files:
        parts = visible_parts(name)
        if parts is None:
            left_out.hidden += 1
        elif parts and left_out.takes(parts[-1]):
            images.append((parts, size, place))
    expected = "expected images as CLASS/IMAGE, but found"
    if not images:
        found = shorten([name for name, _, _ in files])
        raise UserError(f"{source.path} holds no image: {expected} {found}")
    wrapping = os.path.commonpath(["/".join(parts[:-2]) for parts, _, _ in images])
    around = PurePosixPath(wrapping).parts
    if stray := ["/".join(parts) for parts, _, _ in images if len(parts) != len(around) + 2]:
        raise UserError(f"{source.path}: {expected} {min(stray)}")
    visible = [parts for parts in map(visible_parts, folders) if parts]
    names = {parts[-2] for parts, _, _ in images} | {p[-1] for p in visible if p[:-1] == around}
    classes = tuple(sorted(names, key=class_order))
    label_of = {name: label for label, name in enumerate(classes)}
    return index_entries(
        source,
        classes,
        [Entry("/".join(parts[-2:]), label_of[parts[-2]], size) for parts, size, _ in images],
        [place for _, _, place in images],
        wrapping,
        str(left_out),
    )


class FolderSource(Source):
    """Image files on disk; links to files and folders are followed."""

    def _list(self) -> EntryIndex:
        found = walk_images(self.path)
        files = [(name, size, ()) for name, size in zip(found.names, found.sizes, strict=True)]
        return index_class_folders(self, files, found.folders, found.left_out)

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        path = self.path / self._index.wrapping / entry.id
        with path.open("rb", buffering=0) as file:
            size = os.fstat(file.fileno()).st_size
            if size != entry.size:
                raise ValueError(f"{size} bytes instead of {entry.size}")
            return read_exactly(file.fileno(), 0, size)


class ZipSource(Source):
    """Files that are stored or deflated, which nearly all zips have."""

    def _list(self) -> EntryIndex:
        try:
            with zipfile.ZipFile(self.path) as archive:
                found = archive.infolist()
        except OSError:
            raise
        # A damaged directory makes zipfile raise almost anything.
        except Exception as error:
            raise UserError(
                f"{self.path} is no zip, or is damaged or cut off ({error}): copy it again"
            ) from error
        files, folders = [], []
        for info in found:
            if info.is_dir():
                folders.append(info.filename)
            else:
                place = (info.header_offset, info.compress_size, info.compress_type)
                files.append((info.filename, info.file_size, (*place, info.flag_bits, info.CRC)))
        return index_class_folders(self, files, folders)

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        start, packed_size, method, flags, crc = place
        if flags & _ENCRYPTED:
            raise ValueError("encrypted")
        if packed_size > LARGEST_FILE:
            raise ValueError(f"{packed_size} bytes, more than {LARGEST_FILE}")
        with self.path.open("rb", buffering=0) as file:
            header = read_exactly(file.fileno(), start, _HEADER.size)
            signature, name_length, extra_length = _HEADER.unpack(header)
            if signature != b"PK\x03\x04":
                raise ValueError("no file where the zip's directory says")
            data = start + _HEADER.size + name_length + extra_length
            packed = read_exactly(file.fileno(), data, packed_size)
        content = _unpacked(packed, method, entry.size)
        if zlib.crc32(content) != crc:
            raise ValueError("another checksum than the zip's directory says")
        return content


def _unpacked(packed: bytes, method: int, size: int) -> bytes:
    if method == zipfile.ZIP_STORED:
        return packed
    if method != zipfile.ZIP_DEFLATED:
        raise ValueError(f"packed by method {method}, neither stored nor deflated")
    try:
        # A byte more than it may have: whatever would follow is never unpacked.
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, size + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
