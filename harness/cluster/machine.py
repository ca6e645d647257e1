"""What this machine offers, and how many workers and threads are made of it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from harness.cpu_threads import usable_cores
from models.errors import UserError

if TYPE_CHECKING:
    from harness.config.cluster import LocalCluster

NVIDIA_SMI_TIMEOUT_SECONDS = 30
GPU_LINE = re.compile(r"^GPU \d+: .*\(UUID: (?P<uuid>GPU-[^)]+)\)")
MIG_LINE = re.compile(r"^\s+MIG .*\(UUID: (?P<uuid>MIG-[^)]+)\)")


def parse_gpu_list(listing: str) -> tuple[str, ...]:
    """The UUIDs in the output of `nvidia-smi -L`; a GPU that is cut into MIG slices counts as its
    slices."""
    gpus: list[list[str]] = []
    for line in listing.splitlines():
        if gpu := GPU_LINE.match(line):
            gpus.append([gpu["uuid"]])
        elif (part := MIG_LINE.match(line)) and gpus:
            gpus[-1].append(part["uuid"])
    return tuple(name for whole, *parts in gpus for name in (parts or [whole]))


def select_visible(installed: Sequence[str], visible: str | None) -> tuple[str, ...]:
    """The entries of CUDA_VISIBLE_DEVICES (`visible`; None where unset) that CUDA would take.

    CUDA stops at the first entry that names no device, and takes an abbreviated UUID.
    Source: CUDA C++ Programming Guide, CUDA environment variables.
    """
    if visible is None:
        return tuple(installed)
    selected: list[str] = []
    for entry in (part.strip() for part in visible.split(",")):
        by_index = entry.isdigit() and int(entry) < len(installed)
        by_uuid = entry[:4] in ("GPU-", "MIG-") and any(u.startswith(entry) for u in installed)
        if not (by_index or by_uuid) or entry in selected:
            break
        selected.append(entry)
    return tuple(selected)


def visible_gpus() -> tuple[str, ...]:
    """The NVIDIA GPUs this process may use, as entries of CUDA_VISIBLE_DEVICES; needs no torch."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    try:
        listing = subprocess.run(
            [tool, "-L"],
            capture_output=True,
            text=True,
            check=True,
            timeout=NVIDIA_SMI_TIMEOUT_SECONDS,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return ()
    return select_visible(parse_gpu_list(listing), os.environ.get("CUDA_VISIBLE_DEVICES"))


def resolve_workers(
    config: LocalCluster,
    jobs: int,
    *,
    gpus: Sequence[str] | None = None,
    on_warning: Callable[[str], None] = warnings.warn,
) -> tuple[int, int]:
    """How many workers, and how many CPU threads each, for this many jobs.

    With GPUs `auto` is one worker a GPU, or for as many as a trial has processes. Without, it is
    one worker a core, or for as many, as long as there are jobs, because two single-threaded trials
    side by side are faster than two trials one after the other on both cores. The threads share the
    cores evenly. `gpus` None asks the machine; pass () where trials run on the CPU whatever the
    machine has.

    Raises:
        UserError: more workers, or processes of a trial, than GPUs.
    """
    cores = usable_cores()
    usable_gpus = visible_gpus() if gpus is None else tuple(gpus)
    processes = config.processes_per_trial
    groups = len(usable_gpus) // processes
    if usable_gpus and not groups:
        raise UserError(
            f"cluster.processes_per_trial is {processes}, but {len(usable_gpus)} GPU(s) are "
            f"visible and each process needs one: set it to {len(usable_gpus)} or less"
        )
    if usable_gpus and config.workers != "auto" and config.workers > groups:
        needed = "one" if processes == 1 else f"{processes} (cluster.processes_per_trial)"
        raise UserError(
            f"cluster.workers is {config.workers}, but {len(usable_gpus)} GPU(s) are visible and "
            f"each worker needs {needed}: set it to {groups} or less, or to auto"
        )
    if config.workers != "auto":
        limit = config.workers
    elif usable_gpus:
        limit = groups
    elif config.threads_per_worker != "auto":
        limit = cores // config.threads_per_worker
    else:
        limit = cores // processes
    workers = max(1, min(limit, jobs))
    even_share = max(1, cores // workers)
    threads = even_share if config.threads_per_worker == "auto" else config.threads_per_worker
    busy = max(threads, processes)
    if workers * busy > cores:
        on_warning(
            f"{workers} worker(s) with {busy} thread(s) each share {cores} core(s), so they "
            f"slow each other down: cluster.workers and cluster.threads_per_worker can be lowered"
        )
    return workers, threads
