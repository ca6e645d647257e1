"""Which images a data set is: the classes, and each image by its id, size and SHA-256.

On disk it is JSON with an image a line. Its hash covers everything in it, so that results bear the
very images that they come from.

Draws of classes and images depend on names alone: each name has a fixed rank, and the first ones
are taken. So the order of the names does not matter, and a larger draw contains the smaller one.
"""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr, ValidationError

from harness.machine.files import read_json, write_text
from models.errors import UserError


@dataclass(frozen=True, slots=True)
class ManifestClass:
    """A class of images: the source's name of it, such as a folder's, which in ImageNet is the
    WordNet id; and a name for people, which is the id if there is no other."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ManifestImage:
    """An encoded image file: the source's name of it, the index of its class, its bytes, and 64 hex
    digits over them."""

    id: str
    label: int
    size: int
    sha256: str


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
    """By which classes or images were drawn; None if nothing was drawn."""
    per_class: int | None
    """Images drawn a class; None if all were taken."""
    classes: tuple[ManifestClass, ...]
    """By label."""
    images: tuple[ManifestImage, ...]
    """Sorted by label and id."""
    left_out: tuple[LeftOut, ...]
    """Sorted by id."""

    @cached_property
    def hash(self) -> str:
        """SHA-256, 64 hex digits, over a canonical JSON of all fields."""
        text = json.dumps(_facts(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode("ascii")).hexdigest()


_Label = Annotated[StrictInt, Field(ge=0)]
_Size = Annotated[StrictInt, Field(ge=1)]
_Sha256 = Annotated[StrictStr, Field(pattern="^[0-9a-f]{64}$")]


class _File(BaseModel):
    """What stands in the file; the rows of a table are the fields of a dataclass."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1]
    """Another number when a key changes."""
    hash: StrictStr
    name: StrictStr
    seed: StrictInt | None
    per_class: Annotated[StrictInt, Field(ge=1)] | None
    classes: Annotated[list[tuple[StrictStr, StrictStr]], Field(min_length=1)]
    left_out: list[tuple[StrictStr, StrictStr]]
    images: list[tuple[StrictStr, _Label, _Size, _Sha256]]


def write_manifest(path: Path, manifest: Manifest) -> None:
    """Write the file atomically; equal manifests give equal bytes. Raises a ValueError if its rows
    do not fit one another."""
    _check(manifest)
    parts = []
    for key, value in {"format": 1, "hash": manifest.hash, **_facts(manifest)}.items():
        text = json.dumps(value)
        if isinstance(value, list):
            lines = (json.dumps(row, separators=(",", ":")) for row in value)
            text = "[" + ",".join(f"\n{line}" for line in lines) + "\n]"
        parts.append(f"{json.dumps(key)}: {text}")
    write_text(path, "{\n" + ",\n".join(parts) + "\n}\n")


def read_manifest(path: Path) -> Manifest:
    """Read the file and check it against its hash. Raises a UserError if it is missing, is no
    manifest, contradicts itself, or was changed."""
    make = f"make it again with: python -m harness data make-manifest SOURCE {path}"
    try:
        stored = _File.model_validate(read_json(path, dict, remedy=make))
        manifest = Manifest(
            stored.name,
            stored.seed,
            stored.per_class,
            classes=tuple(ManifestClass(*row) for row in stored.classes),
            images=tuple(ManifestImage(*row) for row in stored.images),
            left_out=tuple(LeftOut(*row) for row in stored.left_out),
        )
        _check(manifest)
        if manifest.hash != stored.hash:
            raise ValueError(
                "it was edited by hand or damaged: expected hash "
                f"{reprlib.repr(stored.hash)}, content gives {manifest.hash}"
            )
    except FileNotFoundError:
        raise UserError(f"there is no manifest {path}: {make}") from None
    except OSError as error:
        raise UserError(f"the manifest {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        why = first_mistake(error) if isinstance(error, ValidationError) else error
        raise UserError(f"the manifest {path}: {why}; {make}") from error
    return manifest


def first_mistake(error: ValidationError) -> str:
    """The first thing that is wrong in a file: its place, its value, and what was expected."""
    first = error.errors(include_url=False)[0]
    where = ".".join(map(ascii, first["loc"])).replace("'", "")
    found = "" if first["type"] == "missing" else f" is {reprlib.repr(first['input'])}"
    return f"{where}{found}: {first['msg']}"


def _facts(manifest: Manifest) -> dict[str, str | int | list[list[str | int]] | None]:
    return {
        "name": manifest.name,
        "seed": manifest.seed,
        "per_class": manifest.per_class,
        "classes": [[item.id, item.name] for item in manifest.classes],
        "left_out": [[item.id, item.reason] for item in manifest.left_out],
        "images": [[item.id, item.label, item.size, item.sha256] for item in manifest.images],
    }


def _check(manifest: Manifest) -> None:
    """Raises a ValueError if the rows do not fit one another."""
    if not manifest.name:
        raise ValueError("its name is empty")
    classes, images = manifest.classes, manifest.images
    ids = {
        "class": [item.id for item in classes],
        "image": [item.id for item in manifest.left_out] + [image.id for image in images],
    }
    for what, names in ids.items():
        for twice, count in Counter(names).most_common(1):
            if count > 1:
                raise ValueError(f"it names the {what} {twice!r} twice")
    before = (-1, "")
    for image in images:
        if image.label >= len(classes):
            raise ValueError(
                f"{image.id!r} has label {image.label}, but there are {len(classes)} classes"
            )
        if (image.label, image.id) < before:
            raise ValueError(f"{image.id!r} stands after {before[1]!r}, not sorted by label and id")
        before = (image.label, image.id)
    filled = {image.label for image in images}
    empty = [item.id for label, item in enumerate(classes) if label not in filled]
    if empty:
        raise ValueError(f"class {empty[0]!r} has no image")


def ranked(key: str, names: Iterable[str]) -> list[str]:
    """All names, sorted by the SHA-256 of `KEY:NAME`."""

    def rank(name: str) -> bytes:
        # A file's name that is not UTF-8 arrives with surrogates in it.
        return hashlib.sha256(f"{key}:{name}".encode(errors="surrogatepass")).digest()

    return sorted(names, key=rank)
