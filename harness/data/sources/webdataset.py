"""WebDataset shards: tars in which the files of a sample share all up to the first dot.

`key.jpg` stands beside `key.cls`, a number or name of a class, or `key.json` with a "label" or
"class". A `classes.txt` beside the shards names the classes, one a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from harness.data.sources.base import Entry, EntryIndex, IndexedSource, index_entries
from harness.data.sources.class_layout import visible_parts
from harness.data.sources.folder import read_range
from harness.data.sources.labels import StoredLabel, number_labels
from harness.data.sources.tar import TarMember, tar_members
from models.errors import UserError

SHARD_SUFFIX = ".tar"
_IMAGES = ("jpg", "png", "jpeg", "webp")
_LABELS = ("cls", "json")
_FIELDS = ("label", "class")
_CLASSES = "classes.txt"
_LARGEST_LABEL = 2**20
"""Bytes of a file that labels an image."""


def has_samples(names: Iterable[str]) -> bool:
    """Whether some images among files in a tar have a label beside them."""
    split = [_key_and_part(name) for name in names]
    labelled = {key for key, part in split if part in _LABELS}
    return any(key in labelled and part in _IMAGES for key, part in split)


class WebDatasetSource(IndexedSource):
    """Shards in random access: ids are `SHARD/key`.

    Args:
        path: what the user named, a shard or the folder of the shards.
        shards: those to read, in the order of their names.
    """

    def __init__(self, path: Path, shards: tuple[Path, ...]) -> None:
        self.path = path
        self.shards = shards

    def _list(self) -> EntryIndex:
        ids: list[str] = []
        labels: list[StoredLabel] = []
        sizes: list[int] = []
        places: list[tuple[int, int]] = []
        for number, shard in enumerate(self.shards):
            for key, image, label in self._samples(shard):
                ids.append(f"{shard.name.removesuffix(SHARD_SUFFIX)}/{key}")
                labels.append(label)
                sizes.append(image.size)
                places.append((number, image.offset))
        if not ids:
            raise UserError(f"{self.path} holds no image: expected {' or '.join(_IMAGES)} files")
        names = _class_names(self.shards[0].parent / _CLASSES)
        class_ids, numbers = number_labels(self, names, labels, ids)
        found = [Entry(*values) for values in zip(ids, numbers, sizes, strict=True)]
        return index_entries(self, class_ids, found, np.array(places, dtype=np.int64))

    def _content(self, entry: Entry, place: Sequence[int]) -> bytes:
        number, offset = place
        return read_range(self.shards[number], offset, entry.size)

    def _samples(self, shard: Path) -> list[tuple[str, TarMember, StoredLabel]]:
        """Key, image and label of all samples of a shard."""
        samples: dict[str, dict[str, TarMember]] = {}
        for member in tar_members(shard):
            if member.is_folder or visible_parts(member.name) is None:
                continue
            key, part = _key_and_part(member.name)
            if part in samples.setdefault(key, {}):
                raise UserError(f"{shard} holds {key}.{part} twice: write each sample once")
            samples[key][part] = member
        found = []
        for key, parts in samples.items():
            images = [parts[part] for part in _IMAGES if part in parts]
            texts = [part for part in _LABELS if part in parts]
            if not images and not texts:
                continue
            if len(images) != 1 or not texts:
                there = ", ".join(f"{key}.{part}" for part in parts)
                raise UserError(
                    f"{shard}: the sample {key} is {there}, but expected one image "
                    f"({', '.join(_IMAGES)}) and a label ({' or '.join(_LABELS)})"
                )
            found.append((key, images[0], _label(shard, key, texts[0], parts[texts[0]])))
        return found


def _key_and_part(name: str) -> tuple[str, str]:
    """`a/b.seg.png` is the part `seg.png` of the sample `a/b`."""
    folder, slash, base = name.removeprefix("./").rpartition("/")
    key, _, part = base.partition(".")
    return folder + slash + key, part.lower()


def _label(shard: Path, key: str, part: str, member: TarMember) -> StoredLabel:
    value: object = None
    if member.size <= _LARGEST_LABEL:
        try:
            value = text = read_range(shard, member.offset, member.size).decode().strip()
            if part == "json":
                stored = json.loads(text)
                value = next((stored[field] for field in _FIELDS if field in stored), None)
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
