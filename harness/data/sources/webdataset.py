"""WebDataset shards: tars in which the files of a sample share all up to the first dot.

`key.jpg` stands beside `key.cls`, a number or name of a class, or `key.json` with a "label" or
"class". A `classes.txt` beside the shards names the classes, one a line.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

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
from harness.data.sources.labels import LabelledEntry, StoredLabel, index_labelled, training_files
from harness.data.sources.tar import (
    SAMPLE_IMAGES,
    SAMPLE_LABELS,
    SUFFIX,
    TarMember,
    first_files,
    has_samples,
    is_tar,
    key_and_part,
    tar_members,
)
from harness.data.walk import visible_parts
from models.errors import UserError

EXPECTED = "WebDataset shards with labels (KEY.jpg and KEY.cls or KEY.json)"

_LARGEST_LABEL = 2**20
"""Bytes of a file that labels an image."""


def recognise(path: Path) -> Recognised | None:
    """A tar of labelled samples, or a folder with one or with several tars."""
    if not path.is_dir():
        if not (is_tar(beginning(path)) and has_samples(first_files(path))):
            return None
        return Recognised("1 tars", lambda: WebDatasetSource(path, (path,)))
    shards = visible_files(path, SUFFIX)
    if not shards or (len(shards) == 1 and not has_samples(first_files(shards[0]))):
        return None
    return Recognised(f"{len(shards)} tars", lambda: _opened(path, shards))


def _opened(folder: Path, shards: list[Path]) -> WebDatasetSource:
    chosen = training_files(folder, shards)
    for shard in chosen:
        names = first_files(shard)
        if not has_samples(names):
            raise UserError(
                f"{folder} holds tars, but {shard.name} begins with {shorten(names)}: expected "
                f"{EXPECTED}"
            )
    return WebDatasetSource(folder, chosen)


class WebDatasetSource(Source):
    """Shards in random access: ids are `SHARD/key`."""

    def __init__(self, path: Path, shards: tuple[Path, ...]) -> None:
        super().__init__(path)
        self.shards = shards

    def _list(self) -> EntryIndex:
        found = []
        for number, shard in enumerate(self.shards):
            for key, image, label in _samples(shard):
                entry_id = f"{shard.name.removesuffix(SUFFIX)}/{key}"
                place = (number, image.offset)
                found.append(LabelledEntry(entry_id, label, image.size, place))
        if not found:
            raise UserError(
                f"{self.path} holds no image: expected {' or '.join(SAMPLE_IMAGES)} files"
            )
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
        key, part = key_and_part(member.name)
        if part in samples.setdefault(key, {}):
            raise UserError(f"{shard} holds {key}.{part} twice: write each sample once")
        samples[key][part] = member
    for key, parts in samples.items():
        images = [parts[part] for part in SAMPLE_IMAGES if part in parts]
        texts = [part for part in SAMPLE_LABELS if part in parts]
        if len(images) == 1 and texts:
            yield key, images[0], _label(shard, key, texts[0], parts[texts[0]])
        elif images or texts:
            there = ", ".join(f"{key}.{part}" for part in parts)
            raise UserError(
                f"{shard}: the sample {key} is {there}, but expected one image "
                f"({', '.join(SAMPLE_IMAGES)}) and a label ({' or '.join(SAMPLE_LABELS)})"
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
