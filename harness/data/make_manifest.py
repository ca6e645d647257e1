"""From a source of images to a manifest: choose, read, hash, and prove that each can be decoded."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from harness.data.decoding import UnreadableImageError, decode_image
from harness.data.manifest import LeftOut, Manifest, ManifestClass, ManifestImage, ranked
from harness.data.sources.base import Source
from harness.data.verify import read_each
from harness.processes.progress import Progress, ProgressListener
from models.errors import UserError, one_line

_RESOLUTION = 256
"""Pixels a side that images are decoded to; any shows whether they can be decoded."""
_SHOWN = 5
"""Unreadable images that an error names."""


def make_manifest(
    source: Source,
    *,
    name: str,
    class_ids: Sequence[str] | None,
    classes: int | None,
    per_class: int | None,
    seed: int,
    names: Mapping[str, str],
    processes: int,
    strict: bool,
    on_progress: ProgressListener,
) -> Manifest:
    """Choose images and describe them; the same arguments give the same manifest.

    Images that cannot be read are left out and, if `per_class` is given, replaced by the next ones
    of the draw.

    Args:
        source: of the images.
        name: of the manifest, with its version.
        class_ids: the classes in label order; None takes the source's, in its order.
        classes: how many of the source's classes to draw; None takes all.
        per_class: how many images a class to draw; None takes all.
        seed: of these draws. A larger number keeps what a smaller one draws.
        names: of classes, by id, for people; a class that has none is called by its id.
        processes: that read.
        strict: refuse images that cannot be read.
        on_progress: is told how many images are read.

    Raises:
        UserError: the source lacks a class or has too few classes or images; or, if `strict`, an
            image cannot be read; or the disk fails, or a file is forbidden.
    """
    chosen = _chosen_classes(source, class_ids, classes, seed)
    draws = _draws(source, chosen, per_class, seed)
    readings: dict[str, _Reading] = {}
    while batch := [entry for ids in draws for entry in _next_to_read(ids, readings, per_class)]:
        total = len(readings) + len(batch)
        for entry, reading in zip(batch, read_each(_read, source, batch, processes), strict=True):
            readings[entry] = reading
            on_progress(Progress("read", len(readings), total))
        if strict:
            _refuse_unreadable(source, readings)
    kept = [_readable(ids, readings) for ids in draws]
    for class_id, ids, own in zip(chosen, draws, kept, strict=True):
        _check_enough(source, class_id, len(own), per_class, _unreadable(ids, readings))
    return Manifest(
        name=name,
        seed=None if classes is None and per_class is None else seed,
        per_class=per_class,
        classes=tuple(ManifestClass(item, names.get(item, item)) for item in chosen),
        images=tuple(
            ManifestImage(entry, label, readings[entry].size, readings[entry].sha256)
            for label, own in enumerate(kept)
            for entry in sorted(own)
        ),
        left_out=tuple(_unreadable(sorted(readings), readings)),
    )


@dataclass(frozen=True, slots=True)
class _Reading:
    """What reading an image gave."""

    size: int
    sha256: str
    problem: str | None


def _read(source: Source, entry_id: str) -> _Reading:
    try:
        content = source.read(entry_id)
    except UserError as error:
        # A disk or network that fails is not the image's fault.
        if isinstance(error.__cause__, OSError):
            raise
        # Its text names the source, and the same images give the same manifest wherever they are.
        return _Reading(0, "", "damaged where it is packed")
    problem = None
    try:
        decode_image(content, _RESOLUTION)
    except UnreadableImageError as error:
        problem = one_line(error)
    return _Reading(len(content), hashlib.sha256(content).hexdigest(), problem)


def _readable(ids: Iterable[str], readings: Mapping[str, _Reading]) -> list[str]:
    """Those of the images that were read and can be used."""
    return [entry for entry in ids if entry in readings and readings[entry].problem is None]


def _unreadable(ids: Iterable[str], readings: Mapping[str, _Reading]) -> list[LeftOut]:
    """Those of the images that were read and cannot be used."""
    problems = ((entry, readings[entry].problem) for entry in ids if entry in readings)
    return [LeftOut(entry, problem) for entry, problem in problems if problem is not None]


def _next_to_read(
    ids: Sequence[str], readings: Mapping[str, _Reading], per_class: int | None
) -> list[str]:
    """Of a class's images: as many as are missing, all if no number is asked for."""
    unread = [entry for entry in ids if entry not in readings]
    return unread if per_class is None else unread[: per_class - len(_readable(ids, readings))]


def _chosen_classes(
    source: Source, class_ids: Sequence[str] | None, classes: int | None, seed: int
) -> Sequence[str]:
    """Ids by label."""
    there = source.class_ids
    if class_ids is None:
        if classes is None:
            return there
        if classes > len(there):
            raise UserError(
                f"{source.path} has {len(there)} classes, but {classes} are asked for: ask for 1 "
                f"to {len(there)}"
            )
        drawn = {*ranked(str(seed), there)[:classes]}
        return [item for item in there if item in drawn]
    known = {*there}
    missing = [item for item in class_ids if item not in known]
    if missing:
        more = f", and {len(missing) - 1} more of those asked for" if len(missing) > 1 else ""
        nearest = difflib.get_close_matches(missing[0], there, n=3, cutoff=0)
        raise UserError(
            f"{source.path} has no class {missing[0]}{more}; it has {len(there)} classes, the "
            f"nearest {', '.join(nearest)}"
        )
    return class_ids


def _draws(
    source: Source, chosen: Sequence[str], per_class: int | None, seed: int
) -> list[list[str]]:
    """The images of each chosen class, in the order in which they are taken."""
    found: dict[str, list[str]] = {class_id: [] for class_id in chosen}
    for entry in source.entries():
        class_id = source.class_ids[entry.label]
        if class_id in found:
            found[class_id].append(entry.id)
    for class_id, ids in found.items():
        _check_enough(source, class_id, len(ids), per_class)
    return [ids if per_class is None else ranked(str(seed), ids) for ids in found.values()]


def _check_enough(
    source: Source, class_id: str, found: int, per_class: int | None, bad: Sequence[LeftOut] = ()
) -> None:
    asked = 1 if per_class is None else per_class
    if asked <= found:
        return
    unreadable = (
        f" and {len(bad)} that cannot be read, {bad[0].id} ({bad[0].reason})" if bad else ""
    )
    fix = f"ask for 1 to {found}, or leave" if found else "leave"
    raise UserError(
        f"{source.path}: class {class_id} has {found} images{unreadable}, but {asked} are asked "
        f"for: {fix} the class out"
    )


def _refuse_unreadable(source: Source, readings: Mapping[str, _Reading]) -> None:
    bad = [f"{each.id} ({each.reason})" for each in _unreadable(sorted(readings), readings)]
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise UserError(
            f"{source.path}: {len(bad)} of {len(readings)} images cannot be read: "
            f"{', '.join(bad[:_SHOWN])}{more}; mend them, or leave them out (without --strict)"
        )
