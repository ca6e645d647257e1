"""Uncompressed tars: of class folders, ImageNet's own of one tar a class, and WebDataset shards.

Nothing is unpacked: the headers alone are read, by `tarfile`, and images then where they stand.
`tarfile` takes a damaged header for the end of an archive, so where it stops is looked at here.

In WebDataset shards the files of a sample share all up to the first dot: `key.jpg` stands beside
`key.cls`, a number or name of a class, or `key.json` with a "label" or "class". A `classes.txt`
beside the shards names the classes, one a line.
"""

from __future__ import annotations

import json
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
    shorten,
    visible_files,
)
from harness.data.sources.class_folders import FoundFile, index_class_folders
from harness.data.sources.labels import LabelledEntry, StoredLabel, index_labelled, training_files
from harness.data.walk import visible_parts
from models.errors import UserError

_SHARDS = "WebDataset shards with labels (KEY.jpg and KEY.cls or KEY.json)"
EXPECTED = (
    "images as CLASS/IMAGE in an uncompressed tar, or ImageNet's ILSVRC2012_img_train.tar; "
    f"{_SHARDS}"
)
_SUFFIX = ".tar"

_IMAGES, _LABELS = ("jpg", "png", "jpeg", "webp"), ("cls", "json")
"""What the image of a labelled sample may end in, and the label beside it."""

_LOOKED_AT = 64
"""Files at the beginning of a tar that tell its kind."""
_LONGEST_READ = 2**20
"""Bytes. A header claims any length; none that means something is as long."""
_LARGEST_LABEL = 2**20
"""Bytes of a file that labels an image."""


def recognise(path: Path) -> Recognised | None:
    """A tar, or a folder with one or with several, which then are shards."""
    tars = visible_files(path, _SUFFIX) if path.is_dir() else [path]
    if not tars or (not path.is_dir() and not is_tar(beginning(path))):
        return None
    return Recognised(f"{len(tars)} tars", lambda: _opened(path, tars))


def _opened(path: Path, tars: list[Path]) -> Source:
    names = _first_files(tars[0])
    if len(tars) == 1 and not _has_samples(names):
        inner = any(name.endswith(_SUFFIX) for name in names)
        return (ImageNetTarSource if inner else ClassTarSource)(tars[0])
    shards = training_files(path, tars) if path.is_dir() else tuple(tars)
    for shard in shards:
        names = _first_files(shard)
        if not _has_samples(names):
            raise UserError(
                f"{path} holds tars, but {shard.name} begins with {shorten(names)}: expected "
                f"{_SHARDS}"
            )
    return WebDatasetSource(path, shards)


def is_tar(block: bytes) -> bool:
    """Whether the first 512 bytes of a file are those of a tar."""
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return _ends(block)
    return True


def _first_files(path: Path) -> list[str]:
    """Names of the first files of a tar, or a UserError if it is damaged."""
    files = (member.name for member in tar_members(path) if not member.is_folder)
    return list(islice(files, _LOOKED_AT))


def _has_samples(names: Iterable[str]) -> bool:
    """Whether some images among files in a tar have a label beside them."""
    split = [_key_and_part(name) for name in names]
    labelled = {key for key, part in split if part in _LABELS}
    return any(key in labelled and part in _IMAGES for key, part in split)


def _key_and_part(name: str) -> tuple[str, str]:
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
    Raises a UserError if it is damaged or cut off, or has links or sparse files.
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
            if outer.is_folder or name.suffix != _SUFFIX or name.name.startswith("."):
                continue
            class_ids.append(name.stem)
            files += (
                (f"{name.stem}/{image.name}", image.size, (image.offset,))
                for image in tar_members(self.path, outer.offset, outer.size, name.name)
                if not image.is_folder
            )
        return index_class_folders(self, files, class_ids)


class WebDatasetSource(Source):
    """Shards in random access: ids are `SHARD/key`."""

    def __init__(self, path: Path, shards: tuple[Path, ...]) -> None:
        super().__init__(path)
        self.shards = shards

    def _list(self) -> EntryIndex:
        found = []
        for number, shard in enumerate(self.shards):
            for key, image, label in _samples(shard):
                entry_id = f"{shard.name.removesuffix(_SUFFIX)}/{key}"
                place = (number, image.offset)
                found.append(LabelledEntry(entry_id, label, image.size, place))
        if not found:
            raise UserError(f"{self.path} holds no image: expected {' or '.join(_IMAGES)} files")
        return index_labelled(self, _class_names(self.shards[0].parent / "classes.txt"), found)

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        number, offset = place
        return read_range(self.shards[number], offset, entry.size)


def _samples(shard: Path) -> Iterator[tuple[str, TarMember, StoredLabel]]:
    """Key, image and label of all samples of a shard."""
    samples: dict[str, dict[str, TarMember]] = {}
    for member in tar_members(shard):
        if member.is_folder or visible_parts(member.name) is None:
            continue
        key, part = _key_and_part(member.name)
        if part in samples.setdefault(key, {}):
            raise UserError(f"{shard} holds {key}.{part} twice: write each sample once")
        samples[key][part] = member
    for key, parts in samples.items():
        images = [parts[part] for part in _IMAGES if part in parts]
        texts = [part for part in _LABELS if part in parts]
        if len(images) == 1 and texts:
            yield key, images[0], _label(shard, key, texts[0], parts[texts[0]])
        elif images or texts:
            there = ", ".join(f"{key}.{part}" for part in parts)
            raise UserError(
                f"{shard}: the sample {key} is {there}, but expected one image "
                f"({', '.join(_IMAGES)}) and a label ({' or '.join(_LABELS)})"
            )


def _label(shard: Path, key: str, part: str, member: TarMember) -> StoredLabel:
    value: object = None
    if member.size <= _LARGEST_LABEL:
        try:
            value = text = read_range(shard, member.offset, member.size).decode().strip()
            if part == "json":
                stored = json.loads(text)
                value = next((stored[key] for key in ("label", "class") if key in stored), None)
            if isinstance(value, str) and value.removeprefix("-").isdecimal():
                value = int(value)
        except (ValueError, TypeError, RecursionError):
            value = None
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise UserError(
            f"{shard}: {key}.{part} holds no label: expected a number or name of a class"
            + (', as "label" or "class"' if part == "json" else "")
        )
    return value


def _class_names(path: Path) -> tuple[str, ...] | None:
    if not path.is_file():
        return None
    try:
        names = tuple(line.strip() for line in path.read_text("utf-8").strip().splitlines())
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: write one class name a line") from error
    if not all(names):
        raise UserError(f"{path} has an empty line: expected one class name a line")
    return names
