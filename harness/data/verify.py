"""Reading the images of a source in several processes, and comparing them with a manifest."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from harness.data.manifest import Manifest
from harness.data.sources.base import Source
from harness.processes.progress import Progress, ProgressListener
from harness.vocabulary.names import short_hash
from models.errors import UserError, one_line

_MOST = 64
"""Images that a process is given at a time: few, so that progress is seen and no process idles."""

Result = TypeVar("Result")


def read_each(
    work: Callable[[Source, str], Result], source: Source, ids: Sequence[str], processes: int
) -> Iterator[Result]:
    """`work(source, id)` of each id, in the order given; one process is this one.

    `work` is a function of a module, so that other processes find it.

    Raises:
        UserError: a process was killed.
    """
    if processes == 1:
        yield from (work(source, entry_id) for entry_id in ids)
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


def check_sizes(manifest: Manifest, source: Source) -> None:
    """See that every image is there with its size, without reading one. Raises a UserError
    with the first image that differs, and how many more do."""
    _refuse(manifest, source, _differing_sizes(manifest, source))


def check_contents(
    manifest: Manifest, source: Source, processes: int, on_progress: ProgressListener
) -> None:
    """Read every image of the manifest, in so many processes, and compare its SHA-256.

    Further images of the source do not matter. Raises a UserError with the first image that
    differs, and how many more do.
    """
    problems = _differing_sizes(manifest, source)
    images = [image for image in manifest.images if image.id not in problems]
    found = read_each(_hashed, source, [image.id for image in images], processes)
    for done, (image, (sha256, problem)) in enumerate(zip(images, found, strict=True), start=1):
        if problem is not None:
            problems[image.id] = f"cannot be read ({problem})"
        elif sha256 != image.sha256:
            problems[image.id] = (
                f"has other content, SHA-256 {short_hash(sha256)}... instead of "
                f"{short_hash(image.sha256)}..."
            )
        on_progress(Progress("verify", done, len(images)))
    _refuse(manifest, source, problems)


def _differing_sizes(manifest: Manifest, source: Source) -> dict[str, str]:
    """What is wrong, by the id of an image."""
    sizes = {entry.id: entry.size for entry in source.entries()}
    problems = {}
    for image in manifest.images:
        if image.id not in sizes:
            problems[image.id] = "is missing"
        elif (size := sizes[image.id]) != image.size:
            problems[image.id] = f"has {size} bytes instead of {image.size}"
    return problems


def _hashed(source: Source, entry_id: str) -> tuple[str, str | None]:
    """SHA-256, and why the source cannot give the image whole."""
    try:
        return hashlib.sha256(source.read(entry_id)).hexdigest(), None
    except UserError as error:
        # Its text names the source and the image once more; its cause does not.
        return "", one_line(error.__cause__ or error)


def _refuse(manifest: Manifest, source: Source, problems: Mapping[str, str]) -> None:
    for image in manifest.images:
        if image.id in problems:
            more = f", and {len(problems) - 1} more images differ" if len(problems) > 1 else ""
            raise UserError(
                f"{source.path} does not hold the images of the manifest {manifest.name}: "
                f"{image.id} {problems[image.id]}{more}; restore them, or make a new manifest"
            )
