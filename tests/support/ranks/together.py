"""Runs a function in several real processes that are connected over gloo."""

from __future__ import annotations

import multiprocessing
import multiprocessing.forkserver
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from harness.processes.group import ProcessGroup, current_group
from harness.processes.meeting import talk_on_this_machine_only

# Imported once; every process is a fork of one that has nothing but imports behind it.
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.support.ranks.group_tasks"])
SECONDS = 300


def run_together(
    function: Callable[..., Any], size: int, folder: Path, *arguments: object
) -> list[Any]:
    """What `function(group, *arguments)` returns in each process; an exception is a result too,
    None is that of a process that was killed.

    Args:
        function: of a module that can be imported.
        size: how many processes.
        folder: where they meet, with nothing of an earlier meeting.
        arguments: that can be pickled.
    """
    pipes = [_CONTEXT.Pipe(duplex=False) for _ in range(size)]
    processes = [
        _CONTEXT.Process(
            target=_run, args=(sender, function, rank, size, folder / "meeting", arguments)
        )
        for rank, (_, sender) in enumerate(pipes)
    ]
    for process in processes:
        process.start()
    for _, sender in pipes:
        sender.close()
    try:
        return [_received(receiver) for receiver, _ in pipes]
    finally:
        for process in processes:
            process.kill()
            process.join()


def end_server() -> None:
    """End the process that the others are forks of; other tests look for processes left behind."""
    multiprocessing.forkserver._forkserver._stop()


def _received(receiver: Connection) -> Any:
    if not receiver.poll(SECONDS):
        raise TimeoutError(f"a process has not ended after {SECONDS} s")
    try:
        return receiver.recv()
    except EOFError:
        return None


def _run(
    sender: Connection,
    function: Callable[..., Any],
    rank: int,
    size: int,
    meeting: Path,
    arguments: tuple[object, ...],
) -> None:
    torch.set_num_threads(1)
    talk_on_this_machine_only()
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=size)
    group = current_group()
    assert group == ProcessGroup(rank, size)
    found: Any
    try:
        found = function(group, *arguments)
    except Exception as error:
        found = error
    sender.send(found)
    # As a process that ends: what the others wait for never comes.
    dist.destroy_process_group()
