"""Where encoded images come from; the kind of a source is told by what is on disk."""

from __future__ import annotations

import zipfile
from itertools import islice
from pathlib import Path

from harness.data.sources.base import Entry, Source
from harness.data.sources.class_layout import is_image_name
from harness.data.sources.folder import FolderSource, walk
from harness.data.sources.labels import training_files
from harness.data.sources.parquet import SUFFIX as PARQUET_SUFFIX
from harness.data.sources.parquet import ParquetSource
from harness.data.sources.tar import (
    INNER_SUFFIX,
    ClassTarSource,
    ImageNetTarSource,
    is_tar,
    tar_members,
)
from harness.data.sources.webdataset import SHARD_SUFFIX, WebDatasetSource, has_samples
from harness.data.sources.zip_archive import ZipSource
from models.errors import UserError

__all__ = ["Entry", "Source", "open_source"]

_KNOWN = (
    "expected images as CLASS/IMAGE in a folder, zip or uncompressed tar; ImageNet's "
    "ILSVRC2012_img_train.tar; WebDataset shards with labels (KEY.jpg and KEY.cls or KEY.json); or "
    "Hugging Face's parquet files"
)
_COMPRESSED = {b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz", b"BZh": "bzip2", b"\x28\xb5\x2f\xfd": "zstd"}
_HEADER = 512
"""Bytes at the beginning of a file that tell its kind."""
_LOOKED_AT = 64
"""Members at the beginning of a tar that tell its kind."""
_SHOWN = 3


def open_source(path: Path) -> Source:
    """Recognise what a path names, without listing it.

    Files named after a split for validation or test are left out where others are for training.

    Raises:
        UserError: nothing is there, or nothing of a known kind.
    """
    try:
        if path.is_dir():
            return _open_folder(path)
        if path.exists():
            return _open_file(path)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    raise UserError(f"there is no {path}: {_KNOWN}")


def _open_folder(path: Path) -> Source:
    files = [file for file in path.iterdir() if file.is_file() and not file.name.startswith(".")]
    shards = [file for file in files if file.suffix == SHARD_SUFFIX]
    # A copy of a repository of Hugging Face has its files one level below.
    tables = [
        file for folder in (path, path / "data") for file in folder.glob(f"[!.]*{PARQUET_SUFFIX}")
    ]
    image = next((name for name, _ in walk(path) if is_image_name(name)), None)
    kinds = [
        text
        for text, found in (
            (f"the image {image}", image),
            (f"{len(shards)} tars", shards),
            (f"{len(tables)} parquet files", tables),
        )
        if found
    ]
    if len(kinds) > 1:
        raise UserError(f"{path} holds {' and '.join(kinds)}: name the one or the other")
    if image is not None:
        return FolderSource(path)
    if tables:
        return ParquetSource(path, training_files(path, tables))
    if len(shards) == 1 and not _is_shard(shards[0]):
        return _open_tar(shards[0])
    if shards:
        chosen = training_files(path, shards)
        unlabelled = next((shard for shard in chosen if not _is_shard(shard)), None)
        if unlabelled is not None:
            raise UserError(
                f"{path} holds tars, but {unlabelled.name} begins with "
                f"{_few(_first_files(unlabelled))}: {_KNOWN}"
            )
        return WebDatasetSource(path, chosen)
    raise UserError(f"{path} holds {_few([file.name for file in path.iterdir()])}: {_KNOWN}")


def _open_file(path: Path) -> Source:
    with path.open("rb") as file:
        header = file.read(_HEADER)
    # By its beginning first: a zip is told by its end, which may be that of a file in a tar.
    if header.startswith(b"PAR1") or path.suffix == PARQUET_SUFFIX:
        return ParquetSource(path, (path,))
    if is_tar(header):
        return _open_tar(path)
    if header.startswith(b"PK") or zipfile.is_zipfile(path):
        return ZipSource(path)
    for magic, name in _COMPRESSED.items():
        if header.startswith(magic):
            raise UserError(
                f"{path} is compressed with {name}, so that no image can be read alone: decompress "
                "it, as images gain nothing by it"
            )
    raise UserError(f"{path} is a file of another kind: {_KNOWN}")


def _open_tar(path: Path) -> Source:
    names = _first_files(path)
    if any(name.endswith(INNER_SUFFIX) for name in names):
        return ImageNetTarSource(path)
    return WebDatasetSource(path, (path,)) if has_samples(names) else ClassTarSource(path)


def _is_shard(path: Path) -> bool:
    return has_samples(_first_files(path))


def _first_files(path: Path) -> list[str]:
    files = (member.name for member in tar_members(path) if not member.is_folder)
    return list(islice(files, _LOOKED_AT))


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return (", ".join(sorted(names)[:_SHOWN]) or "nothing") + more
