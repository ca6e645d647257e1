"""A zip of class folders.

The archive's directory is read once. An image is then found by its offset, because `zipfile` shares
one position between threads and would read the directory again in every process.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

from harness.data.sources.base import (
    LARGEST_FILE,
    Entry,
    EntryIndex,
    IndexedSource,
    Recognised,
    beginning,
)
from harness.data.sources.class_layout import index_class_folders
from harness.data.sources.folder import read_exactly
from harness.data.walk import LeftOut
from models.errors import UserError

_HEADER = struct.Struct("<4s22xHH")
"""What stands before each file: signature, and the lengths of its name and of an extra field."""
_ENCRYPTED = 1


EXPECTED = "images as CLASS/IMAGE in a zip"


def recognise(path: Path) -> Recognised | None:
    """A file that begins as a zip; or ends as one, as a file within a tar may too."""
    if path.is_dir():
        return None
    begins = beginning(path).startswith(b"PK")
    if not begins and not zipfile.is_zipfile(path):
        return None
    return Recognised("a zip", lambda: ZipSource(path), sure=begins)


class ZipSource(IndexedSource):
    """Files that are stored or deflated, which nearly all zips have."""

    def __init__(self, path: Path) -> None:
        self.path = path

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
        files = [info for info in found if not info.is_dir()]
        places = [
            (info.header_offset, info.compress_size, info.compress_type, info.flag_bits, info.CRC)
            for info in files
        ]
        return index_class_folders(
            self,
            [(info.filename, info.file_size) for info in files],
            places,
            [info.filename for info in found if info.is_dir()],
            LeftOut(),
        )

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
