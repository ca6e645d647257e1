"""Which images a data set is: the classes, and each image by its id, size and SHA-256.

On disk it is JSON with an image a line. Its hash covers everything in it, so that results bear the
very images that they come from.

Draws of classes and images depend on names alone: each name has a fixed rank, and the first ones
are taken. So the order of the names does not matter, and a larger draw contains the smaller one.
"""

from __future__ import annotations

import hashlib
import json
import re
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from harness.machine.files import atomic_path
from models.errors import UserError

FORMAT = 1
"""The version of the file; raise it when a key changes."""

_KEYS = ("format", "hash", "name", "seed", "per_class", "classes", "left_out", "images")

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class ManifestClass:
    """A class of images."""

    id: str
    """The source's name of it: a folder's name, which in ImageNet is the WordNet id."""
    name: str
    """For people; the id once more where there is no other."""


@dataclass(frozen=True, slots=True)
class ManifestImage:
    """An encoded image file."""

    id: str
    """The source's name of it."""
    label: int
    """Index into the manifest's classes."""
    size: int
    """Bytes."""
    sha256: str
    """64 hex digits over the encoded file."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An image that was chosen and could not be used."""

    id: str
    reason: str


@dataclass(frozen=True)
class Manifest:
    """A data set, whatever its images are packed in."""

    name: str
    """With its version, such as `sub-in-100/v1`."""
    seed: int | None
    """By which classes or images were drawn; None where nothing was drawn."""
    per_class: int | None
    """Images drawn a class; None where all were taken."""
    classes: tuple[ManifestClass, ...]
    """By label."""
    images: tuple[ManifestImage, ...]
    """Sorted by label and id."""
    left_out: tuple[LeftOut, ...]
    """Sorted by id."""

    @cached_property
    def hash(self) -> str:
        """SHA-256, 64 hex digits, over a canonical JSON of all fields."""
        facts = {**_head(self), **{key: list(rows) for key, rows in _tables(self)}}
        text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("ascii")).hexdigest()


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the file atomically; equal manifests give equal bytes.

    Raises:
        ValueError: the manifest contradicts itself, so that `read_manifest` would refuse it.
    """
    _check(manifest)
    head = {"format": FORMAT, "hash": manifest.hash, **_head(manifest)}
    with atomic_path(path) as temporary, temporary.open("w", encoding="ascii") as file:
        file.write("{\n")
        file.writelines(f"{json.dumps(key)}: {json.dumps(head[key])},\n" for key in head)
        for place, (key, rows) in enumerate(_tables(manifest)):
            file.write(",\n" if place else "")
            file.write(f"{json.dumps(key)}: [")
            for number, row in enumerate(rows):
                file.write(",\n" if number else "\n")
                file.write(json.dumps(row, separators=(",", ":")))
            file.write("\n]")
        file.write("\n}\n")


def read_manifest(path: Path) -> Manifest:
    """Read the file and check it against its hash.

    Raises:
        UserError: it is missing, is no manifest, contradicts itself, or was changed.
    """
    make = f"python -m harness data make-manifest SOURCE {path}"
    try:
        content = json.loads(path.read_bytes(), parse_constant=_refuse)
    except FileNotFoundError:
        raise UserError(f"there is no manifest {path}: make it with: {make}") from None
    except OSError as error:
        raise UserError(f"the manifest {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}), so not a manifest: {make}") from error
    try:
        manifest = _parsed(content)
        _check(manifest)
    except ValueError as error:
        raise UserError(f"the manifest {path}: {error}; make it again with: {make}") from error
    if manifest.hash != content["hash"]:
        raise UserError(
            f"the manifest {path} was edited by hand or damaged: expected hash "
            f"{reprlib.repr(content['hash'])}, content gives {manifest.hash}; make it again with: "
            f"{make}"
        )
    return manifest


def _head(manifest: Manifest) -> dict[str, str | int | None]:
    return {"name": manifest.name, "seed": manifest.seed, "per_class": manifest.per_class}


def _tables(manifest: Manifest) -> Iterator[tuple[str, Iterable[list[str | int]]]]:
    yield "classes", ([item.id, item.name] for item in manifest.classes)
    yield "left_out", ([item.id, item.reason] for item in manifest.left_out)
    yield "images", ([item.id, item.label, item.size, item.sha256] for item in manifest.images)


def _parsed(content: Any) -> Manifest:
    """The manifest of a file, its types checked.

    Raises:
        ValueError: in what way it is none.
    """
    if type(content) is not dict or "format" not in content:
        raise ValueError("expected an object with the key format")
    if type(content["format"]) is not int or content["format"] != FORMAT:
        found = reprlib.repr(content["format"])
        raise ValueError(f"it has format {found}, but this version of the harness reads {FORMAT}")
    if odd := sorted(set(content) ^ set(_KEYS)):
        problem = "has an unknown key" if odd[0] in content else "lacks the key"
        raise ValueError(f"it {problem} {reprlib.repr(odd[0])}")
    if type(content["name"]) is not str:
        raise ValueError(f"name is {reprlib.repr(content['name'])}, but expected text")
    for key in ("seed", "per_class"):
        if content[key] is not None and type(content[key]) is not int:
            raise ValueError(f"{key} is {reprlib.repr(content[key])}, but expected an integer")
    return Manifest(
        name=content["name"],
        seed=content["seed"],
        per_class=content["per_class"],
        classes=tuple(ManifestClass(*row) for row in _rows(content, "classes", "id", "name")),
        images=tuple(
            ManifestImage(*row) for row in _rows(content, "images", "id", 0, 0, "SHA-256")
        ),
        left_out=tuple(LeftOut(*row) for row in _rows(content, "left_out", "id", "reason")),
    )


def _rows(content: dict[str, Any], key: str, *example: str | int) -> list[Any]:
    """The rows of a table, each of the types that `example` has."""
    rows = content[key]
    if type(rows) is not list:
        raise ValueError(f"{key} is {reprlib.repr(rows)}, but expected rows such as {[*example]}")
    types = [type(value) for value in example]
    for row in rows:
        if type(row) is not list or [*map(type, row)] != types:
            raise ValueError(
                f"{key} has the row {reprlib.repr(row)}, but expected rows such as {[*example]}"
            )
    return rows


def _check(manifest: Manifest) -> None:
    """Raises a ValueError where the manifest contradicts itself."""
    if not manifest.name:
        raise ValueError("its name is empty")
    if manifest.per_class is not None and manifest.per_class < 1:
        raise ValueError(f"per_class is {manifest.per_class}, but expected 1 or more")
    _check_unique("class", [item.id for item in manifest.classes])
    left_out = [item.id for item in manifest.left_out]
    _check_unique("image", [*left_out, *(image.id for image in manifest.images)])
    before = (-1, "")
    filled = set()
    for image in manifest.images:
        if not 0 <= image.label < len(manifest.classes):
            raise ValueError(
                f"{image.id!r} has label {image.label}, but there are {len(manifest.classes)} "
                "classes"
            )
        if image.size < 1:
            raise ValueError(f"{image.id!r} has {image.size} bytes, but expected 1 or more")
        if not _SHA256.fullmatch(image.sha256):
            raise ValueError(
                f"{image.id!r} has the SHA-256 {reprlib.repr(image.sha256)}, but expected 64 "
                "hexadecimal digits"
            )
        if (image.label, image.id) < before:
            raise ValueError(f"{image.id!r} stands after {before[1]!r}, not sorted by label and id")
        before = (image.label, image.id)
        filled.add(image.label)
    empty = [item.id for label, item in enumerate(manifest.classes) if label not in filled]
    if empty or not manifest.classes:
        raise ValueError(f"class {empty[0]!r} has no image" if empty else "it has no class")


def _check_unique(what: str, ids: Sequence[str]) -> None:
    if len({*ids}) < len(ids):
        twice = next(item for item, count in Counter(ids).items() if count > 1)
        raise ValueError(f"it names the {what} {twice!r} twice")


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is not a number")


def ranked(key: str, names: Iterable[str]) -> list[str]:
    """All names, sorted by the SHA-256 of `KEY:NAME`."""

    def rank(name: str) -> bytes:
        # A file's name that is not UTF-8 arrives with surrogates in it.
        return hashlib.sha256(f"{key}:{name}".encode(errors="surrogatepass")).digest()

    return sorted(names, key=rank)
