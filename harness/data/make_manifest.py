"""From a source of images to a manifest: choose, read, hash, and prove that each can be decoded.

Images are read in several processes, which also serves whoever checks a manifest.
"""

from __future__ import annotations

import difflib
import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.data.decoding import UnreadableImageError, decode_image
from harness.data.manifest import LeftOut, Manifest, ManifestClass, ManifestImage, ranked
from harness.data.sources.base import Source
from harness.processes.progress import Progress, ProgressListener
from models.errors import UserError, one_line

_MOST = 64
"""Images that a process is given at a time: few, so that progress is seen and no process idles."""

Result = TypeVar("Result")


def read_each(
    work: Callable[[Source, str], Result], source: Source, ids: Sequence[str], processes: int
) -> Iterator[Result]:
    """`work(source, id)` of each id, in the order given.

    Args:
        work: a function of a module, so that other processes find it.
        source: of the images.
        ids: N of them.
        processes: 1 works in this one.

    Raises:
        UserError: a process was killed, or `processes` is not positive.
    """
    if processes < 1:
        raise UserError(f"--processes is {processes}, but expected 1 or more")
    if processes == 1:
        for entry_id in ids:
            yield work(source, entry_id)
        return
    length = max(1, min(_MOST, len(ids) // (4 * processes)))
    chunks = [ids[start : start + length] for start in range(0, len(ids), length)]
    # Forked processes would inherit PyTorch's threads in an unknown state.
    pool = ProcessPoolExecutor(
        processes, multiprocessing.get_context("spawn"), _start, (source, work)
    )
    try:
        for results in pool.map(_work_on, chunks):
            yield from results
    except BrokenProcessPool as error:
        raise UserError(
            f"a process that reads {source.path} was killed, perhaps for want of memory: try again "
            f"with --processes {processes // 2}"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_task: tuple[Source, Callable[[Source, str], Any]]
"""What a child process works on; sent once, since a source may list a million images."""


def _start(source: Source, work: Callable[[Source, str], Any]) -> None:
    global _task
    _task = source, work
    # Ctrl-C reaches all processes of a terminal; the parent alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without it a killed parent leaves children that wait for work for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work_on(ids: Sequence[str]) -> list[Any]:
    source, work = _task
    return [work(source, entry_id) for entry_id in ids]


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
    seed: int | None,
    names: Mapping[str, str],
    processes: int,
    strict: bool,
    on_progress: ProgressListener,
) -> Manifest:
    """Choose images and describe them; the same arguments give the same manifest.

    Images that cannot be read are left out and, where `per_class` is given, replaced by the next
    ones of the draw.

    Args:
        source: of the images.
        name: of the manifest, with its version.
        class_ids: the classes in label order; None takes those of the source, in its order.
        classes: how many of the source's classes to draw; None takes all.
        per_class: how many images a class to draw; None takes all.
        seed: of these draws. A larger number keeps what a smaller one draws.
        names: of classes, by id, for people; the id itself where there is none.
        processes: that read.
        strict: refuse images that cannot be read.
        on_progress: is told how many images are read.

    Raises:
        UserError: the source lacks a class or has too few classes or images; or, where `strict`,
            an image cannot be read; or the disk fails, or a file is forbidden.
        ValueError: a draw without a seed, or `classes` beside `class_ids`.
    """
    if class_ids is not None and classes is not None:
        raise ValueError("classes are either given or drawn")
    draws = classes is not None or per_class is not None
    if draws and seed is None:
        raise ValueError("a draw needs a seed")
    chosen = _chosen_classes(source, class_ids, classes, seed)
    queues = []
    for class_id, ids in zip(chosen, _ids_by_class(source, chosen), strict=True):
        _check_enough(source, class_id, len(ids), per_class)
        queues.append(_Queue(class_id, ids if per_class is None else ranked(str(seed), ids)))
    sizes = {entry.id: entry.size for entry in source.entries()}
    readings: dict[str, _Reading] = {}
    while batch := [entry for queue in queues for entry in queue.take(per_class)]:
        read = zip(batch, read_each(_read, source, batch, processes), strict=True)
        total = len(readings) + len(batch)
        for entry, reading in read:
            _check_unchanged(source, entry, sizes[entry], reading)
            readings[entry] = reading
            on_progress(Progress("read", len(readings), total))
        for queue in queues:
            queue.keep(readings)
        if strict:
            _refuse_unreadable(source, readings)
    for queue in queues:
        bad = [*_unreadable(readings, queue.ids)]
        _check_enough(source, queue.class_id, len(queue.kept), per_class, bad)
    return Manifest(
        name=name,
        seed=seed if draws else None,
        per_class=per_class,
        classes=tuple(ManifestClass(item, names.get(item, item)) for item in chosen),
        images=tuple(
            ManifestImage(entry, label, readings[entry].size, readings[entry].sha256)
            for label, queue in enumerate(queues)
            for entry in sorted(queue.kept)
        ),
        left_out=tuple(
            LeftOut(entry, reason) for entry, reason in _unreadable(readings, sorted(readings))
        ),
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


class _Queue:
    """The images of a class, in the order in which they are taken."""

    def __init__(self, class_id: str, ids: Sequence[str]) -> None:
        self.class_id = class_id
        self.ids = ids
        self.kept: list[str] = []
        self._taken = 0
        self._open: Sequence[str] = ()

    def take(self, per_class: int | None) -> Sequence[str]:
        """The next images to read: as many as are missing, all where no number is asked for."""
        missing = len(self.ids) if per_class is None else per_class - len(self.kept)
        self._open = self.ids[self._taken : self._taken + missing]
        self._taken += len(self._open)
        return self._open

    def keep(self, readings: Mapping[str, _Reading]) -> None:
        """Keep those that were taken last and can be read."""
        self.kept += [entry for entry in self._open if readings[entry].problem is None]


def _chosen_classes(
    source: Source, class_ids: Sequence[str] | None, classes: int | None, seed: int | None
) -> Sequence[str]:
    """Ids by label."""
    there = source.class_ids
    if class_ids is None:
        if classes is None:
            return there
        if not 1 <= classes <= len(there):
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
    if len({*class_ids}) < len(class_ids):
        twice = next(item for item in class_ids if class_ids.count(item) > 1)
        raise UserError(f"the class {twice} is asked for twice")
    return class_ids


def _ids_by_class(source: Source, chosen: Sequence[str]) -> list[list[str]]:
    """The images of each chosen class, sorted."""
    found: dict[str, list[str]] = {class_id: [] for class_id in chosen}
    for entry in source.entries():
        class_id = source.class_ids[entry.label]
        if class_id in found:
            found[class_id].append(entry.id)
    return [*found.values()]


def _check_enough(
    source: Source,
    class_id: str,
    found: int,
    per_class: int | None,
    bad: Sequence[tuple[str, str]] = (),
) -> None:
    """Raises a UserError where a class has fewer images than asked for, or none."""
    asked = 1 if per_class is None else per_class
    if 1 <= asked <= found:
        return
    unreadable = f" and {len(bad)} that cannot be read, {bad[0][0]} ({bad[0][1]})" if bad else ""
    fix = f"ask for 1 to {found}, or leave" if found else "leave"
    raise UserError(
        f"{source.path}: class {class_id} has {found} images{unreadable}, but {asked} are asked "
        f"for: {fix} the class out"
    )


def _check_unchanged(source: Source, entry: str, size: int, reading: _Reading) -> None:
    if reading.problem is None and reading.size != size:
        raise UserError(
            f"{source.path}: {entry} had {size} bytes and then {reading.size}: repeat the command "
            "when nobody changes the images"
        )


def _unreadable(readings: Mapping[str, _Reading], ids: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Id and reason, in the order of `ids`."""
    for entry in ids:
        reading = readings.get(entry)
        if reading is not None and reading.problem is not None:
            yield entry, reading.problem


def _refuse_unreadable(source: Source, readings: Mapping[str, _Reading]) -> None:
    bad = [f"{entry} ({problem})" for entry, problem in _unreadable(readings, sorted(readings))]
    if bad:
        more = f" and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else ""
        raise UserError(
            f"{source.path}: {len(bad)} of {len(readings)} images cannot be read: "
            f"{', '.join(bad[:_SHOWN])}{more}; mend them, or leave them out (without --strict)"
        )
