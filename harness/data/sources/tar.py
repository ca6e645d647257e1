"""What a tar holds and where, told by its headers alone: the files in between are skipped.

`tarfile` takes a damaged header for the end of the archive, and needs three times as long, a minute
for ImageNet.

A tar of class folders.

ImageNet's own `ILSVRC2012_img_train.tar`: a tar that holds one tar a class, `n01440764.tar`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from harness.data.sources.base import Entry, EntryIndex, IndexedSource
from harness.data.sources.class_layout import index_class_folders
from harness.data.sources.folder import read_range
from models.errors import UserError

_BLOCK = 512

_FILES = b"0\0007"
"""Types of ordinary files."""

_WITHOUT_DATA = b"123456"
"""Links, devices, folders and pipes: no data follow, whatever size is named."""

_NOT_WHOLE = b"12S"
"""Links and sparse files, whose content stands elsewhere or only in part."""

_HEADERS_OF_NEXT = b"LKxg"
"""Long names and the like, which belong to what follows; `K` and `g` hold nothing needed here."""

_LONGEST_HEADER = 2**20


class TarMember(NamedTuple):
    """A file or folder."""

    name: str
    offset: int
    """Of its first byte in the archive."""
    size: int
    """Bytes."""
    is_folder: bool


def is_tar(block: bytes) -> bool:
    """Whether the first 512 bytes of a file are those of a tar."""
    return len(block) == _BLOCK and (_has_checksum(block) or block.count(0) == _BLOCK)


def tar_members(
    path: Path, start: int = 0, size: int | None = None, inner: str | None = None
) -> Iterator[TarMember]:
    """All files and folders, in the order of the archive.

    Args:
        path: an archive.
        start: where in the file a tar begins, for a tar within a tar.
        size: bytes that it has; None reads up to the end of the file.
        inner: its name there.

    Raises:
        OSError: it cannot be opened.
        UserError: it is damaged or cut off, or has links or sparse files.
    """
    what = f"{path}" if inner is None else f"{inner} in {path}"
    with path.open("rb", buffering=0) as file:
        end = os.fstat(file.fileno()).st_size
        if size is not None:
            if start + size > end:
                raise _cut_off(what)
            end = start + size
        yield from _members(file.fileno(), start, end, what)


def _members(descriptor: int, start: int, end: int, what: str) -> Iterator[TarMember]:
    offset = start
    extended: dict[str, str] = {}
    while True:
        block = os.pread(descriptor, _BLOCK, offset) if offset + _BLOCK <= end else b""
        if len(block) < _BLOCK:
            raise _cut_off(what)
        if block.count(0) == _BLOCK:
            return
        kind, data = block[156:157], offset + _BLOCK
        describes_next = kind in _HEADERS_OF_NEXT
        size = _size(block, {} if describes_next else extended)
        if size is None or not _has_checksum(block) or (describes_next and size > _LONGEST_HEADER):
            raise UserError(f"{what} is no tar, or is damaged at byte {offset}: copy it again")
        offset = data if kind in _WITHOUT_DATA else data + -(-size // _BLOCK) * _BLOCK
        if kind not in _WITHOUT_DATA and data + size > end:
            raise _cut_off(what)
        if describes_next:
            content = os.pread(descriptor, size, data)
            if kind == b"L":
                extended["path"] = _text(content)
            elif kind == b"x":
                extended.update(_records(content))
            continue
        name = extended.get("path") or _name(block)
        if kind in _NOT_WHOLE or any(key.startswith("GNU.sparse.") for key in extended):
            raise UserError(
                f"{what}: {name} is a link or a sparse file: pack it again with "
                "tar --dereference --hard-dereference, without --sparse"
            )
        extended = {}
        if kind == b"5" or (kind in _FILES and name.endswith("/")):
            yield TarMember(name.rstrip("/"), data, 0, is_folder=True)
        elif kind in _FILES:
            yield TarMember(name, data, size, is_folder=False)


def _cut_off(what: str) -> UserError:
    return UserError(f"{what} is cut off: it ends before the mark that closes a tar: copy it again")


def _has_checksum(block: bytes) -> bool:
    """Whether the sum of all bytes, those of the checksum itself taken as blanks, is right."""
    try:
        stored = _number(block[148:156])
    except ValueError:
        return False
    return stored == sum(block) - sum(block[148:156]) + 8 * ord(" ")


def _size(block: bytes, extended: dict[str, str]) -> int | None:
    """Bytes of a member; None where there is no such number."""
    try:
        size = int(extended["size"]) if "size" in extended else _number(block[124:136])
    except ValueError:
        return None
    return size if size >= 0 else None


def _number(field: bytes) -> int:
    """Octal digits; or, for what they cannot hold, a first byte of 128 before a binary number."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


def _name(block: bytes) -> str:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _records(content: bytes) -> dict[str, str]:
    """The records `LENGTH KEY=VALUE` of a header in the POSIX format of 2001."""
    records = {}
    while content:
        length, _, rest = content.partition(b" ")
        count = int(length) if length.isdigit() else 0
        record = rest[: count - len(length) - 2]
        key, equals, value = record.partition(b"=")
        if not equals:
            break
        records[_text(key)] = _text(value)
        content = content[count:]
    return records


class ClassTarSource(IndexedSource):
    """Files are read where they stand in the archive, which must not be compressed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _list(self) -> EntryIndex:
        files, places, folders = [], [], []
        for member in tar_members(self.path):
            if member.is_folder:
                folders.append(member.name)
            else:
                files.append((member.name, member.size))
                places.append((member.offset,))
        return index_class_folders(self, files, places, folders)

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        return read_range(self.path, place[0], entry.size)


INNER_SUFFIX = ".tar"


class ImageNetTarSource(IndexedSource):
    """Nothing is unpacked: images are read where they stand in the outer archive."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def _list(self) -> EntryIndex:
        files, places, class_ids = [], [], []
        for outer in tar_members(self.path):
            name = PurePosixPath(outer.name)
            if outer.is_folder or name.suffix != INNER_SUFFIX or name.name.startswith("."):
                continue
            class_ids.append(name.stem)
            for image in tar_members(self.path, outer.offset, outer.size, name.name):
                if not image.is_folder:
                    files.append((f"{name.stem}/{image.name}", image.size))
                    places.append((image.offset,))
        return index_class_folders(self, files, places, class_ids)

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        return read_range(self.path, place[0], entry.size)
