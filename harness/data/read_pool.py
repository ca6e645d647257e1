"""Reading many images of a source in several processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

from harness.data.sources.base import Source
from models.errors import UserError

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
