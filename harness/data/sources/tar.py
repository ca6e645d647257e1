"""Uncompressed tars: one of class folders, and ImageNet's own of one tar a class.

Nothing is unpacked: the headers alone are read, by `tarfile`, and images then where they stand.
`tarfile` takes a damaged header for the end of an archive, so where it stops is looked at here.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, cast

from harness.data.sources.base import (
    Entry,
    EntryIndex,
    Recognised,
    Source,
    beginning,
    read_range,
    visible_files,
)
from harness.data.sources.class_folders import FoundFile, index_class_folders
from models.errors import UserError

EXPECTED = "images as CLASS/IMAGE in an uncompressed tar, or ImageNet's ILSVRC2012_img_train.tar"
SUFFIX = ".tar"

SAMPLE_IMAGES = ("jpg", "png", "jpeg", "webp")
"""What the image of a labelled sample may end in."""
SAMPLE_LABELS = ("cls", "json")
"""What the label beside it may end in."""

_LOOKED_AT = 64
"""Files at the beginning of a tar that tell its kind."""

_LONGEST_READ = 2**20
"""Bytes. A header claims any length; none that means something is as long."""


def recognise(path: Path) -> Recognised | None:
    """A tar, or a folder with a single one, that holds no labelled samples."""
    found = visible_files(path, SUFFIX) if path.is_dir() else [path]
    if len(found) != 1 or not is_tar(beginning(found[0])):
        return None
    names = first_files(found[0])
    if has_samples(names):
        return None
    inner = any(name.endswith(SUFFIX) for name in names)
    kind = ImageNetTarSource if inner else ClassTarSource
    return Recognised("1 tars", lambda: kind(found[0]))


def is_tar(block: bytes) -> bool:
    """Whether the first 512 bytes of a file are those of a tar."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return _ends(block)
    return True


def first_files(path: Path) -> list[str]:
    """Names of the first files of a tar, or a UserError if it is damaged."""
    files = (member.name for member in tar_members(path) if not member.is_folder)
    return list(islice(files, _LOOKED_AT))


def has_samples(names: Iterable[str]) -> bool:
    """Whether some images among files in a tar have a label beside them."""
    split = [key_and_part(name) for name in names]
    labelled = {key for key, part in split if part in SAMPLE_LABELS}
    return any(key in labelled and part in SAMPLE_IMAGES for key, part in split)


def key_and_part(name: str) -> tuple[str, str]:
    """`a/b.seg.png` is the part `seg.png` of the sample `a/b`."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    key, _, part = base.partition(".")
    return folder + slash + key, part.lower()


class TarMember(NamedTuple):
    """A file or folder in a tar, and where in the file on disk its bytes begin."""

    name: str
    offset: int
    size: int
    is_folder: bool


def tar_members(
    path: Path, start: int = 0, size: int | None = None, inner: str | None = None
) -> Iterator[TarMember]:
    """All files and folders, in the order of the archive.

    A tar within a tar begins at `start`, has `size` bytes, and is called `inner` in messages.

    Raises:
        UserError: it is damaged or cut off, or has links or sparse files.
    """
    what = f"{path}" if inner is None else f"{inner} in {path}"
    cut_off = UserError(
        f"{what} is cut off: it ends before the mark that closes a tar: copy it again"
    )
    with path.open("rb", buffering=0) as file:
        whole = os.fstat(file.fileno()).st_size
        if size is not None and start + size > whole:
            raise cut_off
        window = _Window(file.fileno(), start, whole - start if size is None else size)
        at = 0
        try:
            # As it is opened, the first header is read.
            with tarfile.TarFile(
                fileobj=cast("IO[bytes]", window), encoding="utf-8", errors="surrogateescape"
            ) as archive:
                while (member := archive.next()) is not None:
                    # Otherwise it keeps all of them, gigabytes for ImageNet.
                    archive.members.clear()  # type: ignore[attr-defined]
                    if member.size < 0:
                        raise tarfile.ReadError("a negative size")
                    at = archive.offset
                    if member.isfile() and member.offset_data + member.size > window.size:
                        raise cut_off
                    if member.issym() or member.islnk() or member.issparse():
                        raise UserError(
                            f"{what}: {member.name} is a link or a sparse file: pack it again with "
                            "tar --dereference --hard-dereference, without --sparse"
                        )
                    if member.isdir() or member.isfile():
                        offset = start + member.offset_data
                        yield TarMember(member.name, offset, member.size, member.isdir())
            intact = _ends(os.pread(file.fileno(), tarfile.BLOCKSIZE, start + at))
        # Damaged headers make it raise almost anything.
        except (tarfile.TarError, ValueError, ArithmeticError, LookupError, RecursionError):
            intact = False
        if window.passed_end:
            raise cut_off
        if not intact:
            raise UserError(f"{what} is no tar, or is damaged at byte {start + at}: copy it again")


class _Window:
    """A part of a file as `tarfile` reads it, and whether more was asked for than is there."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self.size = size
        self.passed_end = False
        self._descriptor = descriptor
        self._start = start
        self._place = 0

    def tell(self) -> int:
        return self._place

    def seek(self, place: int) -> int:
        self._place = place
        return place

    def read(self, size: int) -> bytes:
        wanted = min(size, _LONGEST_READ)
        there = max(0, min(wanted, self.size - self._place))
        part = os.pread(self._descriptor, there, self._start + self._place) if there else b""
        self.passed_end |= len(part) < wanted
        self._place += len(part)
        return part


def _ends(block: bytes) -> bool:
    """Whether a block is the mark that closes a tar: zeros."""
    return block == bytes(tarfile.BLOCKSIZE)


class ClassTarSource(Source):
    """A tar of class folders, in which images are read where they stand."""

    def _list(self) -> EntryIndex:
        members = list(tar_members(self.path))
        files = [(each.name, each.size, (each.offset,)) for each in members if not each.is_folder]
        return index_class_folders(self, files, [each.name for each in members if each.is_folder])

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        return read_range(self.path, place[0], entry.size)


class ImageNetTarSource(ClassTarSource):
    """ImageNet's own `ILSVRC2012_img_train.tar`: a tar of one tar a class, `n01440764.tar`."""

    def _list(self) -> EntryIndex:
        files: list[FoundFile] = []
        class_ids = []
        for outer in tar_members(self.path):
            name = PurePosixPath(outer.name)
            if outer.is_folder or name.suffix != SUFFIX or name.name.startswith("."):
                continue
            class_ids.append(name.stem)
            files += (
                (f"{name.stem}/{image.name}", image.size, (image.offset,))
                for image in tar_members(self.path, outer.offset, outer.size, name.name)
                if not image.is_folder
            )
        return index_class_folders(self, files, class_ids)
